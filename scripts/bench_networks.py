"""The networks of a pipeline beside their rivals, one part replaced at a time, on planar pairs with known homographies.

    python scripts/bench_networks.py FOLDERS... [--originals DIR] [--parts descriptor shape ... precision store]

Folders of planar sequences as `hardnet-match eval homography` takes them. DIR holds the originals' small networks
(AffNet.pth, OriNet.pth, HardTFeat.pth, tfeat-liberty.params), anywhere below it. Everything but the part compared is
the same, so descriptors are compared on the very same frames. Figures, over all pairs:

- correct: mutual nearest neighbours whose centres agree within 3 px, of all mutual nearest neighbours;
- mAP: of every pair, the average precision of nearest neighbours sorted by distance, among frames of the first image
  that have a counterpart in the second (the matching task of HPatches, on detected frames): centres within 3 px, and
  axes, carried over by the homography and seen in the other frame, within .6 of the identity (Frobenius norm);
- FPR95: of those correspondences against frames that lie more than 3 px off, at a recall of .95.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hardnet_match import Features, match
from hardnet_match.benchmark.sequences import PlanarPair, read_sequences
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images import read_image
from hardnet_match.metrics.patches import fpr95
from hardnet_match.store import PRECISIONS, kept_as

PIXELS = 3.0
AGREE = 0.6
FILES = {
    "TFeat (liberty)": "tfeat-liberty.params",
    "HardTFeat": "HardTFeat.pth",
    "AffNet (original)": "AffNet.pth",
    "OriNet (original)": "OriNet.pth",
}


def carried(homography: NDArray[np.float64], lafs: NDArray[np.float32]) -> NDArray[np.float64]:
    """Frames (N, 2, 3) as a homography maps them, to first order around their centres."""
    ones = np.concatenate([lafs[:, :, 2], np.ones((len(lafs), 1))], axis=1) @ homography.T
    centre = ones[:, :2] / ones[:, 2:]
    jacobian = (homography[None, :2, :2] - centre[:, :, None] * homography[None, 2:, :2]) / ones[:, 2, None, None]
    return np.concatenate([jacobian @ lafs[:, :, :2], centre[:, :, None]], axis=2)


def figures(pair: PlanarPair, a: Features, b: Features) -> dict[str, float]:
    """Of one pair: counts of correct and of all mutual nearest neighbours, average precision, and FPR95."""
    there = carried(pair.homography, a.lafs)
    pixels = np.linalg.norm(there[:, None, :, 2] - b.keypoints[None], axis=2)
    found = match(a, b, "mnn").pairs
    one, other = np.nonzero(pixels < PIXELS)
    apart = np.linalg.norm(np.linalg.solve(b.lafs[other, :, :2], there[one, :, :2]) - np.eye(2), axis=(1, 2))
    one, other = one[apart < AGREE], other[apart < AGREE]
    distance = torch.cdist(torch.from_numpy(a.descriptors).float(), torch.from_numpy(b.descriptors).float()).numpy()
    rows = np.unique(one)
    nearest = distance[rows].argmin(axis=1)
    order = np.argsort(distance[rows, nearest], kind="stable")
    right = (pixels[rows, nearest] < PIXELS)[order]
    precision = np.cumsum(right) / np.arange(1, len(right) + 1)
    positive = torch.from_numpy(distance[one, other])
    negative = torch.from_numpy(distance[rows][pixels[rows] > PIXELS])
    return {
        "correct": float((pixels[found[:, 0], found[:, 1]] < PIXELS).sum()),
        "matches": float(len(found)),
        "counterparts": float(len(rows)),
        "map": float((precision * right).sum() / max(len(right), 1)),
        "fpr95": fpr95(positive, negative) if len(rows) else float("nan"),
    }


def rivals(part: str, originals: Path | None) -> dict[str, dict[str, Any]]:
    """Name -> options of the extractor that take this part."""

    def file(name: str) -> str | None:
        found = sorted(originals.rglob(FILES[name])) if originals else []
        return str(found[0]) if found else None

    if part == "descriptor":
        out: dict[str, dict[str, Any]] = {"RootSIFT": {"descriptor": "rootsift"}}
        for name, descriptor in (("TFeat (liberty)", "tfeat"), ("HardTFeat", "hardtfeat")):
            if path := file(name):
                out[name] = {"descriptor": descriptor, "weights": path}
        return {**out, "hardnet-bundled": {}}
    if part == "shape":
        out = {"none": {"shape": "none"}, "Baumberg": {"shape": "baumberg"}}
        if path := file("AffNet (original)"):
            out["AffNet (original)"] = {"shape_weights": path}
        return {**out, "affnet-bundled": {}}
    if part == "precision":  # of the whole extraction, all three networks
        return {name: {"precision": name, "orientation": "orinet"} for name in ("float32", "half", "int8")}
    if part == "store":  # what descriptors are kept as in a features file
        return {name: {} for name in PRECISIONS}
    out = {"dominant gradient": {}}
    if path := file("OriNet (original)"):
        out["OriNet (original)"] = {"orientation": "orinet", "orientation_weights": path}
    return {**out, "orinet-bundled": {"orientation": "orinet"}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--originals", type=Path, help="folder with the originals' networks")
    parser.add_argument("--parts", nargs="+", default=["descriptor", "shape", "orientation"])
    parser.add_argument("--keypoints", type=int, default=2048)
    parser.add_argument("--preset", default="hesaffnet-hardnet")
    parser.add_argument("--candidate", nargs="*", default=[], metavar="PART=FILE", help="further weights to compare")
    options = parser.parse_args()
    pairs = [(folder, pair) for folder in options.folders for pair in read_sequences(folder)]
    candidates: dict[str, list[str]] = {}
    for given in options.candidate:
        part, _, path = given.partition("=")
        candidates.setdefault(part, []).append(path)
    for part in options.parts:
        compared = rivals(part, options.originals)
        for path in candidates.get(part, []):
            extra = {"orientation": "orinet"} if part == "orientation" else {}
            key = "weights" if part == "descriptor" else f"{part}_weights"
            compared[Path(path).name] = {**extra, key: path}
        print(f"| {part} | correct | of | frames with a counterpart | mAP, % | FPR95, % |\n|---|---|---|---|---|---|")
        for name, changed in compared.items():
            extractor = FeatureExtractor.from_preset(options.preset, max_keypoints=options.keypoints, **changed)
            known: dict[Path, Features] = {}
            rows = []
            for folder, pair in pairs:
                sides = folder / pair.first, folder / pair.second
                for path in sides:
                    if path not in known:
                        found = extractor.extract(read_image(path).pixels)
                        known[path] = kept_as(found, name if part == "store" else "float32")
                rows.append(figures(pair, known[sides[0]], known[sides[1]]))
            sums = {key: np.array([row[key] for row in rows]) for key in rows[0]}
            print(
                f"| {name} | {sums['correct'].sum():.0f} | {sums['matches'].sum():.0f} | "
                f"{sums['counterparts'].sum():.0f} | "
                f"{100 * sums['map'].mean():.1f} | {100 * np.nanmean(sums['fpr95']):.2f} |",
                flush=True,
            )
        print()


if __name__ == "__main__":
    main()
