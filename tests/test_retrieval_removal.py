"""Images that leave an index, and those that come again with other features."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_helpers import CODEBOOK, IMAGES, built, same_ranking, stored
from retrieval_helpers import SETTINGS

from hardnet_match.errors import StoreError
from hardnet_match.retrieval import removal, segment
from hardnet_match.retrieval.index import Index

pytestmark = pytest.mark.usefixtures("quick_disk")


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
