"""Which observations of a reconstruction agree with the others of their track; all over arrays sorted by track."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError
from ..patchfile import PATCHES_AT_ONCE
from .base import Columns, ReadPatches

Tracks = NDArray[np.int64]


@dataclass(frozen=True)
class Filters:
    """Which observations are kept.

    Args:
        reprojection: farthest a keypoint may lie from its point's projection, pixels.
        size_octaves: most that a region's size on the surface may differ from its track's median, in octaves.
        correlation: least normalised correlation with the mean of the track's other patches; a detector's flipped
            orientation or an occluder falls through here.
        contrast: least standard deviation of a patch, grey levels of 255.
        max_views: observations kept of one track, evenly spread over its images.

    Raises:
        OptionError: a value that would keep nothing.
    """

    reprojection: float = 1.5
    size_octaves: float = 0.5
    correlation: float = 0.25
    contrast: float = 4.0
    max_views: int = 6

    def __post_init__(self) -> None:
        if self.max_views < 2:
            raise OptionError(f"a track needs at least two views to learn from, got at most {self.max_views}")
        if self.reprojection <= 0 or self.size_octaves <= 0 or not -1 <= self.correlation < 1:
            raise OptionError(f"these filters would keep nothing: {self}")


def refine(columns: Columns, read: ReadPatches, filters: Filters) -> NDArray[np.intp]:
    """Rows that agree in size and looks with the rest of their track, evenly thinned; no track keeps a single one."""
    track = columns["track"]
    rows = np.flatnonzero(agrees_in_size(track, columns["size"], filters.size_octaves))
    kept = [
        rows[part][agrees_in_looks(track[rows[part]], read(rows[part]), filters.correlation)]
        for part in _blocks_of_tracks(track[rows])
    ]
    rows = np.concatenate([np.zeros(0, np.intp), *kept])
    return rows[evenly(track[rows], filters.max_views)]


def _starts(track: Tracks) -> NDArray[np.intp]:
    return np.flatnonzero(np.r_[True, np.diff(track) > 0])[: len(track)]


def _blocks_of_tracks(track: Tracks) -> Iterator[slice]:
    """Slices of about `PATCHES_AT_ONCE` rows that cut no track in two."""
    bounds = np.r_[_starts(track), len(track)]
    begin = 0
    while begin < len(track):
        end = int(bounds[min(np.searchsorted(bounds, begin + PATCHES_AT_ONCE), len(bounds) - 1)])
        yield slice(begin, end)
        begin = end


def _group_sums(track: Tracks, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Sum of the rows of every track, given back to each of its rows; and the number of its rows."""
    starts = _starts(track)
    counts = np.diff(np.r_[starts, len(track)])
    group = np.repeat(np.arange(len(starts)), counts)
    return np.add.reduceat(values, starts, axis=0)[group], counts[group]


def agrees_in_size(track: Tracks, size: NDArray[np.float32], octaves: float) -> NDArray[np.bool_]:
    """(N,) bool: regions whose size on the surface is within `octaves` of their track's median."""
    log_size = np.log2(size)
    order = np.lexsort((log_size, track))  # tracks stay in place, sizes are sorted within each
    starts = _starts(track)
    counts = np.diff(np.r_[starts, len(track)])
    median = log_size[order][starts + counts // 2]
    near: NDArray[np.bool_] = np.abs(log_size - np.repeat(median, counts)) < octaves
    return near


def agrees_in_looks(track: Tracks, patches: NDArray[np.uint8], least: float) -> NDArray[np.bool_]:
    """(N,) bool: patches (N, 64, 64) that correlate with the mean of their track's others, where two at least do."""
    if not len(track):
        return np.zeros(0, dtype=bool)
    inner = patches[:, 16:48, 16:48].reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4), dtype=np.float32)
    inner = inner.reshape(len(track), -1)
    inner = inner - inner.mean(axis=1, keepdims=True)
    inner /= np.linalg.norm(inner, axis=1, keepdims=True) + 1e-6
    sums, counts = _group_sums(track, inner)
    others = sums - inner
    correlation = (inner * others).sum(axis=1) / (np.linalg.norm(others, axis=1) + 1e-6)
    agrees = (correlation > least) & (counts > 1)
    remaining, _ = _group_sums(track, agrees.astype(np.float32)[:, None])
    good: NDArray[np.bool_] = agrees & (remaining[:, 0] > 1)  # a track with one view left teaches nothing
    return good


def evenly(track: Tracks, most: int) -> NDArray[np.bool_]:
    """(N,) bool: at most so many rows of a track, evenly spread over it."""
    starts = _starts(track)
    counts = np.diff(np.r_[starts, len(track)])
    place = np.arange(len(track)) - np.repeat(starts, counts)
    step = np.maximum(np.repeat(counts, counts), most)
    # row i of n is kept when it is the first to reach another of `most` equal steps
    return np.asarray(((place * most) // step != ((place - 1) * most) // step) | (place == 0))
