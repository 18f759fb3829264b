"""One photo of a folder with its mask, and a stamp that tells later whether the files are still the same."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .files import read_bytes, shown
from .picture import Picture, decode_mask, mask_path, picture_of

_NO_FILE = "-"


@dataclass(frozen=True, eq=False)
class Loaded:
    """A photo ready for extraction.

    Args:
        picture: decoded and shrunk.
        mask: (H, W) bool of the picture's pixels, None without one.
        stamp: of the files it came from, for `still_same`.
    """

    picture: Picture
    mask: NDArray[np.bool_] | None
    stamp: str


def load(
    folder: str | os.PathLike[str],
    name: str,
    masks: str | os.PathLike[str] | None,
    max_size: int | None,
    ask: Callable[[int], None] | None = None,
) -> Loaded:
    """Read, stamp and decode a photo and its mask.

    Args:
        folder, name: the photo. masks: folder of masks, if any. max_size: as in `read_image`.
        ask: called with the number of pixels that the header promises, before anything of that size is made.

    Raises:
        ImageError: as `read_image` and `read_mask`.
    """
    path = Path(folder, name)
    before = _status(path)
    data = read_bytes(path)
    if ask is not None:
        ask(promised_pixels(data))
    picture = picture_of(data, shown(path), max_size=max_size)
    stamp = f"{before} {_digest(data)}"
    if masks is None:
        return Loaded(picture, None, stamp)
    there = mask_path(masks, name)
    if there is None:
        return Loaded(picture, None, f"{stamp} {_NO_FILE}")
    before = _status(there)
    data = read_bytes(there)
    mask = decode_mask(data, shown(there), picture.size)
    return Loaded(picture, picture.fit_mask(mask), f"{stamp} {before} {_digest(data)}")


def still_same(
    stamp: str, folder: str | os.PathLike[str], name: str, masks: str | os.PathLike[str] | None = None
) -> bool:
    """Whether a photo and its mask are those that `load` stamped.

    Size and time of change are looked at first; only where they differ is the content read and compared, so that files
    copied or touched count as the same. A stamp of another form counts as the same: nothing is known against it.
    """
    parts = stamp.split(" ")
    wanted: list[Path | None] = [Path(folder, name)]
    if masks is not None:
        wanted.append(mask_path(masks, name))
    at = 0
    for path in wanted:
        known = parts[at : at + 3]
        if known[:1] == [_NO_FILE]:
            if path is not None:
                return False
            at += 1
        elif len(known) < 3:
            return True
        elif path is None or not _same(known, path):
            return False
        else:
            at += 3
    return True


def promised_pixels(data: bytes) -> int:
    """How many pixels an image's header promises; 0 where it cannot be told."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return int(image.size[0]) * int(image.size[1])
    except Exception:  # whatever is wrong with it, decoding will say
        return 0


def _same(known: list[str], path: Path) -> bool:
    try:
        if _status(path) == " ".join(known[:2]):
            return True
        return path.stat().st_size == int(known[0]) and _digest(read_bytes(path)) == known[2]
    except (OSError, ValueError, ImageError):
        return False


def _status(path: Path) -> str:
    """Size in bytes and time of the last change in nanoseconds; zeros where there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return "0 0"
    return f"{status.st_size} {status.st_mtime_ns}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
