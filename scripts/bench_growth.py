"""How time and memory grow with pixels, features, photos and pairs. What of it is the file: bench_store.py.

    python scripts/bench_growth.py PHOTO... [--precision int8] [--parts pixels features photos pairs]

Every row is a process of its own, so that its peak memory is its own. `photos` and `pairs` take copies of the photos
under other names.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hardnet_match import Features
from hardnet_match.store import FeatureWriter

SETTINGS = {"made": "up"}


def extract(photos: list[Path], count: int, max_size: int, keypoints: int, precision: str) -> dict[str, float]:
    """Seconds a photo, once the networks are loaded."""
    from hardnet_match.extractor import FeatureExtractor
    from hardnet_match.jobs import extract_folder

    extractor = FeatureExtractor.from_preset(max_keypoints=keypoints, precision=precision, device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        folder = copies(photos, count, Path(scratch))
        found = extract_folder(folder, Path(scratch) / "f.h5", extractor, max_size=max_size, quiet=True)
        size = (Path(scratch) / "f.h5").stat().st_size
    return {
        "seconds each": found.seconds / count,
        "keypoints each": found.keypoints / count,
        "bytes a keypoint": size / max(found.keypoints, 1),
    }


def pairs(photos: list[Path], count: int, keypoints: int) -> dict[str, float]:
    """Seconds a pair, all pairs of so many images with made-up features."""
    from hardnet_match.jobs import match_features

    del photos
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "f.h5"
        with FeatureWriter(path, SETTINGS) as writer:
            for number in range(count):
                writer.write(f"{number:05}.jpg", made_up(keypoints, number))
        start = time.perf_counter()
        found = match_features(path, Path(scratch) / "m.h5", quiet=True)
        seconds = time.perf_counter() - start
    return {"seconds each": seconds / found.pairs, "pairs": found.pairs, "reads an image": found.reads / count}


def made_up(count: int, seed: int) -> Features:
    rng = np.random.default_rng(seed)
    descriptors = rng.normal(size=(count, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    lafs = rng.uniform(0, 1000, (count, 2, 3)).astype(np.float32)
    return Features(lafs, rng.random(count, dtype=np.float32), descriptors, (1152, 864), {})


def copies(photos: list[Path], count: int, folder: Path) -> Path:
    out = folder / "photos"
    out.mkdir()
    for number in range(count):
        source = photos[number % len(photos)]
        shutil.copyfile(source, out / f"{number:05}{source.suffix}")
    return out


PARTS: dict[str, tuple[Callable[..., dict[str, float]], list[dict[str, Any]]]] = {
    "pixels": (extract, [{"count": 4, "max_size": size, "keypoints": 2048} for size in (400, 800, 1600)]),
    "features": (extract, [{"count": 4, "max_size": 1152, "keypoints": n} for n in (1024, 2048, 4096, 8000)]),
    "photos": (extract, [{"count": n, "max_size": 240, "keypoints": 128} for n in (10, 100, 1000)]),
    "pairs": (pairs, [{"count": n, "keypoints": 2048} for n in (10, 20, 40)]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        part, number = options.row.split(":")
        run, rows = PARTS[part]
        arguments = {**rows[int(number)], **({"precision": options.precision} if run is extract else {})}
        found = run(options.photos, **arguments)
        status = Path("/proc/self/status").read_text(encoding="ascii")
        found["peak MB"] = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        print(json.dumps(found))
        return
    for part in options.parts:
        _, rows = PARTS[part]
        for number, arguments in enumerate(rows):
            command = [sys.executable, __file__, *map(str, options.photos), "--row", f"{part}:{number}"]
            done = subprocess.run(
                [*command, "--precision", options.precision], capture_output=True, text=True, check=True
            )
            found = json.loads(done.stdout)
            if number == 0:
                print(f"\n| {part} | {' | '.join(found)} |\n|{'---|' * (len(found) + 1)}")
            told = ", ".join(f"{key} {value}" for key, value in arguments.items())
            print(f"| {told} | {' | '.join(f'{value:.4g}' for value in found.values())} |", flush=True)


if __name__ == "__main__":
    main()
