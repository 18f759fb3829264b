"""What a sampler hands to the training step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..patchset import PatchSet

OVERLAP = 0.5
"""Two places are one when their centres lie within this share of the larger region's radius."""


@dataclass(frozen=True, eq=False)
class Place:
    """Where the patches of a batch lie.

    Args:
        position: (2, B, 3) float32, of the first two views; NaN where a set has no geometry.
        size: (2, B) float32, radius of the region in the same unit.
        scene: (2, B) int32; places are only compared within a scene.
    """

    position: NDArray[np.float32]
    size: NDArray[np.float32]
    scene: NDArray[np.int32]

    def same(self, device: torch.device | str = "cpu") -> Tensor:
        """(B, B) bool: does the first view of column i show about the same place as the second of column j?"""
        position, size, scene = (torch.from_numpy(a).to(device) for a in (self.position, self.size, self.scene))
        # Differences, not products: coordinates of a survey are large against its regions.
        distance = torch.cdist(position[0], position[1], compute_mode="donot_use_mm_for_euclid_dist")
        reach = OVERLAP * torch.maximum(size[0][:, None], size[1][None])
        return (distance < reach) & (scene[0][:, None] == scene[1][None])


@dataclass(frozen=True, eq=False)
class Batch:
    """V views of B labels, column by column; what is not in memory of a patch set has been read.

    Args:
        stored: (V, C, S, S) uint8 patches with their margin, of the columns asked for: C = B unless a part was.
        label: (V, B) int64. Equal numbers, equal class; the labels of row 0 all differ. With random negatives the last
            row holds other labels.
        image: (V, B) int32, the image (camera) of each patch.
        itself: (B,) bool, the second view is the very patch that the first one is.
        margin: side of a stored patch over the side of the measurement region.
        place: where the patches lie, or None where the set does not know.
        collisions: (K, 2) columns whose labels are known to overlap, both ways round, or None.
        columns: which of the B columns `stored` holds; all when None.
        source: number of the set within a mix that took the whole batch from one; 0 otherwise.
    """

    stored: NDArray[np.uint8]
    label: NDArray[np.int64]
    image: NDArray[np.int32]
    itself: NDArray[np.bool_]
    margin: float
    place: Place | None = None
    collisions: NDArray[np.int64] | None = None
    columns: slice | None = None
    source: int = 0

    def __len__(self) -> int:
        return int(self.label.shape[1])

    @cached_property
    def same(self) -> NDArray[np.bool_] | None:
        """(B, B) bool, pairs (i, j) that are no negatives although their labels differ; None without geometry."""
        same = self._same("cpu")
        return None if same is None else same.numpy()

    def _same(self, device: torch.device | str) -> Tensor | None:
        same = None if self.place is None else self.place.same(device)
        if self.collisions is not None:
            if same is None:
                same = torch.zeros(len(self), len(self), dtype=torch.bool, device=device)
            one, other = torch.from_numpy(self.collisions).to(device).T
            same[one, other] = True
        return same

    def on(self, device: torch.device | str) -> TensorBatch:
        """The same on a device; `same` is worked out there."""
        where = torch.device(device)

        def moved(array: NDArray[np.generic]) -> Tensor:
            tensor = torch.from_numpy(array)
            return tensor.pin_memory().to(where, non_blocking=True) if where.type == "cuda" else tensor.to(where)

        return TensorBatch(
            moved(self.stored),
            moved(self.label),
            moved(self.itself),
            self._same(where),
            self.margin,
            self.columns,
            self.source,
        )


@dataclass(frozen=True, eq=False)
class TensorBatch:
    """A batch as tensors on one device: `stored` (V, C, S, S) uint8, `label` (V, B), `itself` (B,), `same` (B, B)."""

    stored: Tensor
    label: Tensor
    itself: Tensor
    same: Tensor | None
    margin: float
    columns: slice | None = None
    source: int = 0


class Sampler(Protocol):
    """Anything that draws batches."""

    @property
    def labels(self) -> int:
        """How many labels there are to draw from: the largest batch."""

    @property
    def views(self) -> int:
        """V of its batches."""

    def batch(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        progress: float | None = None,
        columns: slice | None = None,
    ) -> Batch:
        """Draw `count` labels, each once, and V patches of each.

        Args:
            count: B.
            rng: what is drawn depends on it and on `progress` alone.
            progress: share of the epoch that is done, in [0, 1); only a mix of sets by epoch needs it.
            columns: read only the patches of these columns, say of one process of several; all else is of the whole
                batch, and what is drawn is the same.

        Raises:
            DataError: there are fewer labels than `count`.
        """


def read(observations: PatchSet, rows: NDArray[np.intp], columns: slice | None = None) -> Batch:
    """The batch of rows (V, B) of a set: row v, column b is view v of the b-th label.

    Args:
        observations: the set.
        rows: which observations.
        columns: of which columns to read the patches.
    """
    part = slice(None) if columns is None else columns
    wanted = rows[:, part]
    # one pass over the wanted rows alone: this is most of the cost of a batch
    stored = np.take(np.asarray(observations.patches), wanted, axis=0)
    place = None
    if observations.position is not None and observations.size is not None:
        two = rows[:2]
        place = Place(observations.position[two], observations.size[two], observations.scene[two])
    return Batch(
        stored,
        observations.track[rows],
        observations.image[rows],
        rows[0] == rows[1],
        observations.margin,
        place,
        _collisions(observations, observations.track[rows[0]]),
        columns,
    )


def _collisions(observations: PatchSet, label: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Pairs of columns, both ways round, of which the set says that they overlap."""
    if observations.collisions is None:
        return None
    order = np.argsort(label)
    known = label[order]
    place = np.searchsorted(known, observations.collisions)
    there = (known[np.minimum(place, len(known) - 1)] == observations.collisions).all(axis=1)
    one, other = order[place[there]].T
    return np.stack([np.r_[one, other], np.r_[other, one]], axis=1).astype(np.int64)
