"""Affine shape from the second moments of a patch's gradients; no weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..gradients import gaussian_window, sobel
from ..inference import PatchNetwork, check_patches

FLATTEST = 1e-6
"""Determinant over squared trace of the second moments below which no shape can be told (axes 1 to 1000)."""


class Baumberg(PatchNetwork):
    """One step of second-moment shape adaptation (Baumberg, CVPR 2000; Mikolajczyk and Schmid, IJCV 2004).

    Patches (N, 1, 32, 32) to (N, 2, 2) float32 shapes, lower triangular with unit determinant; composed with a frame
    as AffNet's. Repeating it on the adapted patches is the original's iteration. A flat patch, or one whose
    gradients all point one way, gives the identity.
    """

    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        size = self.patch_size
        self.register_buffer("window", gaussian_window(size, size / math.sqrt(2)), persistent=False)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        # a constant gain changes no shape, and keeps weak gradients away from the smallest float32
        gx, gy = (gradient * (self.window * self.patch_size**2) for gradient in sobel(patches.float()))
        a, b, c = (product.mean(dim=(1, 2)) for product in (gx * gx, gx * gy, gy * gy))
        trace = a + c
        determinant = a * c - b * b
        good = (trace > 1e-12) & (determinant > FLATTEST * trace.square())
        a, c = torch.where(good, a, 1.0), torch.where(good, c, 1.0)
        b = torch.where(good, b, 0.0)
        determinant = a * c - b * b
        # Cholesky factor of the inverse of [[a, b], [b, c]], brought to unit determinant
        scale = determinant.pow(0.25)
        zero = torch.zeros_like(a)
        rows = [(c / determinant).sqrt() * scale, zero, -b / (c * determinant).sqrt() * scale, c.rsqrt() * scale]
        return torch.stack(rows, dim=1).reshape(-1, 2, 2)
