"""Difference of Gaussians by OpenCV: the fastest way to SIFT's blobs on a CPU."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from .. import frames
from ..pyramid import plane
from .scale_space import ScaleSpaceDetector


class OpenCVDoG(nn.Module):
    """SIFT keypoints of OpenCV as upright frames; shapes are those of `ScaleSpaceDetector`. Runs on the CPU whatever
    the device.

    OpenCV gives one keypoint for each orientation it sees; places that come more than once are kept once, since
    orientation is a later stage's. The image is rounded to 8 bits, as OpenCV demands. They are ranked as those of
    `ScaleSpaceDetector` are.
    """

    def __init__(
        self,
        *,
        levels: int = 3,
        contrast_threshold: float = 0.01,
        edge_ratio: float = 10.0,
        scale_weight: float = ScaleSpaceDetector.default_scale_weight,
    ) -> None:
        super().__init__()
        self.levels, self.contrast_threshold, self.edge_ratio = levels, contrast_threshold, edge_ratio
        self.scale_weight = scale_weight

    @torch.no_grad()
    def forward(self, image: Tensor, mask: Tensor | None = None, max_keypoints: int = 4096) -> tuple[Tensor, Tensor]:
        pixels = np.clip(np.rint(plane(image.cpu()) * 255), 0, 255).astype(np.uint8)
        if min(pixels.shape) < 8:
            return image.new_zeros((0, 2, 3)), image.new_zeros((0,))
        # The last argument is precise upscaling: without it every position is a quarter of a pixel off.
        sift = cv2.SIFT.create(0, self.levels, self.contrast_threshold, self.edge_ratio, 1.6, True)
        found = sift.detect(pixels, None if mask is None else mask.cpu().numpy().astype(np.uint8))
        rows = np.array([(*k.pt, k.size, k.response) for k in found], dtype=np.float32).reshape(-1, 4)
        _, first = np.unique(rows[:, :3], axis=0, return_index=True)
        rows = rows[np.sort(first)]
        rows[:, 3] *= (rows[:, 2] / 2) ** self.scale_weight
        rows = rows[np.argsort(-rows[:, 3], kind="stable")[:max_keypoints]]
        lafs = frames.make_lafs(rows[:, :2], rows[:, 2] / 2 * frames.MR_SIZE)
        return torch.from_numpy(lafs).to(image.device), torch.from_numpy(rows[:, 3].copy()).to(image.device)
