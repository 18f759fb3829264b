"""Mutual nearest neighbours beside those of faiss, torch, OpenCV and COLMAP, on the same random descriptors.

    python scripts/bench_matching.py [--sizes 2000 8000] [--large 100000] [--repeats 3]

N against N unit vectors of 128 float32 numbers; a third of the second set are the first's with noise. Each repeat runs
all of them in turn; medians. All must find the same pairs, but COLMAP, which takes bytes, and a ratio and a distance
below its thresholds; reading and writing its database is in its time. `--large`: ours alone, and how much more
memory it took at its peak than the descriptors.
"""

from __future__ import annotations

import argparse
import atexit
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from hardnet_match import Features, match
from hardnet_match.sfm.colmap import pycolmap, quietly
from hardnet_match.sfm.descriptors import colmap_descriptors

Descriptors = NDArray[np.float32]
Pairs = NDArray[np.int64]


def made_up(count: int) -> tuple[Descriptors, Descriptors]:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, count, 128)).astype(np.float32)
    second[: count // 3] = first[: count // 3] + 0.5 * second[: count // 3]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    return first, second / np.linalg.norm(second, axis=1, keepdims=True)


def features(descriptors: Descriptors) -> Features:
    count = len(descriptors)
    lafs = np.tile(np.eye(2, 3, dtype=np.float32), (count, 1, 1))
    return Features(lafs, np.ones(count, np.float32), descriptors, (1000, 1000), {})


def mutual(there: NDArray[np.int64], back: NDArray[np.int64]) -> Pairs:
    rows = np.arange(len(there))
    kept = back[there] == rows
    return np.stack([rows[kept], there[kept]], axis=1)


def ours(first: Descriptors, second: Descriptors) -> Pairs:
    return match(features(first), features(second), "mnn", device="cpu").pairs.astype(np.int64)


def with_torch(first: Descriptors, second: Descriptors) -> Pairs:
    similarity = torch.from_numpy(first) @ torch.from_numpy(second).T
    return mutual(similarity.argmax(1).numpy(), similarity.argmax(0).numpy())


def with_faiss(first: Descriptors, second: Descriptors) -> Pairs:
    _, there = faiss.knn(first, second, 1, metric=faiss.METRIC_INNER_PRODUCT)
    _, back = faiss.knn(second, first, 1, metric=faiss.METRIC_INNER_PRODUCT)
    return mutual(there[:, 0], back[:, 0])


def with_opencv(first: Descriptors, second: Descriptors) -> Pairs:
    found = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(first, second)
    return np.array([(pair.queryIdx, pair.trainIdx) for pair in found], dtype=np.int64)


class Colmap:
    """COLMAP's matcher of SIFT descriptors on the processor; its database of two images is made beforehand."""

    def __init__(self, folder: Path, brute: bool) -> None:
        self.path = folder / f"{brute}.db"
        self.options = pycolmap.FeatureMatchingOptions()
        self.options.use_gpu, self.options.skip_geometric_verification = False, True
        self.options.sift.cpu_brute_force_matcher = brute

    def prepare(self, *sides: Descriptors) -> None:
        self.path.unlink(missing_ok=True)
        sift = pycolmap.FeatureExtractorType.SIFT
        with pycolmap.Database.open(self.path) as db:
            camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 1000, 1000, 1000)
            db.write_camera(camera, use_camera_id=True)
            for number, side in enumerate(sides, 1):
                db.write_image(pycolmap.Image(name=str(number), camera_id=1, image_id=number), use_image_id=True)
                db.write_keypoints(number, np.zeros((len(side), 2), np.float32))
                db.write_descriptors(number, pycolmap.FeatureDescriptors(sift, colmap_descriptors(side)))

    def __call__(self, first: Descriptors, second: Descriptors) -> Pairs:
        with pycolmap.Database.open(self.path) as db:
            db.clear_matches()
            db.clear_two_view_geometries()
        with quietly():
            pycolmap.match_exhaustive(self.path, matching_options=self.options)
        with pycolmap.Database.open(self.path) as db:
            return np.asarray(db.read_matches(1, 2), dtype=np.int64)


MAKERS: dict[str, Callable[[Descriptors, Descriptors], Pairs]] = {
    "ours": ours,
    "torch, one product and two argmax": with_torch,
    "faiss, two searches": with_faiss,
    "OpenCV, cross check": with_opencv,
}


def peak() -> float:
    """MB, of this process so far."""
    return int(Path("/proc/self/status").read_text(encoding="ascii").partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--large", type=int, default=0, help="ours alone at this size, with its memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    if options.large:
        one, other = (features(side) for side in made_up(options.large))
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
        before, start, cpu = peak(), time.perf_counter(), time.process_time()
        count = len(match(one, other, "mnn", device="cpu"))
        took, cpu = time.perf_counter() - start, time.process_time() - cpu
        more = peak() - before
        print(f"{options.large}: {count} pairs, {took:.1f} s ({cpu:.1f} of processors), {more:.0f} MB more")
        return
    scratch = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, scratch)
    print("| N | who | median s | its time over ours |\n|---|---|---|---|")
    for size in options.sizes:
        first, second = made_up(size)
        expected = ours(first, second)
        colmaps = {"COLMAP": Colmap(scratch, False), "COLMAP, brute force": Colmap(scratch, True)}
        for colmap in colmaps.values():
            colmap.prepare(first, second)
        makers: dict[str, Callable[[Descriptors, Descriptors], Pairs]] = {**MAKERS, **colmaps}
        times: dict[str, list[float]] = {who: [] for who in makers}
        for _ in range(options.repeats):
            for who, run in makers.items():
                start = time.perf_counter()
                found = run(first, second)
                times[who].append(time.perf_counter() - start)
                same = len({*map(tuple, expected.tolist())} & {*map(tuple, found.tolist())})
                assert who in colmaps or same >= 0.999 * len(expected), (who, same, len(expected))  # ties aside
        medians = {who: statistics.median(seconds) for who, seconds in times.items()}
        for who, median in medians.items():
            print(f"| {size} | {who} | {median:.3f} | {median / medians['ours']:.2f} |", flush=True)


if __name__ == "__main__":
    main()
