"""Reconstruct folders of photos with this package and with COLMAP's own SIFT, side by side, as a table.

    python scripts/bench_scenes.py PHOTOS... --work DIR [--keypoints 8192] [--orientation upright]

Both see the same photos at the same size, exhaustive pairs and COLMAP's mapper with its defaults. The first column
names the features; `--keypoints same` gives ours as many as SIFT found on average in that folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images import list_images
from hardnet_match.jobs.reconstruct import reconstruct_folder
from hardnet_match.sfm import reconstruct
from hardnet_match.sfm.colmap import pycolmap, quietly


@dataclass
class Row:
    scene: str
    features: str
    keypoints: float
    inliers: int
    registered: int
    images: int
    points: int
    observations: int
    track: float
    error: float
    seconds: dict[str, float] = field(default_factory=dict)

    def cells(self) -> list[str]:
        times = " / ".join(f"{self.seconds.get(stage, 0):.0f}" for stage in ("extract", "match", "verify", "map"))
        return [
            self.scene, self.features, f"{self.keypoints:.0f}", str(self.inliers), f"{self.registered}/{self.images}",
            str(self.points), str(self.observations), f"{self.track:.2f}", f"{self.error:.3f}", times,
        ]  # fmt: skip


HEADER = ["scene", "features", "keypoints", "inliers", "registered", "points", "observations", "track", "reproj. px",
          "extract / match / verify / map s"]  # fmt: skip


def sift(scene: str, photos: Path, work: Path, max_size: int, cap: int) -> Row:
    """COLMAP's default SIFT, exhaustive matching and incremental mapping."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    database, seconds = work / "database.db", {}
    extraction, reading = pycolmap.FeatureExtractionOptions(), pycolmap.ImageReaderOptions()
    extraction.max_image_size, extraction.sift.max_num_features = max_size, cap
    names = list_images(photos)
    with quietly():
        start = time.perf_counter()
        pycolmap.extract_features(
            database, photos, names, pycolmap.CameraMode.AUTO, reader_options=reading, extraction_options=extraction
        )
        seconds["extract"] = time.perf_counter() - start
        start = time.perf_counter()
        pycolmap.match_exhaustive(database)  # verifies as it goes
        seconds["match"] = time.perf_counter() - start
        with pycolmap.Database.open(database) as db:
            keypoints = db.num_keypoints() / len(names)
            inliers = sum(len(geometry.inlier_matches) for geometry in db.read_two_view_geometries()[1])
    start = time.perf_counter()
    best = reconstruct(database, photos, work / "sparse", overwrite=True)[0]
    seconds["map"] = time.perf_counter() - start
    return Row(
        scene, f"SIFT ({cap})", keypoints, inliers, best.registered, len(names), best.points, best.observations,
        best.track_length, best.reprojection_error, seconds,
    )  # fmt: skip


def ours(scene: str, photos: Path, work: Path, max_size: int, extractor: FeatureExtractor, title: str) -> Row:
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    result = reconstruct_folder(photos, work, extractor, max_size=max_size, overwrite=True, quiet=True)
    seconds = {**result.seconds, "verify": result.seconds.get("database", 0.0)}
    return Row(
        scene, title, result.keypoints / result.images, result.inliers, result.registered, result.images,
        result.points, result.observations, result.track_length, result.reprojection_error, seconds,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, help="folders of photos, one scene each")
    parser.add_argument("--work", type=Path, required=True, help="folder for databases and models")
    parser.add_argument("--preset", nargs="+", default=["hesaffnet-hardnet"])
    parser.add_argument("--orientation", nargs="+", default=["dominant"])
    parser.add_argument("--keypoints", nargs="*", default=["8192"], help="numbers, or 'same' as SIFT's mean")
    parser.add_argument("--sift-keypoints", type=int, nargs="*", default=[8192])
    parser.add_argument("--max-size", type=int, default=1600)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="append a line a row to this file")
    options = parser.parse_args()

    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER))
    for photos in options.photos:
        scene = photos.parent.name if photos.name == "images" else photos.name
        rows = []
        for cap in options.sift_keypoints:
            rows.append(
                show(sift(scene, photos, options.work / scene / f"sift-{cap}", options.max_size, cap), options.json)
            )
        for preset in options.preset:
            for orientation in options.orientation:
                for count in options.keypoints:
                    number = round(rows[0].keypoints) if count == "same" else int(count)
                    extractor = FeatureExtractor.from_preset(
                        preset, max_keypoints=number, orientation=orientation, device=options.device
                    )
                    title = f"{preset}, {orientation} ({number})"
                    work = options.work / scene / title.replace(", ", "-").replace(" ", "-")
                    show(ours(scene, photos, work, options.max_size, extractor, title), options.json)


def show(row: Row, path: Path | None) -> Row:
    print("| " + " | ".join(row.cells()) + " |", flush=True)
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(row)) + "\n")
    return row


if __name__ == "__main__":
    main()
