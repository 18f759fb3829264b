"""Triplets weighted by how hard they are among those lately seen."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DynamicSoftMargin(nn.Module):
    """Dynamic soft margin (Zhang and Rusinkiewicz, ICCV 2019), for real-valued unit descriptors.

    A histogram of d = positive - negative distance is carried along the batches. A triplet weighs as much as its d
    ranks in it: w(d) is the cumulative share below, and the loss is the mean of w * d. There is no margin to choose.
    The histogram is a buffer, so that a resumed run weighs as an unbroken one would.

    Args:
        bins: of the histogram over [-2, 2].
        momentum: share of the newest batch.

    Attributes:
        histogram: (bins,) float32, sums to one; all zeros before the first batch.
    """

    histogram: Tensor

    def __init__(self, bins: int = 512, momentum: float = 0.01) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("histogram", torch.zeros(bins))

    def forward(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Loss of (N,) positive and (N,) negative distances; updates the histogram when in training mode."""
        difference = positive - negative
        with torch.no_grad():
            bins = len(self.histogram)
            place = (difference.to(self.histogram.dtype).clamp(-2, 2) + 2) / 4 * (bins - 1)
            low = place.floor().long()
            if self.training:
                share = place - low
                new = torch.zeros_like(self.histogram).index_add_(0, low, 1 - share)
                new = new.index_add_(0, (low + 1).clamp(max=bins - 1), share) / len(place)
                first = ~(self.histogram > 0).any()
                self.histogram.copy_(torch.where(first, new, self.histogram.lerp(new, self.momentum)))
            weight = self.histogram.cumsum(0)[low].to(difference.dtype)
        return (weight * difference).mean()
