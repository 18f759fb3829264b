"""The one file layout of patch sets: HDF5 with a contiguous dataset a column, so that a set can be mapped.

A dataset starts at a multiple of 4096 bytes, so a stored patch of 64x64 is exactly one page of memory: a random batch
out of a set that is larger than memory reads what it needs and nothing else. Root attributes: `format`, `version`,
`margin`, `name`, and `settings` (JSON) of what made it. A file appears under its name when it is complete.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import DataError, StoreError
from ..store.hdf5 import canonical, settings_hash

FORMAT = "hardnet-match patches"
VERSION = 1
PAGE = 4096
OLD_MARGIN = 2.0
"""Files without attributes were written before there was another margin."""
PATCHES_AT_ONCE = 4096
MEMORY_SHARE = 0.25
"""A set of at most this share of the machine's memory is read ahead and soon cached whole. A larger one is not: the
kernel would read megabytes for every patch and throw them away before they are asked for."""

ROWS: dict[str, tuple[DTypeLike, tuple[int, ...], bool]] = {
    "track": (np.int64, (), True),
    "image": (np.int32, (), True),
    "scene": (np.int32, (), True),
    "direction": (np.float32, (3,), False),
    "position": (np.float32, (3,), False),
    "size": (np.float32, (), False),
}
"""Columns with a row a patch: dtype, shape of a row, whether every set has it."""
TABLES: dict[str, int] = {"matches": 3, "collisions": 2}
"""Tables of int64 beside them, and how many columns they have."""


def blocks_of(patches: NDArray[np.uint8], rows: NDArray[np.intp] | None = None) -> Iterator[NDArray[np.uint8]]:
    """The patches, or the given rows of them, in pieces that fit into memory."""
    count = len(patches) if rows is None else len(rows)
    for start in range(0, count, PATCHES_AT_ONCE):
        part = slice(start, start + PATCHES_AT_ONCE)
        yield patches[part] if rows is None else patches[rows[part]]


def write(
    path: Path,
    blocks: Iterable[NDArray[np.uint8]],
    columns: Mapping[str, NDArray[Any] | None],
    *,
    side: int,
    margin: float,
    name: str = "",
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a set, whole or not at all.

    Args:
        path: the HDF5 file, replaced if there is one; a reader that has mapped the old one keeps it.
        blocks: (n, S, S) uint8 patches in the order of the rows, any n; never more than one is held.
        columns: by the names of `ROWS` and `TABLES`; those that are None are left out.
        side: S.
        margin, name: see `PatchSet`.
        settings: what made it, plain JSON values.

    Raises:
        DataError: the blocks hold another number of patches than the columns have rows.
        StoreError: it cannot be written (no space, ...).
    """
    count = len(np.asarray(columns["track"]))
    part = path.with_name(path.name + ".part")
    needed = count * side**2 + sum(np.asarray(values).nbytes for values in columns.values() if values is not None)
    try:
        if shutil.disk_usage(path.parent).free < needed:
            raise StoreError(f"{path}: the patch set needs {needed / 1e6:.0f} MB, more than is free there")
        with h5py.File(part, "w", alignment_threshold=PAGE, alignment_interval=PAGE) as file:
            # Room now, content later and past HDF5: it ends the process when a disk fills up under it.
            room = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            room.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            room.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            offset = file.create_dataset("patches", (count, side, side), np.uint8, dcpl=room).id.get_offset()
            for key, values in columns.items():
                if values is not None:
                    file.create_dataset(key, data=values)
            file.attrs.update(format=FORMAT, version=VERSION, margin=float(margin), name=name)
            file.attrs["settings"] = canonical(settings or {})
            file.attrs["settings_hash"] = settings_hash(settings or {})
        with part.open("r+b") as raw:
            raw.seek(offset or 0)
            done = 0
            for block in blocks:
                done += len(block)
                if done > count:
                    break
                raw.write(np.ascontiguousarray(block, np.uint8).data)
            raw.flush()
            os.fsync(raw.fileno())
        if done != count:
            raise DataError(f"{path}: {done} patches came where {count} rows were announced")
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # h5py raises either
        raise StoreError(f"{path}: cannot write the patch set: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The file, and what h5py finds wrong with it in our words."""
    if not path.is_file():
        raise DataError(f"{path}: no such patch set")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DataError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"{path} is not a patch set: {error}") from error


def settings_of(path: Path) -> dict[str, Any]:
    """What made a set; empty for a file from before this was kept.

    Raises:
        DataError: the file is no patch set.
    """
    with _opened(path) as file:
        _check(file, path)
        settings: dict[str, Any] = json.loads(file.attrs.get("settings", "{}"))
        return settings


def _check(file: Any, path: Path) -> None:
    found = file.attrs.get("format", FORMAT)
    if found != FORMAT or "patches" not in file:
        raise DataError(f"{path} is not a patch set: {found if found != FORMAT else 'it has no patches'}")
    if file.attrs.get("version", VERSION) != VERSION:
        raise DataError(f"{path} has layout version {file.attrs['version']}, this package reads {VERSION}")


def read(path: Path, *, mapped: bool = True) -> dict[str, Any]:
    """What `PatchSet` takes: the columns (None where the file lacks one), `margin` and `name`.

    Args:
        path: the HDF5 file.
        mapped: leave the patches on disk and map them, read-only; where the file keeps them in chunks (another
            program's) they are read into memory all the same.

    Raises:
        DataError: it is missing, damaged or no patch set.
    """
    with _opened(path) as file:
        _check(file, path)
        out: dict[str, Any] = {
            "patches": _map(path, file["patches"]) if mapped else file["patches"][()],
            "margin": float(file.attrs.get("margin", OLD_MARGIN)),
            "name": str(file.attrs.get("name", "") or path.stem),
        }
        for key, (dtype, _, needed) in ROWS.items():
            out[key] = file[key][()].astype(dtype, copy=False) if needed or key in file else None
        for key in TABLES:
            out[key] = file[key][()].astype(np.int64, copy=False) if key in file else None
        return out


def _map(path: Path, dataset: Any) -> NDArray[np.uint8]:
    offset = dataset.id.get_offset()
    if offset is None or dataset.dtype != np.uint8:
        whole: NDArray[np.uint8] = dataset[()]
        return whole
    count = int(np.prod(dataset.shape))
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < offset + count:
            raise DataError(f"{path} is cut off: it ends before its last patch; make it again")
        memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if count > MEMORY_SHARE * _memory() and hasattr(mmap, "MADV_RANDOM"):
        memory.madvise(mmap.MADV_RANDOM)
    return np.frombuffer(memory, np.uint8, count, offset).reshape(dataset.shape)


def _memory() -> float:
    """Bytes of this machine's memory; endless where the system does not tell."""
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
