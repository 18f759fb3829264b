"""Features, matches and pair lists on disk: hloc's layout, names, resuming."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from store_helpers import ODD_NAMES, SETTINGS, assert_same, make_features, make_matches

from hardnet_match.errors import DataError, StoreError
from hardnet_match.store import (
    FeatureReader,
    FeatureWriter,
    MatchReader,
    MatchWriter,
    check_name,
    read_pairs,
    write_pairs,
)

ROOT = Path(__file__).parents[1]


# ---- round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_features_come_back_as_they_were(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "f.h5"
    wanted = {name: make_features(i * 3, seed=i, dtype=dtype) for i, name in enumerate(ODD_NAMES)}
    with FeatureWriter(path, SETTINGS) as writer:
        for name, features in wanted.items():
            writer.write(name, features)
        assert writer.names_done() == set(wanted)
    with FeatureReader(path) as reader:
        assert reader.names() == sorted(wanted)
        assert reader.settings == SETTINGS
        assert reader.own
        for name, features in wanted.items():
            assert_same(reader.read(name), features)
            np.testing.assert_array_equal(reader.lafs(name), features.lafs)
            np.testing.assert_array_equal(reader.descriptors(name), features.descriptors)
    assert sorted(os.listdir(tmp_path)) == ["f.h5"], "no lock, journal or part file may stay behind"


def test_hloc_reads_our_features(tmp_path: Path) -> None:
    """As hloc 1.5 does in utils/io.py, match_features.py and triangulation.py."""
    features = make_features(7)
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer:
        writer.write("db/a.jpg", features)
    with h5py.File(tmp_path / "f.h5", "r", libver="latest") as f:
        dset = f["db/a.jpg"]["keypoints"]
        keypoints = dset.__array__()
        assert dset.attrs.get("uncertainty") == 1.0
        np.testing.assert_array_equal(keypoints, features.keypoints)
        names = []

        def visit(_: str, obj: object) -> None:
            if isinstance(obj, h5py.Dataset):
                names.append(obj.parent.name.strip("/"))

        f.visititems(visit)
        assert set(names) == {"db/a.jpg"}
        data = {k: v.__array__() for k, v in f["db/a.jpg"].items()}  # its matcher turns every one into a tensor
        assert data["descriptors"].shape == (128, 7)
        assert data["image_size"].dtype == np.int64
        assert data["image_size"].tolist() == [640, 480]
        assert all(array.dtype.kind in "fi" for array in data.values())


def hloc_find_pair(file: h5py.File, name0: str, name1: str) -> tuple[str, bool]:
    def names_to_pair(a: str, b: str, separator: str = "/") -> str:
        return separator.join((a.replace("/", "-"), b.replace("/", "-")))

    for pair, reverse in ((names_to_pair(name0, name1), False), (names_to_pair(name1, name0), True)):
        if pair in file:
            return pair, reverse
    raise ValueError((name0, name1))


def test_hloc_reads_our_matches(tmp_path: Path) -> None:
    matches = make_matches([(0, 3), (2, 40000), (5, 1)])
    with MatchWriter(tmp_path / "m.h5", SETTINGS) as writer:
        writer.write("db/a.jpg", "q/b c.jpg", matches, 6)
    with h5py.File(tmp_path / "m.h5", "r", libver="latest") as f:
        pair, reverse = hloc_find_pair(f, "q/b c.jpg", "db/a.jpg")
        assert reverse
        matches0 = f[pair]["matches0"].__array__()
        scores = f[pair]["matching_scores0"].__array__()
    idx = np.where(matches0 != -1)[0]
    np.testing.assert_array_equal(np.stack([idx, matches0[idx]], -1), matches.pairs)
    np.testing.assert_array_equal(scores[idx], matches.scores)
    assert matches0.shape == (6,)


def test_matches_come_back_in_both_orders(tmp_path: Path) -> None:
    matches, none = make_matches([(0, 3), (2, 0), (5, 1)]), make_matches([])
    with MatchWriter(tmp_path / "m.h5", SETTINGS, buffer=10) as writer:
        for name in ODD_NAMES[1:]:
            writer.write(ODD_NAMES[0], name, matches, 6)
        writer.write("empty1.jpg", "empty2.jpg", none, 0)
        assert writer.pairs_done() == set()
        writer.flush()
        assert len(writer.pairs_done()) == len(ODD_NAMES)
    with MatchReader(tmp_path / "m.h5") as reader:
        assert reader.pairs() == sorted(
            [*((ODD_NAMES[0], name) for name in ODD_NAMES[1:]), ("empty1.jpg", "empty2.jpg")]
        )
        for name in ODD_NAMES[1:]:
            np.testing.assert_array_equal(reader.read(ODD_NAMES[0], name).pairs, matches.pairs)
            np.testing.assert_array_equal(reader.read(name, ODD_NAMES[0]).pairs, matches.pairs[:, ::-1])
            np.testing.assert_array_equal(reader.read(name, ODD_NAMES[0]).scores, matches.scores)
        assert len(reader.read("empty1.jpg", "empty2.jpg")) == 0
        assert (ODD_NAMES[3], ODD_NAMES[0]) in reader
        assert (ODD_NAMES[3], ODD_NAMES[1]) not in reader


def test_slash_and_dash_names_do_not_mix(tmp_path: Path) -> None:
    first, second, third = make_matches([(0, 1)]), make_matches([(1, 2)]), make_matches([(2, 0)])
    for _ in range(2):  # the second time over what is there
        with MatchWriter(tmp_path / "m.h5", SETTINGS) as writer:
            writer.write("a/b.jpg", "c.jpg", first, 3)
            writer.write("a-b.jpg", "c.jpg", second, 3)
            writer.write("a/b.jpg", "a-b.jpg", third, 3)
    with MatchReader(tmp_path / "m.h5") as reader:
        assert reader.pairs() == [("a-b.jpg", "c.jpg"), ("a/b.jpg", "a-b.jpg"), ("a/b.jpg", "c.jpg")]
        assert reader.read("a/b.jpg", "c.jpg").pairs.tolist() == [[0, 1]]
        assert reader.read("a-b.jpg", "c.jpg").pairs.tolist() == [[1, 2]]
        assert reader.read("a-b.jpg", "a/b.jpg").pairs.tolist() == [[0, 2]]
    with h5py.File(tmp_path / "m.h5") as f:
        assert f["a-b.jpg/c.jpg/matches0"][()].tolist() == [1, -1, -1], "hloc finds the first where it looks"


def test_one_feature_cannot_have_two_matches(tmp_path: Path) -> None:
    with MatchWriter(tmp_path / "m.h5", SETTINGS) as writer:
        with pytest.raises(DataError, match="two matches"):
            writer.write("a", "b", make_matches([(0, 1), (0, 2)]), 3)
        with pytest.raises(DataError, match="row 3 of 3"):
            writer.write("a", "b", make_matches([(3, 1)]), 3)
        with pytest.raises(DataError, match="itself"):
            writer.write("a", "a", make_matches([(0, 1)]), 3)


# ---- names


@pytest.mark.parametrize(
    "name", ["", "/abs.jpg", "../up.jpg", "a/../b.jpg", "./a.jpg", "a//b.jpg", "a/", "n\0ul", "\udcff"]
)
def test_names_that_cannot_be_keys(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="image name"):
        check_name(name)
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer, pytest.raises(StoreError, match="image name"):
        writer.write(name, make_features(1))


def test_an_image_cannot_be_a_folder_of_images(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer:
        writer.write("a/b.jpg", make_features(1))
        with pytest.raises(StoreError, match="folder"):
            writer.write("a", make_features(1))
        with pytest.raises(StoreError, match="which is an image"):
            writer.write("a/b.jpg/keypoints", make_features(1))
    with FeatureReader(tmp_path / "f.h5") as reader:
        assert_same(reader.read("a/b.jpg"), make_features(1))


# ---- resuming


def test_resume_adds_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(3))
    with FeatureWriter(path, dict(reversed(SETTINGS.items()))) as writer:  # order is no difference
        assert writer.names_done() == {"a.jpg"}
        writer.write("a.jpg", make_features(5))
        writer.write("b.jpg", make_features(4))
    with FeatureReader(path) as reader:
        assert [len(reader.read(name)) for name in reader.names()] == [5, 4]


def test_other_settings_are_shown_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(3))
    other = {**SETTINGS, "max_keypoints": 100, "weights": {"hardnet": "xyz"}, "new": None}
    with pytest.raises(StoreError) as caught:
        FeatureWriter(path, other)
    assert "max_keypoints: 4096 -> 100" in str(caught.value)
    assert "weights.hardnet: 'abc' -> 'xyz'" in str(caught.value)
    assert "preset" not in str(caught.value).split("(")[1]
    with FeatureWriter(path, other, overwrite=True) as writer:
        assert writer.names_done() == set()
    with pytest.raises(StoreError, match="not a matches file"):
        MatchWriter(path, other)
    with pytest.raises(StoreError, match="plain JSON"):
        FeatureWriter(tmp_path / "g.h5", {"a": object()})


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS), pytest.raises(StoreError, match="another process"):
        FeatureWriter(path, SETTINGS)
    with FeatureWriter(path, SETTINGS) as writer:  # given back
        code = (
            "import sys\nfrom hardnet_match.errors import StoreError\nfrom hardnet_match.store import FeatureWriter\n"
            "try: FeatureWriter(sys.argv[1], {}, overwrite=True)\nexcept StoreError as e: print(e)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "another process" in done.stdout
        writer.write("a.jpg", make_features(2))
        with FeatureReader(path) as reader:  # reading meanwhile is fine
            assert reader.names() == ["a.jpg"]


def test_missing_folders(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "new" / "f.h5", SETTINGS):
        pass
    assert os.listdir(tmp_path / "new") == ["f.h5"]
    with pytest.raises(StoreError, match="make its folder"):
        FeatureWriter(tmp_path / "new" / "f.h5" / "g.h5", SETTINGS)
    with pytest.raises(StoreError, match="no such file"):
        FeatureReader(tmp_path / "f.h5")


# ---- pair lists


def test_pair_lists_survive_spaces(tmp_path: Path) -> None:
    pairs = [("a.jpg", "b.jpg"), ("a b.jpg", "c/d  e.jpg"), ("é.jpg", "x\u00a0y.jpg")]
    write_pairs(tmp_path / "p.txt", pairs)
    assert read_pairs(tmp_path / "p.txt") == pairs
    assert (tmp_path / "p.txt").read_text(encoding="utf-8").startswith("a.jpg b.jpg\na b.jpg\tc/d  e.jpg\n")
    assert os.listdir(tmp_path) == ["p.txt"]


def test_pair_lists_of_others(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbf# comment\r\na.jpg b.jpg\r\n\r\nb.jpg a.jpg\na.jpg   c.jpg\n")
    assert read_pairs(tmp_path / "p.txt") == [("a.jpg", "b.jpg"), ("a.jpg", "c.jpg")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg", "line 1.*got 1"),
        ("a.jpg b.jpg\na b c", "line 2.*put a tab"),
        ("a.jpg a.jpg", "itself"),
        ("../a.jpg b.jpg", "image name"),
    ],
)
def test_bad_pair_lists(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(StoreError, match=message):
        read_pairs(tmp_path / "p.txt")


def test_unwritable_pair_lists(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot hold"):
        write_pairs(tmp_path / "p.txt", [("a\nb.jpg", "c.jpg")])
    with pytest.raises(StoreError, match=r"none\.txt"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match=r"b\.txt"):
        read_pairs(tmp_path / "b.txt")
