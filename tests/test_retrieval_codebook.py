"""Codebooks: nearest words against comparison with all, training against the flat one, and files that cannot lie."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from retrieval_helpers import SETTINGS, make_codebook, make_features, unit
from sklearn.neighbors import NearestNeighbors

from hardnet_match.errors import DataError, OptionError, StoreError
from hardnet_match.retrieval.assignment import Cells, means, nearest_of_all
from hardnet_match.retrieval.clustering import shares
from hardnet_match.retrieval.codebook import Codebook, differing
from hardnet_match.retrieval.query import Query


def clustered(count: int, seed: int, dim: int = 32, places: int = 200) -> NDArray[np.float32]:
    """Descriptors that crowd together as real ones do."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(places, dim))
    return unit(centres[rng.integers(0, places, count)] + 0.4 * rng.normal(size=(count, dim)))


def by_comparison(codebook: Codebook, points: NDArray[np.float32], k: int) -> tuple[NDArray, NDArray]:
    distances, words = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(codebook.centroids).kneighbors(points)
    return words, distances**2


@pytest.fixture(scope="module")
def large() -> Codebook:
    """4096 words, enough for cells."""
    return Codebook(clustered(4096, seed=1))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_exact_is_the_nearest_of_all(large: Codebook, k: int) -> None:
    points = clustered(700, seed=2)
    words, distances = large.nearest(points, k, exact=True)
    true_words, true_distances = by_comparison(large, points, k)
    np.testing.assert_allclose(distances, true_distances, atol=1e-5)
    assert (words == true_words).mean() > 0.999  # equal distances may come in either order
    assert words.dtype == np.uint32
    assert distances.dtype == np.float32


@pytest.mark.parametrize("k", [1, 3])
def test_cells_find_nearly_all(large: Codebook, k: int) -> None:
    points = clustered(2000, seed=3)
    assert len(large.cells.centres) > 16
    words, distances = large.nearest(points, k)
    true_words, _ = by_comparison(large, points, k)
    found = np.mean([len(set(a) & set(b)) / k for a, b in zip(words, true_words, strict=True)])
    assert found > 0.9
    told = np.square(points[:, None] - large.centroids[words]).sum(axis=2)
    np.testing.assert_allclose(distances, told, atol=1e-6)
    assert (np.diff(distances, axis=1) >= 0).all()


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(0, 1500), max_size=6), k=st.integers(1, 4))
def test_a_descriptor_goes_to_the_same_words_in_whatever_company(cuts: list[int], k: int) -> None:
    codebook, points = COMPANY
    whole = codebook.nearest(points, k)
    parts = [codebook.nearest(part, k) for part in np.split(points, sorted(cuts))]
    for together, apart in zip(whole, zip(*parts, strict=True), strict=True):
        assert np.array_equal(together, np.concatenate(apart))


COMPANY = (Codebook(clustered(2048, seed=5)), clustered(1500, seed=6))


@settings(max_examples=30)
@given(words=st.integers(1, 40), k=st.integers(1, 40), dim=st.integers(1, 9), seed=st.integers(0, 99))
def test_small_codebooks(words: int, k: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    codebook, points = Codebook(rng.normal(size=(words, dim))), rng.normal(size=(13, dim)).astype(np.float32)
    if k > words:
        with pytest.raises(OptionError, match=f"1..{words} words"):
            codebook.nearest(points, k)
        return
    found, distances = codebook.nearest(points, k)
    _, true = by_comparison(codebook, points, k)
    np.testing.assert_allclose(distances, true, rtol=1e-4, atol=1e-5)
    assert all(len(set(row)) == k for row in found.tolist())


def test_equal_words_are_taken_in_order() -> None:
    codebook = Codebook(np.ones((5, 4), np.float32))
    assert codebook.assign(np.zeros((3, 4), np.float32), 4).tolist() == [[0, 1, 2, 3]] * 3


@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_other_number_types_are_cast(dtype: type) -> None:
    rng = np.random.default_rng(0)
    codebook = Codebook(rng.uniform(0, 255, (50, 16)))
    points = rng.uniform(0, 255, (30, 16)).astype(dtype)
    assert np.array_equal(codebook.assign(points), codebook.assign(points.astype(np.float32)))


def test_no_descriptors_no_words() -> None:
    words, distances = make_codebook().nearest(np.empty((0, 128), np.float32), 3)
    assert words.shape == distances.shape == (0, 3)


def test_wrong_descriptors_are_told() -> None:
    codebook = make_codebook(dim=16)
    with pytest.raises(DataError, match="dimension 16"):
        codebook.assign(np.zeros((3, 17), np.float32))
    with pytest.raises(DataError, match="NaN"):
        codebook.assign(np.full((1, 16), np.nan, np.float32))
    with pytest.raises(DataError, match="centroids must be"):
        Codebook(np.zeros(4))


def test_nearest_of_all_and_means() -> None:
    points, centres = clustered(500, seed=1), clustered(7, seed=2)
    group = nearest_of_all(points, centres)
    assert np.array_equal(group, np.square(points[:, None] - centres).sum(axis=2).argmin(axis=1))
    group[group == 3] = 4
    moved = means(points, group, centres)
    for number in range(7):
        own = points[group == number]
        np.testing.assert_allclose(moved[number], own.mean(axis=0) if len(own) else centres[number], atol=1e-6)


def test_cells_hold_every_word_once() -> None:
    cells = Cells.build(clustered(3000, seed=4))
    assert np.array_equal(np.sort(cells.order), np.arange(3000))
    assert cells.starts[0] == 0
    assert cells.starts[-1] == 3000


@pytest.mark.parametrize("flat", [True, False])
def test_training_minimises_the_distance(flat: bool) -> None:
    points = clustered(6000, seed=7)
    codebook = Codebook.train(points, 256, seed=3, iterations=8, flat=flat, settings=SETTINGS)
    _, distances = by_comparison(codebook, points, 1)
    drawn = by_comparison(Codebook(points[:256]), points, 1)[1]
    assert distances.mean() < 0.85 * drawn.mean()
    assert codebook.about["error"] == pytest.approx(distances.mean(), rel=0.05)
    assert codebook.about["settings"] == SETTINGS
    assert (codebook.about["seed"], codebook.about["sample"], codebook.about["iterations"]) == (3, 6000, 8)
    again = Codebook.train(points, 256, seed=3, iterations=8, flat=flat)
    assert again.hash == codebook.hash
    assert Codebook.train(points, 256, seed=4, iterations=8, flat=flat).hash != codebook.hash


def test_two_levels_are_as_good_as_flat() -> None:
    points, other = clustered(20_000, seed=8), clustered(5000, seed=9)
    errors = {
        flat: by_comparison(Codebook.train(points, 1500, iterations=10, flat=flat), other, 1)[1].mean()
        for flat in (True, False)
    }
    assert errors[False] < 1.03 * errors[True]


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=20).filter(any), data=st.data())
def test_shares_of_words(counts: list[int], data: st.DataObject) -> None:
    words = data.draw(st.integers(1, sum(counts)))
    share = shares(np.array(counts), words)
    assert share.sum() == words
    assert (share <= counts).all()
    assert (np.abs(share - np.array(counts) * words / sum(counts)) < 1).all()


def test_too_few_descriptors() -> None:
    with pytest.raises(DataError, match="fewer words"):
        Codebook.train(clustered(10, seed=0), 11)
    with pytest.raises(OptionError, match="at least one word"):
        Codebook.train(clustered(10, seed=0), 0)


def test_without_faiss_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(OptionError, match=r"hardnet-match\[retrieval\]"):
        Codebook.train(clustered(100, seed=0), 10)
    assert make_codebook().assign(clustered(5, seed=0, dim=128)).shape == (5, 1)  # a trained one needs none


def test_saved_and_loaded(large: Codebook, tmp_path: Path) -> None:
    large.about["settings"] = SETTINGS
    large.save(tmp_path / "words")
    loaded = Codebook.load(tmp_path / "words")
    assert np.array_equal(loaded.centroids, large.centroids)
    assert (loaded.hash, loaded.about) == (large.hash, large.about)
    points = clustered(300, seed=4)
    assert np.array_equal(loaded.assign(points, 3), large.assign(points, 3))


@pytest.mark.parametrize("name", ["centroids.npy", "centres.npy", "order.npy", "starts.npy"])
def test_a_damaged_file_is_named(name: str, tmp_path: Path) -> None:
    make_codebook().save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[:-1])
    with pytest.raises(StoreError, match=f"{name}.*damaged"):
        Codebook.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match=f"{name}: missing"):
        Codebook.load(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other"}', "null", '{"format": [1'])
def test_a_record_that_is_none(text: str, tmp_path: Path) -> None:
    make_codebook().save(tmp_path)
    (tmp_path / "codebook.json").write_text(text)
    with pytest.raises(StoreError, match=r"codebook\.json: not a readable codebook"):
        Codebook.load(tmp_path)


def test_no_codebook_and_one_of_another_version(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no codebook there"):
        Codebook.load(tmp_path)
    make_codebook().save(tmp_path)
    record = json.loads((tmp_path / "codebook.json").read_text())
    (tmp_path / "codebook.json").write_text(json.dumps({**record, "version": 99}))
    with pytest.raises(StoreError, match="version 99"):
        Codebook.load(tmp_path)


def test_features_of_other_weights_are_refused() -> None:
    codebook = make_codebook()
    codebook.check_settings({**SETTINGS, "max_keypoints": 5, "max_size": 640}, "more.h5")
    codebook.check_settings({}, "another program's features")
    with pytest.raises(StoreError, match=r"more\.h5.*weights\.descriptor: '0bea0c57' -> 'ffff'"):
        codebook.check_settings({**SETTINGS, "weights": {"descriptor": "ffff"}}, "more.h5")
    assert differing(SETTINGS, {**SETTINGS, "descriptor": "tfeat"}) == "descriptor: 'hardnet' -> 'tfeat'"


def test_query_of_features() -> None:
    codebook = make_codebook()
    features = make_features(codebook, 20, seed=1)
    query = Query.from_features(features, codebook, 3)
    assert np.array_equal(query.words, codebook.assign(features.descriptors, 3))
    assert len(query.select(query.words[:, 0] < 32)) == (query.words[:, 0] < 32).sum()
    with pytest.raises(DataError, match="lafs must be"):
        Query(query.words, query.distances, query.lafs[1:], query.descriptors, query.weights)
