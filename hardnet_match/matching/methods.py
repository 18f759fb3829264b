"""Which nearest neighbours count as matches: mutual, ratio test, both, and FGINN."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import OptionError
from ..features import Features, Matches
from .nearest import as_tensor, check_same_space, k_nearest, mutual, to_numpy, two_nearest

_FGINN_CANDIDATES = 10  # neighbours among which FGINN looks for its second, as in kornia


@dataclass(frozen=True)
class Options:
    """What the methods can be told; each reads what concerns it.

    Args:
        ratio: largest ratio of nearest to second nearest Euclidean distance, in (0, 1].
        spatial_threshold: FGINN: pixels from the nearest neighbour at which a second one counts.
        mutual: FGINN: also ask that the two are each other's nearest.
        min_inliers: AdaLAM: matches that must agree with a seed.
        min_confidence: AdaLAM: how much denser the agreeing matches must be than chance.
    """

    ratio: float = 0.9
    spatial_threshold: float = 10.0
    mutual: bool = True
    min_inliers: int = 6
    min_confidence: float = 200.0

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise OptionError(f"ratio must be above 0 and at most 1, got {self.ratio}")
        if not self.spatial_threshold >= 0:
            raise OptionError(f"spatial_threshold must not be negative, got {self.spatial_threshold}")
        if self.min_inliers < 1 or not self.min_confidence > 0:
            raise OptionError("min_inliers and min_confidence must be positive")


def descriptors_of(a: Features, b: Features, device: torch.device) -> tuple[Tensor, Tensor]:
    """Both sets' descriptors on the device, checked."""
    first = as_tensor(a.descriptors, device, "descriptors of the first image")
    second = as_tensor(b.descriptors, device, "descriptors of the second image")
    check_same_space(first, second)
    return first, second


def as_matches(rows: Tensor, columns: Tensor, scores: Tensor) -> Matches:
    """Matches from tensors of any device."""
    return Matches(to_numpy(torch.stack([rows, columns], dim=1)), scores.to(device="cpu", dtype=torch.float32).numpy())


def mnn(a: Features, b: Features, device: torch.device, options: Options) -> Matches:
    """Mutual nearest neighbours; score 1 / (1 + distance)."""
    forward, backward = two_nearest(*descriptors_of(a, b, device))
    rows = mutual(forward.index[:, 0], backward.index[:, 0]).nonzero()[:, 0]
    return as_matches(rows, forward.index[rows, 0], 1 / (1 + forward.distance[rows, 0]))


def snn(a: Features, b: Features, device: torch.device, options: Options) -> Matches:
    """Nearest neighbours that pass the ratio test; score 1 - ratio. Several rows may share a partner."""
    forward, _ = two_nearest(*descriptors_of(a, b, device))
    ratio = forward.ratio()
    rows = (ratio <= options.ratio).nonzero()[:, 0]
    return as_matches(rows, forward.index[rows, 0], 1 - ratio[rows])


def smnn(a: Features, b: Features, device: torch.device, options: Options) -> Matches:
    """Mutual nearest neighbours that pass the ratio test both ways; score 1 - the larger ratio."""
    forward, backward = two_nearest(*descriptors_of(a, b, device))
    rows = mutual(forward.index[:, 0], backward.index[:, 0]).nonzero()[:, 0]
    columns = forward.index[rows, 0]
    there, back = forward.ratio()[rows], backward.ratio()[columns]
    kept = (there <= options.ratio) & (back <= options.ratio)
    return as_matches(rows[kept], columns[kept], 1 - torch.maximum(there, back)[kept])


def fginn(a: Features, b: Features, device: torch.device, options: Options) -> Matches:
    """The ratio test with a second neighbour that is geometrically inconsistent with the first; score 1 - ratio.

    The second is looked for among the ten nearest, at least `spatial_threshold` pixels from the first; without one
    the ratio is 0. Mishkin et al., MODS, CVIU 2015.
    """
    first, second = descriptors_of(a, b, device)
    if len(second) < 2:
        empty = torch.empty(0, dtype=torch.int64)
        return as_matches(empty, empty, torch.empty(0))
    index, distance = k_nearest(first, second, _FGINN_CANDIDATES)
    xy = torch.as_tensor(b.keypoints, device=device)[index]
    apart = (xy - xy[:, :1]).square().sum(dim=2).sqrt()
    rival = torch.where(apart[:, 1:] < options.spatial_threshold, torch.inf, distance[:, 1:]).amin(dim=1)
    ratio = torch.where(rival > 0, distance[:, 0] / rival, torch.ones_like(rival))
    kept = ratio <= options.ratio
    if options.mutual:
        kept &= mutual(index[:, 0], k_nearest(second, first, 1)[0][:, 0]) if len(first) else kept
    rows = kept.nonzero()[:, 0]
    return as_matches(rows, index[rows, 0], 1 - ratio[rows])
