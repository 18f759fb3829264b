"""Files: weights that are whole, a cache that can be written, room on the disk, HDF5 that reads what it wrote."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from pathlib import Path

from .check import BROKEN, LOOK, OK, Check
from .software import PACKAGE

GIB = 1 << 30
LITTLE, NONE = 2 * GIB, GIB // 10
SLOW_WRITE = 2.0


def bundled() -> Iterator[Check]:
    """The package's own weights: whole, as installed, and of the network they are for."""
    from ...architectures import load_network
    from ...weights import ENTRIES, file_hash, resolve

    recorded = _recorded()
    for entry in ENTRIES.values():
        if not entry.bundled:
            continue
        name = f"weights {entry.architecture}"
        try:
            path = resolve(entry.name)
            network = load_network(entry.name, entry.architecture).network
        except Exception as error:  # missing, cut off, of another network
            yield Check(name, BROKEN, " ".join(str(error).split()), "pip install --force-reinstall hardnet-match")
            continue
        if not all(bool(value.isfinite().all()) for value in network.state_dict().values()):
            yield Check(name, BROKEN, f"{path} holds NaN or infinity", "pip install --force-reinstall hardnet-match")
            continue
        expected = recorded.get(f"weights/{entry.file}")
        if expected is not None and expected != _digest(path):
            yield Check(
                name, BROKEN, f"{path} is not the file that was installed",
                "pip install --force-reinstall hardnet-match, or --weights FILE if the change was yours",
            )  # fmt: skip
            continue
        against = "as installed" if expected is not None else "loads whole"
        yield Check(name, OK, f"bundled, {path.stat().st_size / 1e6:.1f} MB, sha256 {file_hash(entry.name)}, {against}")


def cached() -> Iterator[Check]:
    """Weights that were downloaded: still what they were when they came."""
    from ...weights import ENTRIES, cache_folder
    from ...weights.download import unlike

    folder = cache_folder() / "weights"
    there = [entry for entry in ENTRIES.values() if not entry.bundled and (folder / entry.file).is_file()]
    if not there:
        yield Check("weights in the cache", OK, f"none in {folder} (they come when asked for by name)")
    for entry in there:
        wrong = unlike(folder / entry.file, entry)
        if wrong is not None:
            yield Check(
                f"weights {entry.name}", BROKEN, f"{folder / entry.file} is damaged or another file: {wrong}",
                "delete it; it is fetched again when asked for",
            )  # fmt: skip
        else:
            yield Check(
                f"weights {entry.name}", OK, f"in the cache, {(folder / entry.file).stat().st_size / 1e6:.1f} MB"
            )


def cache() -> Check:
    """The folder downloads go to."""
    from ...weights import cache_folder

    folder = cache_folder()
    place = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
    except OSError as error:
        return Check(
            "cache", LOOK, f"{folder} cannot be written: {error.strerror or error} ({place} exists)",
            "set HARDNET_MATCH_CACHE to a folder that can, if weights are to be fetched by name",
        )  # fmt: skip
    return Check("cache", OK, f"{folder} can be written")


def room(folder: Path) -> Iterator[Check]:
    """Free space where results, the cache and temporary files go."""
    from ...weights import cache_folder

    places = {"disk, working folder": folder, "disk, temporary files": Path(tempfile.gettempdir())}
    home = next(path for path in (cache_folder(), *cache_folder().parents) if path.exists())
    places["disk, cache"] = home
    seen: set[tuple[int, int]] = set()
    for name, place in places.items():
        free = shutil.disk_usage(place).free
        key = (os.stat(place).st_dev, free // GIB)
        if key in seen:
            continue
        seen.add(key)
        text = f"{free / GIB:.1f} GiB free at {place}"
        if free < NONE:
            yield Check(name, BROKEN, text, "make room: a photo's features take about 2 MB at 4,096 keypoints")
        elif free < LITTLE:
            yield Check(name, LOOK, text, "a photo's features take about 2 MB at 4,096 keypoints: a thousand fill it")
        else:
            yield Check(name, OK, text)


def hdf5(folder: Path) -> Check:
    """Features written, synced and read back where results would go; network file systems may not lock or sync."""
    import numpy as np

    from ...features import Features
    from ...frames import make_lafs
    from ...store import FeatureReader, FeatureWriter

    rng = np.random.default_rng(0)
    count = 2000
    lafs = make_lafs(rng.uniform(0, 600, (count, 2)), rng.uniform(5, 50, count))
    given = Features(lafs, rng.random(count, np.float32), rng.random((count, 128), np.float32), (640, 480))
    started = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".hardnet-match-") as place:
            path = Path(place) / "features.h5"
            for name in ("a.jpg", "b.jpg"):
                with FeatureWriter(path, {}) as writer:
                    writer.write(name, given)
            with open(path, "rb+") as file:
                os.fsync(file.fileno())
            with FeatureReader(path) as reader:
                same = all(_same(reader.read(name), given) for name in ("a.jpg", "b.jpg"))
    except Exception as error:  # h5py, the lock and the system each have their own
        return Check(
            "HDF5", BROKEN, f"features cannot be written and read in {folder}: {' '.join(str(error).split())}",
            "write results to a local disk (-o), or mend the folder's permissions",
        )  # fmt: skip
    took = time.perf_counter() - started
    if not same:
        return Check("HDF5", BROKEN, f"what was written to {folder} reads back differently", "write to another disk")
    text = f"written, synced and read back in {folder} ({took:.2f} s)"
    if took > SLOW_WRITE:
        return Check("HDF5", LOOK, text, "this disk is slow to sync: results on a local disk come sooner")
    return Check("HDF5", OK, text)


def _same(one: object, other: object) -> bool:
    import numpy as np

    return all(
        np.array_equal(getattr(one, field), getattr(other, field)) for field in ("lafs", "scores", "descriptors")
    )


def _recorded() -> dict[str, str]:
    """sha256 of the package's files as the installer wrote them down, by path in the package."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    return {
        "/".join(file.parts[1:]): file.hash.value
        for file in files
        if file.parts[0] == "hardnet_match" and file.hash is not None and file.hash.mode == "sha256"
    }


def _digest(path: Path) -> str:
    import hashlib

    return urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")
