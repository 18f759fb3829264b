"""ASMK against the package asmk 0.1.1 and against the paper's formula written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from retrieval_helpers import SETTINGS, make_codebook, make_features, make_images

from hardnet_match.features import Features
from hardnet_match.retrieval import bits
from hardnet_match.retrieval.asmk import sum_groups
from hardnet_match.retrieval.codebook import Codebook
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.query import Query

CODEBOOK = make_codebook(96)
ASSIGNMENTS = 3


def crowded(count: int) -> list[tuple[str, Features]]:
    """Images, none empty, whose features fall several into one word and are far from it."""
    rng = np.random.default_rng(0)
    images = []
    for number in range(count):
        words = rng.integers(0, 60, int(rng.integers(40, 120)))  # words 60 to 95 are in no image
        words[:5] = 7  # word 7 is in every image
        images.append((f"{number}.jpg", make_features(CODEBOOK, len(words), 500 + number, words=words, noise=0.08)))
    return images


IMAGES = crowded(25)
# The last one asks for words that no image has.
QUERIES = [*(features for _, features in IMAGES[:5]), make_features(CODEBOOK, 80, 99, noise=0.08)]


def ours(folder: Path, parts: int, **parameters: Any) -> Index:
    with Index.create(folder, CODEBOOK, "asmk", SETTINGS, **parameters) as index:
        for start in range(0, len(IMAGES), -(-len(IMAGES) // parts)):
            index.add_many(IMAGES[start : start + -(-len(IMAGES) // parts)])
            index.flush()
    return Index.open(folder)


def theirs(binary: bool, idf: bool, alpha: float, threshold: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rankings and scores of all queries by the package asmk."""
    asmk = pytest.importorskip("asmk")
    from asmk.codebook import Codebook as TheirCodebook
    from asmk.index import initialize_index

    parameters = {
        "index": {"gpu_id": None},
        "build_ivf": {
            "kernel": {"binary": binary},
            "ivf": {"use_idf": idf},
            "quantize": {"multiple_assignment": 1},
            "aggregate": {},
        },
        "query_ivf": {
            "quantize": {"multiple_assignment": ASSIGNMENTS},
            "aggregate": {},
            "search": {"topk": None},
            "similarity": {"similarity_threshold": threshold, "alpha": alpha},
        },
    }
    codebook = TheirCodebook(initialize_index(None), size=len(CODEBOOK))
    codebook.index(CODEBOOK.centroids)
    method = asmk.ASMKMethod(parameters, {}, codebook=codebook)

    def columns(features: list[Features]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        counts = [len(each) for each in features]
        return np.concatenate([each.descriptors for each in features]), np.repeat(np.arange(len(counts)), counts)

    method = method.build_ivf(*columns([features for _, features in IMAGES]))
    _, _, ranks, scores = method.query_ivf(*columns(QUERIES))
    return ranks, scores


@pytest.mark.parametrize("parts", [1, 4])
@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("binary", [True, False])
def test_parity_with_the_package_asmk(binary: bool, idf: bool, parts: int, tmp_path: Path) -> None:
    index = ours(tmp_path / "index", parts, binary=binary, idf=idf)
    ranks, scores = theirs(binary, idf, 3.0, 0.0)
    for query, rank, score in zip(QUERIES, ranks, scores, strict=True):
        ranking = index.rank(Query.from_features(query, CODEBOOK, ASSIGNMENTS))
        true = dict(zip(rank.tolist(), score.tolist(), strict=True))
        assert len(ranking) == (score > 0).sum() > 20
        near = 1e-6 if binary else 5e-5  # residuals are kept in half precision
        np.testing.assert_allclose(ranking.scores, [true[image] for image in ranking.images.tolist()], atol=near)
        np.testing.assert_allclose(ranking.scores, score[: len(ranking)], atol=near)
        distinct = np.abs(np.diff(score[: len(ranking) + 1], prepend=2)) > 2 * near
        alone = distinct & np.append(distinct[1:], True)
        assert np.array_equal(ranking.images[alone[: len(ranking)]], rank[: len(ranking)][alone[: len(ranking)]])


@pytest.mark.parametrize(("alpha", "threshold"), [(1.0, 0.0), (3.0, 0.25), (2.0, 0.5)])
def test_parity_of_kernels(alpha: float, threshold: float, tmp_path: Path) -> None:
    index = ours(tmp_path / "index", 1, alpha=alpha, threshold=threshold)
    ranks, scores = theirs(True, False, alpha, threshold)
    for query, rank, score in zip(QUERIES, ranks, scores, strict=True):
        found = np.zeros(len(IMAGES))
        ranking = index.rank(Query.from_features(query, CODEBOOK, ASSIGNMENTS))
        found[ranking.images] = ranking.scores
        np.testing.assert_allclose(found[rank], score, atol=1e-5)


def written_out(first: Features, second: Features, dim: int, codebook: Codebook) -> float:
    """The kernel of two images by the formula, word by word."""

    def aggregates(features: Features) -> dict[int, NDArray[np.bool_]]:
        words = codebook.assign(features.descriptors, exact=True)[:, 0]
        return {
            int(word): (features.descriptors[words == word] - codebook.centroids[word]).sum(axis=0) > 0
            for word in set(words.tolist())
        }

    one, other = aggregates(first), aggregates(second)
    total = sum(
        max(1 - 2 * int((one[word] != other[word]).sum()) / dim, 0) ** 3.0 for word in one.keys() & other.keys()
    )
    return float(total / np.sqrt(len(one) * len(other)))


@pytest.mark.parametrize("dim", [32, 64, 96, 100, 128, 256])
def test_any_dimension_by_the_formula(dim: int, tmp_path: Path) -> None:
    codebook = make_codebook(20, dim)
    images = make_images(codebook, 8)
    with Index.create(tmp_path / "index", codebook, "asmk", SETTINGS) as index:
        index.add_many(images)
        asker = images[0][1]
        ranking = index.rank(Query.from_features(asker, codebook, 1))
    found = dict(zip(ranking.images.tolist(), ranking.scores.tolist(), strict=True))
    assert len(found) > 3
    for number, (_, features) in enumerate(images):
        true = written_out(asker, features, dim, codebook) if len(features) else 0.0
        assert found.get(number, 0.0) == pytest.approx(true, abs=1e-6)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("idf", [True, False])
def test_an_image_is_wholly_similar_to_itself(binary: bool, idf: bool, tmp_path: Path) -> None:
    index = ours(tmp_path / "index", 2, binary=binary, idf=idf)
    for number, (_, features) in enumerate(IMAGES[:6]):
        ranking = index.rank(Query.from_features(features, CODEBOOK, 1), top=1)
        assert ranking.images.tolist() == [number]
        assert ranking.scores[0] == pytest.approx(1, abs=1e-3)


def test_a_feature_of_weight_two_is_one_twice(tmp_path: Path) -> None:
    index = ours(tmp_path / "index", 1)
    query = Query.from_features(QUERIES[0], CODEBOOK, 1)
    weights = query.weights.copy()
    weights[::3] = 2
    rows = np.sort(np.concatenate([np.arange(len(query)), np.arange(0, len(query), 3)]))
    weighted = Query(query.words, query.distances, query.lafs, query.descriptors, weights)
    one, other = index.rank(weighted), index.rank(query.select(rows))
    assert np.array_equal(one.images, other.images)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    assert not np.array_equal(one.scores, index.rank(query).scores)


@given(
    keys=st.lists(st.integers(0, 6), max_size=30).map(sorted),
    seed=st.integers(0, 9),
)
def test_sum_of_groups(keys: list[int], seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(len(keys), 3)).astype(np.float32)
    starts, sums = sum_groups(np.array(keys, dtype=np.int64), rows)
    assert [keys[start] for start in starts] == sorted(set(keys))
    for key, found in zip(sorted(set(keys)), sums, strict=True):
        np.testing.assert_allclose(found, rows[np.array(keys) == key].sum(axis=0), atol=1e-5)


# Signatures.


@given(
    vectors=arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 200)), elements=st.sampled_from([-1, 0, 1]))
)
def test_signs_are_packed_and_unpacked(vectors: NDArray[np.float32]) -> None:
    packed = bits.pack_signs(vectors)
    assert packed.shape == (len(vectors), bits.words_of(vectors.shape[1]))
    assert np.array_equal(bits.unpack_signs(packed, vectors.shape[1]), vectors > 0)


@settings(max_examples=30)
@given(seed=st.integers(0, 1000), dim=st.integers(1, 300), count=st.integers(0, 20))
def test_hamming_distance(seed: int, dim: int, count: int) -> None:
    first, second = np.random.default_rng(seed).normal(size=(2, count, dim))
    found = bits.hamming(bits.pack_signs(first), bits.pack_signs(second))
    assert found.tolist() == ((first > 0) != (second > 0)).sum(axis=1).tolist()


@pytest.mark.skipif(not hasattr(np, "bitwise_count"), reason="this numpy has no bitwise_count to do without")
def test_bits_are_counted_without_the_instruction_too(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = np.random.default_rng(0).integers(0, 1 << 64, (50, 3), dtype=np.uint64)
    counted = bits.popcount(packed)
    monkeypatch.delattr(np, "bitwise_count")
    assert np.array_equal(bits.popcount(packed), counted)
