"""Patch sets: what they refuse, selecting and joining, and which observations show the same place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from patchset_helpers import equal, plain
from training_helpers import made_up_set

from hardnet_match.errors import DataError
from hardnet_match.training.patchset import PatchSet, save_joined


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patches": np.zeros((6, 8, 9), np.uint8)}, "uint8"),
        ({"patches": np.zeros((6, 8, 8), np.float32)}, "uint8"),
        ({"patches": np.zeros((5, 8, 8), np.uint8)}, "as many rows"),
        ({"track": np.array([0, 0, 2, 1, 3, 3])}, "sorted"),
        ({"track": np.zeros(6, np.int32)}, "track must be"),
        ({"size": np.zeros(6, np.float64)}, "size must be"),
        ({"position": np.zeros((6, 2), np.float32)}, "position must be"),
        ({"matches": np.array([[0, 6, 1]])}, "rows 0 to 6 of 6"),
        ({"matches": np.array([[0, 1]])}, "matches must be"),
        ({"collisions": np.zeros((1, 2), np.int32)}, "collisions must be"),
        ({"margin": 0.5}, "margin"),
    ],
)
def test_what_is_no_set_is_refused(changes: dict[str, Any], reason: str) -> None:
    base: dict[str, Any] = {
        "patches": np.zeros((6, 8, 8), np.uint8),
        "track": np.arange(6),
        "image": np.zeros(6, np.int32),
        "scene": np.zeros(6, np.int32),
    }
    PatchSet(**base)
    with pytest.raises(DataError, match=reason):
        PatchSet(**{**base, **changes})


def test_a_selection_keeps_the_test_pairs_that_are_still_whole() -> None:
    pairs = np.array([[0, 1, 1], [4, 40, 0], [7, 8, 0]])
    some = plain(matches=pairs).select(np.r_[0, 1, 4:41])
    assert some.matches is not None
    assert some.matches.tolist() == [[0, 1, 1], [2, 38, 0], [5, 6, 0]]
    fewer = some.select(some.track > 3)
    assert fewer.matches is not None
    assert len(fewer.matches) == 1
    assert (fewer.patches[fewer.matches[0, 0]] == some.patches[5]).all()


def test_joined_sets_share_no_number(tmp_path: Path) -> None:
    pairs, hits = np.array([[3, 5, 1]]), np.array([[0, 6]])
    one, other = plain(10, matches=pairs, name="a"), plain(7, seed=1, matches=pairs, collisions=hits, name="b")
    both = PatchSet.joined([one, other])
    assert len(set(both.track.tolist())) == 17
    assert set(both.image[:30].tolist()).isdisjoint(both.image[30:].tolist())
    assert both.name == "a+b"
    assert both.matches is not None
    assert both.matches.tolist() == [[3, 5, 1], [33, 35, 1]]
    assert both.collisions is not None
    assert both.collisions.tolist() == [[28, 34]]  # the tracks of the second start behind 27
    assert (both.track[[30, 36]] == [28, 34]).all()
    save_joined(tmp_path / "both.h5", [one, other])
    assert equal(PatchSet.load(tmp_path / "both.h5"), both)


def test_what_differs_in_kind_is_not_joined() -> None:
    with pytest.raises(DataError, match=r"16 cells, margin 2.*16 cells, margin 1"):
        PatchSet.joined([plain(), plain(margin=1.0)])
    with pytest.raises(DataError, match="8 cells"):
        PatchSet.joined([plain(), plain(side=8)])
    with pytest.raises(DataError, match="no patches"):
        PatchSet.joined([])
    assert PatchSet.joined([made_up_set(5), made_up_set(4)]).size is not None
    mixed = made_up_set(5)
    bare = PatchSet(mixed.patches, mixed.track, mixed.image, mixed.scene)
    assert PatchSet.joined([mixed, bare]).size is None


def test_the_same_place_by_distance() -> None:
    found = made_up_set(100)
    assert found.position is not None
    assert found.size is not None
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(found), 40), rng.integers(0, len(found), 50)
    same = found.same_place(first, second)
    assert same is not None
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            near = np.linalg.norm(found.position[a] - found.position[b]) < 0.5 * max(found.size[a], found.size[b])
            assert same[i, j] == (near and found.scene[a] == found.scene[b])
    assert plain().same_place(first[:3], second[:3]) is None


def test_large_batches_are_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rows = made_up_set(80), np.arange(100)
    whole = found.same_place(rows, rows)
    monkeypatch.setattr("hardnet_match.training.patchset._AT_ONCE", 700)
    assert np.array_equal(found.same_place(rows, rows), whole)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=30), st.integers(0, 100))
def test_the_same_place_by_collisions(pairs: list[tuple[int, int]], seed: int) -> None:
    table = np.array([(3 * a, 3 * b) for a, b in pairs], np.int64).reshape(-1, 2)
    found = plain(12, collisions=table)  # pairs with tracks that the set has not are no harm
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, len(found), 9), rng.integers(0, len(found), 7)
    same = found.same_place(first, second)
    assert same is not None
    known = {frozenset((3 * a, 3 * b)) for a, b in pairs}
    for i, a in enumerate(found.track[first]):
        for j, b in enumerate(found.track[second]):
            assert same[i, j] == (a == b or frozenset((int(a), int(b))) in known)
