"""Blob and corner detectors over a Gaussian scale space: one walk, any response.

The walk is SIFT's (Lowe, IJCV 2004): octaves of `levels` scales, the first on the doubled image, each next one on
every second pixel of the one before. Only two responses are held at a time, so that memory grows with the image and
with nothing else. A candidate is a maximum among its 26 neighbours in space and scale; its position and scale are then
the maximum of the quadratic through those 27 values. Detectors differ in the response alone.

An image has more blobs the smaller they are, about sigma^-2 of each size, and far more than are wanted. The strongest
are nearly all of a few pixels, which another photo from further away does not show: frames are therefore
ranked by response times sigma^2 (scripts/bench_ranking.py has what that brings).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import OptionError
from ..frames import MR_SIZE
from ..pyramid import bands, double, gaussian_blur, plane, uses_opencv

_CAMERA_SIGMA = 0.5
"""Blur that a photo is taken to have, in its own pixels."""

_BORDER = 2
"""Responses this close to the border of a level are made of mirrored pixels: no candidate there."""

_SURPLUS = 3
"""Candidates refined for each frame wanted: the refinement rejects some and reorders the rest."""


@dataclass
class Level:
    """One scale: its response, its blur in pixels of this octave, and how its pixels lie on the image: x = step * i
    + origin."""

    response: Tensor
    sigma: float
    step: float
    origin: float


class ScaleSpaceDetector(nn.Module):
    """Base of the detectors over a Gaussian scale space.

    Args:
        levels: scales an octave.
        sigma: blur of an octave's first scale, in its pixels.
        upsample: whether the first octave is the doubled image; finds the small blobs that locate best.
        threshold: responses below are not candidates (images are in [0, 1], responses scale-normalised).
        edge_ratio: largest ratio of the response's principal curvatures in the image plane; larger ones are edges,
            whose position along the edge means nothing.
        border: frames whose centre is closer to the image's border than this many blob sigmas are dropped.
        scale_weight: frames are ranked by response times sigma (in image pixels) to this power; 0 for the response
            alone.

    Shape:
        - image: (1, 1, H, W) float32 in [0, 1], grey; mask: (H, W) bool or None, False where no frame may have its
          centre.
        - returns frames (N, 2, 3), upright circles with axes of 6 sigma, and scores (N,) by which they are ranked,
          best first; N is whatever was found, at most `max_keypoints`, and never padded. Where the image asks for
          gradients, both have them.
    """

    default_threshold = 0.0
    default_scale_weight = 2.0

    def __init__(
        self,
        *,
        levels: int = 3,
        sigma: float = 1.6,
        upsample: bool = True,
        threshold: float | None = None,
        edge_ratio: float = 10.0,
        border: float = 1.0,
        scale_weight: float | None = None,
    ) -> None:
        super().__init__()
        if levels < 1 or sigma <= _CAMERA_SIGMA or edge_ratio <= 1:
            raise OptionError(
                f"a scale space needs levels >= 1, sigma > {_CAMERA_SIGMA} and edge_ratio > 1, "
                f"got {levels}, {sigma} and {edge_ratio}"
            )
        self.levels, self.sigma, self.upsample = levels, sigma, upsample
        self.threshold = self.default_threshold if threshold is None else threshold
        self.edge_ratio, self.border = edge_ratio, border
        self.scale_weight = self.default_scale_weight if scale_weight is None else scale_weight

    def response(self, image: Tensor, finer: Tensor | None, sigma: float) -> Tensor:
        """Scale-normalised response of one scale: a blurred image (1, 1, H, W), the next finer scale's, its sigma in
        pixels.

        The sign says which kind of blob; the walk looks for maxima of the magnitude.
        """
        raise NotImplementedError

    needs_finer = False
    """Whether `response` looks at the next finer scale too (difference of Gaussians)."""

    selects_scale = True
    """Whether a feature must be a maximum over scale too; a corner has no scale and is found at every one."""

    def forward(self, image: Tensor, mask: Tensor | None = None, max_keypoints: int = 4096) -> tuple[Tensor, Tensor]:
        found = []
        for octave in self._octaves(image):
            found.append(self._octave_maxima(octave, image.shape[-2:], mask, max_keypoints))
        if not found:
            return image.new_zeros((0, 2, 3)), image.new_zeros((0,))
        x, y, sigma, response = (torch.cat(column) for column in zip(*found, strict=True))
        score = response * sigma**self.scale_weight
        # Stable, so that equal responses (a synthetic picture) come in the same order on every run.
        best = torch.sort(score, descending=True, stable=True).indices[:max_keypoints]
        return frames_at(x[best], y[best], sigma[best] * MR_SIZE), score[best]

    def _octaves(self, image: Tensor) -> Iterator[Iterator[Level]]:
        step, origin, blur = 1.0, 0.0, _CAMERA_SIGMA
        if self.upsample:
            image, step, origin, blur = double(image), 0.5, -0.25, 2 * _CAMERA_SIGMA
        first = [gaussian_blur(image, math.sqrt(max(self.sigma**2 - blur**2, 0.0)))]
        del image  # 16 MB of the doubled megapixel, which nobody needs any more
        while first and min(first[0].shape[-2:]) >= 2 * _BORDER + 3:
            yield self._octave(first, step, origin)
            step *= 2

    def _octave(self, first: list[Tensor], step: float, origin: float) -> Iterator[Level]:
        """The octave's scales one by one. Its first one is taken out of `first`, so that nobody holds it longer than
        it is needed, and the next octave's is left there."""
        image, finer = first.pop(), None
        sigma = self.sigma
        extra = 2 + int(self.needs_finer)
        for index in range(self.levels + extra):
            if index:
                wanted = self.sigma * 2 ** (index / self.levels)
                blurred = gaussian_blur(image, math.sqrt(wanted**2 - sigma**2))
                image, finer, sigma = blurred, image if self.needs_finer else None, wanted
            if index == self.levels:
                first.append(image[:, :, ::2, ::2].contiguous())
            if self.needs_finer and finer is None:
                continue
            # A difference of Gaussians answers to blobs of the finer of its two scales.
            blob = sigma / 2 ** (1 / self.levels) if self.needs_finer else sigma
            yield Level(self.response(image, finer, blob), blob, step, origin)

    def _octave_maxima(
        self, levels: Iterator[Level], size: torch.Size, mask: Tensor | None, wanted: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Refined maxima of all scales of an octave but the first and the last.

        A candidate's neighbours in scale are looked up while their response is there, the finer one's when the
        candidate is found and the coarser one's when that is made: two responses are held, not three.
        """
        found = []
        finer: Level | None = None
        waiting: tuple[Tensor, list[Tensor]] | None = None
        for index, level in enumerate(levels):
            if finer is not None and waiting is not None:
                flat, values = waiting
                values.append(_neighbourhoods(level.response, flat))
                found.append(self._maxima(finer, flat, torch.stack(values, dim=1), size, mask, wanted))
                waiting = None
            if finer is not None and index <= self.levels:
                flat = self._candidates(level.response, wanted)
                waiting = flat, [_neighbourhoods(item.response, flat) for item in (finer, level)]
            finer = level
        x, y, sigma, score = (torch.cat(column) for column in zip(*found, strict=True))
        return x, y, sigma, score

    def _candidates(self, response: Tensor, wanted: int) -> Tensor:
        """Flat indices of the pixels that are maxima among their 8 neighbours."""
        flat = _plane_maxima(response, self.threshold)
        if len(flat) > 4 * _SURPLUS * wanted:  # bounded work on pictures of noise
            strength = response.reshape(-1)[flat].abs()
            flat = flat[torch.topk(strength, 4 * _SURPLUS * wanted).indices.sort().values]
        return flat

    def _maxima(
        self, level: Level, flat: Tensor, cube: Tensor, size: torch.Size, mask: Tensor | None, wanted: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which candidates of a scale are maxima, refined, from the (N, 3, 3, 3) responses around them: x, y, sigma in
        image pixels, and response."""
        cube = cube * cube[:, 1, 1, 1].sign()[:, None, None, None]
        if not self.selects_scale:
            cube[:, 0] = cube[:, 2] = cube[:, 1] / 2  # falls off evenly to both sides: the scale stays where it is
        peak = cube[:, 1, 1, 1] >= cube.flatten(1).amax(1)
        flat, cube = flat[peak], cube[peak]
        if len(flat) > _SURPLUS * wanted:
            rows = torch.topk(cube[:, 1, 1, 1], _SURPLUS * wanted).indices.sort().values
            flat, cube = flat[rows], cube[rows]
        offset, score, good = refine(cube, self.edge_ratio)
        width = level.response.shape[-1]
        x = (flat % width + offset[:, 0]) * level.step + level.origin
        y = (torch.div(flat, width, rounding_mode="floor") + offset[:, 1]) * level.step + level.origin
        sigma = level.sigma * level.step * 2 ** (offset[:, 2] / self.levels)
        good = good & (score > self.threshold)
        margin = self.border * sigma
        height_px, width_px = size
        good &= (x >= margin) & (y >= margin) & (x <= width_px - 1 - margin) & (y <= height_px - 1 - margin)
        if mask is not None:
            column = x.round().long().clamp(0, width_px - 1)
            row = y.round().long().clamp(0, height_px - 1)
            good &= mask[row, column]
        return x[good], y[good], sigma[good], score[good]


def refine(cube: Tensor, edge_ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Maximum of the quadratic through each 3 x 3 x 3 neighbourhood (scale, y, x) with its largest value in the middle.

    Returns:
        offsets (N, 3) as x, y, scale in cells, the quadratic's value there (N,), and which are well-formed maxima
        and no edges (N,).
    """
    c = cube.double()
    mid = c[:, 1, 1, 1]
    dx, dy, ds = c[:, 1, 1, 2] - c[:, 1, 1, 0], c[:, 1, 2, 1] - c[:, 1, 0, 1], c[:, 2, 1, 1] - c[:, 0, 1, 1]
    gradient = torch.stack([dx, dy, ds], 1) / 2
    xx = c[:, 1, 1, 2] + c[:, 1, 1, 0] - 2 * mid
    yy = c[:, 1, 2, 1] + c[:, 1, 0, 1] - 2 * mid
    ss = c[:, 2, 1, 1] + c[:, 0, 1, 1] - 2 * mid
    xy = (c[:, 1, 2, 2] - c[:, 1, 2, 0] - c[:, 1, 0, 2] + c[:, 1, 0, 0]) / 4
    xs = (c[:, 2, 1, 2] - c[:, 2, 1, 0] - c[:, 0, 1, 2] + c[:, 0, 1, 0]) / 4
    ys = (c[:, 2, 2, 1] - c[:, 2, 0, 1] - c[:, 0, 2, 1] + c[:, 0, 0, 1]) / 4
    hessian = torch.stack([xx, xy, xs, xy, yy, ys, xs, ys, ss], 1).reshape(-1, 3, 3)
    det3 = torch.linalg.det(hessian)
    det2, trace2 = xx * yy - xy * xy, xx + yy
    # A maximum: the quadratic falls in every direction, and not so slowly in one that the position is arbitrary there.
    good = (det3 < 0) & (det2 > 0) & (trace2 < 0)
    good &= trace2 * trace2 * edge_ratio < det2 * (edge_ratio + 1) ** 2
    eye = torch.eye(3, dtype=c.dtype, device=c.device)
    offset = -torch.linalg.solve(torch.where(good[:, None, None], hessian, eye), gradient)
    good = good & (offset.abs() < 1.0).all(dim=1)  # not in place: gradients need it as it was
    offset = torch.where(good[:, None], offset, torch.zeros_like(offset))
    score = mid + 0.5 * (gradient * offset).sum(1)
    return offset.float(), score.float(), good


def _plane_maxima(response: Tensor, threshold: float) -> Tensor:
    """Flat indices of the pixels whose magnitude passes the threshold and is the largest among its 8 neighbours."""
    height, width = response.shape[-2:]
    if uses_opencv(response):
        values, square = plane(response), np.ones((3, 3), np.uint8)
        found = [np.zeros(0, np.int64)]
        for rows, around, inner in bands(height, width):
            magnitude = np.abs(values[around])
            largest = cv2.dilate(magnitude, square)[inner]
            magnitude = magnitude[inner]
            found.append(np.flatnonzero((magnitude == largest) & (magnitude > threshold)) + rows.start * width)
        flat = torch.from_numpy(np.concatenate(found))
    else:
        magnitude_t = response.abs()
        largest_t = F.max_pool2d(magnitude_t, 3, stride=1, padding=1)
        flat = torch.nonzero(((magnitude_t == largest_t) & (magnitude_t > threshold)).reshape(-1))[:, 0]
    row, column = torch.div(flat, width, rounding_mode="floor"), flat % width
    inside = (row >= _BORDER) & (row < height - _BORDER) & (column >= _BORDER) & (column < width - _BORDER)
    return flat[inside]


def _neighbourhoods(response: Tensor, flat: Tensor) -> Tensor:
    """(N, 3, 3) values around each flat index: y, x."""
    width = response.shape[-1]
    around = torch.tensor([dy * width + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1)], device=flat.device)
    return response.reshape(-1)[flat[:, None] + around].reshape(-1, 3, 3)


def frames_at(x: Tensor, y: Tensor, axis: Tensor) -> Tensor:
    """Upright circular frames (N, 2, 3) at x, y with axes of the given length in pixels."""
    zero = torch.zeros_like(x)
    return torch.stack([axis, zero, x, zero, axis, y], dim=1).reshape(-1, 2, 3)
