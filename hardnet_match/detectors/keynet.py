"""Key.Net: a learned detector over a pyramid of resized images."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from kornia.feature import KeyNet as KeyNetScores
from torch import Tensor

from ..pyramid import gaussian_blur, image_of, plane, uses_opencv
from .scale_space import frames_at

_AXIS = 22.0
"""Length of a frame's axes in pixels of its level, as published with the network."""

_BORDER = 15
"""Pixels along the sides of a level that the network's padding spoils."""

_LEVEL_STEP = math.sqrt(2.0)


class KeyNet(KeyNetScores):  # type: ignore[misc]
    """Key.Net (Barroso-Laguna, Riba, Ponsa, Mikolajczyk, ICCV 2019), with a sub-pixel position.

    This is kornia's score network, so the original's state dict loads; no weights are bundled. The pyramid has one
    level larger than the image and `levels` smaller ones, a factor sqrt(2) apart. A candidate is the largest score in
    a window of `window` pixels; its position is the maximum of the quadratic through its 3 x 3 scores.

    Shapes are those of `ScaleSpaceDetector`.
    """

    def __init__(self, *, levels: int = 4, window: int = 15, threshold: float = 0.0) -> None:
        super().__init__(pretrained=False)
        self.eval()
        self.levels, self.window, self.threshold = levels, window, threshold

    def forward(self, image: Tensor, mask: Tensor | None = None, max_keypoints: int = 4096) -> tuple[Tensor, Tensor]:
        found = [self._level(image, exponent, mask, max_keypoints) for exponent in range(-1, self.levels + 1)]
        x, y, axis, score = (torch.cat(column) for column in zip(*found, strict=True))
        best = torch.sort(score, descending=True, stable=True).indices[:max_keypoints]
        return frames_at(x[best], y[best], axis[best]), score[best]

    def _level(
        self, image: Tensor, exponent: int, mask: Tensor | None, wanted: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        height, width = image.shape[-2:]
        factor = _LEVEL_STEP**exponent
        size = (int(height / factor), int(width / factor))
        empty = image.new_zeros((0,))
        if min(size) <= 2 * _BORDER:
            return empty, empty, empty, empty
        resized = image
        if exponent:
            # Halving by sqrt(2) steps needs the blur that keeps the smaller level free of aliases.
            sharp = gaussian_blur(image, 0.5 * math.sqrt(factor**2 - 1)) if exponent > 0 else image
            resized = F.interpolate(sharp, size=size, mode="bilinear", align_corners=False)
        score = super().forward(resized)
        flat = _window_maxima(score, self.window, self.threshold)
        values = score.reshape(-1)[flat]
        best = torch.sort(values, descending=True, stable=True).indices[:wanted]
        flat, values = flat[best], values[best]
        dx, dy = _quadratic(score, flat)
        step_x, step_y = width / size[1], height / size[0]
        x = (flat % size[1] + dx + 0.5) * step_x - 0.5
        y = (torch.div(flat, size[1], rounding_mode="floor") + dy + 0.5) * step_y - 0.5
        axis = torch.full_like(x, _AXIS * (step_x + step_y) / 2)
        if mask is not None:
            keep = mask[y.round().long().clamp(0, height - 1), x.round().long().clamp(0, width - 1)]
            x, y, axis, values = x[keep], y[keep], axis[keep], values[keep]
        return x, y, axis, values


def _window_maxima(score: Tensor, window: int, threshold: float) -> Tensor:
    if uses_opencv(score):
        largest = image_of(cv2.dilate(plane(score), np.ones((window, window), np.uint8)))
    else:
        largest = F.max_pool2d(score, window, stride=1, padding=window // 2)
    peaks = ((score == largest) & (score > threshold))[0, 0]
    inside = torch.zeros_like(peaks)
    inside[_BORDER:-_BORDER, _BORDER:-_BORDER] = peaks[_BORDER:-_BORDER, _BORDER:-_BORDER]
    return torch.nonzero(inside.reshape(-1))[:, 0]


def _quadratic(score: Tensor, flat: Tensor) -> tuple[Tensor, Tensor]:
    """Offset of the quadratic's maximum in each 3 x 3 neighbourhood, at most half a pixel; zero where it has none."""
    width = score.shape[-1]
    around = torch.tensor([dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)], device=flat.device)
    c = score.reshape(-1)[flat[:, None] + around].reshape(-1, 3, 3).double()
    gx, gy = (c[:, 1, 2] - c[:, 1, 0]) / 2, (c[:, 2, 1] - c[:, 0, 1]) / 2
    xx = c[:, 1, 2] + c[:, 1, 0] - 2 * c[:, 1, 1]
    yy = c[:, 2, 1] + c[:, 0, 1] - 2 * c[:, 1, 1]
    xy = (c[:, 2, 2] - c[:, 2, 0] - c[:, 0, 2] + c[:, 0, 0]) / 4
    det = xx * yy - xy * xy
    good = (det > 0) & (xx < 0)
    safe = torch.where(good, det, torch.ones_like(det))
    dx = torch.where(good, (xy * gy - yy * gx) / safe, torch.zeros_like(det)).clamp(-0.5, 0.5)
    dy = torch.where(good, (xy * gx - xx * gy) / safe, torch.zeros_like(det)).clamp(-0.5, 0.5)
    return dx.float(), dy.float()
