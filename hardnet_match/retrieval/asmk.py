"""ASMK and ASMK*: one aggregated residual a word and image, compared by a selective kernel.

Tolias, Avrithis, Jegou: Image search with selective match kernels: aggregation across single and multiple images,
IJCV 2016. Scores are those of the package asmk 0.1.1: similarity s of two aggregates counts s ** alpha from a
threshold on, idf is log(images / images with the word) squared, and a score is divided by the root of the summed idf
of both images.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .bits import hamming, pack_signs, words_of
from .method import Batch, Method, Postings, View, inverse_frequency
from .query import Query

# Of how many rows a group may be that is summed together with all the others.
ADDED_TOGETHER = 6


class ASMK(Method):
    """`binary` keeps the signs of the aggregated residual (ASMK*), else the residual itself in half precision."""

    name = "asmk"
    defaults: ClassVar[Mapping[str, Any]] = {"binary": True, "alpha": 3.0, "threshold": 0.0, "idf": False}
    assignments = 5

    @classmethod
    def check(cls, parameters: Mapping[str, Any]) -> None:
        """Raise OptionError where a value cannot work."""
        if not 0 < parameters["alpha"] <= 100:
            raise OptionError(f"alpha of asmk must be in (0, 100], got {parameters['alpha']}")
        if not 0 <= parameters["threshold"] < 1:
            raise OptionError(f"threshold of asmk must be in [0, 1), got {parameters['threshold']}")

    @property
    def payload(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """`signs` (P, ceil(D / 64)) uint64, or `residual` (P, D) float16 of unit length."""
        dim = self.codebook.dim
        return (
            {"signs": ("uint64", (words_of(dim),))} if self.parameters["binary"] else {"residual": ("float16", (dim,))}
        )

    def _packed(self, residual: NDArray[np.float32]) -> dict[str, NDArray[Any]]:
        if self.parameters["binary"]:
            return {"signs": pack_signs(residual)}
        length = np.sqrt(np.einsum("pd,pd->p", residual, residual)) + np.float32(1e-6)
        return {"residual": (residual / length[:, None]).astype(np.float16)}

    def encode(self, batch: Batch) -> Postings:
        """One posting a word and image."""
        keys = batch.images * len(self.codebook) + batch.words
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        words = batch.words[order]
        residual = batch.descriptors.take(order, axis=0)
        residual -= self.codebook.centroids.take(words, axis=0)
        starts, summed = sum_groups(keys, residual)
        return Postings(words[starts], batch.images[order][starts], self._packed(summed))

    def represent(self, query: Query) -> Postings:
        """One aggregate a word; a feature's residual counts as often as its weight says."""
        words = query.words.reshape(-1)
        rows = np.repeat(np.arange(len(query)), query.words.shape[1])
        order = np.argsort(words, kind="stable")
        words, rows = words[order], rows[order]
        residual = query.descriptors.take(rows, axis=0)
        residual -= self.codebook.centroids.take(words, axis=0)
        if (query.weights != 1).any():
            residual *= query.weights[rows, None]
        starts, summed = sum_groups(words, residual)
        return Postings(words[starts], np.zeros(len(starts), dtype=np.int64), self._packed(summed))

    def _idf(self, view: View) -> NDArray[np.float64]:
        if not self.parameters["idf"]:
            return np.ones(len(self.codebook))
        return inverse_frequency(view, unseen=1.0) ** 2

    def image_norms(self, view: View) -> NDArray[np.float64]:
        """Root of the summed idf of the image's words."""
        idf = self._idf(view)
        total = np.zeros(view.n_images)
        words = np.flatnonzero(view.document_frequency).astype(np.uint32)
        for run in view.gather(words):
            np.add.at(total, run.images, idf[words[run.rows]])
        return np.asarray(np.sqrt(total))

    def score(self, query: Postings, view: View) -> NDArray[np.float64]:
        """Similarity to every image, in [0, 1]."""
        idf = self._idf(view)[query.words]
        scores = np.zeros(view.n_images)
        alpha, threshold = self.parameters["alpha"], self.parameters["threshold"]
        dim = self.codebook.dim
        [key] = self.payload
        similarity = 1 - 2 * np.arange(dim + 1) / dim
        table = np.where(similarity >= threshold, np.maximum(similarity, 0) ** alpha, 0)
        own = query.payload[key]
        for run in view.gather(query.words, [key]):
            if self.parameters["binary"]:
                gain = table.take(hamming(run.payload[key], own.take(run.rows, axis=0)))
            else:
                close = np.einsum(
                    "pd,pd->p", run.payload[key].astype(np.float32), own.take(run.rows, axis=0).astype(np.float32)
                )
                gain = np.where(close >= threshold, np.maximum(close, 0) ** alpha, 0)
            gain *= idf.take(run.rows)
            np.add.at(scores, run.images, gain)
        norms = view.norms * np.sqrt(idf.sum())
        return np.asarray(np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0))


def sum_groups(keys: NDArray[Any], rows: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Where each run of equal keys starts, and the sum of its rows, added up one after the other."""
    fresh = np.ones(len(keys), dtype=bool)
    np.not_equal(keys[1:], keys[:-1], out=fresh[1:])
    starts = np.flatnonzero(fresh)
    sums = rows.take(starts, axis=0)
    counts = np.diff(starts, append=len(keys))
    # Most groups are small: the second rows of all are added at once, then the third ones; what is left, one by one.
    for turn in range(1, ADDED_TOGETHER):
        groups = np.flatnonzero(counts > turn)
        sums[groups] += rows.take(starts[groups] + turn, axis=0)
    late = np.arange(len(keys)) - np.repeat(starts, counts) >= ADDED_TOGETHER
    np.add.at(sums, np.cumsum(fresh)[late] - 1, rows[late])
    return starts, sums
