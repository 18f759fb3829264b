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
        pairs: place in the ranking -> (n, 2) int64 confirmed matches, row of the query's feature and of the image's.
        lafs: (N, 2, 3) float32, frames of the query's features as `pairs` counts them: those that expansion added
            are where they would be in the query image.
        transforms: (C, 2, 3) float64 of the images that geometry looked at, the first of the ranking: pixels of the
            query to pixels of the image, zero where there are no inliers.
    """

    images: NDArray[np.int64]
    scores: NDArray[np.float32]
    inliers: NDArray[np.int32]
    pairs: dict[int, NDArray[np.int64]]
    lafs: NDArray[np.float32]
    transforms: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 2, 3)))

    def __len__(self) -> int:
        return len(self.images)


def search(index: Index, query: Query, plan: Plan | None = None, top: int | None = None) -> Found:
    """Find the images of an index that show what a query shows.

    Args:
        plan: what to do after the ranking; nothing if None.
        top: at most so many images; all with a score above 0 if None. Verification may look at more.

    Raises:
        DataError: the query is of other features than the index.
        OptionError: a number cannot work.
    """
    plan = plan or Plan()
    depth = None if top is None else max(top, plan.verify)
    found = _ranked(index, query, query.lafs, query.words, plan, depth)
    if plan.expand:
        count = len(found.transforms)
        grown = expand(
            index, query, found.images[:count], found.inliers[:count], found.transforms, found.scores[:count],
            plan.expansion,
        )  # fmt: skip
        if grown is not None:
            found = _ranked(index, grown.postings, grown.lafs, grown.words, plan, depth)
    return found if top is None else _cut(found, top)


def _ranked(
    index: Index,
    query: Query | Postings,
    lafs: NDArray[np.float32],
    words: NDArray[np.uint32],
    plan: Plan,
    depth: int | None,
) -> Found:
    ranking = index.rank(query, depth)
    count = min(plan.verify, len(ranking))
    inliers = np.full(len(ranking), UNVERIFIED, np.int32)
    if not count:
        return Found(ranking.images, ranking.scores, inliers, {}, lafs)
    verified = verify(lafs, words, index.view.geometry(ranking.images[:count]), settings=plan.settings)
    order = rerank(ranking.scores[:count], verified.inliers, plan.minimum)
    order = np.concatenate([order, np.arange(count, len(ranking))])
    inliers[:count] = verified.inliers
    pairs = {place: verified.pairs_of(int(old)) for place, old in enumerate(order[:count])}
    transforms = verified.transforms[order[:count]]
    return Found(ranking.images[order], ranking.scores[order], inliers[order], pairs, lafs, transforms)


def _cut(found: Found, top: int) -> Found:
    pairs = {place: rows for place, rows in found.pairs.items() if place < top}
    return Found(found.images[:top], found.scores[:top], found.inliers[:top], pairs, found.lafs, found.transforms[:top])
