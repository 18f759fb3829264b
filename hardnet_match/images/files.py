"""Which files of a folder are images, and reading a file's bytes with care."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..errors import ImageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp", ".pgm", ".ppm", ".pnm")
MAX_BYTES = 2 * 1024**3


def shown(path: str | os.PathLike[str]) -> str:
    """A path as one printable line, whatever bytes its name is made of."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the images in a folder and the folders below it.

    Args:
        folder: links to folders are followed, each folder once (a loop of links ends).

    Returns:
        Paths relative to `folder`, with `/` between parts, sorted; files by their extension (`EXTENSIONS`, any case).
        Names with a leading dot (hidden ones, and what macOS leaves beside images) are left out.

    Raises:
        ImageError: there is no such folder, or it cannot be read.
    """
    root = Path(folder)
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise ImageError(f"image folder {shown(root)} {what}: give the folder that holds the photos")

    def refuse(error: OSError) -> None:
        raise ImageError(f"cannot list {shown(error.filename)}: {error.strerror}; check its permissions") from error

    names = []
    seen = {_identity(root)}
    for here, folders, files in os.walk(root, followlinks=True, onerror=refuse):
        fresh = []
        for name in sorted(folders):
            identity = _identity(Path(here, name))
            if not name.startswith(".") and identity not in seen:
                seen.add(identity)
                fresh.append(name)
        folders[:] = fresh
        for name in files:
            path = Path(here, name)
            if not name.startswith(".") and path.suffix.lower() in EXTENSIONS and path.is_file():
                names.append(path.relative_to(root).as_posix())
    return sorted(names)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """A regular file's content.

    Raises:
        ImageError: it is missing, empty, not a regular file, unreadable, over 2 GiB, or its name is not UTF-8 (no
            HDF5 or COLMAP file could hold that name).
    """
    name = shown(path)
    try:
        os.fspath(path).encode()
        if "\0" in os.fspath(path):
            raise ImageError(f"{name}: no file name holds a NUL")
    except UnicodeEncodeError as error:
        raise ImageError(f"{name}: the file's name is not valid UTF-8; rename it") from error
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(f"{name}: not a regular file")
        if status.st_size == 0:
            raise ImageError(f"{name}: the file is empty (0 bytes); copy it again from its source")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{name}: {status.st_size / 1024**3:.1f} GiB is too large for an image; cut it into tiles")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file") from error
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {error.strerror or error}") from error
