"""Arrays and small texts on disk such that a killed process leaves whole files or none that count.

Single arrays are .npy files. What belongs together goes into one file, array behind array, because making files
lasting is what a small commit waits for; where each array starts is told by whoever keeps the file's description.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError
from ..whole import sync_folder

ALIGNMENT = 64


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into that takes the place of `path` at the end, in one step and through to the disk.

    Whoever reads `path` sees the old file or the new one; who has the old one mapped keeps it.

    Raises:
        StoreError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error
    sync_folder(path.parent)


def write_array(path: Path, array: NDArray[Any]) -> int:
    """Write a .npy file; its size in bytes.

    Raises:
        StoreError: it cannot be written.
    """
    with replacing(path) as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        return file.tell()


def write_text(path: Path, text: str) -> None:
    """Write a text file, in place of an earlier one.

    Raises:
        StoreError: it cannot be written.
    """
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def checked_size(path: Path, size: int) -> None:
    """Raise StoreError, naming the file, unless it has exactly so many bytes."""
    try:
        found = path.stat().st_size
    except FileNotFoundError:
        raise StoreError(f"{path}: missing; copy the folder again, or build it anew") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror or error}") from error
    if found != size:
        raise StoreError(
            f"{path}: {found} bytes instead of {size}, the file is damaged; copy the folder again, or build it anew"
        )


def map_array(path: Path) -> NDArray[Any]:
    """A .npy file as a read-only memory-mapped array.

    Raises:
        StoreError: it is missing or not such a file.
    """
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise StoreError(f"{path}: missing; copy the folder again, or build it anew") from None
    except (OSError, ValueError, EOFError) as error:
        raise StoreError(f"{path}: not a readable array: {error}") from error
    return np.asarray(array)


@dataclass(frozen=True, eq=False)
class Parts:
    """An array that is written part by part, because it need not fit into memory."""

    dtype: Any
    shape: tuple[int, ...]
    parts: Iterable[NDArray[Any]]


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any] | Parts]) -> dict[str, Any]:
    """Write arrays one behind the other into a file, little-endian.

    Returns:
        its description, plain JSON: `bytes`, and `arrays` with the dtype, shape and first byte of each.

    Raises:
        StoreError: it cannot be written.
    """
    told: dict[str, Any] = {}
    with replacing(path) as file:
        for name, array in sorted(arrays.items()):
            file.write(bytes(-file.tell() % ALIGNMENT))
            dtype = np.dtype(array.dtype).newbyteorder("<")
            told[name] = [dtype.str, [int(length) for length in array.shape], file.tell()]
            for part in array.parts if isinstance(array, Parts) else (array,):
                file.write(np.ascontiguousarray(part, dtype=dtype).reshape(-1).view(np.uint8))
        return {"bytes": file.tell(), "arrays": told}


def map_arrays(path: Path, described: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of a file, read-only and memory-mapped.

    Raises:
        StoreError: it is missing, not of the size it was written with, or not as described.
    """
    size = int(described["bytes"])
    checked_size(path, size)
    try:
        content = np.asarray(np.memmap(path, np.uint8, mode="r")) if size else np.empty(0, np.uint8)
        arrays = {}
        for name, (dtype, shape, start) in described["arrays"].items():
            count = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
            arrays[name] = content[start : start + count].view(dtype).reshape(shape)
        return arrays
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{path}: not as the manifest describes it: {error}") from error
