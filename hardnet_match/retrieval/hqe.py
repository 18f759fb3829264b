"""Hamming query expansion: a search whose best answers sharpen the question, without geometry.

Tolias, Jegou: Visual query expansion with or without geometry: refining local descriptors by feature aggregation,
Pattern Recognition 2014. A first search by Hamming embedding (`hamming.py`), query features going to several words
and bursts damped. Of its best images those are reliable that have enough matches within a strict threshold. The words
that most of them share are reliable words, in the query or not; the signatures of their features in reliable images
join the query's, and all signatures of a word are aggregated into one by majority. The second search is with those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .bits import words_of
from .codebook import Codebook
from .hamming import PROJECTIONS, Embedding, majority, matches, tolerance
from .method import Batch, Method, Postings, View, inverse_frequency
from .query import Query


class HQE(Method):
    """Hamming embedding, with query expansion unless `expand` is false.

    `bits` of a signature; `threshold` and `sigma` of a match; `strict` threshold of a reliable one; `top` images
    looked at, reliable with `correspondences` strict matches; `alpha` new words for each of the query's; `projection`
    is `random` or `pca`.
    """

    name = "hqe"
    defaults: ClassVar[Mapping[str, Any]] = {
        "bits": 128,
        "threshold": 48,
        "sigma": 32.0,
        "strict": 32,
        "top": 100,
        "correspondences": 5,
        "alpha": 0.5,
        "expand": True,
        "burstiness": True,
        "projection": "random",
        "seed": 0,
    }
    assignments = 3

    def __init__(
        self, codebook: Codebook, parameters: Mapping[str, Any], state: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        super().__init__(codebook, parameters, state)
        if not self.state:
            self.state = self.prepare(codebook, parameters, None)
        self.embedding = Embedding(self.state["projection"], self.state["thresholds"])

    @classmethod
    def check(cls, parameters: Mapping[str, Any]) -> None:
        """Raise OptionError where a value cannot work."""
        bits, threshold, strict = (parameters[name] for name in ("bits", "threshold", "strict"))
        if not 8 <= bits <= 1024:
            raise OptionError(f"signatures of hqe have 8 to 1024 bits, not {bits}")
        if not 0 <= strict <= threshold <= bits:
            raise OptionError(
                f"hqe needs strict <= threshold <= bits, got {strict}, {threshold} and {bits}: "
                f"three eighths and a quarter of the bits are usual"
            )
        if not 0 < parameters["sigma"] < np.inf or not 0 <= parameters["alpha"] < np.inf:
            raise OptionError(
                f"hqe needs sigma above 0 and alpha from 0 on, got {parameters['sigma']} and {parameters['alpha']}"
            )
        if parameters["top"] < 1 or parameters["correspondences"] < 1 or parameters["seed"] < 0:
            raise OptionError("hqe needs top and correspondences of at least 1 and a seed from 0 on")
        if parameters["projection"] not in PROJECTIONS:
            raise OptionError(f"projection of hqe is one of {', '.join(PROJECTIONS)}, not {parameters['projection']!r}")

    @classmethod
    def prepare(
        cls, codebook: Codebook, parameters: Mapping[str, Any], sample: NDArray[Any] | None
    ) -> dict[str, NDArray[Any]]:
        """`projection` (B, D) float32 and `thresholds` (K, B) float16, see `Embedding.learn`."""
        learnt = Embedding.learn(
            codebook,
            parameters["bits"],
            seed=parameters["seed"],
            projection=parameters["projection"],
            sample=sample,
        )
        return {"projection": learnt.projection, "thresholds": learnt.thresholds}

    @property
    def payload(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """`signatures` (P, ceil(B / 64)) uint64."""
        return {"signatures": ("uint64", (words_of(self.parameters["bits"]),))}

    def encode(self, batch: Batch) -> Postings:
        """One posting a feature."""
        signatures = self.embedding.signatures(batch.descriptors, batch.words)
        return Postings(batch.words, batch.images, {"signatures": signatures})

    def represent(self, query: Query) -> Postings:
        """One posting a feature and word it goes to; payload `signatures` and `weights` (P,) float64."""
        words = query.words.reshape(-1)
        order = np.argsort(words, kind="stable")
        words = words[order]
        rows = order // max(query.words.shape[1], 1)
        signatures = self.embedding.signatures(query.descriptors[rows], words)
        weights = query.weights[rows].astype(np.float64)
        return Postings(words, np.zeros(len(words), np.int64), {"signatures": signatures, "weights": weights})

    def image_norms(self, view: View) -> NDArray[np.float64]:
        """Lengths of the tf-idf vectors."""
        idf = inverse_frequency(view)
        total = np.zeros(view.n_images)
        words = np.flatnonzero(view.document_frequency).astype(np.uint32)
        for run in view.gather(words):
            # The postings of an image and word are next to one another.
            new = np.ones(len(run.rows), bool)
            new[1:] = (run.rows[1:] != run.rows[:-1]) | (run.images[1:] != run.images[:-1])
            starts = np.flatnonzero(new)
            counts = np.diff(np.append(starts, len(new)))
            values = counts * idf[words[run.rows[starts]]]
            total += np.bincount(run.images[starts], values * values, view.n_images)
        return np.asarray(np.sqrt(total))

    def score(self, query: Postings, view: View) -> NDArray[np.float64]:
        """Similarity to every image: of the query as it is, or of what query expansion makes of it."""
        scores, strong = self._search(query, view)
        if not self.parameters["expand"]:
            return scores
        best = np.lexsort((np.arange(len(scores)), -scores))[: self.parameters["top"]]
        reliable = best[strong[best] >= self.parameters["correspondences"]]
        if not len(reliable):
            return scores
        return self._search(self.expanded(query, reliable, view), view)[0]

    def _search(self, query: Postings, view: View) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Scores of all images, and how many strict matches each has."""
        parameters = self.parameters
        table = tolerance(parameters["bits"], parameters["threshold"], parameters["sigma"])
        importance = inverse_frequency(view)[query.words] ** 2 * query.payload["weights"]
        scores, strong = np.zeros(view.n_images), np.zeros(view.n_images, np.int64)
        for part in matches(query, view, parameters["threshold"]):
            if not len(part.query):
                continue
            new = np.ones(len(part.query), bool)
            new[1:] = (part.query[1:] != part.query[:-1]) | (part.images[1:] != part.images[:-1])
            starts = np.flatnonzero(new)
            gain = np.add.reduceat(table[part.distances], starts)
            if parameters["burstiness"]:
                # A query feature that matches n features of one image counts as the root of n of them.
                gain /= np.sqrt(np.diff(np.append(starts, len(new))))
            scores += np.bincount(part.images[starts], gain * importance[part.query[starts]], view.n_images)
            strong += np.bincount(part.images[part.distances <= parameters["strict"]], minlength=view.n_images)
        norms = view.norms * np.sqrt(importance.sum())
        return np.divide(scores, norms, out=np.zeros_like(scores), where=norms > 0), strong

    def expanded(self, query: Postings, reliable: NDArray[np.int64], view: View) -> Postings:
        """The query with the reliable words of reliable images, one aggregated signature a word.

        Args:
            query: as `represent` gives it.
            reliable: (R,) images.
        """
        geometry = view.geometry(reliable)
        image = np.repeat(np.arange(len(reliable)), np.diff(geometry.offsets))
        pairs = np.unique(geometry.words.astype(np.int64) * len(reliable) + image)
        words, shared = np.unique(pairs // max(len(reliable), 1), return_counts=True)
        own = np.unique(query.words)
        # The words that most reliable images have, until so many of them are new to the query.
        words = words[np.lexsort((words, -shared))]
        new = np.cumsum(~np.isin(words, own))
        chosen = np.sort(words[new <= int(self.parameters["alpha"] * len(own))]).astype(np.uint32)

        wanted = np.zeros(view.n_images, bool)
        wanted[reliable] = True
        found_words, found = [query.words], [query.payload["signatures"]]
        for run in view.gather(chosen, ["signatures"]):
            kept = wanted[run.images]
            found_words.append(chosen[run.rows[kept]])
            found.append(run.payload["signatures"][kept])
        unique, joined = majority(np.concatenate(found_words), np.concatenate(found), None, self.parameters["bits"])
        payload = {"signatures": joined, "weights": np.ones(len(unique))}
        return Postings(unique, np.zeros(len(unique), np.int64), payload)
