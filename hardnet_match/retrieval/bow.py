"""Bag of words: tf-idf vectors, compared by their cosine.

Sivic, Zisserman: Video Google, ICCV 2003. Query features go to several words by Philbin et al., Lost in quantization,
CVPR 2008: a word at squared distance d counts exp(-d / (2 sigma^2)), and a feature's words together count 1. Bursts,
features of one image that all fall into one word, count as the root of their number (Jegou, Douze, Schmid: On the
burstiness of visual elements, CVPR 2009).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .method import Batch, Method, Postings, View, inverse_frequency
from .query import Query

BURSTS = ("root", "none")
LARGEST = np.iinfo(np.uint16).max


class BagOfWords(Method):
    """`burstiness` is `root` or `none`; `softness` is sigma^2 over the mean squared distance to the nearest word."""

    name = "bow"
    defaults: ClassVar[Mapping[str, Any]] = {"burstiness": "root", "softness": 0.15}
    assignments = 1

    @classmethod
    def check(cls, parameters: Mapping[str, Any]) -> None:
        """Raise OptionError where a value cannot work."""
        if parameters["burstiness"] not in BURSTS:
            raise OptionError(f"burstiness of bow is one of {', '.join(BURSTS)}, not {parameters['burstiness']!r}")
        if not 0 < parameters["softness"] < np.inf:
            raise OptionError(f"softness of bow must be above 0, got {parameters['softness']}")

    @property
    def payload(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """`counts` (P,) uint16, features of the image in the word."""
        return {"counts": ("uint16", ())}

    def _damped(self, counts: NDArray[Any]) -> NDArray[np.float64]:
        frequency = counts.astype(np.float64)
        return np.sqrt(frequency, out=frequency) if self.parameters["burstiness"] == "root" else frequency

    def encode(self, batch: Batch) -> Postings:
        """One posting a word and image."""
        keys, counts = np.unique(batch.images * len(self.codebook) + batch.words, return_counts=True)
        images, words = np.divmod(keys, len(self.codebook))
        return Postings(words.astype(np.uint32), images, {"counts": np.minimum(counts, LARGEST).astype(np.uint16)})

    def represent(self, query: Query) -> Postings:
        """Payload `counts` (U,) float64: what the query's features count for in each of its words."""
        # Distances beyond the nearest: the same weights once a feature's words count 1 together, and no underflow.
        excess = query.distances - query.distances[:, :1]
        scale = 2 * self.parameters["softness"] * max(float(query.distances[:, :1].mean()), 1e-12) if len(query) else 1
        weights = np.exp(-excess.astype(np.float64) / scale)
        weights *= query.weights[:, None] / weights.sum(axis=1, keepdims=True)
        words, place = np.unique(query.words, return_inverse=True)
        counts = np.bincount(place.reshape(-1), weights.reshape(-1), len(words))
        kept = counts > 0
        return Postings(words[kept], np.zeros(int(kept.sum()), dtype=np.int64), {"counts": counts[kept]})

    def image_norms(self, view: View) -> NDArray[np.float64]:
        """Lengths of the tf-idf vectors."""
        idf = inverse_frequency(view)
        total = np.zeros(view.n_images)
        words = np.flatnonzero(view.document_frequency).astype(np.uint32)
        for run in view.gather(words, ["counts"]):
            values = self._damped(run.payload["counts"]) * idf[words[run.rows]]
            np.add.at(total, run.images, values * values)
        return np.asarray(np.sqrt(total))

    def score(self, query: Postings, view: View) -> NDArray[np.float64]:
        """Cosine of the tf-idf vectors, in [0, 1]."""
        idf = inverse_frequency(view)[query.words]
        own = self._damped(query.payload["counts"]) * idf
        scores = np.zeros(view.n_images)
        for run in view.gather(query.words, ["counts"]):
            values = self._damped(run.payload["counts"]) * (own * idf)[run.rows]
            np.add.at(scores, run.images, values)
        norms = view.norms * np.sqrt(own @ own)
        return np.asarray(np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0))
