"""Files that are there whole or not at all, whatever stops the one who writes: a signal, a full disk, a power cut."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write a file to; it takes the place of `path`, in one step and through to the disk, when
    the block ends well, else it is removed.

    Whoever reads `path` sees the old file or the new one; who has the old one open keeps it. Processes that write the
    same file do not meet: the last one's stays.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        with open(part, "rb+") as file:
            os.fsync(file.fileno())  # before the name: else a power cut may leave the name without the content
        os.replace(part, path)
        sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: str | Path) -> None:
    """Make the names in a folder lasting, where the system can."""
    with suppress(OSError, AttributeError):  # Windows cannot open a folder
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
