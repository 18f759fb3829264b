"""How sharp a photo is, compared with others of the same scene."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 800
"""Longer side, in pixels, at which photos are compared."""
BLOCK = 32


def sharpness(pixels: NDArray[np.uint8]) -> float:
    """Energy of the finest detail over that of coarser detail, where there is any; no unit.

    The Laplacian at pixel scale is compared with that at four pixels, block by block, so that neither contrast nor how
    much sky there is counts: the median of the blocks that have structure. Blur takes the fine detail first.

    Args:
        pixels: (H, W, 3) RGB or (H, W) uint8, about `SIDE` on the longer side.
    """
    grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    values = grey.astype(np.float32)
    fine = cv2.Laplacian(cv2.GaussianBlur(values, (0, 0), 0.8), cv2.CV_32F) ** 2
    coarse = cv2.Laplacian(cv2.GaussianBlur(values, (0, 0), 3.2), cv2.CV_32F) ** 2
    size = max(1, values.shape[1] // BLOCK), max(1, values.shape[0] // BLOCK)
    fine_blocks, coarse_blocks = (cv2.resize(part, size, interpolation=cv2.INTER_AREA) for part in (fine, coarse))
    structured = coarse_blocks > max(0.05, 0.2 * float(np.median(coarse_blocks)))
    if not structured.any():
        return 0.0
    return float(np.median(fine_blocks[structured] / coarse_blocks[structured]))
