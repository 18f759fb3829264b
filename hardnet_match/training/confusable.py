"""Batches of points that a descriptor confuses: the hardest negative of a batch is as hard as those who are in it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ..inference import PatchNetwork, run_tiled
from .augment import Warp
from .augment.frames import crop, random_frames
from .patchset import PatchSet
from .sampling import PairSampler

NEIGHBOURS = 12
"""Points that are kept as those a point is confused with."""
_AT_ONCE = 1024


class ConfusableSampler(PairSampler):
    """Pairs, a share of every batch from groups of points that look alike to a descriptor.

    A photo has thousands of keypoints, a batch a hundred: drawn at random, the nearest other point of a repeated
    window or brick is almost never in the batch.

    Args:
        observations: what to draw from.
        network: says what looks alike; it is not changed.
        group: points of a group; the batch is made of such groups.
    """

    def __init__(self, observations: PatchSet, network: PatchNetwork, group: int = 8) -> None:
        super().__init__(observations, focus=0.0)
        self.group = group
        self.alike = self._alike(network)

    def _alike(self, network: PatchNetwork) -> NDArray[np.int64]:
        """(L, K) the points nearest to each by the descriptor of one patch; those of its own place are left out."""
        ready = network.eval().fused().cpu()
        rows = self.classes.starts
        plain = random_frames(len(rows), Warp(), torch.Generator())
        shown = crop(torch.from_numpy(self.set.patches[rows]), plain, network.patch_size, self.set.margin)
        descriptors = run_tiled(ready, shown)
        count = min(NEIGHBOURS, len(rows) - 1)
        out = np.empty((len(rows), count), dtype=np.int64)
        for start in range(0, len(rows), _AT_ONCE):
            some = slice(start, start + _AT_ONCE)
            distance = torch.cdist(descriptors[some], descriptors)
            distance[torch.from_numpy(self.same_place(rows[some], rows))] = torch.inf
            out[some] = distance.topk(count, largest=False).indices.numpy()
        return out

    def choose(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """See `TupleSampler.choose`."""
        self.classes.check(count)
        order = rng.permutation(self.labels)
        seeds = order[: -(-count // self.group)]
        friends = self.alike[seeds[:, None], rng.integers(0, self.alike.shape[1], (len(seeds), self.group - 1))]
        # Groups first, whole; whoever is met twice makes room for points drawn at random.
        every = np.concatenate([np.c_[seeds, friends].ravel(), order])
        _, first = np.unique(every, return_index=True)
        return np.asarray(every[np.sort(first)[:count]])
