"""What planning for many images needs to know and one machine can measure: bytes, writing, reading, joining, matching.

    python scripts/measure_scale.py --work WORK

Features are made up: files, not what is in them, are measured. Times are processor time of one thread, so that a busy
machine does not change them much; what a disk or a network adds is not in them. Prints Markdown.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hardnet_match.features import Features
from hardnet_match.jobs import join_files
from hardnet_match.matching import match
from hardnet_match.store import FeatureReader, FeatureWriter

KEYPOINTS = (512, 1024, 2048, 4096, 8192)


def made_up(count: int, dtype: type, seed: int = 0) -> Features:
    """Features of random places and unit descriptors."""
    rng = np.random.default_rng(seed)
    lafs = rng.normal(size=(count, 2, 3)).astype(np.float32)
    descriptors = rng.normal(size=(count, 128))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    return Features(lafs, rng.random(count).astype(np.float32), descriptors.astype(dtype), (1600, 1200))


def seconds(action: Callable[[], object], times: int) -> float:
    """Processor time of one call, the median of several."""
    taken = []
    for _ in range(times):
        started = time.process_time()
        action()
        taken.append(time.process_time() - started)
    return float(np.median(taken))


def records(work: Path, images: int) -> None:
    print("| keypoints | bytes an image | bytes a keypoint | writing, ms | reading, ms | matching a pair (smnn), ms |")
    print("|---|---|---|---|---|---|")
    for count in KEYPOINTS:
        path, features = work / f"records-{count}.h5", made_up(count, np.float16)
        with FeatureWriter(path, {}, overwrite=True) as writer:
            names = iter(f"folder/image_{i:06d}.jpg" for i in range(images))
            writing = seconds(lambda: writer.write(next(names), features), images)  # noqa: B023
        size = path.stat().st_size / images
        with FeatureReader(path) as reader:
            stored = iter(reader.names())
            reading = seconds(lambda: reader.read(next(stored)), images)  # noqa: B023
        other = made_up(count, np.float16, seed=1)
        pair = seconds(lambda: match(features, other, method="smnn", ratio=0.9, device="cpu"), 5)  # noqa: B023
        print(
            f"| {count:,} | {size:,.0f} | {size / count:.0f} | {1e3 * writing:.1f} | {1e3 * reading:.1f} "
            f"| {1e3 * pair:.0f} |",
            flush=True,
        )
        path.unlink()


def growth(work: Path, sizes: list[int]) -> None:
    print(
        "| images in a file | adding one, ms | opening to go on, s | listing, s | bytes beyond the arrays, an image |"
    )
    print("|---|---|---|---|---|")
    path, features, done = work / "growth.h5", made_up(4, np.float32), 0
    path.unlink(missing_ok=True)
    arrays = features.lafs.nbytes + features.scores.nbytes + features.descriptors.nbytes + 8 * len(features) + 16
    for size in sizes:
        with FeatureWriter(path, {}, buffer=500) as writer:
            for i in range(done, size):
                writer.write(f"{i // 1000:05d}/image_{i:08d}.jpg", features)
        started = time.process_time()
        with FeatureWriter(path, {}) as writer:
            opening = time.process_time() - started
            extra = iter(f"{size // 1000:05d}/image_{i:08d}.jpg" for i in range(size, size + 100))
            adding = seconds(lambda: writer.write(next(extra), features), 100)  # noqa: B023
        started = time.process_time()
        with FeatureReader(path) as reader:
            count = len(reader.names())
        listing = time.process_time() - started
        done = size + 100
        assert count == done
        beyond = path.stat().st_size / count - arrays
        print(f"| {size:,} | {1e3 * adding:.1f} | {opening:.1f} | {listing:.1f} | {beyond:,.0f} |", flush=True)
    path.unlink()


def joining(work: Path, counts: list[int], images: int) -> None:
    print("| shards | images | joining, ms an image | bytes an image | opening and listing, s | reading one more, ms |")
    print("|---|---|---|---|---|---|")
    folder, features = work / "shards", made_up(4, np.float32)
    folder.mkdir(exist_ok=True)
    files: list[Path] = []
    for count in counts:
        for i in range(len(files), count):
            with FeatureWriter(folder / f"{i:05d}.h5", {}, overwrite=True, buffer=images) as writer:
                for j in range(images):
                    writer.write(f"{i:05d}/image_{j:06d}.jpg", features)
            files.append(folder / f"{i:05d}.h5")
        started = time.process_time()
        told = join_files(files, work / "view.h5")
        taken = (time.process_time() - started) / told.items
        started = time.process_time()
        with FeatureReader(work / "view.h5") as reader:
            names = reader.names()
            opening = time.process_time() - started
            chosen = iter(np.random.default_rng(0).permutation(names)[:200].tolist())
            reading = seconds(lambda: reader.read(next(chosen)), min(200, len(names)))  # noqa: B023
        size = (work / "view.h5").stat().st_size / told.items
        print(
            f"| {count:,} | {told.items:,} | {1e3 * taken:.2f} | {size:,.0f} | {opening:.2f} | {1e3 * reading:.1f} |",
            flush=True,
        )
    for file in [*files, work / "view.h5"]:
        file.unlink()
    folder.rmdir()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the files, which are removed again")
    parser.add_argument("--images", type=int, default=30, help="a file of the first table")
    parser.add_argument("--growth", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--shards", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--shard-images", type=int, default=200)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    print("One image:\n")
    records(given.work, given.images)
    print("\nA file that grows (images of four keypoints):\n")
    growth(given.work, given.growth)
    print("\nFiles joined (images of four keypoints):\n")
    joining(given.work, given.shards, given.shard_images)


if __name__ == "__main__":
    main()
