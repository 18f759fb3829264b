"""A COLMAP project as a user has one, and everything that is in its database."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
from sfm_helpers import SIZE, Scene

from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.sfm.colmap import pycolmap, quietly

NAMES = ["left/a.jpg", "left/b.jpg", "left/c.jpg", "right/a.jpg", "right/b.jpg", "right/c.jpg"]


def make_project(scene: Scene, path: Path) -> Path:
    """A project as a user has one: two cameras in a rig, frames of it, pose priors, calibrated; features of its own."""
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


def one(size: tuple[int, int] = SIZE, count: int = 3, dim: int = 128) -> Features:
    return Features(
        make_lafs(np.full((count, 2), 9.0), 5.0), np.ones(count, np.float32), np.ones((count, dim), np.float32), size
    )
