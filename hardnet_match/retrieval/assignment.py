"""Nearest words of descriptors, through coarse cells: only the words of the cells around a descriptor are compared.

The words are grouped into cells around coarse centres. A descriptor is compared with the centres, then with the words
of the nearest cells; all descriptors that look into a cell do so in one matrix product, which is what makes this
faster than a graph or an inverted list walked descriptor by descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

# Cells a descriptor looks into. Of unseen HardNet descriptors and 65536 words, 8 / 12 / 16 / 32 cells give
# 92 / 95 / 97 / 99 of 100 their nearest word, and the others one hardly further: the mean squared distance grows by
# 1.9 / 1.1 / .5 / .1 per cent. ASMK's mAP on 224 photos of 12 places is .933 / .935 / .936 / .937.
PROBES = 12
# Below so many words a product with all of them is as fast.
FEW_WORDS = 1024
ROWS_AT_ONCE = 1 << 13
ROWS_RANKED_AT_ONCE = 256
# Similarities of one product, few enough to stay in the processor's cache.
PRODUCT_AT_ONCE = 1 << 20
COARSE_ITERATIONS = 10
WORDS_A_CENTRE = 128

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Cells:
    """Words grouped around coarse centres.

    Args:
        centres: (C, D) float32.
        order: (K,) uint32, the words, cell by cell.
        starts: (C + 1,) int64, cell c holds `order[starts[c]:starts[c + 1]]`.
    """

    centres: Floats
    order: NDArray[np.uint32]
    starts: NDArray[np.int64]
    NAMES: ClassVar[tuple[str, ...]] = ("centres", "order", "starts")

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What is stored of them."""
        return {name: getattr(self, name) for name in self.NAMES}

    @classmethod
    def build(cls, centroids: Floats, seed: int = 0) -> Cells:
        """Group the words by a few rounds of k-means among them; as many cells as make a search cheapest."""
        words = len(centroids)
        # Comparisons of one search are cells + PROBES * words / cells.
        count = 1 if words < FEW_WORDS else int(np.clip(2 ** np.round(np.log2(np.sqrt(PROBES * words) / 2)), 1, words))
        rng = np.random.default_rng(seed)
        centres = centroids[np.sort(rng.choice(words, count, replace=False))]
        sample = centroids[np.sort(rng.choice(words, min(words, WORDS_A_CENTRE * count), replace=False))]
        for _ in range(COARSE_ITERATIONS):
            centres = means(sample, nearest_of_all(sample, centres), centres)
        cell = nearest_of_all(centroids, centres)
        starts = np.zeros(count + 1, dtype=np.int64)
        np.cumsum(np.bincount(cell, minlength=count), out=starts[1:])
        return cls(centres, np.argsort(cell, kind="stable").astype(np.uint32), starts)

    def nearest(
        self, descriptors: Floats, centroids: Floats, k: int, *, probes: int = PROBES
    ) -> tuple[NDArray[np.uint32], Floats]:
        """The k nearest words of the cells around each descriptor.

        Args:
            centroids: (K, D), the words that the cells were built of.
            probes: cells to look into; as many as there are makes it exact.

        Returns:
            words (N, k) uint32, nearest first; squared distances (N, k) float32.
        """
        words = np.empty((len(descriptors), k), dtype=np.uint32)
        distances = np.empty((len(descriptors), k), dtype=np.float32)
        table = self._table(centroids)
        probes = min(probes, len(self.centres))
        step = max(ROWS_AT_ONCE * PROBES // max(probes, PROBES), 1)
        for start in range(0, len(descriptors), step):
            rows = slice(start, start + step)
            found = table.candidates(descriptors[rows], k, probes)
            words[rows], distances[rows] = _ranked(descriptors[rows], centroids, found, k)
        return words, distances

    def _table(self, centroids: Floats) -> _Table:
        if "table" not in self.__dict__:
            self.__dict__["table"] = _Table(self, centroids)
        table: _Table = self.__dict__["table"]
        return table


class _Table:
    """Words cell by cell as matrices to multiply with, each with minus half its squared length as a last element.

    With a 1 behind each descriptor, x . (c, -|c|^2 / 2) grows as the distance of x and c shrinks.
    """

    def __init__(self, cells: Cells, centroids: Floats) -> None:
        self.order, self.starts = cells.order, cells.starts
        self.fill = np.diff(cells.starts)
        self.centres = np.ascontiguousarray(lengthened(cells.centres).T)
        self.words = [
            np.ascontiguousarray(lengthened(centroids[self.order[start:end]]).T)
            for start, end in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True)
        ]

    def candidates(self, descriptors: Floats, k: int, probes: int) -> NDArray[np.int64]:
        """The best words of each descriptor and some to spare, (N, k + 2), in no order; -1 where there are no more."""
        rows = np.concatenate([descriptors, np.ones((len(descriptors), 1), np.float32)], axis=1)
        cells = self._cells_around(rows, probes, k)
        flat = cells.reshape(-1)
        order = np.argsort(flat.astype(np.uint16) if len(self.fill) < 1 << 16 else flat, kind="stable")
        ends = np.searchsorted(flat[order], np.arange(len(self.fill)), side="right").tolist()
        looking = order // cells.shape[1]
        # One more than asked for of each cell: which of two equally near ones a product prefers depends on its shape.
        best = np.full((len(flat), k + 1), -np.inf, dtype=np.float32)
        low = np.uint32((1 << int(self.fill.max()).bit_length()) - 1)
        columns = np.arange(self.fill.max(), dtype=np.uint32)
        start = 0
        for words, end in zip(self.words, ends, strict=True):
            count = words.shape[1]
            step = max(PRODUCT_AT_ONCE // max(count, 1), 1)
            for first in range(start, end if count else start, step):
                part = slice(first, min(first + step, end))
                closeness = rows.take(looking[part], axis=0) @ words
                best[order[part], :count] = _largest(closeness, min(k + 1, count), columns[:count], low)
            start = end
        place = (best.view(np.uint32) & low).astype(np.int64) + self.starts[flat][:, None]
        place[np.isneginf(best)] = -1
        best, place = best.reshape(len(rows), -1), place.reshape(len(rows), -1)
        spare = min(k + 2, best.shape[1])
        kept = np.argpartition(best, best.shape[1] - spare, axis=1)[:, best.shape[1] - spare :]
        found = np.take_along_axis(place, kept, axis=1)
        return np.where(found >= 0, self.order[found].astype(np.int64), -1)

    def _cells_around(self, rows: Floats, probes: int, k: int) -> NDArray[np.int64]:
        """(N, P) cells; P is raised until they hold k words whichever they are."""
        fewest = np.cumsum(np.sort(self.fill))
        probes = max(probes, int(np.searchsorted(fewest, k)) + 1)
        count = len(self.fill)
        if probes >= count:
            return np.tile(np.arange(count), (len(rows), 1))
        low = np.uint32((1 << count.bit_length()) - 1)
        found = _largest(rows @ self.centres, probes, np.arange(count, dtype=np.uint32), low)
        return (found.view(np.uint32) & low).astype(np.int64)


def _largest(values: Floats, keep: int, columns: NDArray[np.uint32], low: np.uint32) -> Floats:
    """The largest values of each row, (N, keep) in no order, their columns in place of their lowest bits.

    So written, values are partitioned several times faster than indices are by their values. Values that differ by
    less than those bits count as equal.

    Args:
        values: (N, C) float32; spent.
        columns: 0 to C - 1.
        low: mask of the lowest bits, of more bits than the largest column.
    """
    if keep == 2 < values.shape[1]:  # two passes for the maximum are faster still
        best = np.empty((len(values), 2), dtype=np.float32)
        rows = np.arange(len(values))
        for turn in range(2):
            column = values.argmax(axis=1)
            best[:, turn] = values[rows, column]
            bits = best.view(np.uint32)[:, turn]
            bits &= ~low
            bits |= column.astype(np.uint32)
            values[rows, column] = -np.inf
        return best
    bits = values.view(np.uint32)
    bits &= ~low
    bits |= columns
    values.partition(values.shape[1] - keep, axis=1)
    return values[:, values.shape[1] - keep :]


def _ranked(
    descriptors: Floats, centroids: Floats, found: NDArray[np.int64], k: int
) -> tuple[NDArray[np.uint32], Floats]:
    """The k best of the candidates by their true distance; equal ones by number, wherever they were found."""
    squared = np.empty(found.shape, dtype=np.float32)
    for start in range(0, len(found), ROWS_RANKED_AT_ONCE):
        rows = slice(start, start + ROWS_RANKED_AT_ONCE)
        away = centroids.take(found[rows], axis=0)
        away -= descriptors[rows, None]
        np.square(away, out=away).sum(axis=2, out=squared[rows])
    squared[found < 0] = np.inf
    first = np.lexsort((found, squared), axis=1)[:, :k]
    return np.take_along_axis(found, first, axis=1).astype(np.uint32), np.take_along_axis(squared, first, axis=1)


def lengthened(points: Floats) -> Floats:
    """Points with minus half their squared length behind them, (N, D + 1)."""
    half = np.einsum("nd,nd->n", points, points) / -2
    return np.concatenate([points, half[:, None]], axis=1)


def nearest_of_all(points: Floats, centres: Floats) -> NDArray[np.int64]:
    """The nearest centre of each point, by comparison with all, (N,) int64."""
    table = lengthened(centres)
    found = np.empty(len(points), dtype=np.int64)
    step = max(PRODUCT_AT_ONCE // len(centres), 1)
    for start in range(0, len(points), step):
        part = points[start : start + step]
        found[start : start + step] = (part @ table[:, :-1].T + table[:, -1]).argmax(axis=1)
    return found


def means(points: Floats, group: NDArray[np.int64], before: Floats) -> Floats:
    """The mean of each group's points; groups without points stay where they were before."""
    order = np.argsort(group, kind="stable")
    sorted_groups = group[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_groups[1:] != sorted_groups[:-1]]))
    sums = np.add.reduceat(points.take(order, axis=0), starts, axis=0)
    moved = before.copy()
    moved[sorted_groups[starts]] = sums / np.diff(np.append(starts, len(group)))[:, None]
    return moved
