"""Bag of words against dense tf-idf vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from retrieval_helpers import SETTINGS, make_codebook, make_features, make_images
from sklearn.feature_extraction.text import TfidfTransformer

from hardnet_match.features import Features
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.query import Query

CODEBOOK = make_codebook(50)
IMAGES = make_images(CODEBOOK, 14, features=30)
QUERY = make_features(CODEBOOK, 40, seed=55, noise=0.2)


def ours(folder: Path, **parameters: str | float) -> Index:
    with Index.create(folder, CODEBOOK, "bow", SETTINGS, **parameters) as index:
        index.add_many(IMAGES[:6])
        index.flush()
        index.add_many(IMAGES[6:])
    return Index.open(folder)


def counts(features: Features) -> NDArray[np.float64]:
    words = CODEBOOK.assign(features.descriptors, exact=True)[:, 0] if len(features) else np.empty(0, np.int64)
    return np.bincount(words, minlength=len(CODEBOOK)).astype(np.float64)


def scores(index: Index, query: Query | Features) -> NDArray[np.float64]:
    found = np.zeros(len(index))
    ranking = index.rank(query)
    found[ranking.images] = ranking.scores
    return found


def cosines(documents: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths = np.linalg.norm(documents, axis=1) * np.linalg.norm(asked)
    return np.divide(documents @ asked, lengths, out=np.zeros(len(documents)), where=lengths > 0)


def test_cosine_of_dense_vectors(tmp_path: Path) -> None:
    """scikit-learn's transformer adds 1 to the logarithm; that apart, the same."""
    index = ours(tmp_path / "index", burstiness="none")
    documents = np.stack([counts(features) for _, features in IMAGES])
    assert (documents > 1).any()
    transformer = TfidfTransformer(norm=None, smooth_idf=False).fit(documents)
    idf = transformer.idf_ - 1
    idf[~(documents > 0).any(axis=0)] = 0
    np.testing.assert_allclose(scores(index, QUERY), cosines(documents * idf, counts(QUERY) * idf), atol=1e-6)


def dense(documents: NDArray[np.float64], asked: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine of tf-idf vectors, bursts damped."""
    frequency = (documents > 0).sum(axis=0)
    idf = np.where(frequency > 0, np.log(len(documents) / np.maximum(frequency, 1)), 0)
    return cosines(np.sqrt(documents) * idf, np.sqrt(asked) * idf)


def test_bursts_are_damped(tmp_path: Path) -> None:
    documents = np.stack([counts(features) for _, features in IMAGES])
    index = ours(tmp_path / "index")
    np.testing.assert_allclose(scores(index, QUERY), dense(documents, counts(QUERY)), atol=1e-6)
    assert not np.allclose(scores(index, QUERY), scores(ours(tmp_path / "plain", burstiness="none"), QUERY), atol=1e-4)


def test_soft_assignment(tmp_path: Path) -> None:
    index = ours(tmp_path / "index", softness=0.3)
    query = index.query(QUERY, 4)
    squared = np.square(QUERY.descriptors[:, None] - CODEBOOK.centroids).sum(axis=2)
    nearest = np.argsort(squared, axis=1)[:, :4]
    near = np.take_along_axis(squared, nearest, axis=1)
    weights = np.exp(-near / (2 * 0.3 * near[:, 0].mean()))
    weights /= weights.sum(axis=1, keepdims=True)
    asked = np.zeros(len(CODEBOOK))
    np.add.at(asked, nearest, weights)
    assert asked.sum() == pytest.approx(len(QUERY))
    documents = np.stack([counts(features) for _, features in IMAGES])
    np.testing.assert_allclose(scores(index, query), dense(documents, asked), atol=1e-5)


def test_an_image_is_wholly_similar_to_itself(tmp_path: Path) -> None:
    index = ours(tmp_path / "index")
    for number, (_, features) in enumerate(IMAGES):
        if len(features):
            ranking = index.rank(features, top=1)
            assert ranking.images.tolist() == [number]
            assert ranking.scores[0] == pytest.approx(1)


def test_weights_count(tmp_path: Path) -> None:
    index = ours(tmp_path / "index", burstiness="none")
    query = index.query(QUERY)
    weights = np.where(np.arange(len(query)) % 2, 0, 3).astype(np.float32)
    weighted = Query(query.words, query.distances, query.lafs, query.descriptors, weights)
    np.testing.assert_allclose(scores(index, weighted), scores(index, query.select(weights > 0)), atol=1e-6)


def test_a_word_that_every_image_has_says_nothing(tmp_path: Path) -> None:
    common = make_features(CODEBOOK, 9, seed=1, words=np.full(9, 4))
    with Index.create(tmp_path / "index", CODEBOOK, "bow", SETTINGS) as index:
        index.add_many((f"{number}.jpg", common) for number in range(5))
        assert len(index.rank(common)) == 0


def test_more_features_in_a_word_than_its_counter_holds(tmp_path: Path) -> None:
    many = make_features(CODEBOOK, 70_000, seed=1, words=np.full(70_000, 4), noise=0.01)
    with Index.create(tmp_path / "index", CODEBOOK, "bow", SETTINGS) as index:
        index.add("many.jpg", many)
        index.add("other.jpg", make_features(CODEBOOK, 9, seed=1, words=np.full(9, 5)))
        assert index.view.postings_of([0], ["counts"]).payload["counts"].tolist() == [65535]
        assert index.rank(many.select(slice(10)), top=1).images.tolist() == [0]
