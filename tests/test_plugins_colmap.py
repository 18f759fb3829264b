"""COLMAP projects with other features and back, and COLMAP's text formats; pycolmap and the colmap command judge."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sfm_helpers import SIZE, Scene, make_scene
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.errors import DataError, OptionError, ReconstructionError, StoreError
from hardnet_match.features import Features, Matches
from hardnet_match.frames import laf_orientation, laf_scale, make_lafs
from hardnet_match.plugins.colmap import (
    features_of_project,
    features_of_text,
    matches_of_list,
    project_with_features,
    read_text_features,
    write_match_list,
    write_text_features,
)
from hardnet_match.plugins.colmap.tables import FEATURE_TABLES, pair_number, pair_of
from hardnet_match.sfm import reconstruct
from hardnet_match.sfm.colmap import pycolmap, quietly
from hardnet_match.sfm.descriptors import colmap_descriptors
from hardnet_match.store import FeatureReader, FeatureWriter, MatchReader, MatchWriter

NAMES = ["left/a.jpg", "left/b.jpg", "left/c.jpg", "right/a.jpg", "right/b.jpg", "right/c.jpg"]
COLMAP = shutil.which("colmap")
needs_colmap = pytest.mark.skipif(COLMAP is None, reason="no colmap command here")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"), NAMES, points=300)


@pytest.fixture(scope="module")
def project(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project as a user has one: two cameras in a rig, frames of it, pose priors, calibrated; features of its own."""
    path = tmp_path_factory.mktemp("project") / "theirs.db"
    pycolmap.Database.open(path).close()
    options = pycolmap.ImageReaderOptions()
    options.camera_model = "PINHOLE"
    options.camera_params = "700,700,320,240"
    with quietly():
        pycolmap.import_images(path, scene.folder, pycolmap.CameraMode.PER_FOLDER, options=options)
    rng = np.random.default_rng(0)
    with pycolmap.Database.open(path) as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        assert sorted(ids) == NAMES
        for image_id in ids.values():
            db.write_keypoints(image_id, rng.uniform(0, 400, (70, 4)).astype(np.float32))
            rows = pycolmap.FeatureDescriptors(
                pycolmap.FeatureExtractorType.SIFT, rng.integers(0, 255, (70, 128), dtype=np.uint8)
            )
            db.write_descriptors(image_id, rows)
        old = np.stack([np.arange(30, dtype=np.uint32)] * 2, axis=1)
        db.write_matches(ids["left/a.jpg"], ids["right/b.jpg"], old)
        geometry = pycolmap.TwoViewGeometry()
        geometry.inlier_matches = old[:20]
        geometry.config = 2
        db.write_two_view_geometry(ids["left/a.jpg"], ids["right/b.jpg"], geometry)
        position = pycolmap.PosePrior()
        position.corr_data_id = db.read_image(ids["left/b.jpg"]).data_id
        position.position = np.array([1.0, 2.0, 3.0])
        db.write_pose_prior(position)
    with sqlite3.connect(path) as db:  # a rig of both cameras, the right one 20 cm beside the left one
        first, second = (row[0] for row in db.execute("SELECT rig_id FROM rigs ORDER BY rig_id"))
        (camera,) = db.execute("SELECT ref_sensor_id FROM rigs WHERE rig_id = ?", (second,)).fetchone()
        pose = np.array([1, 0, 0, 0, -0.2, 0, 0], np.float64).tobytes()
        db.execute("DELETE FROM rigs WHERE rig_id = ?", (second,))
        db.execute("INSERT INTO rig_sensors VALUES (?, ?, 0, ?)", (first, camera, pose))
        db.execute("UPDATE frames SET rig_id = ?", (first,))
        db.execute("CREATE TABLE somebody_elses (note TEXT)")
        db.execute("INSERT INTO somebody_elses VALUES ('stays')")
    db.close()
    return path


def tables(path: Path) -> dict[str, tuple[str, list[Any]]]:
    """The SQL and the rows of every table, index and view."""
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    found = {}
    for kind, name, sql in db.execute("SELECT type, name, sql FROM sqlite_master ORDER BY name"):
        rows = db.execute(f'SELECT * FROM "{name}"').fetchall() if kind == "table" else []
        found[name] = (sql, rows)
    found["user_version"] = ("", db.execute("PRAGMA user_version").fetchall())
    db.close()
    return found


@pytest.fixture(scope="module")
def ours(scene: Scene, project: Path) -> Path:
    path = project.with_name("ours.db")
    summary = project_with_features(project, scene.features, scene.matches, path, verified=True)
    assert summary.images == 6
    assert summary.cameras == 2
    assert summary.pairs == 15
    assert summary.verified_pairs == 15
    assert summary.inliers <= summary.matches
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


def one(size: tuple[int, int] = SIZE, count: int = 3, dim: int = 128) -> Features:
    return Features(
        make_lafs(np.full((count, 2), 9.0), 5.0), np.ones(count, np.float32), np.ones((count, dim), np.float32), size
    )


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


# ---- back


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


@given(st.tuples(st.integers(1, 2**31 - 2), st.integers(1, 2**31 - 2)).filter(lambda ids: ids[0] != ids[1]))
def test_pair_numbers_are_colmaps(ids: tuple[int, int]) -> None:
    assert pair_of(pair_number(*ids)) == tuple(sorted(ids))
    assert pair_number(*ids) == pycolmap.image_pair_to_pair_id(*ids)


# ---- text


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


# ---- the command line


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_by_command(scene: Scene, project: Path, ours: Path, tmp_path: Path) -> None:
    new, text = tmp_path / "new.db", tmp_path / "text"
    done = run(
        "colmap", scene.features, scene.matches, "--project", project, "-o", new, "--verify", "--text", text, "-q"
    )
    assert done.exit_code == 0, done.stderr
    assert "15 pairs verified" in done.stdout
    assert tables(new)["matches"] == tables(ours)["matches"]
    assert (text / "features" / "right" / "c.jpg.txt").is_file()
    for arguments in (
        ("import", new, "-o", tmp_path / "f.h5", "--matches", tmp_path / "m.h5", "--inliers"),
        ("import", text / "features", "-o", tmp_path / "t.h5", "--images", scene.folder),
        ("import", text / "matches.txt", "-o", tmp_path / "tm.h5", "--features", tmp_path / "t.h5"),
    ):
        done = run(*arguments)
        assert done.exit_code == 0, done.stderr
    assert "15 pairs" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["colmap", "{f}", "{m}", "-o", "{t}/n.db"], "--project"),
        (["colmap", "{f}", "{m}", "-o", "{t}/n.db", "--project", "{p}", "--images", "{t}"], "either"),
        (["colmap", "{f}", "{m}", "-o", "{p}", "--project", "{p}", "--overwrite"], "itself"),
        (["import", "{p}", "-o", "{t}/f.h5", "--features", "{f}"], "--features is not for"),
        (["import", "{p}", "-o", "{t}/f.h5", "--inliers"], "no matches file"),
        (["import", "{t}", "-o", "{t}/f.h5", "--matches", "{t}/m.h5"], "--matches is not for"),
        (["import", "{l}", "-o", "{t}/f.h5"], "--features FILE"),
        (["import", "{p}", "-o", "{t}/none/f.h5"], "does not exist"),
        (["import", "{f}", "-o", "{t}/f.h5"], "HDF5"),
    ],
)
def test_commands_that_cannot_be(scene: Scene, project: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "list.txt").write_text("a b\n0 0\n")
    places = {"f": scene.features, "m": scene.matches, "p": project, "t": tmp_path, "l": tmp_path / "list.txt"}
    before = project.read_bytes()
    done = run(*(argument.format(**places) for argument in arguments))
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.stderr.split())
    assert project.read_bytes() == before


# ---- the colmap command itself, of whatever version is here


def colmap(*arguments: object) -> str:
    command = [str(COLMAP), *(str(argument) for argument in arguments)]
    env = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout + done.stderr


def registered(folder: Path) -> tuple[int, int]:
    model = pycolmap.Reconstruction(folder)
    return model.num_reg_images(), model.num_points3D()


@needs_colmap
def test_the_colmap_command_maps_its_own_project_with_our_features(scene: Scene, tmp_path: Path) -> None:
    """The project is of that COLMAP, so its database has that version's form, which must not change."""
    theirs, new = tmp_path / "theirs.db", tmp_path / "new.db"
    write_text_features(scene.features, tmp_path / "empty")
    for path in (tmp_path / "empty").rglob("*.txt"):
        path.write_text("0 128\n")
    colmap("database_creator", "--database_path", theirs)
    colmap(
        "feature_importer", "--database_path", theirs, "--image_path", scene.folder,
        "--import_path", tmp_path / "empty", "--ImageReader.single_camera", 1,
    )  # fmt: skip
    done = run("colmap", scene.features, scene.matches, "--project", theirs, "-o", new, "--verify")
    assert done.exit_code == 0, done.stderr
    assert tables(new)["user_version"] == tables(theirs)["user_version"]
    assert {name: sql for name, (sql, _) in tables(new).items()} == {n: sql for n, (sql, _) in tables(theirs).items()}
    (tmp_path / "sparse").mkdir()
    colmap("mapper", "--database_path", new, "--image_path", scene.folder, "--output_path", tmp_path / "sparse")
    images, points = registered(tmp_path / "sparse" / "0")
    assert images == 6
    assert points > 150


@needs_colmap
def test_the_colmap_command_matches_our_descriptors_and_reads_our_text(scene: Scene, tmp_path: Path) -> None:
    database, text = tmp_path / "d.db", tmp_path / "text"
    write_text_features(scene.features, text)
    write_match_list(scene.matches, tmp_path / "matches.txt")
    colmap("database_creator", "--database_path", database)
    colmap(
        "feature_importer", "--database_path", database, "--image_path", scene.folder,
        "--import_path", text, "--ImageReader.single_camera", 1,
    )  # fmt: skip
    shutil.copy(database, tmp_path / "matched.db")
    helped = colmap("matches_importer", "-h")
    gpu = "--FeatureMatching.use_gpu" if "FeatureMatching.use_gpu" in helped else "--SiftMatching.use_gpu"
    colmap(
        "matches_importer", "--database_path", database, "--match_list_path", tmp_path / "matches.txt",
        "--match_type", "raw", gpu, 0,
    )  # fmt: skip
    colmap("exhaustive_matcher", "--database_path", tmp_path / "matched.db", gpu, 0)
    for path in (database, tmp_path / "matched.db"):
        back = features_of_project(path, tmp_path / f"{path.stem}.h5", tmp_path / f"{path.stem}-m.h5", inliers=True)
        assert back.images == 6
        assert back.pairs >= 10
        assert back.matches > 1000
    with FeatureReader(tmp_path / "d.h5") as reader, FeatureReader(scene.features) as own:
        np.testing.assert_allclose(reader.lafs("left/a.jpg"), own.lafs("left/a.jpg"), atol=5e-3)
