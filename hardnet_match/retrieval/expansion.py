"""Query expansion: ask again, with what geometry has verified to show the same thing.

Chum et al.: Total recall: automatic query expansion with a generative feature model for object retrieval, ICCV 2007.
The features of verified images are seen through their transforms in the query's frame; those that fall inside the
query's region join it. In average expansion every image counts as much as the query, in alpha expansion as a power of
its similarity to it (Radenovic, Tolias, Chum: Fine-tuning CNN image retrieval with no human annotation, PAMI 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, OptionError
from .affine import invert
from .asmk import ASMK
from .bow import BagOfWords
from .hamming import majority
from .hqe import HQE
from .method import Method, Postings, View
from .query import Query

if TYPE_CHECKING:
    from .index import Index

KINDS = ("average", "alpha")
Box = tuple[float, float, float, float]
# Features of one word within so many pixels are one feature seen in several images; geometry needs it once.
SAME = 8.0
# Where a word's signatures are even, the query's own decides.
FIRST = 1 + 1e-6


@dataclass(frozen=True)
class Expansion:
    """How a query is expanded.

    Args:
        kind: `average`, or `alpha`: an image counts (score / best verified score) ** `alpha`.
        alpha: of the latter.
        minimum: inliers an image needs to take part. More than to be ranked as verified: one wrong image spoils the
            query.
        images: at most so many, those with most inliers.

    Raises:
        OptionError: a value cannot work.
    """

    kind: str = "average"
    alpha: float = 3.0
    minimum: int = 8
    images: int = 20

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"query expansion is one of {', '.join(KINDS)}, not {self.kind!r}")
        if not 0 <= self.alpha < np.inf or self.minimum < 1 or self.images < 1:
            raise OptionError(
                f"query expansion needs alpha from 0 on and at least 1 inlier and image, "
                f"got {self.alpha}, {self.minimum} and {self.images}"
            )


@dataclass(frozen=True, eq=False)
class Expanded:
    """An expanded query.

    Args:
        postings: what the index ranks by.
        lafs: (N, 2, 3) float32 frames to verify with: those of the query, then those of verified images as they
            would be in the query image, without those that are there already.
        words: (N, MA) uint32 of these.
        images: (V,) int64 images that took part.
        weights: (V,) float64 what each of them counts, where the query counts 1.
    """

    postings: Postings
    lafs: NDArray[np.float32]
    words: NDArray[np.uint32]
    images: NDArray[np.int64]
    weights: NDArray[np.float64]


class Added(NamedTuple):
    """Features of verified images that fall inside the query's region, image after image.

    Args:
        place: (A,) int64, which of the images.
        words: (A,) uint32.
        nth: (A,) int64, how many features of the same image and word are before it, in the image's own order.
        lafs: (A, 2, 3) float32, in pixels of the query.
    """

    place: NDArray[np.int64]
    words: NDArray[np.uint32]
    nth: NDArray[np.int64]
    lafs: NDArray[np.float32]


def expand(
    index: Index,
    query: Query,
    images: ArrayLike,
    inliers: ArrayLike,
    transforms: NDArray[np.float64],
    scores: ArrayLike,
    how: Expansion | None = None,
    region: Box | None = None,
) -> Expanded | None:
    """Expand a query by the images that verification has confirmed.

    Args:
        images: (C,) numbers in the index of the images that were looked at.
        inliers, transforms, scores: (C,), (C, 2, 3), (C,) of each: what `verify` found, query to image, and the score
            it was ranked by.
        region: x0, y0, x1, y1 in pixels of the query; the extent of its features if None.

    Returns:
        None where no image has enough inliers.

    Raises:
        DataError: the arrays are not of one length.
        OptionError: the index's method knows no expansion.
    """
    how = how or Expansion()
    images, inliers, scores = np.asarray(images, np.int64), np.asarray(inliers), np.asarray(scores, np.float64)
    if not len(images) == len(inliers) == len(transforms) == len(scores):
        raise DataError(
            f"images, inliers, transforms and scores must be one each, "
            f"got {len(images)}, {len(inliers)}, {len(transforms)} and {len(scores)}"
        )
    best = np.lexsort((images, -scores, -inliers))
    best = best[inliers[best] >= how.minimum][: how.images]
    if not len(best):
        return None
    weights = np.ones(len(best))
    if how.kind == "alpha":
        weights = (np.maximum(scores[best], 0) / max(scores[best].max(), 1e-12)) ** how.alpha
    view = index.view
    added = features_inside(view, images[best], transforms[best], region or extent(query.lafs))
    postings = _joined(index.scorer, query, added, images[best], weights, view)
    new = _unseen(query, added)
    words = np.repeat(added.words[new, None], query.words.shape[1], axis=1)
    return Expanded(
        postings,
        np.concatenate([query.lafs, added.lafs[new]]),
        np.concatenate([query.words, words]),
        images[best],
        weights,
    )


def extent(lafs: NDArray[np.float32]) -> Box:
    """The box x0, y0, x1, y1 around the centres of frames; all zero where there are none."""
    if not len(lafs):
        return 0.0, 0.0, 0.0, 0.0
    (x0, y0), (x1, y1) = lafs[:, :, 2].min(axis=0).tolist(), lafs[:, :, 2].max(axis=0).tolist()
    return x0, y0, x1, y1


def features_inside(view: View, images: NDArray[np.int64], transforms: NDArray[np.float64], region: Box) -> Added:
    """The features of images that lie inside a region of the query, as the query would show them.

    Args:
        transforms: (V, 2, 3) query to image.
    """
    geometry = view.geometry(images)
    place = np.repeat(np.arange(len(images)), np.diff(geometry.offsets))
    back = invert(np.asarray(transforms, np.float64))[place]
    with np.errstate(invalid="ignore", over="ignore"):
        lafs = back[..., :2] @ np.asarray(geometry.lafs, np.float64)
        lafs[..., 2] += back[..., 2]
        x, y = lafs[:, 0, 2], lafs[:, 1, 2]
        x0, y0, x1, y1 = region
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1) & np.isfinite(lafs).all(axis=(1, 2))
    words = np.asarray(geometry.words)
    nth = _nth(place, words)
    return Added(place[inside], words[inside], nth[inside], lafs[inside].astype(np.float32))


def _nth(place: NDArray[np.int64], words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """How many rows with the same place and word come before each row."""
    order = np.lexsort((words, place))
    new = np.ones(len(order), bool)
    new[1:] = (place[order][1:] != place[order][:-1]) | (words[order][1:] != words[order][:-1])
    starts = np.flatnonzero(new)
    nth = np.empty(len(order), np.int64)
    nth[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return nth


def _unseen(query: Query, added: Added) -> NDArray[np.int64]:
    """Rows of added features that neither the query nor an earlier image has at about the same place."""
    words = np.concatenate([query.words[:, 0], added.words]).astype(np.int64)
    cells = np.floor(np.concatenate([query.lafs[:, :, 2], added.lafs[:, :, 2]]) / SAME).astype(np.int64)
    _, first = np.unique(np.column_stack([words, cells]), axis=0, return_index=True)
    rows = np.sort(first) - len(query)
    return rows[rows >= 0]


def _joined(
    method: Method, query: Query, added: Added, images: NDArray[np.int64], weights: NDArray[np.float64], view: View
) -> Postings:
    own = method.represent(query)
    if isinstance(method, BagOfWords):
        return _join_counts(own, added, weights)
    if isinstance(method, ASMK):
        return _join_aggregates(method, own, added, images, weights, view)
    if isinstance(method, HQE):
        return _join_signatures(own, added, images, weights, view)
    raise OptionError(f"method {method.name} knows no query expansion")


def _join_counts(own: Postings, added: Added, weights: NDArray[np.float64]) -> Postings:
    """Bag of words: the weighted mean of the counts."""
    words = np.concatenate([own.words, added.words])
    counts = np.concatenate([own.payload["counts"], weights[added.place]])
    words, place = np.unique(words, return_inverse=True)
    mean = np.bincount(place, counts, len(words)) / (1 + weights.sum())
    kept = mean > 0
    return Postings(words[kept], np.zeros(int(kept.sum()), np.int64), {"counts": mean[kept]})


def _join_aggregates(
    method: ASMK, own: Postings, added: Added, images: NDArray[np.int64], weights: NDArray[np.float64], view: View
) -> Postings:
    """ASMK: per word the weighted sum of the aggregates, of those images that have a feature of it in the region."""
    [key] = method.payload
    found = _stored(view, images, added.words, key)
    inside = np.unique(_pair(added.place, added.words))
    kept = np.isin(_pair(found.place, found.words), inside)
    words = np.concatenate([own.words, found.words[kept]])
    vectors = np.concatenate([own.payload[key], found.payload[kept]])
    weight = np.concatenate([np.full(len(own), FIRST), weights[found.place[kept]]])
    some = weight > 0
    words, vectors, weight = words[some], vectors[some], weight[some]
    if method.parameters["binary"]:
        unique, joined = majority(words, vectors, weight, method.codebook.dim)
    else:
        order = np.argsort(words, kind="stable")
        unique, starts = np.unique(words[order], return_index=True)
        summed = np.add.reduceat(vectors[order].astype(np.float64) * weight[order, None], starts, axis=0)
        joined = (summed / np.maximum(np.linalg.norm(summed, axis=1, keepdims=True), 1e-12)).astype(np.float16)
    return Postings(unique, np.zeros(len(unique), np.int64), {key: joined})


def _join_signatures(
    own: Postings, added: Added, images: NDArray[np.int64], weights: NDArray[np.float64], view: View
) -> Postings:
    """Hamming embedding: the features themselves, with what their images count.

    Not one signature a word as `HQE.expanded` makes: with all of a region's features, few words have only one thing in
    them, and what most of them have in common is none of them.
    """
    found = _stored(view, images, added.words, "signatures")
    # An image's postings of a word are in the order of its features.
    features = np.stack([_pair(added.place, added.words), added.nth], axis=1)
    stored = np.stack([_pair(found.place, found.words), found.nth], axis=1)
    _, group = np.unique(np.concatenate([features, stored]), axis=0, return_inverse=True)
    kept = np.isin(group.reshape(-1)[len(features) :], group.reshape(-1)[: len(features)])
    words = np.concatenate([own.words, found.words[kept]])
    signatures = np.concatenate([own.payload["signatures"], found.payload[kept]])
    weight = np.concatenate([own.payload["weights"], weights[found.place[kept]]])
    order = np.argsort(words, kind="stable")
    order = order[weight[order] > 0]
    payload = {"signatures": signatures[order], "weights": weight[order]}
    return Postings(words[order], np.zeros(len(order), np.int64), payload)


class _Stored(NamedTuple):
    place: NDArray[np.int64]
    words: NDArray[np.uint32]
    nth: NDArray[np.int64]
    payload: NDArray[Any]


def _pair(place: NDArray[np.int64], words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """One number an image and word."""
    return place << np.int64(32) | words.astype(np.int64)


def _stored(view: View, images: NDArray[np.int64], words: NDArray[np.uint32], key: str) -> _Stored:
    """What the index holds of some words of some images."""
    wanted = np.unique(words)
    place_of = np.full(view.n_images, -1, np.int64)
    place_of[images] = np.arange(len(images))
    parts = []
    for run in view.gather(wanted, [key]):
        place = place_of[run.images]
        kept = np.flatnonzero(place >= 0)
        parts.append((place[kept], wanted[run.rows[kept]], run.payload[key][kept]))
    place, word, payload = (np.concatenate(each) for each in zip(*parts, strict=True)) if parts else (
        np.zeros(0, np.int64), np.zeros(0, np.uint32), np.zeros((0, 1), np.uint64)
    )  # fmt: skip
    return _Stored(place, word, _nth(place, word), payload)
