"""Features and matches of a COLMAP project as files of this package."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from colmap_helpers import NAMES, make_project, tables
from sfm_helpers import Scene, make_scene

from hardnet_match.errors import OptionError, ReconstructionError, StoreError
from hardnet_match.frames import laf_orientation, laf_scale
from hardnet_match.plugins.colmap import features_of_project, project_with_features
from hardnet_match.plugins.colmap.tables import FEATURE_TABLES
from hardnet_match.sfm.colmap import pycolmap
from hardnet_match.sfm.descriptors import colmap_descriptors
from hardnet_match.store import FeatureReader, MatchReader


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), NAMES, points=300)


@pytest.fixture(scope="module")
def project(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(scene, tmp_path_factory.mktemp("project") / "theirs.db")


@pytest.fixture(scope="module")
def ours(scene: Scene, project: Path) -> Path:
    """The project with the features of the scene."""
    path = project.with_name("ours.db")
    project_with_features(project, scene.features, scene.matches, path, verified=True)
    return path


def test_and_back(scene: Scene, ours: Path, tmp_path: Path) -> None:
    summary = features_of_project(ours, tmp_path / "f.h5", tmp_path / "m.h5")
    assert (summary.images, summary.pairs, summary.skipped) == (6, 15, {})
    with FeatureReader(tmp_path / "f.h5") as back, FeatureReader(scene.features) as reader:
        assert back.names() == reader.names()
        for name in NAMES:
            first, second = back.read(name), reader.read(name)
            np.testing.assert_allclose(first.lafs, second.lafs, rtol=1e-5, atol=1e-4)
            assert first.image_size == second.image_size
            np.testing.assert_array_equal(first.descriptors, colmap_descriptors(second.descriptors))
        settings_hash = back.settings_hash
    with MatchReader(tmp_path / "m.h5") as back, MatchReader(scene.matches) as matches:
        assert back.settings["features"] == settings_hash
        for pair in (("left/a.jpg", "right/b.jpg"), ("right/c.jpg", "left/b.jpg")):
            got, expected = back.read(*pair).pairs, matches.read(*pair).pairs
            assert sorted(map(tuple, got.tolist())) == sorted(map(tuple, expected.tolist()))
    verified = features_of_project(ours, tmp_path / "f.h5", tmp_path / "inliers.h5", inliers=True)
    assert 0 < verified.matches <= summary.matches
    with pytest.raises(StoreError, match="method"):
        features_of_project(ours, tmp_path / "f.h5", tmp_path / "m.h5", inliers=True)
    with pytest.raises(OptionError, match="no matches file"):
        features_of_project(ours, tmp_path / "f.h5", inliers=True)


def test_tentative_or_verified_matches(project: Path, tmp_path: Path) -> None:
    tentative = features_of_project(project, tmp_path / "f.h5", tmp_path / "m.h5")
    verified = features_of_project(project, tmp_path / "f.h5", tmp_path / "i.h5", inliers=True)
    assert (tentative.pairs, tentative.matches, verified.pairs, verified.matches) == (1, 30, 1, 20)


def test_what_comes_back_matches_and_goes_there_again(ours: Path, project: Path, tmp_path: Path) -> None:
    features_of_project(ours, tmp_path / "f.h5", tmp_path / "m.h5")
    project_with_features(project, tmp_path / "f.h5", tmp_path / "m.h5", tmp_path / "again.db", verified=True)
    assert tables(tmp_path / "again.db")["matches"] == tables(ours)["matches"]
    assert tables(tmp_path / "again.db")["descriptors"] == tables(ours)["descriptors"]


def test_keypoints_of_all_forms(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "forms.db"
    shutil.copy(project, path)
    plain = np.array([[10.5, 20.5], [30.5, 40.5]], np.float32)
    turned = np.array([[10.5, 20.5, 2.0, np.pi / 2]], np.float32)
    with pycolmap.Database.open(path) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
    with sqlite3.connect(path) as db:
        for table in FEATURE_TABLES:
            db.execute(f"DELETE FROM {table}")
        for name, rows in (("left/a.jpg", plain), ("left/b.jpg", turned)):
            db.execute("INSERT INTO keypoints VALUES (?, ?, ?, ?)", (ids[name], *rows.shape, rows.tobytes()))
    db.close()
    summary = features_of_project(path, tmp_path / "f.h5")
    assert summary.images == 2
    assert set(summary.skipped) == set(NAMES) - {"left/a.jpg", "left/b.jpg"}
    with FeatureReader(tmp_path / "f.h5") as reader:
        first, second = reader.read("left/a.jpg"), reader.read("left/b.jpg")
    np.testing.assert_allclose(first.keypoints, [[10, 20], [30, 40]])
    assert first.descriptors.shape == (2, 0)
    assert laf_scale(second.lafs) == pytest.approx([12])
    assert laf_orientation(second.lafs) == pytest.approx([-90])


def damaged(project: Path, tmp_path: Path, statement: str) -> Path:
    path = tmp_path / "damaged.db"
    shutil.copy(project, path)
    db = sqlite3.connect(path)
    db.execute(statement)
    db.commit()
    db.close()
    return path


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE keypoints SET data = substr(data, 1, 40)", "are damaged"),
        ("UPDATE keypoints SET cols = 5, rows = 56", "5 columns"),
        ("UPDATE descriptors SET rows = 35, cols = 256", "70 keypoints but 35 descriptors"),
        ("UPDATE matches SET pair_id = 5", "images that are not there"),
        ("UPDATE keypoints SET rows = 7, data = substr(data, 1, 112)", r"70 descriptors"),
        ("DELETE FROM keypoints", "nothing to bring over"),
    ],
)
def test_damaged_projects_are_told(project: Path, tmp_path: Path, statement: str, words: str) -> None:
    path = damaged(project, tmp_path, statement)
    with pytest.raises(ReconstructionError, match=words):
        features_of_project(path, tmp_path / "f.h5", tmp_path / "m.h5")
