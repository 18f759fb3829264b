"""The index folder: added to without rebuilding, whole at any moment, and plain about what is wrong with it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from retrieval_helpers import SETTINGS, make_codebook, make_features, make_images

from hardnet_match.errors import DataError, OptionError, StoreError
from hardnet_match.features import Features
from hardnet_match.retrieval import files, merging, removal, segment
from hardnet_match.retrieval import index as index_module
from hardnet_match.retrieval.codebook import Codebook
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.merging import MERGE_AT, to_merge

CODEBOOK = make_codebook()


@pytest.fixture(autouse=True, scope="module")
def quick_disk() -> Iterator[None]:
    """Nobody pulls the plug while the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


IMAGES = make_images(CODEBOOK, 12)
QUERY = make_features(CODEBOOK, 50, seed=77)


def built(folder: Path, groups: list[list[tuple[str, Features]]], method: str = "asmk", **parameters: Any) -> Index:
    """An index of the images, each group committed on its own."""
    with Index.create(folder, CODEBOOK, method, SETTINGS, overwrite=True, **parameters) as index:
        for group in groups:
            index.add_many(group)
            index.flush()
    return Index.open(folder)


def stored(folder: Path) -> list[bytes]:
    """Contents of the segments, whatever number they have."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return [(folder / "segments" / entry["file"]).read_bytes() for entry in manifest["segments"]]


def same_ranking(first: Index, second: Index) -> bool:
    one, other = first.rank(QUERY), second.rank(QUERY)
    return np.array_equal(one.images, other.images) and np.array_equal(one.scores, other.scores)


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


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(IMAGES)), max_size=10),
    method=st.sampled_from(["asmk", "bow"]),
    reopen=st.booleans(),
    at_once=st.sampled_from([1, 40, 1 << 20]),
)
def test_adding_is_rebuilding_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    cuts: list[int],
    method: str,
    reopen: bool,
    at_once: int,
) -> None:
    folder = tmp_path_factory.mktemp("index")
    bounds = [0, *sorted(cuts), len(IMAGES)]
    groups = [IMAGES[start:end] for start, end in itertools.pairwise(bounds)]
    parameters = {"idf": True} if method == "asmk" else {}
    whole = built(folder / "whole", [IMAGES], method, **parameters)
    monkeypatch.setattr(merging, "POSTINGS_AT_ONCE", at_once)
    if reopen:
        Index.create(folder / "grown", CODEBOOK, method, SETTINGS, **parameters).close()
        for group in groups:
            with Index.open(folder / "grown") as index:
                index.add_many(group)
        grown = Index.open(folder / "grown")
    else:
        grown = built(folder / "grown", groups, method, **parameters)
    assert grown.names == whole.names
    assert same_ranking(grown, whole)
    assert np.array_equal(grown.view.norms, whole.view.norms)
    with grown:
        grown.compact()
        assert same_ranking(grown, whole)
    assert stored(folder / "grown") == stored(folder / "whole")


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


def test_many_small_additions_make_few_segments(tmp_path: Path) -> None:
    images = make_images(CODEBOOK, 70, features=4)
    index = built(tmp_path / "index", [[image] for image in images])
    assert index.names == [name for name, _ in images]
    assert len(index.view.segments) <= 2 * MERGE_AT
    on_disk = {path.name for path in (tmp_path / "index" / "segments").iterdir()}
    assert on_disk == {segment.path.name for segment in index.view.segments}
    assert same_ranking(index, built(tmp_path / "whole", [images]))


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=400))
def test_a_posting_is_copied_a_logarithmic_number_of_times(sizes: list[int]) -> None:
    segments: list[int] = []
    copied = 0
    for size in sizes:
        segments.append(size)
        while (span := to_merge(segments)) is not None:
            start, stop = span
            assert stop - start >= MERGE_AT
            copied += sum(segments[start:stop])
            segments[start:stop] = [sum(segments[start:stop])]
    assert sum(segments) == sum(sizes)
    assert copied <= sum(sizes) * (np.log2(sum(sizes) + 2) + 1)
    assert len(segments) <= MERGE_AT * (np.log2(sum(sizes) + 2) + 1)


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


# What is wrong is told, by name.


def test_no_index_and_things_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no index there"):
        Index.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no index there"):
        Index.open(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_text("")
    with pytest.raises(StoreError, match=r"not empty \(holiday\.jpg\)"):
        Index.create(tmp_path / "full", CODEBOOK)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["holiday.jpg"]


def test_an_index_is_replaced_only_if_asked(tmp_path: Path) -> None:
    built(tmp_path / "index", [IMAGES])
    with pytest.raises(StoreError, match="holds an index already"):
        Index.create(tmp_path / "index", CODEBOOK)
    assert len(Index.open(tmp_path / "index")) == len(IMAGES)
    assert len(Index.create(tmp_path / "index", CODEBOOK, "bow", overwrite=True)) == 0


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("vlad", {}, "vlad.*asmk"),
        ("asmk", {"beta": 1}, "no parameter beta; it has: alpha"),
        ("asmk", {"alpha": "much"}, "alpha.*much"),
        ("asmk", {"alpha": 0}, "alpha"),
        ("asmk", {"threshold": -0.5}, "threshold"),
        ("asmk", {"binary": 1}, "binary"),
        ("bow", {"burstiness": "log"}, "root, none"),
    ],
)
def test_wrong_parameters(method: str, parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        Index.create(tmp_path / "index", CODEBOOK, method, **parameters)
    assert not (tmp_path / "index").exists()


def test_foreign_settings_are_refused(tmp_path: Path) -> None:
    foreign = {**SETTINGS, "weights": {"descriptor": "ffff"}}
    with pytest.raises(StoreError, match=r"weights\.descriptor"):
        Index.create(tmp_path / "other", CODEBOOK, settings=foreign)
    index = built(tmp_path / "index", [IMAGES])
    index.check_settings({**SETTINGS, "max_keypoints": 7}, "query.jpg")
    with pytest.raises(StoreError, match=r"query\.jpg.*weights\.descriptor"):
        index.check_settings(foreign, "query.jpg")


def test_every_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    built(folder, [IMAGES])
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert len(paths) == 8
    for path in paths:
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], whole[:-1], b"", None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            with pytest.raises(StoreError) as told:
                Index.open(folder).rank(QUERY)
            assert (
                path.name in str(told.value) or "no index there" in str(told.value) or "no codebook" in str(told.value)
            )
            path.write_bytes(whole)
    assert len(Index.open(folder).rank(QUERY))


@pytest.mark.parametrize("change", [{"version": 99}, {"format": "x"}, {"segments": [{}]}, {"extra": 1}, {"method": 3}])
def test_manifests_that_are_none(change: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "index"
    built(folder, [IMAGES])
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises((StoreError, OptionError), match=r"manifest\.json|unknown"):
        Index.open(folder)


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


def test_another_codebook_slipped_in(tmp_path: Path) -> None:
    built(tmp_path / "index", [IMAGES])
    make_codebook(seed=5).save(tmp_path / "index" / "codebook")
    with pytest.raises(StoreError, match="not the codebook"):
        Index.open(tmp_path / "index")


# Several at once.


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


def test_a_reader_keeps_what_it_opened_while_segments_are_merged(tmp_path: Path) -> None:
    reader = built(tmp_path / "index", [[image] for image in IMAGES[:5]])
    before = reader.rank(QUERY)
    with Index.open(tmp_path / "index") as writer:
        writer.compact()
    after = reader.rank(QUERY)
    assert np.array_equal(before.images, after.images)
    assert len(list((tmp_path / "index" / "segments").iterdir())) == 1


def test_opening_while_segments_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"
    built(folder, [[image] for image in IMAGES[:5]])
    read = index_module.Manifest.read
    turns = []

    def late(place: Path) -> Any:
        manifest = read(place)
        if not turns:  # between our reading of the manifest and of the segments
            turns.append(place)
            with Index.open(folder) as writer:
                writer.compact()
        return manifest

    monkeypatch.setattr(index_module.Manifest, "read", staticmethod(late))
    assert len(Index.open(folder)) == 5


# Images that go, and those that come again with other features.


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    gone=st.sets(st.integers(0, len(IMAGES) - 1)),
    cuts=st.lists(st.integers(0, len(IMAGES)), max_size=4),
    method=st.sampled_from(["asmk", "bow", "hqe"]),
    at_once=st.sampled_from([1, 40, 1 << 20]),
)
def test_what_is_left_is_as_if_the_others_had_never_been_added(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    gone: set[int],
    cuts: list[int],
    method: str,
    at_once: int,
) -> None:
    folder = tmp_path_factory.mktemp("index")
    bounds = [0, *sorted(cuts), len(IMAGES)]
    groups = [IMAGES[start:end] for start, end in itertools.pairwise(bounds)]
    sample = np.concatenate([features.descriptors for _, features in IMAGES]) if method == "hqe" else None
    left = [image for number, image in enumerate(IMAGES) if number not in gone]
    with monkeypatch.context() as patch:
        patch.setattr(removal, "ROWS_AT_ONCE", at_once)
        with Index.create(folder / "a", CODEBOOK, method, SETTINGS, sample=sample) as index:
            for group in groups:
                index.add_many(group)
                index.flush()
            index.remove([IMAGES[number][0] for number in gone])
            assert index.names == [name for name, _ in left]
            index.compact()
    with Index.create(folder / "b", CODEBOOK, method, SETTINGS, sample=sample) as truth:
        truth.add_many(left)
        truth.compact()
    assert stored(folder / "a") == stored(folder / "b")
    assert same_ranking(Index.open(folder / "a"), Index.open(folder / "b"))
    assert len(list((folder / "a" / "segments").iterdir())) == (1 if left else 0)


def test_what_is_not_there_cannot_go(tmp_path: Path) -> None:
    with built(tmp_path / "index", [IMAGES[:3]]) as index:
        with pytest.raises(StoreError, match="no image 'other'"):
            index.remove([IMAGES[0][0], "other"])
        assert len(index) == 3
        index.remove([])
        assert len(index) == 3


def test_digests_tell_which_images_changed_through_merging_and_removal(tmp_path: Path) -> None:
    digests = {name: f"{number:032x}" for number, (name, _) in enumerate(IMAGES, 1)}
    digests[IMAGES[2][0]] = "no hexadecimal number"
    digests[IMAGES[4][0]] = ""
    with Index.create(tmp_path / "index", CODEBOOK, settings=SETTINGS) as index:
        for name, features in IMAGES:
            index.add(name, features, digests[name])
            index.flush()
        index.remove([IMAGES[1][0]])
        index.compact()
    index = Index.open(tmp_path / "index")
    assert index.changed(digests) == []
    others = dict.fromkeys(digests, "f" * 32)
    known = [name for number, (name, _) in enumerate(IMAGES) if number not in (1, 4)]
    assert index.changed(others) == known
    assert index.changed(dict.fromkeys(digests, "")) == []
    assert index.changed({"elsewhere": "0" * 31 + "1"}) == []


def test_segments_of_an_earlier_version_have_no_digests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def earlier(path: Path, arrays: Any, plain: Any = segment.write_arrays) -> Any:
        return plain(path, {key: value for key, value in arrays.items() if key != "digests"})

    monkeypatch.setattr(segment, "write_arrays", earlier)
    with Index.create(tmp_path / "index", CODEBOOK, settings=SETTINGS) as index:
        index.add(*IMAGES[0], "1" * 32)
        index.add(*IMAGES[1], "1" * 32)
    monkeypatch.undo()
    with Index.open(tmp_path / "index") as index:
        index.add(*IMAGES[2], "1" * 32)
        index.compact()
        assert index.changed(dict.fromkeys((name for name, _ in IMAGES), "2" * 32)) == [IMAGES[2][0]]
        index.remove([IMAGES[0][0]])
        assert index.names == [IMAGES[1][0], IMAGES[2][0]]


# Killed, at any moment.


class Killed(BaseException):
    """Stands in for the end of the process."""


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, 60), half=st.booleans())
def test_stopped_at_any_step_it_is_as_of_the_last_commit(
    tmp_path_factory: pytest.TempPathFactory, step: int, half: bool
) -> None:
    """Every step that reaches the disk is one after which a process may end; a file may be half written."""
    folder = tmp_path_factory.mktemp("index")
    steps = iter(range(step))
    committed = [0]

    def step_or_end(path: Path) -> None:
        if next(steps, None) is None:
            if half and path.exists():
                os.truncate(path, path.stat().st_size // 2)
            raise Killed

    def write(path: Path, arrays: Any, plain: Any = files.write_arrays) -> Any:
        told = plain(path, arrays)
        step_or_end(path)
        return told

    def write_one(path: Path, array: Any, plain: Any = files.write_array) -> Any:
        told = plain(path, array)
        step_or_end(path)
        return told

    def commit(path: Path, text: str, plain: Any = files.write_text) -> None:
        step_or_end(path.with_name(path.name + ".part"))
        plain(path, text)
        committed.append(sum(entry["images"] for entry in json.loads(text)["segments"]))
        step_or_end(path.with_name("nothing"))

    with built(folder / "index", [IMAGES[:2]]) as index, pytest.MonkeyPatch.context() as patch:
        committed.append(2)
        patch.setattr("hardnet_match.retrieval.segment.write_arrays", write)
        patch.setattr("hardnet_match.retrieval.index.write_array", write_one)
        patch.setattr("hardnet_match.retrieval.manifest.write_text", commit)
        try:
            for image in IMAGES[2:6]:
                index.add(*image)
                index.flush()
            index.compact()
        except Killed:
            index._buffer.clear()
            index._lock, lock = None, index._lock
            lock.release()
    survived = Index.open(folder / "index")
    assert survived.names == [name for name, _ in IMAGES[: committed[-1]]]
    assert same_ranking(survived, built(folder / "truth", [IMAGES[: committed[-1]]]))
    with survived:
        survived.add_many(IMAGES[committed[-1] :])
        survived.compact()
    assert stored(folder / "index") == stored(built(folder / "truth", [IMAGES]).folder)


@pytest.mark.parametrize("step", range(5))
def test_stopped_while_images_are_taken_out_it_has_all_of_them_or_none(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(step))

    def step_or_end(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if next(steps, None) is None:
                raise Killed
            return function(*arguments)

        return call

    names, gone = [name for name, _ in IMAGES[:6]], [IMAGES[0][0], IMAGES[4][0]]
    with built(tmp_path / "index", [IMAGES[:2], IMAGES[2:4], IMAGES[4:6]]) as index:
        with monkeypatch.context() as patch:
            patch.setattr(segment, "write_arrays", step_or_end(segment.write_arrays))
            patch.setattr("hardnet_match.retrieval.manifest.write_text", step_or_end(files.write_text))
            try:
                index.remove(gone)
                ended = False
            except Killed:
                ended = True
        index._lock, lock = None, index._lock
        lock.release()
    assert ended == (step < 3)  # two segments are written anew, then the manifest
    survived = Index.open(tmp_path / "index")
    assert survived.names == (names if ended else [name for name in names if name not in gone])
    with survived:
        survived.remove([name for name in gone if name in survived])
    assert len(list((tmp_path / "index" / "segments").iterdir())) == 3


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from retrieval_helpers import make_codebook, make_images
from hardnet_match.retrieval.index import Index
codebook = make_codebook()
with Index.open(sys.argv[1]) as index:
    for name, features in make_images(codebook, 400):
        if name not in index:
            index.add(name, features)
            index.flush()
            print(name, flush=True)
"""


def test_killed_processes_leave_whole_indexes(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Index.create(folder, CODEBOOK, settings=SETTINGS).close()
    command = [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)]
    names = [name for name, _ in make_images(CODEBOOK, 400)]
    told: list[str] = []
    for turn in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told.append(process.stdout.readline().strip())
        time.sleep(0.05 + 0.11 * turn)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split("\n")[:-1]
        process.wait()
        index = Index.open(folder)
        assert index.names == names[: len(index)]
        assert len(index) - len(told) in (0, 1)  # one may have been committed and not told of
        told = index.names
    images = dict(make_images(CODEBOOK, len(index)))
    last = index.names[-1]
    assert same_ranking(index, built(tmp_path / "whole", [list(images.items())]))
    assert index.rank(images[last], top=1).images.tolist() == [len(index) - 1]


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    index = built(tmp_path / "index", [IMAGES[:4]])
    index.add(*IMAGES[4])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            index.flush()
    assert len(Index.open(tmp_path / "index")) == 4
    index.close()  # there is space again
    assert len(Index.open(tmp_path / "index")) == 5
