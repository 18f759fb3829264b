"""Principal directions of a network's descriptors, from a patch set of any size.

Descriptors pass once: their mean and covariance are kept, in float64, and nothing else. As the originals do it
(pultarmi/HardNet_MultiDataset, scikit-learn's PCA without whitening): unit length, minus mean, times the directions of
largest variance, unit length again. Directions have the sign of scikit-learn (1.5 and later): the entry of largest
absolute value is positive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from ..descriptors.base import DescriptorNetwork
from ..errors import DataError, OptionError
from ..inference import run_tiled
from .augment.frames import crop
from .patchset import PatchSet

SAMPLE = 200_000
"""Patches used at most, unless more are asked for."""
BLOCK = 2048


class Moments:
    """Mean and scatter of rows that come in blocks (Chan, Golub, LeVeque: Updating formulae, 1979)."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.mean = torch.zeros(width, dtype=torch.float64)
        self.scatter = torch.zeros(width, width, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Take in rows (n, width)."""
        rows = rows.to(self.mean.device, torch.float64)
        if not len(rows):
            return
        mean = rows.mean(0)
        centred = rows - mean
        step = mean - self.mean
        total = self.count + len(rows)
        self.scatter += centred.T @ centred + torch.outer(step, step) * (self.count * len(rows) / total)
        self.mean += step * (len(rows) / total)
        self.count = total

    @property
    def covariance(self) -> Tensor:
        """(width, width) float64, divided by count - 1."""
        return self.scatter / max(self.count - 1, 1)


@dataclass(frozen=True, eq=False)
class Projection:
    """Where descriptors are projected to.

    Args:
        components: (D, d) float32, orthonormal columns, the one of largest variance first.
        mean: (D,) float32.
        variances: (d,) float32, of the descriptors along the columns.
        kept: share of all variance that lies in them, in [0, 1].
        count: descriptors they were found from.
    """

    components: Tensor
    mean: Tensor
    variances: Tensor
    kept: float
    count: int


def principal_directions(moments: Moments, dim: int) -> Projection:
    """The `dim` directions of largest variance.

    Raises:
        OptionError: `dim` is not among 1 to D.
        DataError: there were not more rows than `dim`: they span fewer directions.
    """
    width = len(moments.mean)
    if not 1 <= dim <= width:
        raise OptionError(f"a projection of {width} dimensions keeps 1 to {width} of them, not {dim}")
    if moments.count <= dim:
        raise DataError(f"{moments.count} descriptors do not span {dim} directions; give more than {dim} patches")
    variances, vectors = torch.linalg.eigh(moments.covariance)
    variances, vectors = variances.flip(0).clamp(min=0), vectors.flip(1)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    components = (vectors * largest.sign())[:, :dim]
    kept = float(variances[:dim].sum() / variances.sum().clamp(min=1e-30))
    return Projection(components.float(), moments.mean.float(), variances[:dim].float(), kept, moments.count)


def descriptors_of(
    network: DescriptorNetwork, patches: PatchSet, rows: NDArray[np.intp], device: str = "cpu"
) -> Iterator[Tensor]:
    """Descriptors (n, D) of unit length of the given rows, block by block, before any projection.

    The measurement region of each stored patch is what the network is shown.
    """
    bare = network.fused().to(device)
    bare.project(None)
    identity = torch.eye(2, 3, device=device)
    for start in range(0, len(rows), BLOCK):
        part = rows[start : start + BLOCK]
        stored = torch.from_numpy(np.ascontiguousarray(patches.patches[part])).to(device)
        shown = crop(stored, identity.expand(len(part), 2, 3), network.patch_size, patches.margin)
        yield normalize(run_tiled(bare, shown), dim=1)


def fit_projection(
    network: DescriptorNetwork,
    sets: Iterable[PatchSet],
    dim: int,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    device: str = "cpu",
    advance: Callable[[int], object] = lambda count: None,
) -> Projection:
    """The projection of a network's descriptors to `dim` dimensions that keeps most of their variance.

    Args:
        network: its own projection, if it has one, is left out of account.
        sets: what to find the directions from; mapped sets are read in passing.
        dim: 1 to the network's width.
        sample: of larger sets together, so many patches drawn by `seed`, in equal shares.
        device: where the network runs.
        advance: told the number of patches done, block by block.

    Raises:
        OptionError: `dim` or `sample` cannot work.
        DataError: there are too few patches.
    """
    sets = list(sets)
    if not 1 <= dim <= network.width:
        raise OptionError(f"a projection of {network.width} dimensions keeps 1 to {network.width} of them, not {dim}")
    if sample < 1:
        raise OptionError(f"sample must be 1 or more, got {sample}")
    total, rng = sum(len(one) for one in sets), np.random.default_rng(seed)
    if min(total, sample) <= dim:  # told before the network has run for it
        raise DataError(f"{min(total, sample)} patches do not span {dim} directions; more than {dim} are needed")
    moments = Moments(network.width)
    for one in sets:
        share = min(len(one), round(sample * len(one) / total)) if total > sample else len(one)
        rows = np.sort(rng.permutation(len(one))[:share])
        for block in descriptors_of(network, one, rows, device):
            moments.add(block.cpu())
            advance(len(block))
    return principal_directions(moments, dim)
