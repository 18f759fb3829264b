"""The photos of a COLMAP model with their frames, points and cameras, and what its geometry says of matches."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ReconstructionError, StoreError
from ..frames import Lafs, from_colmap
from ..store import FeatureReader
from .colmap import pycolmap, quietly, told_plainly

NO_POINT = -1
_PARALLEL = 1e-9


@dataclass(frozen=True, eq=False)
class View:
    """One registered image of a model.

    Args:
        name: relative to the photo folder.
        image_id: COLMAP's.
        lafs: (N, 2, 3) float32 frames of its keypoints, pixel centres at integers.
        point: (N,) int64, the 3-D point each keypoint observes, `NO_POINT` for none.
        position: (N, 3) float64 of these points, NaN where there is none.
        rays: (N, 2) float64, the keypoints without lens distortion, at focal length one.
        focal: mean focal length, pixels.
        size: (width, height), pixels.
        rotation, translation: a world point X is R X + t in the camera's frame.
    """

    name: str
    image_id: int
    lafs: Lafs
    point: NDArray[np.int64]
    position: NDArray[np.float64]
    rays: NDArray[np.float64]
    focal: float
    size: tuple[int, int]
    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]


def find_frames(model: str | os.PathLike[str]) -> Path:
    """The features file (`features.h5`) or database (`database.db`) that lies in a model's folder or above it.

    Raises:
        ReconstructionError: neither is there, up to two folders above.
    """
    folder = Path(model).resolve()
    for place in (folder, *list(folder.parents)[:2]):
        for name in ("features.h5", "database.db"):
            if (place / name).is_file():
                return place / name
    raise ReconstructionError(
        f"{model}: neither features.h5 nor database.db lies in it or up to two folders above; a model alone does not "
        "say how large a keypoint is, so put the database it was made from there"
    )


def read_views(model: str | os.PathLike[str], frames: str | os.PathLike[str]) -> list[View]:
    """Registered images of a model, sorted by name.

    Args:
        model: folder of a COLMAP model, binary or text.
        frames: the database or the features file it was made from: keypoint k of an image is point k of the model's.

    Raises:
        ReconstructionError: there is no such model, it has no image, or the frames are not those of the model.
        StoreError: the features file cannot be read.
    """
    folder = Path(model)
    with quietly(), told_plainly(folder, "read the model"):
        reconstruction = pycolmap.Reconstruction(folder)
    path = Path(frames)
    if path.suffix == ".db":
        with told_plainly(path, "read the keypoints"), pycolmap.Database.open(path) as database:
            ids = {str(image.name): image.image_id for image in database.read_all_images()}

            def from_database(name: str) -> Lafs:
                if name not in ids:
                    raise ReconstructionError(f"{path} has no image {name!r}, which {folder} has")
                return from_colmap(np.asarray(database.read_keypoints(ids[name])))

            return _views(reconstruction, folder, path, from_database)
    with FeatureReader(path) as reader:
        return _views(reconstruction, folder, path, reader.lafs)


def _views(reconstruction: Any, folder: Path, frames: Path, lafs_of: Callable[[str], Lafs]) -> list[View]:
    ids = list(reconstruction.reg_image_ids())
    if not ids:
        raise ReconstructionError(f"{folder}: the model has no registered image")
    where = {int(key): np.asarray(point.xyz) for key, point in reconstruction.points3D.items()}
    found = []
    for image_id in ids:
        image = reconstruction.image(image_id)
        name, camera = str(image.name), reconstruction.camera(image.camera_id)
        try:
            lafs = lafs_of(name)
        except StoreError as error:
            raise ReconstructionError(f"{frames} has no keypoints of {name!r}, which {folder} has: {error}") from error
        if len(lafs) != len(image.points2D):
            raise ReconstructionError(
                f"{frames}: {name!r} has {len(lafs)} keypoints there and {len(image.points2D)} in {folder}; "
                "they are not of the same run"
            )
        point = np.array([p.point3D_id if p.has_point3D() else NO_POINT for p in image.points2D], dtype=np.int64)
        position = np.full((len(point), 3), np.nan)
        rows = np.flatnonzero(point != NO_POINT)
        if len(rows):
            position[rows] = np.stack([where[int(key)] for key in point[rows]])
        rays = np.asarray(camera.cam_from_img(lafs[:, :, 2].astype(np.float64) + 0.5)).reshape(-1, 2)
        pose = np.asarray(image.cam_from_world().matrix(), dtype=np.float64)
        size = (int(camera.width), int(camera.height))
        found.append(
            View(
                name, int(image_id), lafs, point, position, rays, float(camera.mean_focal_length()), size, pose[:, :3],
                pose[:, 3],
            )
        )  # fmt: skip
    return sorted(found, key=lambda view: view.name)


def epipolar_distance(first: View, second: View, pairs: NDArray[Any]) -> NDArray[np.float64]:
    """How far matches are from what the two cameras allow, pixels, (M,) float64.

    The larger of the two distances of a keypoint from the other one's epipolar line, lens distortion taken off.
    Infinity where the two rays would meet behind a camera, and where a keypoint lies beyond what the lens model
    explains.

    Args:
        first, second: the images.
        pairs: (M, 2) rows into their keypoints.

    Raises:
        DataError: a pair points outside the keypoints.
    """
    pairs = np.asarray(pairs).reshape(-1, 2)
    if len(pairs) and (
        pairs.min() < 0 or pairs[:, 0].max() >= len(first.rays) or pairs[:, 1].max() >= len(second.rays)
    ):
        raise DataError(f"a match points outside the {len(first.rays)} and {len(second.rays)} keypoints")
    turn = second.rotation @ first.rotation.T
    shift = second.translation - turn @ first.translation
    one, other = (
        np.concatenate([view.rays[rows], np.ones((len(rows), 1))], axis=1)
        for view, rows in ((first, pairs[:, 0]), (second, pairs[:, 1]))
    )
    turned = one @ turn.T
    lines = np.cross(shift, turned)  # of the first's rays in the second image: rows E x
    back = np.cross(shift, other) @ turn  # of the second's in the first, up to sign: rows E^T y
    off = np.abs((other * lines).sum(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.maximum(
            off / np.linalg.norm(lines[:, :2], axis=1) * second.focal,
            off / np.linalg.norm(back[:, :2], axis=1) * first.focal,
        )
        # depths a, b with a turned + shift = b other, by least squares
        aa, bb, ab = (turned**2).sum(1), (other**2).sum(1), (turned * other).sum(1)
        at, bt = turned @ shift, other @ shift
        scale = aa * bb - ab**2
        ahead = ((ab * bt - bb * at > 0) & (aa * bt - ab * at > 0)) | (scale < _PARALLEL * aa * bb)
    return np.where(ahead & np.isfinite(distance), distance, np.inf)
