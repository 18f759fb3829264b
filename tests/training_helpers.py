"""Made-up training data: textures, patch sets, a COLMAP model with the photos it was made from; and a recipe."""

from __future__ import annotations

import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray

from hardnet_match.frames import make_lafs, to_colmap
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sources.cutting import stored_patches

RECIPE = """
task = "orientation"
network.name = "orinet"
data.train = ["a"]
learn.matching = 0.0
schedule.kind = "one-cycle"
schedule.batch = 8
"""
"""A network that learns within seconds from the set `a`; a test adds the lines that say how long, and what else."""


def texture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Noise at several scales, so that every place looks different at every size."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for cell in (4, 9, 20, 45):
        small = rng.random((height // cell + 3, width // cell + 3))
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(total / 4 * 255, 0, 255), dtype=np.uint8)


def made_up_set(tracks: int, views: int = 3, seed: int = 0) -> PatchSet:
    """Tracks of one textured plane, seen with small changes of frame; the second half are single observations."""
    rng = np.random.default_rng(seed)
    photo = texture(900, 900, seed)
    xy, scale = 60 + 780 * rng.random((tracks, 2)), 12 + 20 * rng.random(tracks)
    rows = np.repeat(np.arange(tracks), np.where(np.arange(tracks) < tracks // 2, views, 1))
    count = len(rows)
    noise = rng.normal(size=(count, 4))
    lafs = make_lafs(xy[rows] + noise[:, :2], scale[rows] * np.exp(0.08 * noise[:, 2]), 4 * noise[:, 3])
    direction = rng.normal(size=(count, 3)).astype(np.float32)
    return PatchSet(
        stored_patches(photo, lafs),
        rows.astype(np.int64),
        np.arange(count, dtype=np.int32),
        (rows >= tracks // 2).astype(np.int32),
        direction / np.linalg.norm(direction, axis=1, keepdims=True),
        np.c_[xy[rows], np.zeros(count)].astype(np.float32),
        scale[rows].astype(np.float32),
    )


def made_up_model(folder: Path, photos: Path) -> list[NDArray[np.float64]]:
    """Three cameras before a textured plane z = 10, a COLMAP model and database of points on it, and the photos.

    Returns the homographies plane (x, y) -> pixels (pixel centres at integers).
    """
    rng = np.random.default_rng(0)
    wall = texture(1000, 1400, 5)
    pixels_a_unit, focal, width, height = 100.0, 500.0, 640, 480
    points = np.c_[1.5 + 11 * rng.random(150), 1.5 + 7 * rng.random(150)]
    centres = np.array([[6.5, 4.8, 0.0], [7.2, 5.0, 0.5], [6.9, 4.4, -0.6]])
    rec = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", focal, width, height)
    rec.add_camera_with_trivial_rig(camera)
    database = folder / "database.db"
    folder.mkdir()
    photos.mkdir()
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    homographies, rows = [], []
    for index, centre in enumerate(centres):
        turn = cv2.Rodrigues(np.array([0.02, -0.03, 0.15]) * index)[0]
        shift = -turn @ centre
        to_corner = k @ np.c_[turn[:, 0], turn[:, 1], turn[:, 2] * 10 + shift]
        to_pixel = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]]) @ to_corner
        # wall pixel (i, j) has its centre at plane ((i + .5) / 100, (j + .5) / 100)
        wall_to_plane = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, pixels_a_unit]]) / pixels_a_unit
        photo = cv2.warpPerspective(wall, to_pixel @ wall_to_plane, (width, height), flags=cv2.INTER_AREA)
        cv2.imwrite(str(photos / f"v {index}.png"), photo)
        xy = cv2.perspectiveTransform(points[None], to_pixel)[0]
        depth = (points @ turn[2, :2]) + turn[2, 2] * 10 + shift[2]
        lafs = make_lafs(xy, 0.45 * focal / depth, np.rad2deg(-0.15 * index))
        rows.append(to_colmap(lafs))
        homographies.append(to_pixel)
    names = [f"v {index}.png" for index in range(3)]
    pycolmap.Database.open(database).close()
    pycolmap.import_images(database, photos, pycolmap.CameraMode.SINGLE, image_names=names)
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        for name, row in zip(names, rows, strict=True):
            opened.write_keypoints(ids[name], row)
    for index, name in enumerate(names):
        turn = cv2.Rodrigues(np.array([0.02, -0.03, 0.15]) * index)[0]
        image = pycolmap.Image(
            name=name, keypoints=rows[index][:, :2].astype(np.float64), camera_id=1, image_id=ids[name]
        )
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(turn), -turn @ centres[index])
        rec.add_image_with_trivial_frame(image, pose)
    for number, point in enumerate(points):
        track = pycolmap.Track()
        for name in names:
            track.add_element(ids[name], number)
        rec.add_point3D(np.r_[point, 10.0], track)
    rec.write(folder)
    return homographies
