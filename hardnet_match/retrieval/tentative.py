"""Tentative matches of one query with many images: features that share a visual word, all images at once."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

FARTHEST = 1e6
"""Pixels; a frame that lies farther out, or is not finite, is damage and takes no part."""


class HasGeometry(Protocol):
    """Frames and words of many images, as `Candidates` has them or an index gives them."""

    @property
    def lafs(self) -> NDArray[np.float32]:
        """(T, 2, 3) frames."""

    @property
    def words(self) -> NDArray[Any]:
        """(T,) visual words."""

    @property
    def offsets(self) -> NDArray[Any]:
        """(C + 1,), where each image starts."""


class Candidates(NamedTuple):
    """Frames and visual words of many images, one image behind the other.

    The arrays may be memory-mapped, as only rows that match are read from `lafs`.

    Args:
        lafs: (T, 2, 3) float32 frames in pixels of their image, pixel centres at integers.
        words: (T,) visual words.
        offsets: (C + 1,), image i has the rows offsets[i] to offsets[i + 1].
    """

    lafs: NDArray[np.float32]
    words: NDArray[Any]
    offsets: NDArray[Any]


class Tentative(NamedTuple):
    """Tentative matches, those of an image together, those of its rarest words first.

    The order within an image depends on the features themselves, never on the rows they are stored in.

    Args:
        image: (M,) int64, number of the candidate.
        query: (M,) int64, row of the query's feature.
        row: (M,) int64, row of the image's feature in the candidates' arrays.
        crowd: (M,) int64, the larger number of features of one side that share the word: a match in a crowd is as
            likely to be right as one out of so many.
        query_lafs, lafs: (M, 2, 3) float64 frames of both sides.
    """

    image: NDArray[np.int64]
    query: NDArray[np.int64]
    row: NDArray[np.int64]
    crowd: NDArray[np.int64]
    query_lafs: NDArray[np.float64]
    lafs: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image)


def tentative_matches(
    query_lafs: NDArray[np.float32],
    query_words: NDArray[Any],
    candidates: HasGeometry,
    max_matches: int = 1024,
) -> Tentative:
    """All pairs of a query feature and an image feature that share a visual word, rarest words first.

    A word that p features of the query and q of the image have gives p q matches (a burst: windows, foliage). Where an
    image has more than `max_matches`, its burstiest words are left out, each word wholly or not at all.

    Args:
        query_lafs: (N, 2, 3) frames of the query.
        query_words: (N,) or (N, MA) visual words of the query's features, multiple assignment in columns.
        candidates: frames, words and offsets of the images.
        max_matches: the most matches an image may have.

    Raises:
        DataError: shapes do not fit one another.
    """
    lafs, words = candidates.lafs, candidates.words
    flat = _checked_words(query_lafs, query_words)
    offsets = _checked_offsets(lafs, words, candidates.offsets)
    order = np.argsort(flat.words, kind="stable")
    owner = flat.owner[order]
    # Word -> how many query features have it and where they start; the last entry stands for all words beyond.
    known = int(flat.words.max()) + 1 if len(flat.words) else 0
    counts = np.append(np.bincount(flat.words, minlength=known), 0)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])

    word = np.minimum(words, known).astype(np.int64)
    rows = np.flatnonzero(counts[word])
    word, mine = word[rows], counts[word[rows]]
    image = np.searchsorted(offsets, rows, side="right") - 1
    group, size = _group(image * (known + 1) + word)
    theirs = size[group]
    kept = _least_bursty(image, word, mine, theirs, max_matches)
    rows, word, image, mine, theirs = rows[kept], word[kept], image[kept], mine[kept], theirs[kept]

    many = np.repeat(np.arange(len(rows)), mine)
    within = np.arange(len(many)) - np.repeat(np.cumsum(mine) - mine, mine)
    query = owner[starts[word[many]] + within]
    rows, image = rows[many], image[many]
    ours, others = np.asarray(query_lafs, np.float32)[query], np.asarray(lafs[rows], np.float32)
    sane = _sane(ours) & _sane(others)
    # Ties are broken by what the features are: bits of their frames, mixed.
    key = _mixed(ours) * np.uint64(0x9E3779B97F4A7C15) + _mixed(others)
    burst = (mine * theirs)[many]
    arranged = np.lexsort((key, burst, image))
    arranged = arranged[sane[arranged]]
    return Tentative(
        image[arranged],
        query[arranged],
        rows[arranged],
        np.maximum(mine, theirs)[many][arranged],
        ours[arranged].astype(np.float64),
        others[arranged].astype(np.float64),
    )


class _Flat(NamedTuple):
    words: NDArray[np.int64]
    owner: NDArray[np.int64]


def _checked_words(lafs: NDArray[Any], words: NDArray[Any]) -> _Flat:
    lafs, words = np.asarray(lafs), np.asarray(words)
    if lafs.ndim != 3 or lafs.shape[1:] != (2, 3):
        raise DataError(f"the query's frames must be (N, 2, 3), got {lafs.shape}")
    columns = words[:, None] if words.ndim == 1 else words
    if columns.ndim != 2 or len(columns) != len(lafs):
        raise DataError(f"the query's words must be ({len(lafs)},) or ({len(lafs)}, MA), got {words.shape}")
    if words.size and (words.dtype.kind not in "iu" or int(words.min()) < 0):
        raise DataError(f"words must be integers from 0 on, got {words.dtype} from {words.min()}")
    # Two equal words of one feature would make each of its matches twice.
    columns = np.sort(columns.astype(np.int64), axis=1)
    first = np.ones(columns.shape, bool)
    first[:, 1:] = columns[:, 1:] != columns[:, :-1]
    owner = np.broadcast_to(np.arange(len(lafs))[:, None], columns.shape)
    return _Flat(columns[first], owner[first])


def _checked_offsets(lafs: NDArray[Any], words: NDArray[Any], offsets: NDArray[Any]) -> NDArray[np.int64]:
    offsets = np.asarray(offsets, np.int64)
    if lafs.ndim != 3 or lafs.shape[1:] != (2, 3) or words.shape != (len(lafs),):
        raise DataError(f"candidates need frames (T, 2, 3) and words (T,), got {lafs.shape} and {words.shape}")
    if offsets.ndim != 1 or not len(offsets) or offsets[0] != 0 or offsets[-1] != len(lafs):
        raise DataError(f"offsets must go from 0 to {len(lafs)}, the number of frames")
    if (np.diff(offsets) < 0).any():
        raise DataError("offsets must not fall")
    return offsets


def _group(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the group of equal keys of each item, and the size of each group."""
    _, group, size = np.unique(key, return_inverse=True, return_counts=True)
    return group, size


def _least_bursty(
    image: NDArray[np.int64],
    word: NDArray[np.int64],
    mine: NDArray[np.int64],
    theirs: NDArray[np.int64],
    max_matches: int,
) -> NDArray[Any]:
    """Rows to keep so that no image has more matches than allowed; a word stays or goes as a whole."""
    total = np.bincount(image, weights=mine) if len(image) else np.zeros(1)
    if total.max() <= max_matches:
        return np.arange(len(image))
    order = np.lexsort((word, mine * theirs, image))
    so_far = np.cumsum(mine[order])
    before = np.concatenate([[0], np.cumsum(total)]).astype(np.int64)[image[order]]
    # The last row of a word says how many matches there are with the whole word.
    last = np.append((word[order][1:] != word[order][:-1]) | (image[order][1:] != image[order][:-1]), True)
    ends = np.flatnonzero(last)
    with_word = so_far[ends][np.searchsorted(ends, np.arange(len(order)))]
    return np.sort(order[with_word - before <= max_matches])


def _sane(lafs: NDArray[np.float32]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray((np.abs(lafs) < FARTHEST).all(axis=(1, 2)))


def _mixed(lafs: NDArray[np.float32]) -> NDArray[np.uint64]:
    """A number that a frame's bits decide (multiply-shift hashing)."""
    bits = np.ascontiguousarray(lafs).view(np.uint32).reshape(-1, 6).astype(np.uint64)
    odd = np.array(
        [0xD6E8FEB86659FD93, 0xA0761D6478BD642F, 0xE7037ED1A0B428DB, 0x8EBC6AF09C88C6E3, 0x589965CC75374CC3,
         0x1D8E4E27C47D124F], np.uint64
    )  # fmt: skip
    mixed = (bits * odd).sum(axis=1, dtype=np.uint64)
    mixed ^= mixed >> np.uint64(29)
    return np.asarray(mixed * np.uint64(0xBF58476D1CE4E5B9))
