"""Patches out of COLMAP models: the same point as different photos show it, in the frames the detector gave it."""

from __future__ import annotations

import logging
import zlib  # noqa: F401  (before pycolmap, see corpus.py)
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import torch
from numpy.typing import NDArray

from ..errors import DataError
from ..frames import from_colmap, laf_scale, scale_laf
from ..patches import extract_patches
from ..pyramid import as_image, patch_pyramid
from .patchset import PATCH, STORED, PatchSet

log = logging.getLogger(__name__)

FAR_APART = 1e5
"""Unrelated photos are laid so many pixels apart, that no place of one counts as a place of another."""


@dataclass(frozen=True)
class Filters:
    """Which observations are kept.

    Args:
        reprojection: farthest a keypoint may lie from its point's projection, pixels.
        size_octaves: most that a region's size on the surface may differ from its track's median, in octaves.
        correlation: least normalised correlation with the mean of the track's other patches; a detector's flipped
            orientation or an occluder falls through here.
        contrast: least standard deviation of a patch, grey levels of 255.
        max_views: observations kept of one track, evenly spread over its images.
    """

    reprojection: float = 1.5
    size_octaves: float = 0.5
    correlation: float = 0.25
    contrast: float = 4.0
    max_views: int = 6


def grey_photo(path: Path) -> NDArray[np.uint8]:
    """A photo as (H, W) uint8, EXIF orientation ignored as COLMAP does."""
    pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise DataError(f"{path} cannot be read as an image")
    return np.asarray(pixels, dtype=np.uint8)


def stored_patches(photo: NDArray[np.uint8], lafs: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(N, 64, 64) uint8 patches of frames (N, 2, 3), margin included, sampled as inference samples its 32x32."""
    with torch.inference_mode():
        pyramid = patch_pyramid(as_image(photo), PATCH)
        wide = torch.from_numpy(scale_laf(lafs, STORED / PATCH))
        out: NDArray[np.uint8] = (extract_patches(pyramid, wide, STORED)[:, 0] * 255).round().to(torch.uint8).numpy()
    return out


def mine_model(model: Path, database: Path, photos: Path, filters: Filters | None = None) -> PatchSet:
    """Patches of every track of a reconstruction.

    Args:
        model: folder of a COLMAP model.
        database: the database it was made from: point k of an image is keypoint row k there.
        photos: folder of the photos.
        filters: what to keep.

    Returns:
        A patch set with tracks numbered as the model's points, one scene; tracks left with one view are dropped.
    """
    filters = filters or Filters()
    reconstruction = pycolmap.Reconstruction(model)
    columns: dict[str, list[NDArray[Any]]] = {
        key: [] for key in ("patches", "track", "image", "direction", "position", "size")
    }
    with pycolmap.Database.open(database) as opened:
        for image_id, image in reconstruction.images.items():
            rows = [k for k, point in enumerate(image.points2D) if point.has_point3D()]
            if not image.has_pose or not rows:
                continue
            ids = np.array([image.points2D[k].point3D_id for k in rows], dtype=np.int64)
            xyz = np.array([reconstruction.points3D[int(i)].xyz for i in ids])
            lafs = from_colmap(np.asarray(opened.read_keypoints(image_id))[rows])
            pose, camera = image.cam_from_world(), reconstruction.cameras[image.camera_id]
            in_camera = xyz @ pose.rotation.matrix().T + pose.translation
            projected = np.asarray(camera.img_from_cam(in_camera))
            error = np.linalg.norm(projected - 0.5 - lafs[:, :, 2], axis=1)
            region = laf_scale(lafs) * in_camera[:, 2] / camera.mean_focal_length()
            keep = (error < filters.reprojection) & (in_camera[:, 2] > 0)
            patches = stored_patches(grey_photo(photos / image.name), lafs)
            keep &= patches[:, 16:48, 16:48].std(axis=(1, 2)) > filters.contrast
            toward = image.projection_center() - xyz
            toward /= np.linalg.norm(toward, axis=1, keepdims=True)
            columns["patches"].append(patches[keep])
            columns["track"].append(ids[keep])
            columns["image"].append(np.full(int(keep.sum()), image_id, dtype=np.int32))
            columns["direction"].append(toward[keep].astype(np.float32))
            columns["position"].append(xyz[keep].astype(np.float32))
            columns["size"].append(region[keep].astype(np.float32))
    if not columns["track"]:
        raise DataError(f"{model} has no observation to learn from")
    arrays: dict[str, Any] = {key: np.concatenate(value) for key, value in columns.items()}
    order = np.lexsort((arrays["image"], arrays["track"]))
    arrays = {key: value[order] for key, value in arrays.items()}
    found = PatchSet(**arrays, scene=np.zeros(len(order), dtype=np.int32))
    found = found.select(np.flatnonzero(_agrees_in_size(found, filters.size_octaves)))
    found = found.select(np.flatnonzero(_agrees_in_looks(found, filters.correlation)))
    kept = found.select(np.flatnonzero(_spread(found, filters.max_views)))
    log.info("%s: %d of %d observations kept", model, len(kept), len(order))
    return kept


def mine_keypoints(
    database: Path, photos: Path, per_photo: int = 2500, contrast: float = 8.0, seed: int = 0
) -> PatchSet:
    """Patches of unrelated photos: each keypoint is a track of one observation; all photos together are one scene.

    Args:
        database: COLMAP database with keypoints.
        photos: folder of the photos.
        per_photo: keypoints taken of a photo, at random.
        contrast: least standard deviation of a patch, grey levels of 255.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    parts: list[PatchSet] = []
    with pycolmap.Database.open(database) as opened:
        for image in opened.read_all_images():
            lafs = from_colmap(np.asarray(opened.read_keypoints(image.image_id)))
            lafs = lafs[rng.permutation(len(lafs))[:per_photo]]
            if not len(lafs):
                continue
            patches = stored_patches(grey_photo(photos / image.name), lafs)
            rows = np.flatnonzero(patches[:, 16:48, 16:48].std(axis=(1, 2)) > contrast)
            count = len(rows)
            centre = np.zeros((count, 3), dtype=np.float32)
            centre[:, :2] = lafs[rows, :, 2]
            centre[:, 2] = FAR_APART * len(parts)
            ahead = np.tile(np.array([0, 0, 1], dtype=np.float32), (count, 1))
            zeros = np.zeros(count, dtype=np.int32)
            size = laf_scale(lafs[rows])
            parts.append(PatchSet(patches[rows], np.arange(count, dtype=np.int64), zeros, zeros, ahead, centre, size))
    joined = PatchSet.joined(parts)
    return replace(joined, scene=np.zeros_like(joined.scene))


def _group_sums(track: NDArray[np.int64], values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Sum of the rows of every track, given back to each of its rows; and the number of its rows."""
    group = np.cumsum(np.r_[False, np.diff(track) > 0])
    starts = np.flatnonzero(np.r_[True, np.diff(track) > 0])
    counts = np.diff(np.r_[starts, len(track)])
    return np.add.reduceat(values, starts, axis=0)[group], counts[group]


def _agrees_in_size(found: PatchSet, octaves: float) -> NDArray[np.bool_]:
    assert found.size is not None
    log_size = np.log2(found.size)
    order = np.lexsort((log_size, found.track))  # tracks stay in place, sizes are sorted within each
    starts = np.flatnonzero(np.r_[True, np.diff(found.track) > 0])
    counts = np.diff(np.r_[starts, len(found)])
    median = log_size[order][starts + counts // 2]
    near: NDArray[np.bool_] = np.abs(log_size - np.repeat(median, counts)) < octaves
    return near


def _agrees_in_looks(found: PatchSet, least: float) -> NDArray[np.bool_]:
    if not len(found):
        return np.zeros(0, dtype=bool)
    inner = found.patches[:, 16:48, 16:48].reshape(-1, 16, 2, 16, 2).mean(axis=(2, 4), dtype=np.float32)
    inner = inner.reshape(len(found), -1)
    inner = inner - inner.mean(axis=1, keepdims=True)
    inner /= np.linalg.norm(inner, axis=1, keepdims=True) + 1e-6
    sums, counts = _group_sums(found.track, inner)
    others = sums - inner
    correlation = (inner * others).sum(axis=1) / (np.linalg.norm(others, axis=1) + 1e-6)
    agrees = (correlation > least) & (counts > 1)
    remaining, _ = _group_sums(found.track, agrees.astype(np.float32)[:, None])
    good: NDArray[np.bool_] = agrees & (remaining[:, 0] > 1)  # a track with one view left teaches nothing
    return good


def _spread(found: PatchSet, most: int) -> NDArray[np.bool_]:
    starts = np.flatnonzero(np.r_[True, np.diff(found.track) > 0])
    counts = np.diff(np.r_[starts, len(found)])
    place = np.arange(len(found)) - np.repeat(starts, counts)
    of = np.repeat(counts, counts)
    step = np.maximum(of, most)
    # row i of n is kept when it is the first to reach another of `most` equal steps
    return np.asarray(((place * most) // step != ((place - 1) * most) // step) | (place == 0))
