"""Three parts for hardnet-match: a detector, a descriptor of kornia's, and a matching method.

The entry points of pyproject.toml name them; nothing here is imported before one of them is used.
"""

from __future__ import annotations

import cv2
import kornia.feature
import numpy as np
import torch
from torch import Tensor, nn

from hardnet_match import Features, Matches
from hardnet_match.frames import MR_SIZE


class MSER(nn.Module):
    """Maximally stable extremal regions (Matas, Chum, Urban, Pajdla, BMVC 2002), OpenCV's.

    A detector takes the grey image (1, 1, H, W) in [0, 1], a mask (H, W) bool or None, and how many keypoints are
    wanted; it gives frames (N, 2, 3) and responses (N,). These frames are affine already: take `--shape none` with
    them.
    """

    def forward(self, image: Tensor, mask: Tensor | None = None, max_keypoints: int = 4096) -> tuple[Tensor, Tensor]:
        pixels = np.rint(image[0, 0].cpu().numpy() * 255).clip(0, 255).astype(np.uint8)
        # Nested regions are all kept: which of them shows again in another photo, the descriptors tell.
        detector = cv2.MSER.create(min_diversity=0.0)
        regions = detector.detectRegions(pixels)[0] if min(pixels.shape) > 2 else ()
        if not len(regions):
            return image.new_zeros(0, 2, 3), image.new_zeros(0)
        # First and second moments of all regions at once.
        counts = np.array([len(region) for region in regions])
        points = np.concatenate(regions).astype(np.float64)
        starts = np.concatenate([[0], counts[:-1].cumsum()])
        mean = np.add.reduceat(points, starts) / counts[:, None]
        off = points - np.repeat(mean, counts, axis=0)
        moments = np.add.reduceat(off[:, :, None] * off[:, None, :], starts) / counts[:, None, None]
        # The region's ellipse, as large around its standard deviation as every frame here. A twelfth of a square pixel
        # is a single pixel's own second moment.
        axes = MR_SIZE * np.linalg.cholesky(moments + np.eye(2) / 12)
        frames = np.concatenate([axes, mean[:, :, None]], axis=2)
        order = np.argsort(-counts, kind="stable")
        if mask is not None:
            column, row = np.rint(mean[order]).astype(int).T
            order = order[mask.cpu().numpy()[row, column]]
        order = order[:max_keypoints]
        return (
            torch.from_numpy(frames[order].astype(np.float32)).to(image.device),
            torch.from_numpy(counts[order].astype(np.float32)).to(image.device),
        )


def kornia_sift() -> nn.Module:
    """kornia's SIFT descriptor: whatever torch module turns patches (N, 1, P, P) into rows (N, D) will do."""
    return kornia.feature.SIFTDescriptor(patch_size=32, rootsift=True)


def within(first: Features, second: Features, device: torch.device, options: object) -> Matches:
    """Mutual nearest neighbours that are not farther than 0.8 apart; a matching method takes just these arguments."""
    a, b = (torch.from_numpy(side.descriptors).float().to(device) for side in (first, second))
    if not len(a) or not len(b):
        return Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32))
    distance = torch.cdist(a, b)
    nearest, there = distance.min(dim=1)
    back = distance.argmin(dim=0)
    rows = torch.arange(len(a), device=device)
    good = (back[there] == rows) & (nearest <= 0.8)
    pairs = torch.stack([rows[good], there[good]], dim=1)
    return Matches(pairs.cpu().numpy().astype(np.int32), (1 - nearest[good]).cpu().numpy().astype(np.float32))
