"""COLMAP projects with other features: all else stays, and pycolmap maps and matches the result."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from colmap_helpers import NAMES, make_project, one, tables
from hypothesis import given
from hypothesis import strategies as st
from sfm_helpers import Scene, make_scene

from hardnet_match.errors import DataError, OptionError, ReconstructionError
from hardnet_match.features import Features, Matches
from hardnet_match.plugins.colmap import features_of_project, project_with_features
from hardnet_match.plugins.colmap.tables import FEATURE_TABLES, pair_number, pair_of
from hardnet_match.sfm import reconstruct
from hardnet_match.sfm.colmap import pycolmap, quietly
from hardnet_match.sfm.descriptors import colmap_descriptors
from hardnet_match.store import FeatureReader, FeatureWriter, MatchReader, MatchWriter


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), NAMES, points=300)


@pytest.fixture(scope="module")
def project(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(scene, tmp_path_factory.mktemp("project") / "theirs.db")


@pytest.fixture(scope="module")
def ours(scene: Scene, project: Path) -> Path:
    path = project.with_name("ours.db")
    summary = project_with_features(project, scene.features, scene.matches, path, verified=True)
    assert summary.images == 6
    assert summary.cameras == 2
    assert summary.pairs == 15
    assert summary.verified_pairs == 15
    assert 1000 < summary.inliers <= summary.matches
    assert summary.descriptors == "written"
    assert summary.skipped == {}
    return path


def test_all_but_the_features_stays(project: Path, ours: Path) -> None:
    before, after = tables(project), tables(ours)
    assert before.keys() == after.keys()
    for name in before:
        assert after[name][0] == before[name][0]
        if name not in FEATURE_TABLES:
            assert after[name][1] == before[name][1], name
    for name in ("rigs", "rig_sensors", "frames", "frame_data", "pose_priors", "somebody_elses", "sqlite_sequence"):
        assert before[name][1]


def test_the_features_are_ours(scene: Scene, ours: Path) -> None:
    with pycolmap.Database.open(ours) as db, FeatureReader(scene.features) as reader:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        for name, image_id in ids.items():
            rows, lafs = np.asarray(db.read_keypoints(image_id)), reader.lafs(name)
            np.testing.assert_allclose(rows[:, :2], lafs[:, :, 2] + 0.5, atol=1e-4)
            np.testing.assert_allclose(rows[:, 2:].reshape(-1, 2, 2) * 6, lafs[:, :, :2], rtol=1e-5, atol=1e-4)
            np.testing.assert_array_equal(
                db.read_descriptors(image_id).data, colmap_descriptors(reader.descriptors(name))
            )
        with MatchReader(scene.matches) as matches:
            for name0, name1 in (("left/a.jpg", "right/b.jpg"), ("right/a.jpg", "left/c.jpg")):
                got = np.asarray(db.read_matches(ids[name0], ids[name1]))
                expected = matches.read(name0, name1).pairs
                assert sorted(map(tuple, got.tolist())) == sorted(map(tuple, expected.tolist()))


def test_pycolmap_maps_it(scene: Scene, ours: Path, tmp_path: Path) -> None:
    """The rig of the project is a lie of the test's, so its frames are taken apart first."""
    path = tmp_path / "plain.db"
    pycolmap.Database.open(path).close()
    with quietly():
        pycolmap.import_images(path, scene.folder, pycolmap.CameraMode.SINGLE)
    new = tmp_path / "new.db"
    project_with_features(path, scene.features, scene.matches, new, verified=True)
    models = reconstruct(new, scene.folder, tmp_path / "sparse", overwrite=True)
    assert models[0].registered == 6
    assert models[0].points > 150
    assert models[0].reprojection_error < 1


def test_pycolmap_matches_its_descriptors(scene: Scene, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "unmatched.db"
    summary = project_with_features(project, scene.features, None, path)
    assert (summary.pairs, summary.matches) == (0, 0)
    with quietly():
        pycolmap.match_exhaustive(path)
    with pycolmap.Database.open(path) as db:
        assert db.num_verified_image_pairs() >= 10
        assert db.num_inlier_matches() > 1000


def test_it_appears_as_a_whole_or_not_at_all(scene: Scene, project: Path, tmp_path: Path) -> None:
    shutil.copy(scene.matches, tmp_path / "m.h5")
    with MatchWriter(tmp_path / "bad.h5", {}) as writer:
        beyond = Matches(np.array([[0, 5000]], np.int32), np.ones(1, np.float32))
        writer.write("left/a.jpg", "right/b.jpg", beyond, 270)
    with pytest.raises(DataError, match="5000"):
        project_with_features(project, scene.features, tmp_path / "bad.h5", tmp_path / "new.db")
    assert not list(tmp_path.glob("new.db*"))
    (tmp_path / "new.db").write_bytes(b"kept")
    (tmp_path / "new.db-wal").write_bytes(b"of an earlier database")
    with pytest.raises(OptionError, match="exists"):
        project_with_features(project, scene.features, None, tmp_path / "new.db")
    with pytest.raises(DataError):
        project_with_features(project, scene.features, tmp_path / "bad.h5", tmp_path / "new.db", overwrite=True)
    assert (tmp_path / "new.db").read_bytes() == b"kept"
    project_with_features(project, scene.features, None, tmp_path / "new.db", overwrite=True)
    assert [path.name for path in tmp_path.glob("new.db*")] == ["new.db"]
    assert tables(tmp_path / "new.db")["images"] == tables(project)["images"]


def test_the_project_is_never_written_to(scene: Scene, project: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "there" / "theirs.db"
    theirs.parent.mkdir()
    shutil.copy(project, theirs)
    before = theirs.read_bytes()
    with pytest.raises(OptionError, match="is the project itself"):
        project_with_features(theirs, scene.features, None, theirs, overwrite=True)
    project_with_features(theirs, scene.features, scene.matches, tmp_path / "new.db", verified=True)
    features_of_project(theirs, tmp_path / "f.h5", tmp_path / "m.h5")
    assert theirs.read_bytes() == before
    assert before[18] == 2  # in write-ahead mode, as COLMAP leaves it: even readers make files then
    assert [path.name for path in theirs.parent.iterdir()] == ["theirs.db"]


def test_a_project_in_write_ahead_mode_is_read_whole(scene: Scene, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "open.db"
    shutil.copy(project, path)
    other = sqlite3.connect(path)
    other.execute("PRAGMA journal_mode = WAL")
    other.execute("UPDATE cameras SET width = width")
    other.execute("INSERT INTO somebody_elses VALUES ('in the log only')")
    other.commit()
    assert (tmp_path / "open.db-wal").stat().st_size
    project_with_features(path, scene.features, None, tmp_path / "new.db")
    other.close()
    assert ("in the log only",) in tables(tmp_path / "new.db")["somebody_elses"][1]


def test_images_of_one_side_only_are_named(scene: Scene, project: Path, tmp_path: Path) -> None:
    with FeatureReader(scene.features) as reader, FeatureWriter(tmp_path / "f.h5", {}) as writer:
        for name in NAMES[:4]:
            writer.write(name, reader.read(name))
        writer.write("other.jpg", reader.read(NAMES[0]))
    summary = project_with_features(project, tmp_path / "f.h5", scene.matches, tmp_path / "new.db", verified=True)
    assert set(summary.skipped) == {*NAMES[4:], "other.jpg"}
    assert summary.pairs == 6
    assert len(tables(tmp_path / "new.db")["images"][1]) == 6


@pytest.mark.parametrize(
    ("name", "features", "words"),
    [
        ("left/a.jpg", one((480, 640)), "640 x 480 pixels in the project"),
        ("photos/left/a.jpg", one(), "relative to one folder"),
    ],
)
def test_features_of_other_images_are_refused(
    project: Path, tmp_path: Path, name: str, features: Features, words: str
) -> None:
    with FeatureWriter(tmp_path / "f.h5", {}) as writer:
        writer.write(name, features)
    with pytest.raises(ReconstructionError, match=words):
        project_with_features(project, tmp_path / "f.h5", None, tmp_path / "new.db")


def test_other_descriptors_are_left_out(project: Path, tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "f.h5", {}) as writer:
        writer.write("left/a.jpg", one(dim=64))
        writer.write("left/b.jpg", one(count=0))
    summary = project_with_features(project, tmp_path / "f.h5", None, tmp_path / "new.db")
    assert "64" in summary.descriptors
    after = tables(tmp_path / "new.db")
    assert after["descriptors"][1] == []
    assert [row[1:3] for row in after["keypoints"][1]] == [(3, 6), (0, 6)]


def test_what_is_no_project_is_told(scene: Scene, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("no database")
    with pytest.raises(ReconstructionError, match="not a COLMAP database"):
        project_with_features(tmp_path / "text.db", scene.features, None, tmp_path / "new.db")
    db = sqlite3.connect(tmp_path / "other.db")
    db.execute("CREATE TABLE cameras (x)")
    db.commit()
    db.close()
    with pytest.raises(ReconstructionError, match="no table 'images'"):
        features_of_project(tmp_path / "other.db", tmp_path / "f.h5")
    with pytest.raises(ReconstructionError, match=r"none\.db"):
        project_with_features(tmp_path / "none.db", scene.features, None, tmp_path / "new.db")


@given(st.tuples(st.integers(1, 2**31 - 2), st.integers(1, 2**31 - 2)).filter(lambda ids: ids[0] != ids[1]))
def test_pair_numbers_are_colmaps(ids: tuple[int, int]) -> None:
    assert pair_of(pair_number(*ids)) == tuple(sorted(ids))
    assert pair_number(*ids) == pycolmap.image_pair_to_pair_id(*ids)
