"""One run at a time in a folder that several files are written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StoreError

LOCK = ".lock"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A folder to ourselves; a run that was killed leaves nothing that must be tidied up.

    Raises:
        StoreError: another process works there, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK, timeout=0, is_singleton=False)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"{folder}: another run is at work there; wait for it, or name another folder") from None
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"{folder}: cannot lock it for writing: {error}") from error
    try:
        yield
    finally:
        with suppress(OSError):  # removed while held: whoever locks the removed file next sees that it has no name
            os.unlink(lock.lock_file)
        lock.release()
