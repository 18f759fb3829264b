"""Matches within 3 px on planar pairs with known homographies: this package and OpenCV's SIFT, side by side, as a
table.

    python scripts/bench_pairs.py FOLDERS... [--keypoints 2048] [--orientation dominant upright]

Folders are of any of three layouts: `img1.*` with `H1to2p` (Oxford), `1.*` with `H_1_2` (HPatches), or `nameA.*`,
    `nameB.*` with
`name_vpts.mat` (homogr; its hand-annotated points give the homography, and reading them needs scipy). A cell is the
number of
correct matches / of all matches. Both have the same number of keypoints and a ratio test: ours the default `smnn`, SIFT
(RootSIFT descriptors too) the ratio 0.8 that its users take, with unbiased (precise) upscaling.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hardnet_match import Features, match
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.frames import from_opencv
from hardnet_match.images import read_image

Grey = NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    name: str
    first: Path
    second: Path
    homography: NDArray[np.float64]  # first to second, pixel centres at integers


def image_of(folder: Path, stem: str) -> Path:
    found = [
        p for p in sorted(folder.glob(f"{stem}.*")) if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".ppm", ".pgm"}
    ]
    if not found:
        raise SystemExit(f"{folder}: there is no image {stem}.*")
    return found[0]


def pairs_in(folder: Path) -> Iterator[Pair]:
    for file in sorted(folder.iterdir()):
        numbered = re.fullmatch(r"H1to(\d+)p|H_1_(\d+)", file.name)
        if numbered and (numbered[1] or numbered[2]) != "1":
            other = numbered[1] or numbered[2]
            prefix = "img" if numbered[1] else ""
            yield Pair(
                f"{folder.name} 1-{other}", image_of(folder, f"{prefix}1"), image_of(folder, f"{prefix}{other}"),
                np.loadtxt(file),
            )  # fmt: skip
        if file.name.endswith("_vpts.mat"):
            from scipy.io import loadmat

            points = loadmat(file)["validation"]["pts"][0, 0].T
            homography, _ = cv2.findHomography(points[:, :2], points[:, 3:5])
            stem = file.name.removesuffix("_vpts.mat")
            yield Pair(stem, image_of(folder, f"{stem}A"), image_of(folder, f"{stem}B"), np.asarray(homography))


def correct(pair: Pair, a: Features, b: Features, rows: NDArray[np.int32], pixels: float = 3.0) -> int:
    ones = np.concatenate([a.keypoints[rows[:, 0]], np.ones((len(rows), 1))], axis=1) @ pair.homography.T
    error = np.linalg.norm(ones[:, :2] / ones[:, 2:] - b.keypoints[rows[:, 1]], axis=1)
    return int((error < pixels).sum())


def sift(image: Grey, count: int, root: bool) -> Features:
    detector = cv2.SIFT.create(count, 3, 0.01, 10, 1.6, True)
    keypoints, descriptors = detector.detectAndCompute(image, None)
    rows = np.asarray(descriptors, dtype=np.float32).reshape(-1, 128)[:count]
    if root:
        rows = np.sqrt(rows / np.maximum(rows.sum(axis=1, keepdims=True), 1e-6))
    scores = np.array([k.response for k in keypoints[:count]], np.float32)
    return Features(from_opencv(keypoints[:count]), scores, rows, (image.shape[1], image.shape[0]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--keypoints", type=int, default=2048)
    parser.add_argument("--preset", default="hesaffnet-hardnet")
    parser.add_argument("--orientation", nargs="+", default=["dominant"])
    options = parser.parse_args()
    extractors = {
        f"{options.preset}, {orientation}": FeatureExtractor.from_preset(
            options.preset, max_keypoints=options.keypoints, orientation=orientation
        )
        for orientation in options.orientation
    }
    print(f"| pair ({options.keypoints} keypoints) | SIFT | RootSIFT | " + " | ".join(extractors) + " |")
    print("|" + "---|" * (3 + len(extractors)))
    known: dict[tuple[str, Path], Features] = {}
    sums = np.zeros((2 + len(extractors), 2), dtype=int)
    for folder in options.folders:
        for pair in pairs_in(folder):
            cells = []
            for index, method in enumerate(["SIFT", "RootSIFT", *extractors]):
                sides = []
                for path in (pair.first, pair.second):
                    if (method, path) not in known:
                        image = read_plain(path)
                        known[method, path] = (
                            extractors[method].extract(image)
                            if method in extractors
                            else sift(image, options.keypoints, method == "RootSIFT")
                        )
                    sides.append(known[method, path])
                found = match(sides[0], sides[1]) if method in extractors else match(sides[0], sides[1], "snn", 0.8)
                good = correct(pair, sides[0], sides[1], found.pairs)
                sums[index] += good, len(found)
                cells.append(f"{good} / {len(found)}")
            print(f"| {pair.name} | " + " | ".join(cells) + " |", flush=True)
    print("| **sum** | " + " | ".join(f"{good} / {count}" for good, count in sums) + " |")


def read_plain(path: Path) -> Grey:
    """PGM and PPM, which the Oxford sequences come in, are read too."""
    if path.suffix.lower() in {".pgm", ".ppm"}:
        return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)
    return np.asarray(read_image(path).pixels, dtype=np.uint8)


if __name__ == "__main__":
    main()
