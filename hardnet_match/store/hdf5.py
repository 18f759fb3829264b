"""What the features and the matches files share: names, settings, the lock, and h5py's errors in our words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .journal import journal_path, recover

VERSION = 1


def check_name(name: str) -> str:
    """The name if an image may be filed under it: a relative POSIX path without '.' or '..' parts, valid UTF-8.

    Raises:
        StoreError: it is not.
    """
    reason = None
    if not name or "\0" in name:
        reason = "is empty or holds a NUL"
    elif name.startswith("/"):
        reason = "is absolute; names are relative to the image folder"
    elif any(part in ("", ".", "..") for part in name.split("/")):
        reason = "has an empty, '.' or '..' part; names are plain relative paths like 'folder/photo.jpg'"
    else:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            reason = "is not valid UTF-8; rename the file"
    if reason:
        raise StoreError(f"image name {name!r} {reason}")
    return name


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Short SHA-256 of the settings as canonical JSON."""
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]


def canonical(settings: Mapping[str, Any]) -> str:
    """The settings as JSON with sorted keys.

    Raises:
        StoreError: they hold something that JSON does not.
    """
    try:
        return json.dumps(settings, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"settings must be plain JSON values: {error}") from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """'key: old value -> new value' of every setting that differs, on one line."""
    parts = []
    for key in sorted({*old, *new}):
        was, now = old.get(key, "(not set)"), new.get(key, "(not set)")
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            parts += [f"{key}.{inner}" for inner in differences(was, now).split("; ") if inner]
        elif was != now:
            parts.append(f"{key}: {was!r} -> {now!r}")
    return "; ".join(parts)


@contextmanager
def told_plainly(path: Path, doing: str) -> Iterator[None]:
    """Turn what h5py and the system raise into one StoreError that says what was being done to which file."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, UnicodeError) as error:
        reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raise StoreError(f"{path}: cannot {doing}: {reason}") from error


def acquire(path: Path) -> Any:
    """The lock of the one writer of a file; `release` it.

    Raises:
        StoreError: another process, or another writer in this one, holds it, or the folder cannot be written.
    """
    import filelock

    lock = filelock.FileLock(path.with_name(path.name + ".lock"), timeout=0, is_singleton=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(f"{path} is being written by another process; wait for it, or write to another file") from None
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"{path}: cannot lock it for writing: {error}") from error
    return lock


def release(lock: Any) -> None:
    """Give the lock back and leave no lock file behind."""
    with suppress(OSError):  # removed while held: whoever locks the removed file next sees that it has no name
        os.unlink(lock.lock_file)
    lock.release()


def open_for_reading(path: Path) -> Any:
    """An `h5py.File` to read, after finishing or undoing what a killed writer left.

    Raises:
        StoreError: there is no such file, or it is damaged or not HDF5.
    """
    import h5py

    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    if journal_path(path).exists():
        try:
            lock = acquire(path)
        except StoreError:
            pass  # its writer is alive, or this folder is read-only
        else:
            try:
                with told_plainly(path, "finish what a killed process left in it"):
                    recover(path)
            finally:
                release(lock)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path}: not a readable HDF5 file: {error}") from error
