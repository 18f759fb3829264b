"""A COLMAP model as arrays to look at: its points with their colours, and where its cameras stand."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .colmap import pycolmap, quietly, told_plainly


@dataclass(frozen=True, eq=False)
class Scene:
    """Points and registered images of a model; world coordinates are the model's own.

    Args:
        points: (N, 3) float64.
        colours: (N, 3) uint8 RGB, as COLMAP took them from the photos; black where it took none.
        errors: (N,) float64, mean reprojection error of a point, pixels.
        lengths: (N,) int64, how many images see it.
        names: of the M registered images, sorted.
        centres: (M, 3) float64.
        rotations: (M, 3, 3) float64, world to camera (x right, y down, z ahead).
        focal: (M,) float64, mean focal length, pixels.
        sizes: (M, 2) int64 width, height in pixels.
        seen: (M,) int64, points that an image sees.
    """

    points: NDArray[np.float64]
    colours: NDArray[np.uint8]
    errors: NDArray[np.float64]
    lengths: NDArray[np.int64]
    names: list[str]
    centres: NDArray[np.float64]
    rotations: NDArray[np.float64]
    focal: NDArray[np.float64]
    sizes: NDArray[np.int64]
    seen: NDArray[np.int64]


def read_scene(model: str | os.PathLike[str]) -> Scene:
    """Points and cameras of a model folder, binary or text.

    Raises:
        ReconstructionError: there is no such model.
    """
    folder = Path(model)
    with quietly(), told_plainly(folder, "read the model"):
        reconstruction = pycolmap.Reconstruction(folder)
        # pycolmap has no arrays of points: a pass over its objects, about 5 microseconds a point
        rows = [
            (point.xyz, point.color, point.error, point.track.length()) for point in reconstruction.points3D.values()
        ]
        images = sorted(
            (reconstruction.image(image_id) for image_id in reconstruction.reg_image_ids()),
            key=lambda image: str(image.name),
        )
        poses = [np.asarray(image.cam_from_world().matrix(), np.float64) for image in images]
        cameras = [reconstruction.camera(image.camera_id) for image in images]
    turns = np.array([pose[:, :3] for pose in poses]).reshape(-1, 3, 3)
    shifts = np.array([pose[:, 3] for pose in poses]).reshape(-1, 3)
    return Scene(
        points=np.array([row[0] for row in rows], np.float64).reshape(-1, 3),
        colours=np.array([row[1] for row in rows], np.uint8).reshape(-1, 3),
        errors=np.array([row[2] for row in rows], np.float64),
        lengths=np.array([row[3] for row in rows], np.int64),
        names=[str(image.name) for image in images],
        centres=-np.einsum("nji,nj->ni", turns, shifts),
        rotations=turns,
        focal=np.array([camera.mean_focal_length() for camera in cameras], np.float64),
        sizes=np.array([(camera.width, camera.height) for camera in cameras], np.int64).reshape(-1, 2),
        seen=np.array([image.num_points3D for image in images], np.int64),
    )


def observing_keypoints(model: str | os.PathLike[str], names: list[str]) -> dict[str, NDArray[np.int64]]:
    """Rows of the keypoints that observe a point, of those of the images that are registered.

    Raises:
        ReconstructionError: there is no such model.
    """
    folder, wanted = Path(model), set(names)
    with quietly(), told_plainly(folder, "read the model"):
        reconstruction = pycolmap.Reconstruction(folder)
        images = (reconstruction.image(image_id) for image_id in reconstruction.reg_image_ids())
        return {
            str(image.name): np.array(list(image.get_observation_point2D_idxs()), np.int64)
            for image in images
            if str(image.name) in wanted
        }
