"""Corners over scales: Harris (Harris and Stephens 1988) and good features to track (Shi and Tomasi, CVPR 1994).

A corner looks the same at every scale, so each scale's maxima count, one scale an octave unless `levels` says more.
"""

from __future__ import annotations

from typing import Any

import cv2
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import OptionError
from ..pyramid import gaussian_blur, image_of, plane, uses_opencv
from .scale_space import ScaleSpaceDetector

_INTEGRATION = 1.4
"""Integration scale of the second moment matrix, in differentiation scales."""


class _Corners(ScaleSpaceDetector):
    selects_scale = False

    def __init__(self, *, levels: int = 1, **options: Any) -> None:
        super().__init__(levels=levels, **options)

    def _moments(self, image: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
        """Second moment matrix xx, yy, xy of scale-normalised gradients, averaged over the integration scale."""
        dx, dy = _gradient(image, sigma)
        window = _INTEGRATION * sigma
        return gaussian_blur(dx * dx, window), gaussian_blur(dy * dy, window), gaussian_blur(dx * dy, window)


class Harris(_Corners):
    """Maxima of det M - k trace(M)^2; arguments and shapes are those of `ScaleSpaceDetector`, and `k`."""

    default_threshold = 1e-7

    def __init__(self, *, k: float = 0.04, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < k < 0.25:
            raise OptionError(f"Harris' k lies between 0 and 0.25, got {k}")
        self.k = k

    def response(self, image: Tensor, finer: Tensor | None, sigma: float) -> Tensor:
        xx, yy, xy = self._moments(image, sigma)
        return (xx * yy - xy * xy - self.k * (xx + yy) ** 2).clamp_(min=0)


class GFTT(_Corners):
    """Maxima of the smaller eigenvalue of M; arguments and shapes are those of `ScaleSpaceDetector`."""

    default_threshold = 1e-4

    def response(self, image: Tensor, finer: Tensor | None, sigma: float) -> Tensor:
        xx, yy, xy = self._moments(image, sigma)
        return ((xx + yy) / 2 - torch.sqrt(((xx - yy) / 2) ** 2 + xy * xy)).clamp_(min=0)


def _gradient(image: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    if uses_opencv(image):
        pixels, border = plane(image), cv2.BORDER_REFLECT_101
        dx = cv2.Sobel(pixels, cv2.CV_32F, 1, 0, ksize=1, scale=sigma / 2, borderType=border)
        dy = cv2.Sobel(pixels, cv2.CV_32F, 0, 1, ksize=1, scale=sigma / 2, borderType=border)
        return image_of(dx), image_of(dy)
    p = F.pad(image, (1, 1, 1, 1), mode="reflect")
    half = sigma / 2
    return (p[:, :, 1:-1, 2:] - p[:, :, 1:-1, :-2]) * half, (p[:, :, 2:, 1:-1] - p[:, :, :-2, 1:-1]) * half
