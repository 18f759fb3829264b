"""Hamming embedding and Hamming query expansion, against plain loops over features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardnet_match.errors import DataError, OptionError
from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.retrieval import hamming
from hardnet_match.retrieval.bits import pack_signs, unpack_signs
from hardnet_match.retrieval.codebook import Codebook
from hardnet_match.retrieval.hamming import Embedding, majority, matches, tolerance
from hardnet_match.retrieval.hqe import HQE
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.method import Postings
from hardnet_match.retrieval.query import Query

DIM = 32


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def features(descriptors: np.ndarray) -> Features:
    rng = np.random.default_rng(len(descriptors))
    lafs = make_lafs(rng.uniform(0, 100, (len(descriptors), 2)), 5.0)
    return Features(lafs, np.ones(len(descriptors), np.float32), descriptors.astype(np.float32), (100, 100))


@pytest.fixture(scope="module")
def codebook() -> Codebook:
    return Codebook(unit(np.random.default_rng(0).normal(size=(24, DIM))))


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    """Descriptors of twelve images: three places seen four times, and some of everything in each."""
    rng = np.random.default_rng(1)
    places = [unit(rng.normal(size=(40, DIM))) for _ in range(3)]
    found = []
    for number in range(12):
        seen = places[number % 3][rng.random(40) < 0.6]
        noise = rng.normal(0, 0.25 / np.sqrt(DIM), seen.shape)
        found.append(np.concatenate([unit(seen + noise), unit(rng.normal(size=(25, DIM)))]))
    return found


PARAMETERS = {
    "bits": DIM, "threshold": 12, "sigma": 8.0, "strict": 7, "top": 6, "correspondences": 3, "alpha": 0.5
}  # fmt: skip


def make_index(folder: Path, codebook: Codebook, images: list[np.ndarray], **parameters: Any) -> Index:
    sample = np.concatenate(images)
    with Index.create(folder, codebook, "hqe", sample=sample, **{**PARAMETERS, **parameters}) as index:
        for number, descriptors in enumerate(images):
            index.add(f"{number:02d}.jpg", features(descriptors))
            if number == 6:
                index.flush()  # two segments
    return Index.open(folder)


class Plain:
    """Hamming embedding and HQE one feature at a time, as the paper tells it."""

    def __init__(self, codebook: Codebook, images: list[np.ndarray], embedding: Embedding, how: dict[str, Any]) -> None:
        self.codebook, self.images, self.embedding, self.how = codebook, images, embedding, how
        self.words = [codebook.assign(d, 1)[:, 0] for d in images]
        self.bits = [self.signs(d, w) for d, w in zip(images, self.words, strict=True)]
        frequency = np.array([sum(k in w for w in self.words) for k in range(len(codebook))])
        self.idf = np.array([np.log(len(images) / n) if n else 0.0 for n in frequency])
        self.norms = [np.sqrt(sum((np.sum(w == k) * self.idf[k]) ** 2 for k in set(w))) for w in self.words]

    def signs(self, descriptors: np.ndarray, words: np.ndarray) -> np.ndarray:
        projected = descriptors @ self.embedding.projection.T
        return np.asarray(projected > self.embedding.thresholds[words].astype(np.float32))

    def scores(self, words: np.ndarray, bits: np.ndarray) -> tuple[list[float], list[int]]:
        scores, strong = [], []
        norm = np.sqrt(sum(self.idf[w] ** 2 for w in words))
        for own, theirs, image_norm in zip(self.words, self.bits, self.norms, strict=True):
            total, strict = 0.0, 0
            for word, signature in zip(words, bits, strict=True):
                distances = [int((signature ^ other).sum()) for other in theirs[own == word]]
                gains = [np.exp(-((h / self.how["sigma"]) ** 2)) for h in distances if h <= self.how["threshold"]]
                if gains:
                    burst = np.sqrt(len(gains)) if self.how["burstiness"] else 1
                    total += sum(gains) / burst * self.idf[word] ** 2
                strict += sum(h <= self.how["strict"] for h in distances)
            scores.append(total / (norm * image_norm))
            strong.append(strict)
        return scores, strong

    def search(self, descriptors: np.ndarray, assignments: int) -> tuple[list[float], int]:
        """Scores, and how many images were reliable."""
        table = self.codebook.assign(descriptors, assignments)
        words = table.T.reshape(-1)
        bits = self.signs(np.tile(descriptors, (assignments, 1)), words)
        scores, strong = self.scores(words, bits)
        if not self.how["expand"]:
            return scores, 0
        best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[: self.how["top"]]
        reliable = [i for i in best if strong[i] >= self.how["correspondences"]]
        if not reliable:
            return scores, 0
        shared = {k: sum(k in self.words[i] for i in reliable) for k in range(len(self.codebook))}
        chosen: list[int] = []
        new, most = 0, int(self.how["alpha"] * len(set(words)))
        for candidate in sorted((k for k, n in shared.items() if n), key=lambda k: (-shared[k], k)):
            new += candidate not in words
            if new > most:
                break
            chosen.append(candidate)
        pool: dict[int, list[np.ndarray]] = {}
        for word, signature in zip(words, bits, strict=True):
            pool.setdefault(int(word), []).append(signature)
        for image in reliable:
            for word, signature in zip(self.words[image], self.bits[image], strict=True):
                if word in chosen:
                    pool.setdefault(int(word), []).append(signature)
        joined = []
        for number in sorted(pool):
            mean = np.mean(pool[number], axis=0)
            # Ties are the implementation's own coin; `test_majority` is about them.
            coin = unpack_signs(
                majority(
                    np.full(len(pool[number]), number, np.uint32),
                    pack_signs(np.array(pool[number], np.int8)),
                    np.ones(len(pool[number])),
                    self.embedding.bits,
                )[1],
                self.embedding.bits,
            )[0]
            joined.append(np.where(mean == 0.5, coin, mean > 0.5))
        return self.scores(np.array(sorted(pool)), np.array(joined))[0], len(reliable)


@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("burstiness", [False, True])
def test_against_plain_loops(
    tmp_path: Path, codebook: Codebook, images: list[np.ndarray], expand: bool, burstiness: bool
) -> None:
    how = {**PARAMETERS, "expand": expand, "burstiness": burstiness}
    index = make_index(tmp_path / "index", codebook, images, expand=expand, burstiness=burstiness)
    assert isinstance(index.scorer, HQE)
    plain = Plain(codebook, images, index.scorer.embedding, how)
    expanded = 0
    for assignments in (1, 3):
        for descriptors in images[:5]:
            expected, reliable = plain.search(descriptors, assignments)
            expanded += reliable > 1
            query = index.query(features(descriptors), assignments)
            found = index.scorer.score(index.scorer.represent(query), index.view)
            np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)
    assert expanded >= 5 * expand  # there was something to expand with


def test_expansion_finds_what_the_query_alone_does_not_see_well(
    tmp_path: Path, codebook: Codebook, images: list[np.ndarray]
) -> None:
    plain = make_index(tmp_path / "plain", codebook, images, expand=False)
    full = make_index(tmp_path / "full", codebook, images)
    gaps = []
    for number, descriptors in enumerate(images):
        same = [i for i in range(12) if i % 3 == number % 3 and i != number]
        others = [i for i in range(12) if i % 3 != number % 3]
        means = []
        for index in (plain, full):
            scores = np.zeros(12)
            ranking = index.rank(features(descriptors))
            scores[ranking.images] = ranking.scores / ranking.scores[0]
            means.append(scores[same].mean() - scores[others].mean())
        gaps.append(means)
    before, after = np.mean(gaps, axis=0)
    assert after > before


def test_the_second_query_is_little_larger_than_the_first(
    tmp_path: Path, codebook: Codebook, images: list[np.ndarray]
) -> None:
    index = make_index(tmp_path / "index", codebook, images, alpha=0.25)
    method = index.scorer
    assert isinstance(method, HQE)
    query = method.represent(index.query(features(images[0][:15]), 1))
    own = np.unique(query.words)
    second = method.expanded(query, np.array([3, 6, 9]), index.view)
    assert (np.diff(second.words.astype(int)) > 0).all()
    assert len(np.setdiff1d(own, second.words)) == 0
    assert 1 <= len(second) - len(own) <= 0.25 * len(own)
    new = np.setdiff1d(second.words, own)
    seen = [np.unique(index.geometry(i)[1]) for i in (3, 6, 9)]
    shared = {int(k): sum(k in words for words in seen) for k in np.unique(np.concatenate(seen))}
    left_out = [k for k in shared if k not in second.words]
    assert min(shared[int(k)] for k in new) >= max(shared[k] for k in left_out)


def test_segments_and_runs_do_not_matter(
    tmp_path: Path, codebook: Codebook, images: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (make_index(tmp_path / name, codebook, images) for name in ("one", "two"))
    with two:
        two.compact()
    expected = one.rank(features(images[2]))
    monkeypatch.setattr(hamming, "PAIRS_AT_ONCE", 7)
    for index in (one, two):
        found = index.rank(features(images[2]))
        np.testing.assert_array_equal(found.images, expected.images)
        np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_an_image_finds_itself_first_and_nothing_finds_nothing(
    tmp_path: Path, codebook: Codebook, images: list[np.ndarray]
) -> None:
    index = make_index(tmp_path / "index", codebook, images, expand=False)
    for number, descriptors in enumerate(images):
        assert index.rank(features(descriptors)).images[0] == number
    assert len(index.rank(features(np.zeros((0, DIM))))) == 0
    empty = Index.create(tmp_path / "empty", codebook, "hqe")
    assert len(empty.rank(features(images[0]))) == 0


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 60), st.sampled_from([8, 64, 100, 128]))
def test_majority(seed: int, count: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    words, signs = rng.integers(0, 9, count).astype(np.uint32), rng.random((count, bits)) < 0.5
    weights = rng.choice([0.5, 1.0, 2.0], count)
    found_words, found = majority(words, pack_signs(signs), weights, bits)
    assert found_words.tolist() == sorted(set(words.tolist()))
    again = majority(words[::-1], pack_signs(signs[::-1]), weights[::-1], bits)
    np.testing.assert_array_equal(again[1], found)
    for word, packed in zip(found_words, found, strict=True):
        votes = (weights[words == word, None] * np.where(signs[words == word], 1, -1)).sum(axis=0)
        got = unpack_signs(packed[None], bits)[0]
        assert (got[votes != 0] == (votes[votes != 0] > 0)).all()


def test_even_votes_are_decided_evenly() -> None:
    words = np.repeat(np.arange(200, dtype=np.uint32), 2)
    signs = np.tile([[True] * 128, [False] * 128], (200, 1))
    _, found = majority(words, pack_signs(signs), np.ones(400), 128)
    share = unpack_signs(found, 128)
    assert 0.45 < share.mean() < 0.55
    assert 0.2 < share.mean(axis=0).min() < share.mean(axis=0).max() < 0.8


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(1, 40), st.integers(0, 16))
def test_matches_are_all_close_pairs_of_a_word(seed: int, count: int, threshold: int) -> None:
    rng = np.random.default_rng(seed)
    words = np.sort(rng.integers(0, 6, count)).astype(np.uint32)
    own = pack_signs(rng.random((count, 16)) < 0.5)
    stored_words = np.sort(rng.integers(0, 6, 50)).astype(np.uint32)
    stored = pack_signs(rng.random((50, 16)) < 0.5)
    images = np.concatenate([np.sort(rng.integers(0, 8, n)) for n in np.bincount(stored_words, minlength=6)])

    class View:
        def gather(self, wanted: Any, keys: Any) -> Any:
            from hardnet_match.retrieval.method import Run

            for row, word in enumerate(wanted):
                rows = np.flatnonzero(stored_words == word)
                yield Run(np.full(len(rows), row), images[rows], {"signatures": stored[rows]})

    query = Postings(words, np.zeros(count, np.int64), {"signatures": own})
    view: Any = View()
    found = [
        tuple(row) for part in matches(query, view, threshold) for row in np.stack(part, axis=1).astype(int).tolist()
    ]
    expected = [
        (i, int(images[j]), int(bin(int(own[i, 0] ^ stored[j, 0])).count("1")))
        for i in range(count)
        for j in range(50)
        if words[i] == stored_words[j]
    ]
    assert sorted(found) == sorted(pair for pair in expected if pair[2] <= threshold)
    groups = [pair[:2] for pair in found]
    assert len(set(groups)) == sum(a != b for a, b in zip([None, *groups], groups, strict=False))


@pytest.mark.parametrize("bits", [16, DIM, 48])
def test_projections_are_orthogonal_and_seeded(codebook: Codebook, bits: int) -> None:
    first, again, other = (Embedding.learn(codebook, bits, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.projection, again.projection)
    assert np.abs(first.projection - other.projection).max() > 0.1
    some = first.projection[: min(bits, DIM)]
    np.testing.assert_allclose(some @ some.T, np.eye(len(some)), atol=1e-5)


def test_medians_are_those_of_each_words_sample(codebook: Codebook) -> None:
    rng = np.random.default_rng(2)
    sample = unit(rng.normal(size=(600, DIM)))
    words = codebook.assign(sample)[:, 0]
    few = np.flatnonzero(np.bincount(words, minlength=24) < hamming.FEWEST)
    sample = sample[~np.isin(words, few[:1])]
    words = codebook.assign(sample)[:, 0]
    learnt = Embedding.learn(codebook, 20, sample=sample)
    counts = np.bincount(words, minlength=24)
    assert (counts >= hamming.FEWEST).sum() >= 12
    for word in range(24):
        rows = sample[words == word] if counts[word] >= hamming.FEWEST else codebook.centroids[word][None]
        expected = np.median(rows @ learnt.projection.T, axis=0)
        np.testing.assert_allclose(learnt.thresholds[word].astype(np.float32), expected, atol=1e-3)
    bits = unpack_signs(learnt.signatures(sample, words), 20)
    full = bits[counts[words] >= hamming.FEWEST]
    assert 0.4 < full.mean() < 0.55


def test_pca_keeps_more_of_what_differs_than_chance(codebook: Codebook) -> None:
    rng = np.random.default_rng(3)
    # What tells descriptors apart lies in eight directions; the other twenty-four are noise.
    strong = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0][:8]
    base = codebook.centroids[rng.integers(0, 24, 900)]
    place = rng.normal(size=(900, 8)) @ strong
    near = [base + 0.1 * place + rng.normal(0, 0.04, base.shape) for _ in range(2)]
    words = codebook.assign(base)[:, 0]
    gaps = []
    for kind in ("random", "pca"):
        learnt = Embedding.learn(codebook, 8, projection=kind, sample=near[0].astype(np.float32))
        first, second = (unpack_signs(learnt.signatures(d.astype(np.float32), words), 8) for d in near)
        same, other = (first ^ second).mean(), (first ^ np.roll(second, 24, axis=0)).mean()
        gaps.append(other - same)
    assert gaps[1] > gaps[0] + 0.05


def test_tolerance_falls_and_ends() -> None:
    table = tolerance(128, 48, 32.0)
    assert len(table) == 129
    assert table[0] == 1
    assert not table[49:].any()
    assert (np.diff(table[:49]) < 0).all()
    assert table[32] == pytest.approx(np.exp(-1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bits": 4},
        {"threshold": 200},
        {"strict": 60},
        {"sigma": 0.0},
        {"alpha": -1.0},
        {"top": 0},
        {"correspondences": 0},
        {"projection": "itq"},
        {"seed": -1},
        {"nonsense": 1},
    ],
)
def test_parameters_that_cannot_work(tmp_path: Path, codebook: Codebook, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Index.create(tmp_path / "index", codebook, "hqe", **wrong)
    assert not (tmp_path / "index").exists()


def test_what_cannot_be_embedded_is_told(codebook: Codebook) -> None:
    with pytest.raises(OptionError, match="sample"):
        Embedding.learn(codebook, 16, projection="pca")
    with pytest.raises(OptionError, match="dimension 32"):
        Embedding.learn(codebook, 48, projection="pca", sample=codebook.centroids)
    with pytest.raises(OptionError, match="at least one bit"):
        Embedding.learn(codebook, 0)
    with pytest.raises(DataError):
        Embedding.learn(codebook, 16, sample=np.zeros((4, 8), np.float32))
    learnt = Embedding.learn(codebook, 16)
    with pytest.raises(DataError):
        learnt.signatures(np.zeros((4, DIM), np.float32), np.zeros(3, int))


def test_weights_of_a_query_count(tmp_path: Path, codebook: Codebook, images: list[np.ndarray]) -> None:
    index = make_index(tmp_path / "index", codebook, images, expand=False)
    query = index.query(features(images[0]), 2)
    heavy = np.where(np.arange(len(query)) < 20, 3.0, 1.0).astype(np.float32)
    weighted = Query(query.words, query.distances, query.lafs, query.descriptors, heavy)
    parts = [query.select(np.arange(20)), query.select(np.arange(20, len(query)))]
    method, view = index.scorer, index.view

    def raw(asked: Query) -> Any:
        """Scores without the query's own norm."""
        made = method.represent(asked)
        idf = np.log(12 / np.maximum(view.document_frequency, 1))[made.words]
        return method.score(made, view) * np.sqrt((idf**2 * made.payload["weights"]).sum())

    np.testing.assert_allclose(raw(weighted), 3 * raw(parts[0]) + raw(parts[1]), rtol=1e-6)
