"""Small upright pictures of photos, decoded as quickly as they can be: for pages, never for features."""

from __future__ import annotations

import io
import os

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .decode import MAX_PIXELS
from .files import read_bytes, shown


def read_thumbnail(path: str | os.PathLike[str], side: int) -> NDArray[np.uint8]:
    """A photo as a viewer shows it: turned as its EXIF tag says, the longer side at most `side` pixels.

    A JPEG is decoded at the smallest of its own reduced sizes that is large enough, ten times as fast as whole.

    Returns:
        (H, W, 3) RGB uint8.

    Raises:
        ImageError: it cannot be read.
    """
    from PIL import Image, ImageOps

    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{shown(path)}: {image.width}x{image.height} pixels are too many")
            image.draft("RGB", (side, side))
            image.load()
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                values = np.asarray(image, np.float64)
                scaled = values * (255 / max(float(values.max()), 1.0))
                upright = ImageOps.exif_transpose(Image.fromarray(scaled.clip(0, 255).astype(np.uint8)))
            else:
                upright = ImageOps.exif_transpose(image)
            upright.thumbnail((side, side), Image.Resampling.BOX)
            return np.asarray(upright.convert("RGB"), np.uint8)
    except ImageError:
        raise
    except Exception as error:  # a damaged file can raise anything here
        raise ImageError(f"{shown(path)}: cannot be shown: {error}") from error
