"""Spatial verification of many images at once: do the features that share words with the query move as one plane?

Every tentative match is an affine hypothesis of its own, as its two frames say how one patch goes onto the other
(Philbin et al., CVPR 2007; Perdoch et al., CVPR 2009). All hypotheses of an image are scored on all its matches, the
best ones refined by weighted least squares over their inliers (Chum et al., DAGM 2003), and the winner's inliers made
one-to-one. Nothing is drawn at random, and nothing depends on the order of the features or on the other images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, OptionError
from ..frames import make_upright
from .affine import Array, Limits, from_frames, moments
from .consensus import agree, one_to_one, refine, score
from .tentative import HasGeometry, Tentative, tentative_matches

# Matches of an image are padded to one of these counts, so that what is computed for it never depends on others.
PADDED = np.array([4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096])
# Matches refined at a time, which hides numpy's overhead, and residuals of hypotheses held at a time, which a
# processor's cache must hold.
MATCHES_AT_ONCE = 1 << 14
RESIDUALS_AT_ONCE = 1 << 17


@dataclass(frozen=True)
class Settings:
    """How images are verified.

    Args:
        threshold: the farthest an inlier may be off, in pixels of whichever of the two images shows it larger.
        upright: all photos were held upright: the orientation of frames is not looked at.
        similarity: hypotheses have only the scale and rotation of their frames, not the affine shape; refinement is
            affine all the same.
        max_matches: tentative matches of an image; the burstiest words are left out first.
        max_hypotheses: matches of an image that are tried as hypotheses, the least bursty first.
        refined: the best hypotheses of an image that are refined.
        rounds: rounds of least squares.
        agreement: the largest ratio of sizes and the largest angle in degrees between an inlier's own hypothesis and
            the image's transform; None not to look.
        limits: which transforms are believed.
    """

    threshold: float = 16.0
    upright: bool = False
    similarity: bool = False
    max_matches: int = 1024
    max_hypotheses: int = 512
    refined: int = 3
    rounds: int = 4
    agreement: tuple[float, float] | None = (2.0, 30.0)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.threshold) and self.threshold > 0):
            raise OptionError(f"the threshold must be some pixels, got {self.threshold}")
        if not 1 <= self.max_matches <= PADDED[-1]:
            raise OptionError(f"max_matches must be 1 to {PADDED[-1]}, got {self.max_matches}")
        if min(self.max_hypotheses, self.refined) < 1 or self.rounds < 0:
            raise OptionError("verification needs at least one hypothesis, one of them refined, and rounds >= 0")
        if self.agreement is not None and not (self.agreement[0] >= 1 and self.agreement[1] >= 0):
            raise OptionError(f"agreement is a ratio of 1 or more and an angle of 0 or more, got {self.agreement}")


@dataclass(frozen=True, eq=False)
class Verified:
    """What verification found of each candidate.

    Args:
        inliers: (C,) int32, number of one-to-one inliers.
        transforms: (C, 2, 3) float64, pixels of the query to pixels of the image; zero where there are no inliers.
        pairs: (P, 2) int64, inliers of all candidates: row of the query's feature, row of the image's own feature.
        offsets: (C + 1,) int64; candidate i has the pairs offsets[i] to offsets[i + 1], closest first.
        tentative: (C,) int32, number of tentative matches looked at.
    """

    inliers: NDArray[np.int32]
    transforms: NDArray[np.float64]
    pairs: NDArray[np.int64]
    offsets: NDArray[np.int64]
    tentative: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.inliers)

    def pairs_of(self, i: int) -> NDArray[np.int64]:
        """Inliers of candidate i, (n, 2) rows into the query's and the image's features."""
        return self.pairs[self.offsets[i] : self.offsets[i + 1]]


def verify(
    query_lafs: NDArray[np.float32],
    query_words: NDArray[Any],
    candidates: HasGeometry,
    threshold: float | None = None,
    upright: bool | None = None,
    *,
    settings: Settings | None = None,
) -> Verified:
    """Verify candidate images against a query.

    Args:
        query_lafs: (N, 2, 3) frames of the query's features in pixels.
        query_words: (N,) or (N, MA) their visual words.
        candidates: lafs (T, 2, 3), words (T,) and offsets (C + 1,) of the images, one behind the other.
        threshold, upright: in place of those of `settings`.
        settings: how; the defaults of `Settings` if None.

    Raises:
        DataError: shapes do not fit one another.
        OptionError: a setting cannot work.
    """
    settings = settings or Settings()
    if threshold is not None:
        settings = replace(settings, threshold=float(threshold))
    if upright is not None:
        settings = replace(settings, upright=upright)
    matches = tentative_matches(query_lafs, query_words, candidates, settings.max_matches)
    count = len(candidates.offsets) - 1
    ends = np.searchsorted(matches.image, np.arange(count + 1))
    table = _Table.of(matches, ends, settings)

    inliers, transforms = np.zeros(count, np.int32), np.zeros((count, 2, 3))
    found = [_verify_block(table, images, size, settings) for images, size in _blocks(np.diff(ends), settings)]
    for block in found:
        inliers[block.images], transforms[block.images] = block.inliers, block.transforms
    offsets = np.concatenate([[0], np.cumsum(inliers, dtype=np.int64)])
    rows = np.concatenate([block.rows for block in found]) if found else np.zeros(0, np.int64)
    rows = rows[np.argsort(matches.image[rows], kind="stable")]
    first = np.asarray(candidates.offsets, np.int64)[matches.image[rows]]
    pairs = np.stack([matches.query[rows], matches.row[rows] - first], axis=1)
    return Verified(inliers, transforms, pairs, offsets, np.diff(ends).astype(np.int32))


def rerank(scores: ArrayLike, inliers: ArrayLike, minimum: int = 5) -> NDArray[np.int64]:
    """Order of a short list after verification: images with `minimum` inliers or more first, most inliers first.

    Among equals, and for all others, the score decides, then the order given: an image that failed verification is
    below those that passed, and where the first ranking had it among the rest.

    Args:
        scores: (C,) scores of the first ranking.
        inliers: (C,) inliers of the same images.

    Returns:
        (C,) int64, positions in the order given, best first.

    Raises:
        DataError: the two are not of one length.
    """
    scores, inliers = np.asarray(scores, np.float64), np.asarray(inliers)
    if scores.shape != inliers.shape or scores.ndim != 1:
        raise DataError(f"scores and inliers must be one each an image, got {scores.shape} and {inliers.shape}")
    return np.lexsort((-scores, -np.where(inliers >= minimum, inliers, 0))).astype(np.int64)


class _Table(NamedTuple):
    """What the blocks read of the matches; centres are relative to an origin in each image, for precision."""

    matches: Tentative
    ends: NDArray[np.int64]
    hypotheses: Array  # (M, 2, 3), zero where not to be believed
    hypothesis_rows: NDArray[np.int64]  # the matches whose hypotheses are to be believed
    hypothesis_ends: NDArray[np.int64]  # where those of each image start among them
    moments: Array  # (M, 12)
    points: NDArray[np.float32]  # (M, 4) x y u v
    weight: NDArray[np.float32]  # (M,)
    origin: Array  # (C, 2) of the query, for each image
    origins: Array  # (C, 2) of the images

    @staticmethod
    def of(matches: Tentative, ends: NDArray[np.int64], settings: Settings) -> _Table:
        first, second = matches.query_lafs, matches.lafs
        if settings.upright:
            first, second = (make_upright(lafs).astype(np.float64) for lafs in (first, second))
        # The middle between the extremes of each image's matches, on both sides: unlike a mean it does not know of
        # their order, and whatever the other images are, this one's is the same.
        origins, origin = np.zeros((2, len(ends) - 1, 2))
        some = np.flatnonzero(np.diff(ends))
        for middle, lafs in ((origin, first), (origins, second)):
            if len(some):
                low, high = (each.reduceat(lafs[..., 2], ends[some], axis=0) for each in (np.minimum, np.maximum))
                middle[some] = (low + high) / 2
        first, second = first.copy(), second.copy()
        first[..., 2] -= origin[matches.image]
        second[..., 2] -= origins[matches.image]
        hypotheses = from_frames(first, second, similarity=settings.similarity)
        believed = settings.limits.allow(hypotheses)
        hypotheses[~believed] = 0
        rows = np.flatnonzero(believed)
        row_ends = np.searchsorted(rows, ends)
        points = np.concatenate([first[..., 2], second[..., 2]], axis=1).astype(np.float32)
        weight = (1 / matches.crowd).astype(np.float32)
        return _Table(
            matches, ends, hypotheses, rows, row_ends, moments(first, second), points, weight, origin, origins
        )  # fmt: skip


class _Block(NamedTuple):
    images: NDArray[np.int64]
    inliers: NDArray[np.int64]
    transforms: Array
    rows: NDArray[np.int64]


def _blocks(counts: NDArray[np.int64], settings: Settings) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Images with about equally many matches, as many as fit the memory, and the count they are padded to."""
    padded = PADDED[np.searchsorted(PADDED, counts)]
    for size in np.unique(padded[counts > 0]).tolist():
        images = np.flatnonzero((padded == size) & (counts > 0))
        step = max(1, MATCHES_AT_ONCE // size)
        for start in range(0, len(images), step):
            yield images[start : start + step], size


def _verify_block(table: _Table, images: NDArray[np.int64], size: int, settings: Settings) -> _Block:
    start, count = table.ends[images], np.diff(table.ends)[images]
    inside = np.arange(size) < count[:, None]
    rows = np.where(inside, start[:, None] + np.arange(size), start[:, None])
    weight = np.where(inside, table.weight[rows], np.float32(0))

    start, usable = _promising(table, images, rows, weight, settings)
    models = table.hypotheses[start]
    models, error, worth = refine(
        models, table.points[rows], table.moments[rows], weight, settings.threshold, settings.rounds, settings.limits
    )

    # Every refined hypothesis of every image is a little problem of its own: its inliers, made one-to-one.
    problem, match = np.nonzero(((error < 1) & (inside[:, None] & usable[..., None])).reshape(-1, size))
    errors = error.reshape(-1, size)[problem, match]
    found = rows[problem // usable.shape[1], match]
    if settings.agreement:
        same = agree(table.hypotheses[found], models.reshape(-1, 2, 3)[problem], *settings.agreement)
        problem, match, errors, found = problem[same], match[same], errors[same], found[same]
    order = np.lexsort((match, errors, problem))
    problem, found = problem[order], found[order]
    single = one_to_one(problem, table.matches.query[found], table.matches.row[found])
    problem, found = problem[single], found[single]
    inliers = np.bincount(problem, minlength=usable.size).reshape(usable.shape)
    # As many inliers: the closer ones win.
    winner = np.argmax(inliers + worth / (1 + worth.max(axis=1, keepdims=True)), axis=1)
    each = np.arange(len(images))
    chosen = found[winner[problem // usable.shape[1]] == problem % usable.shape[1]]
    inliers = inliers[each, winner]
    transforms = models[each, winner]
    a, t = transforms[..., :2], transforms[..., 2] + table.origins[images]
    transforms = np.concatenate([a, t[..., None] - a @ table.origin[images][..., None]], axis=-1)
    transforms[inliers == 0] = 0
    return _Block(images, inliers, transforms, chosen)


def _promising(
    table: _Table,
    images: NDArray[np.int64],
    rows: NDArray[np.int64],
    weight: NDArray[np.float32],
    settings: Settings,
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The matches (B, K) whose hypotheses score best on all of an image's, best first, and which score at all."""
    best = np.zeros((len(images), settings.refined), np.int64)
    usable = np.zeros(best.shape, bool)
    counts = np.minimum(np.diff(table.hypothesis_ends)[images], settings.max_hypotheses)
    padded = PADDED[np.searchsorted(PADDED, counts)]
    for size in np.unique(padded[counts > 0]).tolist():
        alike = np.flatnonzero((padded == size) & (counts > 0))
        inside = np.arange(size) < counts[alike][:, None]
        tried = table.hypothesis_ends[images[alike]][:, None] + np.where(inside, np.arange(size), 0)
        tried = table.hypothesis_rows[tried]
        scores = np.empty(tried.shape, np.float32)
        step = max(1, RESIDUALS_AT_ONCE // (rows.shape[1] * size))
        scratch = np.empty((2, step * rows.shape[1] * size), np.float32)
        for first in range(0, len(alike), step):
            part = slice(first, first + step)
            some = alike[part]
            models, points = table.hypotheses[tried[part]], table.points[rows[some]]
            scores[part] = score(models, points, weight[some], settings.threshold, scratch)
        scores[~inside] = -1
        each = np.arange(len(alike))
        for k in range(min(settings.refined, size)):
            # The first of equals, which no partial sort promises.
            top = np.argmax(scores, axis=1)
            best[alike, k], usable[alike, k] = tried[each, top], scores[each, top] > 0
            scores[each, top] = -1
    return best, usable
