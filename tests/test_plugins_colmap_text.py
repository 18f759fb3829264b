"""COLMAP's text features and match lists, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from colmap_helpers import NAMES, one
from hypothesis import given, settings
from hypothesis import strategies as st
from sfm_helpers import SIZE, Scene, make_scene

from hardnet_match.errors import DataError, OptionError
from hardnet_match.features import Matches
from hardnet_match.frames import laf_orientation, laf_scale
from hardnet_match.plugins.colmap import (
    features_of_text,
    matches_of_list,
    read_text_features,
    write_match_list,
    write_text_features,
)
from hardnet_match.sfm.descriptors import colmap_descriptors
from hardnet_match.store import FeatureReader, FeatureWriter, MatchReader, MatchWriter


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), NAMES, points=300)


def test_text_there_and_back(scene: Scene, tmp_path: Path) -> None:
    assert write_text_features(scene.features, tmp_path / "text") == 6
    lines = (tmp_path / "text" / "left" / "a.jpg.txt").read_text().splitlines()
    with FeatureReader(scene.features) as reader:
        features = reader.read("left/a.jpg")
    assert lines[0] == f"{len(features)} 128"
    row = np.array(lines[1].split(), float)
    assert len(row) == 132
    np.testing.assert_allclose(row[:2], features.keypoints[0] + 0.5, atol=1e-4)
    assert row[2] == pytest.approx(laf_scale(features.lafs)[0] / 6, rel=1e-5)
    assert row[3] == pytest.approx(-np.deg2rad(laf_orientation(features.lafs)[0]), abs=1e-5)
    lafs, descriptors = read_text_features(tmp_path / "text" / "left" / "a.jpg.txt")
    np.testing.assert_allclose(lafs, features.lafs, atol=2e-3)  # these frames are circles
    np.testing.assert_array_equal(descriptors, colmap_descriptors(features.descriptors))
    summary = features_of_text(tmp_path / "text", tmp_path / "f.h5", scene.folder)
    assert (summary.images, summary.skipped) == (6, {})
    write_match_list(scene.matches, tmp_path / "matches.txt")
    back = matches_of_list(tmp_path / "matches.txt", tmp_path / "f.h5", tmp_path / "m.h5")
    assert back.pairs == 15
    with FeatureReader(tmp_path / "f.h5") as reader, MatchReader(tmp_path / "m.h5") as got:
        assert reader.names() == NAMES
        assert reader.image_size("left/a.jpg") == SIZE
        with MatchReader(scene.matches) as expected:
            for pair in expected.pairs():
                np.testing.assert_array_equal(got.read(*pair).pairs, expected.read(*pair).pairs)


@settings(max_examples=25)
@given(st.integers(0, 5), st.sampled_from([2, 4, 6]), st.sampled_from([0, 3, 128]), st.integers(0, 2**32 - 1))
def test_text_of_all_forms(
    tmp_path_factory: pytest.TempPathFactory, count: int, cols: int, dim: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    frames, rows = rng.uniform(0.5, 9, (count, cols)), rng.integers(0, 256, (count, dim))
    lines = [" ".join([*map(repr, map(float, frame)), *map(str, row)]) for frame, row in zip(frames, rows, strict=True)]
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text("\n".join([f"{count} {dim}", *lines]))
    lafs, descriptors = read_text_features(path)
    np.testing.assert_allclose(lafs[:, :, 2], frames[:, :2] - 0.5, atol=1e-5)
    np.testing.assert_array_equal(descriptors, rows)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no numbers",
        "2 128\n1 2 3 4",
        "1 2\n1 2 3 0.5 7",
        "1 2\n1 2 3 0.5 7 300",
        "1 2\n1 nan 3 0.5 7 3",
        "-1 2\n1 2",
    ],
)
def test_text_that_is_no_feature_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(DataError, match=r"a\.txt"):
        read_text_features(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("1 2\n1 2 3 0.5 7 8")
    summary = features_of_text(tmp_path, tmp_path / "f.h5")
    assert set(summary.skipped) == {"a"}
    assert summary.images == 1


def test_a_folder_without_text_features_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"NAME\.jpg\.txt"):
        features_of_text(tmp_path, tmp_path / "f.h5")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("one name with blanks\n0 0\n", "line 1"),
        ("left/a.jpg left/b.jpg\n0 x\n", "line 2"),
        ("left/a.jpg left/b.jpg\n0 1 2\n", "line 2"),
        ("left/a.jpg left/b.jpg\n0 -1\n", "0 or more"),
        ("left/a.jpg left/b.jpg\n0 4000\n", "beyond"),
        ("left/a.jpg nowhere.jpg\n0 1\n", "nowhere"),
        ("left/a.jpg left/b.jpg\n0 1\n0 2\n", "two matches"),
    ],
)
def test_match_lists_that_cannot_be_are_told(scene: Scene, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "m.txt").write_text(text)
    with pytest.raises(DataError, match=words):
        matches_of_list(tmp_path / "m.txt", scene.features, tmp_path / "m.h5")


def test_names_with_blanks_cannot_go_into_a_match_list(tmp_path: Path) -> None:
    with MatchWriter(tmp_path / "m.h5", {}) as writer:
        writer.write("a b.jpg", "c.jpg", Matches(np.zeros((1, 2), np.int32), np.ones(1, np.float32)), 3)
    with pytest.raises(DataError, match=r"'a b\.jpg'"):
        write_match_list(tmp_path / "m.h5", tmp_path / "m.txt")


def test_text_files_hold_128_dimensions(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "f.h5", {}) as writer:
        writer.write("a.jpg", one(dim=64))
    with pytest.raises(OptionError, match="64"):
        write_text_features(tmp_path / "f.h5", tmp_path / "text")
    assert not (tmp_path / "text").exists()
