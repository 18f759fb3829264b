"""Determinant of the Hessian: blobs (Beaudet 1978; Mikolajczyk and Schmid, IJCV 2004)."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ..pyramid import bands, image_of, plane, uses_opencv
from .scale_space import ScaleSpaceDetector


class Hessian(ScaleSpaceDetector):
    """Maxima of sigma^4 (Lxx Lyy - Lxy^2); arguments and shapes are those of `ScaleSpaceDetector`.

    `saddles` keeps the maxima of negative determinants, saddle points, too. They repeat more often and locate better
    than the weaker blobs that come in their place (scripts/bench_detectors.py), but match less well: with them a
    reconstruction has fewer points, so they are off.
    """

    default_threshold = 2e-5

    def __init__(self, *, saddles: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.saddles = saddles

    def response(self, image: Tensor, finer: Tensor | None, sigma: float) -> Tensor:
        del finer
        if uses_opencv(image):
            determinant = image_of(_determinant_opencv(plane(image), sigma))
        else:
            determinant = _determinant(image, sigma)
        return determinant if self.saddles else determinant.clamp_(min=0)


def _determinant(image: Tensor, sigma: float) -> Tensor:
    p = F.pad(image, (1, 1, 1, 1), mode="reflect")
    middle = p[:, :, 1:-1, 1:-1]
    xx = p[:, :, 1:-1, 2:] + p[:, :, 1:-1, :-2] - 2 * middle
    yy = p[:, :, 2:, 1:-1] + p[:, :, :-2, 1:-1] - 2 * middle
    xy = (p[:, :, 2:, 2:] - p[:, :, 2:, :-2] - p[:, :, :-2, 2:] + p[:, :, :-2, :-2]) / 4
    return (xx * yy - xy * xy) * sigma**4


def _determinant_opencv(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    # Each second derivative carries sigma^2, the mixed one the quarter of its finite difference.
    norm = sigma * sigma
    border = cv2.BORDER_REFLECT_101
    out = np.empty_like(image)
    for rows, around, inner in bands(*image.shape):
        part = image[around]
        xx = cv2.Sobel(part, cv2.CV_32F, 2, 0, ksize=1, scale=norm, borderType=border)
        yy = cv2.Sobel(part, cv2.CV_32F, 0, 2, ksize=1, scale=norm, borderType=border)
        xy = cv2.Sobel(part, cv2.CV_32F, 1, 1, ksize=1, scale=norm / 4, borderType=border)
        cv2.multiply(xx, yy, dst=xx)
        cv2.multiply(xy, xy, dst=xy)
        cv2.subtract(xx[inner], xy[inner], dst=out[rows])
    return out
