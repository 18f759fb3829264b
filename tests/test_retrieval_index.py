"""The index folder: what goes in comes out, rankings, and several readers and writers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from index_helpers import CODEBOOK, IMAGES, QUERY, built, same_ranking
from retrieval_helpers import SETTINGS, make_codebook, make_features

from hardnet_match.errors import DataError, OptionError, StoreError
from hardnet_match.features import Features
from hardnet_match.retrieval import segment
from hardnet_match.retrieval.codebook import Codebook
from hardnet_match.retrieval.index import Index

pytestmark = pytest.mark.usefixtures("quick_disk")


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [IMAGES])
    assert index.names == [name for name, _ in IMAGES]
    assert len(index) == len(IMAGES)
    assert index.settings == SETTINGS
    assert index.method == "asmk"
    assert IMAGES[0][0] in index
    assert "other.jpg" not in index
    for number, (name, features) in enumerate(IMAGES):
        lafs, words = index.geometry(number)
        assert np.array_equal(lafs, features.lafs)
        assert np.array_equal(words, CODEBOOK.assign(features.descriptors)[:, 0] if len(features) else words[:0])
        assert index.number(name) == number
        assert index.view.image_size(number) == features.image_size
    with pytest.raises(StoreError, match=r"no image 'other\.jpg'"):
        index.number("other.jpg")
    with pytest.raises(DataError, match=r"0\.\.11"):
        index.geometry(12)


def test_geometry_of_many(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [IMAGES[:5], IMAGES[5:]])
    wanted = [7, 3, 0, 11, 7]
    many = index.geometries(wanted)
    for place, number in enumerate(wanted):
        rows = slice(*many.offsets[place : place + 2])
        assert np.array_equal(many.lafs[rows], IMAGES[number][1].lafs)
        assert np.array_equal(many.words[rows], index.geometry(number)[1])
    assert index.geometries([]).offsets.tolist() == [0]


@pytest.mark.parametrize("method", ["asmk", "bow"])
def test_postings_of_images(method: str, tmp_path: Path) -> None:
    index = built(tmp_path / "index", [IMAGES[:5], IMAGES[5:]], method)
    some = index.view.postings_of([6, 2])
    alone = {number: index.view.postings_of([number]) for number in (2, 6)}
    assert (np.diff(some.words.astype(np.int64)) >= 0).all()
    for number, postings in alone.items():
        own = some.images == number
        assert np.array_equal(np.unique(postings.words), np.unique(index.geometry(number)[1]))
        assert np.array_equal(some.words[own], postings.words)
        for key in index.scorer.payload:
            assert np.array_equal(some.payload[key][own], postings.payload[key])
    nothing = index.view.postings_of([3])
    assert len(nothing) == 0
    assert nothing.payload.keys() == some.payload.keys()


@pytest.mark.parametrize(("method", "parameters"), [("asmk", {"idf": True}), ("asmk", {"binary": False}), ("bow", {})])
def test_scores_do_not_depend_on_how_many_postings_are_read_at_once(
    method: str, parameters: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = built(tmp_path / "whole", [IMAGES], method, **parameters)
    expected = whole.rank(QUERY)
    for at_once in (1, 7, 100):
        monkeypatch.setattr(segment, "POSTINGS_AT_ONCE", at_once)
        parts = built(tmp_path / f"by {at_once}", [IMAGES[:7], IMAGES[7:]], method, **parameters)
        for index in (whole, parts):
            found = index.rank(QUERY)
            assert np.array_equal(found.images, expected.images)
            assert np.array_equal(found.scores, expected.scores)


def test_what_was_added_is_there_at_once(tmp_path: Path) -> None:
    with Index.create(tmp_path / "index", CODEBOOK, settings=SETTINGS) as index:
        assert len(index) == 0
        assert len(index.rank(QUERY)) == 0
        index.add(*IMAGES[0])
        assert IMAGES[0][0] in index
        assert len(index) == 1
        index.add(*IMAGES[1])
        assert index.rank(IMAGES[1][1], top=1).images.tolist() == [1]


def test_an_image_may_be_added_once(tmp_path: Path) -> None:
    with built(tmp_path / "index", [IMAGES[:3]]) as index:
        with pytest.raises(StoreError, match="already"):
            index.add(*IMAGES[1])
        index.add("new.jpg", IMAGES[1][1])
        with pytest.raises(StoreError, match="already"):
            index.add("new.jpg", IMAGES[1][1])
        with pytest.raises(StoreError, match="absolute"):
            index.add("/etc/passwd", IMAGES[1][1])
        with pytest.raises(DataError, match=r"odd\.jpg: descriptors"):
            index.add("odd.jpg", make_features(make_codebook(dim=64), 5, seed=1))
        assert len(index) == 4


def test_ranking_is_cut_by_score_and_then_by_number(tmp_path: Path) -> None:
    twin = IMAGES[5][1]
    index = built(tmp_path / "index", [[(f"{number}.jpg", twin) for number in range(9)]])
    ranking = index.rank(twin, top=4)
    assert ranking.images.tolist() == [0, 1, 2, 3]
    assert len(set(ranking.scores.tolist())) == 1
    with pytest.raises(OptionError, match="top"):
        index.rank(twin, top=0)


@pytest.mark.parametrize("method", ["asmk", "bow"])
def test_a_cut_ranking_is_the_head_of_the_whole(method: str, tmp_path: Path) -> None:
    index = built(tmp_path / "index", [IMAGES], method)
    whole = index.rank(QUERY)
    assert (np.diff(whole.scores) <= 0).all()
    assert (whole.scores > 0).all()
    for top in range(1, len(IMAGES) + 3):
        cut = index.rank(QUERY, top)
        assert np.array_equal(cut.images, whole.images[:top])
        assert np.array_equal(cut.scores, whole.scores[:top])


@pytest.mark.parametrize("method", ["asmk", "bow"])
def test_a_query_without_features_finds_nothing(method: str, tmp_path: Path) -> None:
    index = built(tmp_path / "index", [IMAGES], method)
    empty = Features(np.empty((0, 2, 3), np.float32), np.empty(0, np.float32), np.empty((0, 0), np.float32), (9, 9))
    assert len(index.rank(empty)) == 0


def test_only_images_without_features(tmp_path: Path) -> None:
    index = built(tmp_path / "index", [IMAGES[3:4]])
    assert len(index) == 1
    assert len(index.rank(QUERY)) == 0


def test_an_index_made_anew_from_its_own_codebook(tmp_path: Path) -> None:
    """What is mapped must not be written over: neither the codebook in hand nor the index somebody searches in."""
    reader = built(tmp_path / "index", [IMAGES])
    before = reader.rank(QUERY)
    with Index.create(
        tmp_path / "index", Codebook.load(tmp_path / "index" / "codebook"), "asmk", overwrite=True
    ) as new:
        new.add_many(IMAGES[:5])
    assert same_ranking(Index.open(tmp_path / "index"), built(tmp_path / "other", [IMAGES[:5]]))
    assert np.array_equal(reader.rank(QUERY).scores, before.scores)


def test_an_index_made_in_the_place_of_an_open_one(tmp_path: Path) -> None:
    old = built(tmp_path / "index", [IMAGES[:4]])
    new = built(tmp_path / "index", [IMAGES[4:8]])
    with pytest.raises(StoreError, match="another index was made"):
        old.add(*IMAGES[9])
    assert old.names == [name for name, _ in IMAGES[:4]]
    with new:
        new.add(*IMAGES[9])
    assert len(Index.open(tmp_path / "index")) == 5


def test_two_writers_refuse_each_other_and_readers_do_not_mind(tmp_path: Path) -> None:
    reader = built(tmp_path / "index", [IMAGES[:4]])
    with Index.open(tmp_path / "index") as first:
        first.add(*IMAGES[4])
        second = Index.open(tmp_path / "index")
        with pytest.raises(StoreError, match="another process"):
            second.add(*IMAGES[5])
        with pytest.raises(StoreError, match="another process"):
            Index.create(tmp_path / "index", CODEBOOK, overwrite=True)
        first.flush()
        assert len(reader) == 4
        assert reader.rank(IMAGES[2][1], top=1).images.tolist() == [2]
        assert len(Index.open(tmp_path / "index")) == 5
    second.add(*IMAGES[5])  # it takes up what the first has written
    second.close()
    assert Index.open(tmp_path / "index").names == [name for name, _ in IMAGES[:6]]
