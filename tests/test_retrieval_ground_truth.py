"""Ground truths: the benchmarks' forms read as they are, wrong ones are refused, and nothing in a pickle is run."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardnet_match.errors import StoreError
from hardnet_match.retrieval.ground_truth import GroundTruth, read_ground_truth, truth_of_groups

NAMES = [f"jpg/all_souls_{number:06d}.jpg" for number in range(6)] + ["jpg/christ_church_000001.jpg"]
STEMS = [name[len("jpg/") : -len(".jpg")] for name in NAMES]


def classic(folder: Path, **changes: str) -> Path:
    folder.mkdir(exist_ok=True)
    texts = {
        "query": f"oxc1_{STEMS[0]} 136.5 34.1 648.5 955.7\n",
        "good": f"{STEMS[0]}\n{STEMS[1]}\n",
        "ok": f"{STEMS[2]}\n",
        "junk": f"{STEMS[3]}\n\n",
        **changes,
    }
    for part, text in texts.items():
        (folder / f"all_souls_1_{part}.txt").write_text(text)
    return folder


def revisited(as_arrays: bool = False) -> dict[str, Any]:
    def numbers(*values: int) -> Any:
        return np.array(values, dtype=np.int64) if as_arrays else list(values)

    entry = {"bbx": [10.0, 20.0, 30.5, 40.0], "easy": numbers(0, 1), "hard": numbers(2), "junk": numbers()}
    other = {"bbx": numbers(0, 0, 9, 9), "easy": numbers(), "hard": numbers(3), "junk": numbers(0)}
    return {"imlist": STEMS[:5], "qimlist": STEMS[5:], "gnd": [entry, other]}


def test_classic_folder(tmp_path: Path) -> None:
    truth = read_ground_truth(classic(tmp_path / "gt"))
    assert (truth.kind, truth.protocols) == ("classic", ("classic",))
    [query] = truth.queries
    assert (query.name, query.image, query.box) == ("all_souls_1", STEMS[0], (136.5, 34.1, 648.5, 955.7))
    [query] = truth.bound(NAMES).queries
    assert query.image == NAMES[0]
    assert query.setups == {"classic": ({NAMES[0], NAMES[1], NAMES[2]}, {NAMES[3]})}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"query": "oxc1_a 1 2 3\n"}, ["_query.txt", "four numbers"]),
        ({"query": "a 1 2 3 4\nb 1 2 3 4\n"}, ["one line"]),
        ({"query": "a 5 2 3 4\n"}, ["empty"]),
        ({"query": "a 1 2 3 x\n"}, ["four numbers"]),
        ({"junk": f"{STEMS[1]}\n"}, [STEMS[1], "both"]),
    ],
)
def test_wrong_classic_folders(tmp_path: Path, changes: dict[str, str], words: list[str]) -> None:
    with pytest.raises(StoreError) as raised:
        read_ground_truth(classic(tmp_path / "gt", **changes))
    for word in words:
        assert word in str(raised.value)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    (classic(tmp_path / "gt") / "all_souls_1_junk.txt").unlink()
    with pytest.raises(StoreError, match=r"all_souls_1_junk\.txt"):
        read_ground_truth(tmp_path / "gt")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("as_arrays", [False, True])
def test_revisited_pickle(tmp_path: Path, protocol: int, as_arrays: bool) -> None:
    path = tmp_path / "gnd_roxford5k.pkl"
    path.write_bytes(pickle.dumps(revisited(as_arrays), protocol=protocol))
    truth = read_ground_truth(path)
    assert (truth.kind, truth.protocols) == ("revisited", ("easy", "medium", "hard"))
    assert truth.apart == {STEMS[5], STEMS[6]}
    first, second = truth.queries
    assert first.box == (10, 20, 30.5, 40)
    assert first.setups["medium"] == ({STEMS[0], STEMS[1], STEMS[2]}, frozenset())
    assert first.setups["easy"] == ({STEMS[0], STEMS[1]}, {STEMS[2]})
    assert second.setups["easy"] == (frozenset(), {STEMS[0], STEMS[3]})
    # Both query images are in this index: neither may count, for any query.
    first, second = truth.bound(NAMES).queries
    assert first.image == NAMES[5]
    assert first.setups["hard"] == ({NAMES[2]}, {NAMES[0], NAMES[1], NAMES[5], NAMES[6]})


def test_classic_pickle(tmp_path: Path) -> None:
    path = tmp_path / "gnd_oxford5k.pkl"
    entry = {"bbx": np.array([[1.0, 2.0, 3.0, 4.0]]), "ok": np.array([0.0, 2.0]), "junk": np.empty(0)}
    path.write_bytes(pickle.dumps({"imlist": STEMS, "qidx": np.array([2]), "gnd": [entry]}))
    truth = read_ground_truth(path)
    assert (truth.kind, truth.apart) == ("classic", frozenset())
    [query] = truth.bound(NAMES).queries
    assert (query.image, query.box) == (NAMES[2], (1, 2, 3, 4))
    assert query.setups == {"classic": ({NAMES[0], NAMES[2]}, frozenset())}


class Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    path, trace = tmp_path / "gnd.pkl", tmp_path / "ran"
    for content in ({**revisited(), "gnd": Attack(f"touch {trace}")}, Attack(f"touch {trace}")):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(StoreError, match=r"system, which could run code.*Nothing of it was run"):
            read_ground_truth(path)
        assert not trace.exists()


def bomb() -> Any:
    """A list whose 2^60 leaves are one object."""
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested, nested]
    return nested


def knot() -> Any:
    nested: list[Any] = []
    nested.append(nested)
    return nested


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        pickle.dumps(revisited())[:-20],
        pickle.dumps([1, 2]),
        pickle.dumps({"imlist": ["a"], "gnd": []}),
        pickle.dumps({**revisited(), "qimlist": ["only one"]}),
        pickle.dumps({**revisited(), "imlist": bomb()}),
        pickle.dumps({**revisited(), "imlist": knot()}),
        pickle.dumps({**revisited(), "gnd": [{"easy": [99], "hard": [], "junk": []}] * 2}),
        pickle.dumps({**revisited(), "gnd": [{"easy": [0.5], "hard": [], "junk": []}] * 2}),
        pickle.dumps({**revisited(), "gnd": [{"easy": [float("inf")], "hard": [], "junk": []}] * 2}),
        pickle.dumps({**revisited(), "gnd": [{"easy": [0], "hard": [0], "junk": [0]}] * 2}),
        pickle.dumps({**revisited(), "gnd": [{"bbx": [1, 2, 3], "ok": [0]}] * 2}),
        pickle.dumps({**revisited(), "gnd": [{"hard": [0]}] * 2}),
        pickle.dumps({**revisited(), "gnd": [{"ok": [0]}, {"easy": [0], "hard": [1]}]}),
    ],
)
def test_wrong_pickles_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "gnd.pkl"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"gnd\.pkl"):
        read_ground_truth(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_pickles_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps(revisited(as_arrays=True), protocol=2))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "gnd.pkl"
    path.write_bytes(content)
    try:
        read, reason = read_ground_truth(path), ""
    except StoreError as error:
        read, reason = None, str(error)
    assert str(path) in reason if read is None else isinstance(read, GroundTruth)


def test_own_json(tmp_path: Path) -> None:
    path = tmp_path / "truth.json"
    rows = [{"image": "a.jpg", "positives": ["b.jpg"], "junk": ["c.jpg"], "box": [0, 0, 5, 5], "name": "first"}]
    path.write_text(json.dumps({"queries": rows}))
    truth = read_ground_truth(path)
    assert (truth.kind, truth.protocols, truth.queries[0].name) == ("json", ("json",), "first")
    [query] = truth.bound(["a.jpg", "b.jpg", "c.jpg"]).queries
    assert query.setups == {"json": ({"b.jpg"}, {"c.jpg", "a.jpg"})}  # the query itself counts neither way
    rows = [{"image": "q.jpg", "easy": ["b.jpg"], "hard": ["c.jpg"]}, {"image": "r.jpg", "easy": ["c.jpg"]}]
    path.write_text(json.dumps({"apart": True, "queries": rows}))
    truth = read_ground_truth(path)
    assert truth.protocols == ("easy", "medium", "hard")
    assert truth.bound(["r.jpg", "b.jpg", "c.jpg"]).queries[0].setups["medium"] == (
        {"b.jpg", "c.jpg"},
        {"r.jpg", "q.jpg"},
    )


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"queries": []}',
        '{"queries": [{"positives": []}]}',
        '{"queries": [{"image": "a"}]}',
        '{"queries": [{"image": "a", "positives": "b"}]}',
        '{"queries": [{"image": "a", "positives": ["b"], "easy": []}]}',
        '{"queries": [{"image": "a", "positives": ["b"], "junk": ["b"]}]}',
        '{"queries": [{"image": "a", "positives": ["b"], "box": [1, 2]}]}',
        '{"queries": [{"image": "a", "positives": ["b"]}, {"image": "b", "hard": ["a"]}]}',
    ],
)
def test_wrong_json_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(StoreError, match=r"truth\.json"):
        read_ground_truth(path)


def test_a_folder_of_groups(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    for name in ("castle/a.jpg", "castle/deep/b.jpg", "door/a.jpg", "single/a.jpg", "far/a.jpg", "far/b.jpg", "c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / name), pixels)
    with pytest.raises(StoreError, match="'near'"):
        read_ground_truth(tmp_path, distractors=["near"])
    truth = read_ground_truth(tmp_path, distractors=["far"])
    assert [(query.image, query.setups["groups"]) for query in truth.queries] == [
        ("castle/a.jpg", ({"castle/deep/b.jpg"}, {"castle/a.jpg"})),
        ("castle/deep/b.jpg", ({"castle/a.jpg"}, {"castle/deep/b.jpg"})),
    ]
    with pytest.raises(StoreError, match="subfolders"):
        read_ground_truth(tmp_path / "single")
    with pytest.raises(StoreError, match="no such"):
        read_ground_truth(tmp_path / "nowhere")


def test_names_that_the_index_lacks(tmp_path: Path) -> None:
    truth = read_ground_truth(classic(tmp_path / "gt"))
    assert truth.bound(NAMES[:2]).missing == {STEMS[2], STEMS[3]}
    with pytest.raises(StoreError, match="other photos"):
        truth.bound(["a.jpg", "b.jpg"])
    with pytest.raises(StoreError, match=r"could be .* or"):
        truth.bound([*NAMES, f"other/{STEMS[1]}.jpg"])
    # A name that is there exactly is meant, however many others look like it.
    both = [*NAMES, *STEMS]
    assert truth.bound(both).queries[0].image == STEMS[0]


def test_groups_of_names() -> None:
    truth = truth_of_groups(["a/1", "a/2", "b/1", "s/1", "s/2", "alone"], ["s"])
    assert [query.image for query in truth.queries] == ["a/1", "a/2"]
