"""Arrays and small texts on disk such that a killed process leaves whole files or none that count."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError


def sync_folder(folder: Path) -> None:
    """Make the names in a folder lasting, where the system can."""
    with suppress(OSError, AttributeError):  # Windows cannot open a folder
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_array(path: Path, array: NDArray[Any]) -> int:
    """Write a .npy file through to the disk; its size in bytes.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
            return file.tell()
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one step: whoever reads it sees the old one or the new one, also after a crash.

    Raises:
        StoreError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error
    sync_folder(path.parent)


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
