"""A whole search: the index's ranking, its head verified by geometry, and asked again with what was verified."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .expansion import Expansion, expand
from .index import Index
from .method import Postings
from .query import Query
from .verification import Settings, rerank, verify

UNVERIFIED = -1
# Inliers from which on an image counts as verified: a chance agreement seldom has more.
MINIMUM = 5


@dataclass(frozen=True)
class Plan:
    """What a search does after the first ranking.

    Args:
        verify: images from the head of the ranking that geometry looks at; 0 for none.
        expand: ask again with the features of verified images (query expansion); needs `verify`.
        minimum: inliers that make an image verified.
        settings: of the verification.
        expansion: how the query is expanded.

    Raises:
        OptionError: a number cannot work, or expansion is asked for without verification.
    """

    verify: int = 0
    expand: bool = False
    minimum: int = MINIMUM
    settings: Settings = field(default_factory=Settings)
    expansion: Expansion = field(default_factory=Expansion)

    def __post_init__(self) -> None:
        if self.verify < 0 or self.minimum < 1:
            raise OptionError(f"verify must be 0 or more and minimum 1 or more, got {self.verify} and {self.minimum}")
        if self.expand and not self.verify:
            raise OptionError("query expansion asks again with verified images only: verify some")


@dataclass(frozen=True, eq=False)
class Found:
    """Images by similarity to a query, best first.

    Args:
        images: (K,) int64, numbers in the index.
        scores: (K,) float32, of the (last) ranking; not descending where geometry has reordered.
        inliers: (K,) int32, matches that geometry confirmed, `UNVERIFIED` where it did not look.
        transforms: (K, 2, 3) float64, pixels of the query to pixels of the image; zero where nothing is confirmed.
        pairs: place in the ranking -> (n, 2) int64 confirmed matches, row of `lafs` and of the image's features.
        lafs: (N, 2, 3) float32, frames of the query's features; behind them those that expansion added, where they
            would be in the query image.
    """

    images: NDArray[np.int64]
    scores: NDArray[np.float32]
    inliers: NDArray[np.int32]
    transforms: NDArray[np.float64]
    pairs: dict[int, NDArray[np.int64]]
    lafs: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.images)


def search(
    index: Index, query: Query, plan: Plan | None = None, top: int | None = None, *, without: int | None = None
) -> Found:
    """Find the images of an index that show what a query shows.

    Args:
        plan: what to do after the ranking; nothing if None.
        top: at most so many images; all with a score above 0 if None. Verification may look at more.
        without: number of an image that is not looked at: the query's own, where it is in the index.

    Raises:
        DataError: the query is of other features than the index.
        OptionError: a number cannot work.
    """
    plan = plan or Plan()
    depth = None if top is None else max(top, plan.verify)
    found = _ranked(index, query, query.lafs, query.words, plan, depth, without)
    if plan.expand:
        looked = len(found.pairs)
        grown = expand(
            index, query,
            found.images[:looked], found.inliers[:looked], found.transforms[:looked], found.scores[:looked],
            plan.expansion,
        )  # fmt: skip
        if grown is not None:
            found = _ranked(index, grown.postings, grown.lafs, grown.words, plan, depth, without)
    return found if top is None else _cut(found, top)


def _ranked(
    index: Index,
    query: Query | Postings,
    lafs: NDArray[np.float32],
    words: NDArray[np.uint32],
    plan: Plan,
    depth: int | None,
    without: int | None,
) -> Found:
    ranking = index.rank(query, None if depth is None else depth + (without is not None))
    kept = np.flatnonzero(ranking.images != (UNVERIFIED if without is None else without))[:depth]
    images, scores = ranking.images[kept], ranking.scores[kept]
    inliers, transforms = np.full(len(images), UNVERIFIED, np.int32), np.zeros((len(images), 2, 3))
    count = min(plan.verify, len(images))
    if not count:
        return Found(images, scores, inliers, transforms, {}, lafs)
    verified = verify(lafs, words, index.view.geometry(images[:count]), settings=plan.settings)
    order = rerank(scores[:count], verified.inliers, plan.minimum)
    inliers[:count], transforms[:count] = verified.inliers[order], verified.transforms[order]
    pairs = {place: verified.pairs_of(int(old)) for place, old in enumerate(order)}
    order = np.concatenate([order, np.arange(count, len(images))])
    return Found(images[order], scores[order], inliers, transforms, pairs, lafs)


def _cut(found: Found, top: int) -> Found:
    pairs = {place: rows for place, rows in found.pairs.items() if place < top}
    return Found(found.images[:top], found.scores[:top], found.inliers[:top], found.transforms[:top], pairs, found.lafs)
