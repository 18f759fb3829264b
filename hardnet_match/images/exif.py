"""What a camera wrote beside the picture: orientation, focal length, position."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from typing import Any

from ..errors import ImageError
from .files import read_bytes, shown


@dataclass(frozen=True)
class Position:
    """Where a photo was taken: WGS 84 degrees (north and east positive), and metres above sea level or None."""

    latitude: float
    longitude: float
    altitude: float | None


def _tags(data: bytes, name: str) -> tuple[Any, tuple[int, int]]:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif(), image.size
    except Exception as error:  # a damaged file can raise anything here
        raise ImageError(f"{name}: its EXIF data cannot be read ({error})") from error


def _number(value: Any) -> float | None:
    """A finite number out of whatever a tag holds, or None."""
    try:
        number = float(value[0] if isinstance(value, (tuple, list)) else value)
    except (TypeError, ValueError, ZeroDivisionError, IndexError):
        return None
    return number if math.isfinite(number) else None


def orientation(data: bytes) -> int:
    """The EXIF orientation of an image file's bytes, 1 to 8; 1 (upright) when it is missing or senseless."""
    try:
        value = _number(_tags(data, "image")[0].get(274))
    except ImageError:
        return 1
    return int(value) if value is not None and 1 <= value <= 8 else 1


def exif_focal(path: str | os.PathLike[str]) -> float | None:
    """Focal length in pixels from EXIF's 35 mm equivalent, None without one: what pycolmap 4.2 makes of it too.

    The equivalent is one of picture diagonals: f / 43.27 mm (full frame's diagonal) * diagonal in pixels.

    Raises:
        ImageError: the file cannot be read.
    """
    exif, size = _tags(read_bytes(path), shown(path))
    equivalent = _number(exif.get_ifd(0x8769).get(41989))
    return equivalent / 43.27 * math.hypot(*size) if equivalent is not None and equivalent > 0 else None


def gps(path: str | os.PathLike[str]) -> Position | None:
    """Where a photo was taken, from its EXIF; None when it does not tell.

    Raises:
        ImageError: the file cannot be read.
    """
    exif, _ = _tags(read_bytes(path), shown(path))
    tags = exif.get_ifd(0x8825)
    latitude = _degrees(tags.get(2), tags.get(1), "S", 90)
    longitude = _degrees(tags.get(4), tags.get(3), "W", 180)
    if latitude is None or longitude is None:
        return None
    altitude = _number(tags.get(6))
    if altitude is not None and tags.get(5) in (1, b"\x01"):
        altitude = -altitude
    return Position(latitude, longitude, altitude)


def _degrees(value: Any, reference: Any, negative: str, limit: float) -> float | None:
    if not isinstance(value, (tuple, list)) or not 1 <= len(value) <= 3:
        return None
    parts = [_number(part) for part in value]
    if parts[0] is None:
        return None
    degrees = sum((part or 0.0) / 60**i for i, part in enumerate(parts))
    text = reference.decode("ascii", "ignore") if isinstance(reference, bytes) else str(reference or "")
    if text.strip("\0 ").upper() == negative:
        degrees = -degrees
    return degrees if abs(degrees) <= limit else None
