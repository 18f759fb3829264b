"""The verbs `colmap` and `import`, and what the colmap command itself, of whatever version is here, makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colmap_helpers import NAMES, make_project, tables
from sfm_helpers import Scene, make_scene
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.plugins.colmap import (
    features_of_project,
    project_with_features,
    write_match_list,
    write_text_features,
)
from hardnet_match.sfm.colmap import pycolmap
from hardnet_match.store import FeatureReader

COLMAP = shutil.which("colmap")
needs_colmap = pytest.mark.skipif(COLMAP is None, reason="no colmap command here")


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
