"""Image gradients of patches and the Gaussian windows that weigh them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad


def sobel(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised Sobel derivatives of (N, 1, P, P) along x and y, each (N, P, P); the border pixel is repeated."""
    smooth = patches.new_tensor([1.0, 2.0, 1.0]) / 8.0
    slope = patches.new_tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack([torch.outer(smooth, slope), torch.outer(slope, smooth)])[:, None]
    both = conv2d(pad(patches, (1, 1, 1, 1), mode="replicate"), kernels)
    return both[:, 0], both[:, 1]


def central_difference(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Half differences of the two neighbours along x and y of (N, 1, P, P), each (N, P, P)."""
    padded = pad(patches, (1, 1, 1, 1), mode="replicate")[:, 0]
    return (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2, (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2


def gaussian_window(size: int, sigma: float) -> Tensor:
    """(size, size) Gaussian centred on the patch, of sum 1."""
    offsets = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-offsets.square() / (2 * sigma**2))
    line = line / line.sum()
    return torch.outer(line, line)
