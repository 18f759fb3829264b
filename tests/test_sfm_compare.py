"""A model held against known cameras, and where these are read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sfm_helpers import SIZE, look_at

from hardnet_match.errors import DataError, ReconstructionError
from hardnet_match.sfm import (
    compare_cameras,
    read_bundler_cameras,
    read_colmap_cameras,
)
from hardnet_match.sfm.colmap import pycolmap


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def model_of(poses: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]) -> object:
    model = pycolmap.Reconstruction()
    model.add_camera_with_trivial_rig(pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", 500, *SIZE))
    for i, (name, (rotation, translation)) in enumerate(poses.items(), 1):
        image = pycolmap.Image(name=name, camera_id=1, image_id=i)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), translation)
        model.add_image_with_trivial_frame(image, pose)
    return model


@pytest.mark.parametrize("on_a_line", [False, True])
def test_a_similarity_makes_no_error(on_a_line: bool) -> None:
    rng = np.random.default_rng(0)
    truth, moved = {}, {}
    turn, scale, shift = random_rotation(rng), 3.7, rng.normal(size=3)
    for i in range(5):
        rotation = random_rotation(rng)
        centre = np.array([i, 0.0, 0]) if on_a_line else rng.normal(size=3)
        truth[f"{i}.jpg"] = rotation, -rotation @ centre
        moved[f"{i}.jpg"] = rotation @ turn.T, -rotation @ turn.T @ (scale * turn @ centre + shift)
    errors = compare_cameras(model_of(moved), truth)
    np.testing.assert_allclose(errors.rotation, 0, atol=1e-5)
    np.testing.assert_allclose(errors.position, 0, atol=1e-9)
    assert errors.scale == pytest.approx(1 / scale)
    rotation, translation = moved["2.jpg"]
    tilt = np.deg2rad(10)
    tilted = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    errors = compare_cameras(model_of({**moved, "2.jpg": (tilted @ rotation, tilted @ translation)}), truth)
    assert errors.rotation.argmax() == 2
    assert 7 < errors.rotation[2] < 10.5
    assert errors.summary()["rotation_max_degrees"] == errors.rotation[2]


def test_comparison_refuses(tmp_path: Path) -> None:
    poses = {"a": (np.eye(3), np.zeros(3)), "b": (np.eye(3), np.ones(3))}
    model = model_of(poses)
    with pytest.raises(ReconstructionError, match="only 1 of 2"):
        compare_cameras(model, {"a": poses["a"], "c": poses["b"]})
    with pytest.raises(DataError, match="pose of 'b'"):
        compare_cameras(model, {**poses, "b": (2 * np.eye(3), np.ones(3))})
    with pytest.raises(DataError, match="one place"):
        compare_cameras(model, {"a": poses["a"], "b": poses["a"]})
    with pytest.raises(ReconstructionError, match="no COLMAP model"):
        compare_cameras(tmp_path, poses)
    (tmp_path / "images.bin").write_bytes(b"junk")
    with pytest.raises(ReconstructionError, match="read the model"):
        compare_cameras(tmp_path, poses)


def test_model_files_read_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    poses = {name: (random_rotation(rng), rng.normal(size=3)) for name in ("a b.jpg", "c.jpg")}
    model = model_of(poses)
    (tmp_path / "bin").mkdir()
    model.write(tmp_path / "bin")  # type: ignore[attr-defined]
    found = read_colmap_cameras(tmp_path / "bin")
    assert found.keys() == poses.keys()
    for name, (rotation, translation) in found.items():
        np.testing.assert_allclose(rotation, poses[name][0], atol=1e-9)
        np.testing.assert_allclose(translation, poses[name][1])


def test_bundler_cameras(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    poses = [look_at(rng.normal(size=3) * 4) for _ in range(3)]
    flip = np.diag([1.0, -1, -1])
    lines = ["# Bundle file v0.3", "4 0"]
    for rotation, translation in poses:
        lines += [
            "500 0 0",
            *(" ".join(map(repr, map(float, row))) for row in [*(flip @ rotation), flip @ translation]),
        ]
    lines += ["0 0 0"] * 5
    (tmp_path / "b.out").write_text("\n".join(lines))
    read = read_bundler_cameras(tmp_path / "b.out", ["a", "b", "c", "d"])
    assert set(read) == {"a", "b", "c"}
    for name, (rotation, translation) in zip("abc", poses, strict=True):
        np.testing.assert_allclose(read[name][0], rotation)
        np.testing.assert_allclose(read[name][1], translation)
    with pytest.raises(DataError, match="4 cameras"):
        read_bundler_cameras(tmp_path / "b.out", ["a"])
    (tmp_path / "b.out").write_text("hello")
    with pytest.raises(DataError, match="not a Bundler"):
        read_bundler_cameras(tmp_path / "b.out", ["a"])


def test_real_truth_can_be_read(shared: Path) -> None:
    lund = read_colmap_cameras(shared / "data/scenes/lund_door/colmap_ground_truth")
    assert len(lund) == 12
    folder = shared / "data/scenes/saharov"
    names = (folder / "ordered_filenames.txt").read_text().split()[1:]
    saharov = read_bundler_cameras(folder / "cameras.out", names)
    assert len(saharov) == 32
    centres = np.stack([-r.T @ t for r, t in saharov.values()])
    ahead = np.stack([r[2] for r, _ in saharov.values()])
    aim = centres.mean(axis=0)
    points = np.linalg.lstsq(
        sum(np.eye(3) - np.outer(d, d) for d in ahead),
        sum((np.eye(3) - np.outer(d, d)) @ c for d, c in zip(ahead, centres, strict=True)),
        rcond=None,
    )[0]
    assert ((points - centres) * ahead).sum(axis=1).min() > 0, f"cameras around {aim} look at the statue, not away"
