"""The features file beside the one hloc would write of the same features: bytes, writing, reading.

    python scripts/bench_store.py [--keypoints 4096] [--images 24] [--repeats 5] [--folder DIR]

Made-up features. Ours are written as `hardnet-match extract` writes them (several images a transaction, on the disk
before they count) and read by `FeatureReader`. hloc's way: the file opened for every image, a group of keypoints,
descriptors, scores and image size in half precision, nothing waited for. Each repeat runs all in turn; medians. The
processor's milliseconds are what the writing takes from the networks; the rest is waiting for the disk, during which
they go on.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np

from hardnet_match import Features
from hardnet_match.jobs.extract import BUFFER, BUFFER_BYTES
from hardnet_match.store import PRECISIONS, FeatureReader, FeatureWriter, kept_as

KEYS = ("keypoints", "descriptors", "scores", "image_size")


def made_up(count: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    lafs = rng.uniform(0, 1000, (count, 2, 3)).astype(np.float32)
    return Features(lafs, rng.random(count, dtype=np.float32), descriptors, (1152, 864), {"descriptor": "hardnet"})


def write_ours(path: Path, images: Sequence[Features], precision: str) -> None:
    options = {"overwrite": True, "buffer": BUFFER, "buffer_bytes": BUFFER_BYTES}
    with FeatureWriter(path, {"store": precision}, **options) as writer:  # type: ignore[arg-type]
        for number, features in enumerate(images):
            writer.write(f"{number}.jpg", kept_as(features, precision), "stamp")


def read_ours(path: Path, count: int) -> None:
    with FeatureReader(path) as reader:
        for number in range(count):
            reader.read(f"{number}.jpg")


def write_hloc(path: Path, images: Sequence[Features]) -> None:
    path.unlink(missing_ok=True)
    for number, features in enumerate(images):
        with h5py.File(path, "a", libver="latest") as file:
            group = file.create_group(f"{number}.jpg")
            group.create_dataset("keypoints", data=features.keypoints.astype(np.float16))
            group.create_dataset("descriptors", data=features.descriptors.T.astype(np.float16))
            group.create_dataset("scores", data=features.scores.astype(np.float16))
            group.create_dataset("image_size", data=np.array(features.image_size))
            group["keypoints"].attrs["uncertainty"] = 1.0


def read_hloc(path: Path, count: int) -> None:
    for number in range(count):
        with h5py.File(path, "r", libver="latest") as file:
            _ = [file[f"{number}.jpg"][key].__array__() for key in KEYS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keypoints", type=int, default=4096)
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to write; the system's temporary folder if not given")
    given = parser.parse_args()
    images = [made_up(given.keypoints, number) for number in range(given.images)]
    count = len(images)
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        files = {name: Path(scratch) / f"{name}.h5" for name in ("hloc's way", *PRECISIONS)}
        jobs: dict[tuple[str, str], Callable[[], None]] = {}
        for name, path in files.items():
            if name in PRECISIONS:
                jobs[name, "write"] = lambda path=path, name=name: write_ours(path, images, name)  # type: ignore[misc]
                jobs[name, "read"] = lambda path=path: read_ours(path, count)  # type: ignore[misc]
            else:
                jobs[name, "write"] = lambda path=path: write_hloc(path, images)  # type: ignore[misc]
                jobs[name, "read"] = lambda path=path: read_hloc(path, count)  # type: ignore[misc]
        spent: dict[tuple[str, str], list[tuple[float, float]]] = {job: [] for job in jobs}
        for _ in range(given.repeats):
            for job, run in jobs.items():
                wall, cpu = time.perf_counter(), time.process_time()
                run()
                took = time.perf_counter() - wall, time.process_time() - cpu
                spent[job].append((1e3 * took[0] / count, 1e3 * took[1] / count))
        print(f"{given.keypoints} keypoints, {count} images, {given.repeats} repeats; milliseconds an image\n")
        print("| | MB an image | write | of the processor | read | of the processor |\n|" + "---|" * 6)
        for name, path in files.items():
            cells = [f"{path.stat().st_size / count / 1e6:.2f}"]
            for what in ("write", "read"):
                cells += [f"{statistics.median(column):.2f}" for column in zip(*spent[name, what], strict=True)]
            print(f"| {name if name not in PRECISIONS else f'ours, {name}'} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
