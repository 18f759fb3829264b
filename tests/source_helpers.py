"""Sources of training data as their publishers lay them out, written small."""

from __future__ import annotations

import zipfile
import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from numpy.typing import NDArray
from training_helpers import made_up_model

from hardnet_match.features import Features
from hardnet_match.frames import from_colmap
from hardnet_match.store import FeatureWriter
from hardnet_match.training.sources.brown import TEST_PAIRS
from hardnet_match.training.sources.hpatches import VIEWS


def made_up_scene(folder: Path) -> Path:
    """`model` (with its database) and `photos` in the folder; returns it."""
    made_up_model(folder / "model", folder / "photos")
    return folder


def as_features(scene: Path, path: Path, shift: float = 0.0) -> Path:
    """The keypoints of the scene's database as a features file."""
    with (
        pycolmap.Database.open(scene / "model" / "database.db") as database,
        FeatureWriter(path, {"made": "up"}) as writer,
    ):
        for image in database.read_all_images():
            lafs = from_colmap(np.asarray(database.read_keypoints(image.image_id)))
            lafs[:, :, 2] += shift
            descriptors = np.zeros((len(lafs), 8), np.float32)
            writer.write(image.name, Features(lafs, np.ones(len(lafs), np.float32), descriptors, (640, 480)))
    return path


def brown_like(folder: Path, count: int = 600, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Files as Brown's zips hold them; the patches and points in their order."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    patches = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
    points = np.sort(rng.integers(0, count // 3, count))
    for number, start in enumerate(range(0, count, 256)):
        grid = np.zeros((1024, 1024), np.uint8)
        for k, patch in enumerate(patches[start : start + 256]):
            y, x = 64 * (k // 16), 64 * (k % 16)
            grid[y : y + 64, x : x + 64] = patch
        cv2.imwrite(str(folder / f"patches{number:04d}.bmp"), grid)
    (folder / "info.txt").write_text("".join(f"{point} 0\n" for point in points))
    (folder / "interest.txt").write_text("".join(f"{k % 7} {k}.5 3.25 -1.57 2.0\n" for k in range(count)))
    pairs = rng.integers(0, count, (40, 2))
    pairs[::2, 1] = np.searchsorted(points, points[pairs[::2, 0]])
    (folder / TEST_PAIRS).write_text("".join(f"{a} {points[a]} 0 {b} {points[b]} 0 0 \n" for a, b in pairs))
    return patches, points


def zipped(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return path


def hpatches_like(folder: Path, names: dict[str, int]) -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    out = {}
    for name, count in names.items():
        (folder / name).mkdir(parents=True)
        for view in VIEWS:
            patches = rng.integers(0, 256, (count, 65, 65), dtype=np.uint8)
            cv2.imwrite(str(folder / name / f"{view}.png"), patches.reshape(-1, 65))
            out[f"{name}/{view}"] = patches
    return out
