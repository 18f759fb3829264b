"""Pictures, and what is beside their pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .registry import target, written

MAX_PIXELS = 200_000


@target
def picture(data: bytes, place: Path) -> None:
    from hardnet_match.images.decode import decode

    for color in (False, True):
        pixels = decode(data, "x", color, MAX_PIXELS)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2 + color


@target
def exif(data: bytes, place: Path) -> None:
    from hardnet_match.images.exif import exif_focal, gps, orientation
    from hardnet_match.images.loading import promised_pixels

    path = written(place, data, "x.jpg")
    assert 1 <= orientation(data) <= 8
    assert promised_pixels(data) >= 0
    focal = exif_focal(path)
    assert focal is None or 0 < focal < float("inf")
    position = gps(path)
    assert position is None or (abs(position.latitude) <= 90 and abs(position.longitude) <= 180)


@target
def stamp(data: bytes, place: Path) -> None:
    from hardnet_match.images.loading import still_same

    written(place, b"photo", "a.jpg")
    still_same(data.decode("utf-8", "replace"), place, "a.jpg", place)
