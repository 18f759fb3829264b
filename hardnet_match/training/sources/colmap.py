"""Patches out of COLMAP models: the same point as different photos show it, in the frames the detector gave it."""

from __future__ import annotations

import zlib  # noqa: F401  (before pycolmap, see sfm/colmap.py)
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from numpy.typing import NDArray

from ...errors import DataError
from ...frames import laf_scale
from ...images import read_image
from .base import GEOMETRY, MANY, Columns, Piece, ReadPatches, Source
from .cutting import contrasts, fingerprint, stored_patches
from .filters import Filters, refine
from .frames import Frames

NEAR = 0.75
"""Pixels that a keypoint of the frames may lie from the same keypoint of the model: COLMAP rounds nothing, so more than
half a pixel (a slip in the origin) means other features."""


class ColmapModel(Source):
    """Observations of the points of one or more models of the same photos; a scene each model, a piece each image.

    Tracks are numbered as the points (those of model k from k times 2^32 on), images as COLMAP's. `refine` drops what
    does not agree with the rest of its track, and tracks left with one view.

    Args:
        models: folders of COLMAP models, binary or text.
        photos: the folder that the model's image names are relative to.
        frames: of the keypoints; row k of an image is its point2D k.
        filters: what to keep.
        only: names of images to use; all if None.
        max_size: photos are shrunk to this longer side first, as extraction does, so that patches are as sharp as those
            a descriptor meets in use.

    Raises:
        DataError: a folder holds no model, or nothing of `only` is in it.
    """

    kind = "colmap"
    geometry = GEOMETRY

    def __init__(
        self,
        models: Path | Sequence[Path],
        photos: Path,
        frames: Frames,
        filters: Filters | None = None,
        only: Collection[str] | None = None,
        max_size: int | None = None,
    ) -> None:
        folders = [models] if isinstance(models, Path) else list(models)
        self.photos, self.frames, self.filters = photos, frames, filters or Filters()
        self.max_size = max_size
        self.name = photos.name or "model"
        self._models = [_read_model(folder) for folder in folders]
        self._points = [_points(model) for model in self._models]
        self._images: dict[str, tuple[int, int]] = {}
        for index, model in enumerate(self._models):
            for image_id, image in sorted(model.images.items()):
                if image.has_pose and image.num_points3D and (only is None or image.name in only):
                    key = image.name if len(folders) == 1 else f"{index}/{image.name}"
                    self._images[key] = (index, image_id)
        if not self._images:
            raise DataError(f"{folders[0]} has no observation to learn from")

    def settings(self) -> dict[str, Any]:
        names = sorted({self._image(key).name for key in self._images})
        return {
            "kind": self.kind,
            "photos": fingerprint(self.photos, names),
            "points": [len(ids) for ids, _ in self._points],
            "images": len(self._images),
            **({} if self.max_size is None else {"max_size": self.max_size}),
            **self.frames.settings(),
            **asdict(self.filters),
        }

    def pieces(self) -> list[str]:
        return list(self._images)

    def _image(self, key: str) -> Any:
        index, image_id = self._images[key]
        return self._models[index].images[image_id]

    def read(self, key: str) -> Piece:
        (index, image_id), image = self._images[key], self._image(key)
        ids, rows = _observations(image)
        known, positions = self._points[index]
        xyz = positions[np.searchsorted(known, ids)]
        lafs = self.frames.of(image.name)
        if len(lafs) != image.num_points2D():
            raise DataError(
                f"image {image.name!r} has {image.num_points2D()} keypoints in the model and {len(lafs)} where its "
                "frames come from: they are of another reconstruction"
            )
        _check_places(image, rows, lafs)
        lafs = lafs[rows]
        pose, camera = image.cam_from_world(), self._models[index].cameras[image.camera_id]
        in_camera = xyz @ pose.rotation.matrix().T + pose.translation
        error = np.linalg.norm(np.asarray(camera.img_from_cam(in_camera)) - 0.5 - lafs[:, :, 2], axis=1)
        keep = (error < self.filters.reprojection) & (in_camera[:, 2] > 0)  # NaN behind some cameras is not kept
        ids, xyz, lafs, depth = ids[keep], xyz[keep], lafs[keep], in_camera[keep, 2]
        picture = read_image(self.photos / image.name, max_size=self.max_size)
        patches = stored_patches(picture.pixels, picture.from_original(lafs))
        keep = contrasts(patches, self.margin) > self.filters.contrast
        toward = image.projection_center() - xyz
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
        count = int(keep.sum())
        return Piece(
            patches[keep],
            {
                "track": ids[keep] + index * MANY,
                "image": np.full(count, image_id, np.int32),
                "scene": np.full(count, index, np.int32),
                "direction": toward[keep].astype(np.float32),
                "position": xyz[keep].astype(np.float32),
                "size": (laf_scale(lafs) * depth / camera.mean_focal_length())[keep].astype(np.float32),
            },
        )

    def refine(self, columns: Columns, read: ReadPatches) -> NDArray[np.intp]:
        return refine(columns, read, self.filters)


def _read_model(folder: Path) -> Any:
    try:
        return pycolmap.Reconstruction(folder)
    except (RuntimeError, ValueError, IndexError) as error:
        raise DataError(f"{folder} holds no COLMAP model: {error}") from error


def _points(model: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Sorted ids of the points, and their positions."""
    ids = np.array(sorted(model.point3D_ids()), dtype=np.int64)
    points = model.points3D
    return ids, np.array([points[int(i)].xyz for i in ids], dtype=np.float64).reshape(-1, 3)


def _observations(image: Any) -> tuple[NDArray[np.int64], NDArray[np.intp]]:
    """Point ids of an image's observations, and which of its points2D they are."""
    rows = np.array(image.get_observation_point2D_idxs(), dtype=np.intp)
    ids = np.array([point.point3D_id for point in image.get_observation_points2D()], dtype=np.int64)
    return ids, rows


def _check_places(image: Any, rows: NDArray[np.intp], lafs: NDArray[np.float32], sample: int = 50) -> None:
    some = rows[:: max(len(rows) // sample, 1)]
    there = np.array([image.points2D[int(row)].xy for row in some]) - 0.5
    if len(some) and np.median(np.linalg.norm(lafs[some, :, 2] - there, axis=1)) > NEAR:
        raise DataError(
            f"the keypoints of {image.name!r} lie elsewhere in the model than where its frames come from: "
            "they are of another reconstruction"
        )
