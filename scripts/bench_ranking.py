"""By what the keypoints that are kept are chosen: the response times sigma to a power, for several powers.

    python scripts/bench_ranking.py DATA --work DIR [--detectors hessian dog] [--powers 0 1 1.5 2 3] [--keypoints 2048]

DATA holds `pairs/`, planar sequences a folder each, and `scenes/`, photos a folder each. Printed per detector: for each
power the homography table over all pairs, relative poses of the scenes with known cameras, and what COLMAP makes of
the others. Features are kept in DIR.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hardnet_match.extractor import FeatureExtractor
from hardnet_match.jobs.contestants import Contest
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.jobs.homography import evaluate_homography
from hardnet_match.jobs.pose import evaluate_pose
from hardnet_match.jobs.score_tables import homography_tables, pose_tables, sfm_tables
from hardnet_match.jobs.sfm_scores import evaluate_sfm
from hardnet_match.report.scores import ScoreTable, as_text

POSES = ("saharov", "lund_door")
MODELS = ("et", "sacre_coeur", "sceaux_castle")


def features(photos: Path, place: Path, detector: str, powers: list[float], given: argparse.Namespace) -> Contest:
    """A features file for each power, labelled by it."""
    files = {}
    for power in powers:
        extractor = FeatureExtractor.from_preset(detector=detector, max_keypoints=given.keypoints, precision="int8")
        extractor.detector.scale_weight = power
        path = place / f"{photos.parent.name}-{photos.name}-{detector}-{given.keypoints}-{power:g}.h5"
        extract_folder(photos, path, extractor, max_size=given.max_size or None, quiet=True)
        files[f"sigma^{power:g}"] = path
    return Contest(presets=(), files=files, keypoints=given.keypoints)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--detectors", nargs="+", default=["hessian", "dog"])
    parser.add_argument("--powers", nargs="+", type=float, default=[0, 1, 1.5, 2, 3])
    parser.add_argument("--keypoints", type=int, default=2048)
    parser.add_argument("--max-size", type=int, default=1024)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for detector in given.detectors:

        def made(folder: Path, detector: str = detector) -> Contest:
            inside = folder / "images" if (folder / "images").is_dir() else folder
            return features(inside, given.work, detector, given.powers, given)

        def show(title: str, table: ScoreTable, detector: str = detector) -> None:
            print(f"\n{detector}, {title}\n{as_text(table)}", flush=True)

        pairs = given.data / "pairs"
        show("planar pairs", homography_tables(evaluate_homography(pairs, made(pairs), quiet=True))[0])
        for name in POSES:
            scene = given.data / "scenes" / name
            poses = evaluate_pose(scene, made(scene), estimators=("poselib",), quiet=True)
            show(name, pose_tables(poses)[0])
        for name in MODELS:
            scene = given.data / "scenes" / name
            show(name, sfm_tables(evaluate_sfm(scene, made(scene), quiet=True))[0])


if __name__ == "__main__":
    main()
