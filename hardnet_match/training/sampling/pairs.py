"""Pairs and tuples of patches of one class, no class twice in a batch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, OptionError
from ..patchset import PatchSet
from .batch import OVERLAP, Batch, read
from .classes import Classes


class TupleSampler:
    """Draws batches of V patches of each label, different ones where the label has so many.

    A label with fewer patches than V gives each of them before it repeats any.

    Args:
        observations: what to draw from.
        views: V, two or more.
        few_images: fill a batch with the labels of few randomly drawn images (the original's `fewcams`).
        focus: share of the batch that comes from one scene, see `Classes.choose`; without effect under `few_images`.

    Raises:
        DataError: the set is empty.
        OptionError: fewer than two views.
    """

    def __init__(self, observations: PatchSet, views: int = 2, *, few_images: bool = False, focus: float = 0.0) -> None:
        if views < 2:
            raise OptionError(f"a positive needs at least two views of a label, got {views}")
        if not 0 <= focus <= 1:
            raise OptionError(f"focus is a share between 0 and 1, got {focus}")
        self.set = observations
        self.classes = Classes(observations)
        self.views = views
        self.few_images = few_images
        self.focus = focus

    @property
    def labels(self) -> int:
        """How many labels there are."""
        return len(self.classes)

    def choose(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """(count,) different labels, counted within the set."""
        if self.few_images:
            return self.classes.choose_from_few_images(count, rng)
        return self.classes.choose(count, rng, self.focus)

    def rows(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """(V, count) rows of the set: its columns are of different labels."""
        label = self.choose(count, rng)
        return self.classes.starts[label] + without_repeats(self.classes.counts[label], self.views, rng)

    def batch(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        progress: float | None = None,
        columns: slice | None = None,
    ) -> Batch:
        """See `Sampler.batch`."""
        return read(self.set, self.rows(count, rng), columns)


class PairSampler(TupleSampler):
    """Draws batches of pairs of observations, each pair of another track.

    Args:
        observations: what to draw from.
        focus: share of the batch that comes from one scene, where negatives are hardest.
        wide: of two partners drawn, take the one seen from the more different direction, where directions are known.
        negatives: add a third row to a batch: a patch of another label, drawn from the whole set (`random_global`).

    Raises:
        DataError: the set is empty, or has but one label and negatives are asked for.
    """

    def __init__(
        self, observations: PatchSet, focus: float = 0.5, *, wide: bool = True, negatives: bool = False
    ) -> None:
        super().__init__(observations, 2, focus=focus)
        self.wide = wide
        self.negatives = negatives
        self.views = 3 if negatives else 2
        if negatives and self.labels < 2:
            raise DataError("negatives need a patch set of at least two labels")

    @property
    def counts(self) -> NDArray[np.intp]:
        """(L,) observations of every label."""
        return self.classes.counts

    def rows(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """(2, count) rows of the set, or (3, count) with negatives."""
        self.classes.check(count)
        rows = np.stack(self.pairs(count, rng, wide=self.wide))
        if not self.negatives:
            return rows
        # A few candidates each, and the first that is of another label and another place.
        candidates = rng.integers(0, len(self.set), (4, count))
        bad = self.set.track[candidates] == self.set.track[rows[0]]
        near = bad | self._near(rows[0], candidates)
        one = (
            np.searchsorted(self.classes.starts, rows[0], side="right") + rng.integers(0, self.labels - 1, count)
        ) % (self.labels)
        fallback = self.classes.starts[one]
        choice = candidates[near.argmin(axis=0), np.arange(count)]
        return np.concatenate([rows, np.where(near.all(axis=0), fallback, choice)[None]])

    def _near(self, rows: NDArray[np.intp], others: NDArray[np.intp]) -> NDArray[np.bool_]:
        """(K, N): does others (K, N) show the place of rows (N,)?"""
        position, size, scene = self.set.position, self.set.size, self.set.scene
        if position is None or size is None:
            return np.zeros(others.shape, dtype=bool)
        gap = np.linalg.norm(position[rows] - position[others], axis=2)
        reach = OVERLAP * np.maximum(size[rows], size[others])
        return np.asarray((gap < reach) & (scene[rows] == scene[others]))

    def pairs(
        self, count: int, rng: np.random.Generator, *, wide: bool = True
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Observations (B,), (B,) of the same tracks, from different images where the track has several.

        Args:
            count: B; fewer when the set has fewer tracks.
            rng: what is drawn depends on it alone.
            wide: of two partners drawn, take the one seen from the more different direction.
        """
        label = self.choose(min(count, self.labels), rng)
        direction = self.set.direction
        wide = wide and direction is not None
        start, views = self.classes.starts[label], self.classes.counts[label]
        first = rng.integers(0, views)
        partners = [(first + 1 + rng.integers(0, np.maximum(views - 1, 1))) % views for _ in range(2 if wide else 1)]
        rows = [start + partner for partner in partners]
        first = start + first
        if wide and direction is not None:
            closeness = [np.einsum("ij,ij->i", direction[first], direction[row]) for row in rows]
            rows[0] = np.where(closeness[1] < closeness[0], rows[1], rows[0])
        return first, rows[0]

    def same_place(
        self, first: NDArray[np.intp], second: NDArray[np.intp], overlap: float = OVERLAP
    ) -> NDArray[np.bool_]:
        """(A, B) bool: which observations are no negatives of each other; the same track where no places are known."""
        same = self.set.same_place(first, second, overlap)
        return np.asarray(self.set.track[first][:, None] == self.set.track[second][None]) if same is None else same


def without_repeats(counts: NDArray[np.intp], views: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """(views, N) numbers below counts (N,), every column without repeats as long as its count allows."""
    columns = np.arange(len(counts))
    out = np.zeros((views, len(counts)), dtype=np.intp)
    for view in range(views):
        draw = rng.integers(0, np.maximum(counts - view, 1))
        for smaller in np.sort(out[:view], axis=0):  # count only those not drawn yet
            draw = draw + (draw >= smaller)
        out[view] = np.where(view < counts, draw, out[view % counts, columns])
    return out
