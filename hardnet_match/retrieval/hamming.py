"""Hamming embedding: where in the cell of its word a descriptor lies, as a binary signature.

Jegou, Douze, Schmid: Improving bag-of-features for large scale image search, IJCV 2010. Descriptors are projected by
an orthogonal matrix, and each bit says whether a projection is above the median of its word's descriptors. Two
features of one word match if their signatures are close, and the closer, the more they count.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError
from .bits import hamming, pack_signs, unpack_signs
from .method import Postings, Run, View

if TYPE_CHECKING:
    from .codebook import Codebook

PROJECTIONS = ("random", "pca")
# The median of fewer descriptors says less of a word's cell than its centroid, a mean of all it was trained on.
FEWEST = 8
DESCRIPTORS_AT_ONCE = 1 << 16
PAIRS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Embedding:
    """What makes signatures of descriptors.

    Args:
        projection: (B, D) float32; its rows are orthonormal, as many at a time as there are dimensions.
        thresholds: (K, B) float16 or float32, one a word and bit.
    """

    projection: NDArray[np.float32]
    thresholds: NDArray[Any]

    @property
    def bits(self) -> int:
        """B, the length of a signature."""
        return len(self.projection)

    @classmethod
    def learn(
        cls,
        codebook: Codebook,
        bits: int,
        *,
        seed: int = 0,
        projection: str = "random",
        sample: NDArray[Any] | None = None,
    ) -> Embedding:
        """The projection, and the median of each word's descriptors.

        Args:
            bits: length of a signature.
            seed: of the rotation.
            projection: `random`, or `pca`: onto the directions in which descriptors differ most from their words,
                randomly rotated among themselves so that all bits tell as much; needs a sample.
            sample: (M, D) descriptors. A word with few of them, all words without a sample, take the projection of
                their centroid for the median.

        Raises:
            OptionError: a value cannot work.
            DataError: the sample is not of the codebook's kind.
        """
        if projection not in PROJECTIONS:
            raise OptionError(f"a projection is one of {', '.join(PROJECTIONS)}, not {projection!r}")
        if bits < 1 or seed < 0:
            raise OptionError(f"signatures need at least one bit and a seed from 0 on, got {bits} and {seed}")
        rng = np.random.default_rng(seed)
        words = None if sample is None else codebook.assign(sample)[:, 0]
        if projection == "pca":
            if sample is None or words is None or not len(sample):
                raise OptionError("a projection by pca is learnt from a sample of descriptors: give one, or use random")
            if bits > codebook.dim:
                raise OptionError(f"pca of descriptors of dimension {codebook.dim} gives no {bits} bits")
            spread = np.zeros((codebook.dim, codebook.dim))
            for start in range(0, len(sample), DESCRIPTORS_AT_ONCE):
                part = slice(start, start + DESCRIPTORS_AT_ONCE)
                off = codebook.checked(sample[part]) - codebook.centroids[words[part]]
                spread += off.T.astype(np.float64) @ off
            main = np.linalg.eigh(spread)[1][:, ::-1][:, :bits].T
            rows = _rotation(rng, bits) @ main
        else:
            blocks = [_rotation(rng, codebook.dim) for _ in range(-(-bits // codebook.dim))]
            rows = np.concatenate(blocks)[:bits]
        rows = rows.astype(np.float32)
        thresholds = np.asarray(codebook.centroids, np.float32) @ rows.T
        if sample is not None and words is not None:
            _medians(thresholds, codebook.checked(sample) @ rows.T, words)
        return cls(rows, thresholds.astype(np.float16))

    def signatures(self, descriptors: NDArray[np.float32], words: NDArray[Any]) -> NDArray[np.uint64]:
        """Signatures (N, ceil(B / 64)) uint64 of descriptors (N, D) as features of words (N,).

        Raises:
            DataError: the shapes do not fit.
        """
        if (
            descriptors.ndim != 2
            or descriptors.shape[1] != self.projection.shape[1]
            or words.shape != (len(descriptors),)
        ):
            raise DataError(
                f"descriptors must be (N, {self.projection.shape[1]}) with a word each, "
                f"got {descriptors.shape} and {words.shape}"
            )
        # NaN of an overflown threshold compares as below: a bit that tells nothing, not a warning.
        return pack_signs(descriptors @ self.projection.T - self.thresholds[words].astype(np.float32))


def tolerance(bits: int, threshold: int, sigma: float) -> NDArray[np.float64]:
    """What a match at each distance 0..bits counts: exp(-(h / sigma)^2) up to the threshold, then nothing."""
    distance = np.arange(bits + 1)
    return np.where(distance <= threshold, np.exp(-((distance / sigma) ** 2)), 0.0)


def majority(
    words: NDArray[np.uint32], signatures: NDArray[np.uint64], weights: NDArray[np.float64] | None, bits: int
) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
    """One signature a word: every bit as most of the word's signatures have it, by weight.

    Where they are even, word and bit decide, as good as a coin and the same every time.

    Args:
        words: (N,) in any order.
        signatures: (N, W) uint64.
        weights: (N,) above 0; all as much if None.

    Returns:
        words (U,), ascending, and their signatures (U, W).
    """
    order = np.argsort(words, kind="stable")
    unique, starts = np.unique(words[order], return_index=True)
    if not len(unique):
        return unique, signatures
    votes = 2.0 * unpack_signs(signatures[order], bits) - 1.0
    if weights is not None:
        votes *= weights[order, None]
    sums = np.add.reduceat(votes, starts, axis=0)
    mixed = unique.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15) + np.arange(bits, dtype=np.uint64)
    coin = np.right_shift(mixed * np.uint64(0xBF58476D1CE4E5B9), np.uint64(63)) == 1
    even = np.abs(sums) < 1e-9
    return unique, pack_signs(np.where(even, coin, sums > 0))


class Matches(NamedTuple):
    """Features of an index that are close to rows of a query.

    Args:
        query: (M,) int64 rows of the query's postings; all of one row and image are next to one another.
        images: (M,) int64.
        distances: (M,) bits that differ.
    """

    query: NDArray[np.int64]
    images: NDArray[np.int64]
    distances: NDArray[np.uint16]


def matches(query: Postings, view: View, threshold: int) -> Iterator[Matches]:
    """All postings of an index within `threshold` bits of the query's posting of the same word, a part at a time.

    Args:
        query: words ascending (a word as often as there are features of it), payload `signatures`.
        view: an index with payload `signatures`.
    """
    words, starts, counts = np.unique(query.words, return_index=True, return_counts=True)
    own = query.payload["signatures"]
    for run in view.gather(words, ["signatures"]):
        theirs = run.payload["signatures"]
        for first, last in _parts(run, counts):
            rows = run.rows[first:last]
            begins = np.flatnonzero(np.concatenate([[True], rows[1:] != rows[:-1]]))
            word = rows[begins]
            postings = np.diff(np.append(begins, len(rows)))
            # Each of a word's query features with all of its postings, one feature after the other.
            pairs = counts[word] * postings
            many = np.repeat(np.arange(len(word)), pairs)
            within = np.arange(len(many)) - np.repeat(np.cumsum(pairs) - pairs, pairs)
            feature, posting = np.divmod(within, postings[many])
            feature += starts[word[many]]
            posting += first + begins[many]
            distances = hamming(own[feature], theirs[posting])
            close = np.flatnonzero(distances <= threshold)
            yield Matches(feature[close], run.images[posting[close]], distances[close])


def _parts(run: Run, counts: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Cut a run, between words, where it makes too many pairs with the query."""
    pairs = np.cumsum(counts[run.rows])
    start = 0
    while start < len(pairs):
        before = int(pairs[start - 1]) if start else 0
        stop = max(int(np.searchsorted(pairs, before + PAIRS_AT_ONCE, side="right")), start + 1)
        # The whole of the last word: matches of a query feature with one image stay together.
        stop = int(np.searchsorted(run.rows, run.rows[stop - 1], side="right"))
        yield start, stop
        start = stop


def _rotation(rng: np.random.Generator, dim: int) -> NDArray[np.float64]:
    """A random rotation, every one as likely as any other."""
    q, r = np.linalg.qr(rng.normal(size=(dim, dim)))
    return np.asarray(q * np.sign(np.diag(r)))


def _medians(thresholds: NDArray[np.float32], projected: NDArray[np.float32], words: NDArray[Any]) -> None:
    """Put the median of each word with enough descriptors in its row; words of equally many are done together."""
    order = np.argsort(words, kind="stable")
    word, starts, counts = np.unique(words[order], return_index=True, return_counts=True)
    for count in np.unique(counts[counts >= FEWEST]).tolist():
        same = np.flatnonzero(counts == count)
        step = max(1, DESCRIPTORS_AT_ONCE // count)
        for first in range(0, len(same), step):
            some = same[first : first + step]
            rows = order[starts[some][:, None] + np.arange(count)]
            thresholds[word[some]] = np.median(projected[rows], axis=1)
