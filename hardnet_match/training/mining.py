"""Patches of one's own photos in memory, in one call; `sources` has the same for sets of any size."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from .patchset import PatchSet
from .sources.colmap import ColmapModel
from .sources.filters import Filters
from .sources.frames import DatabaseFrames, FeatureFrames
from .sources.gather import gather
from .sources.photos import Photos


def mine_model(
    model: Path,
    frames: Path,
    photos: Path,
    filters: Filters | None = None,
    only: Collection[str] | None = None,
    max_size: int | None = None,
) -> PatchSet:
    """Patches of every track of a reconstruction.

    Args:
        model: folder of a COLMAP model.
        frames: the database it was made from, or the features file (.h5): point k of an image is keypoint row k there.
        photos: folder of the photos.
        filters: what to keep.
        only: names of images to use; all if None.
        max_size: photos are shrunk to this longer side first, as extraction does.

    Returns:
        A patch set with tracks numbered as the model's points and images as COLMAP's, one scene; tracks left with one
        view are dropped.

    Raises:
        DataError: a folder or file is no such thing, or nothing is fit to learn from.
        ImageError: a photo cannot be read.
    """
    return gather(ColmapModel(model, photos, frames_of(frames), filters, only, max_size))


def mine_keypoints(
    frames: Path | None, photos: Path, per_photo: int = 2500, contrast: float = 8.0, seed: int = 0
) -> PatchSet:
    """Patches of unrelated photos: each keypoint is a track of one observation; all photos together are one scene.

    Args:
        frames: COLMAP database or features file (.h5) with keypoints; None finds them.
        photos: folder of the photos.
        per_photo: keypoints taken of a photo, at random.
        contrast: least standard deviation of a patch, grey levels of 255.
        seed: of the draw.

    Raises:
        DataError: a folder or file is no such thing, or nothing is fit to learn from.
        ImageError: a photo cannot be read.
    """
    return gather(Photos(photos, None if frames is None else frames_of(frames), per_photo, contrast, seed))


def frames_of(path: Path) -> DatabaseFrames | FeatureFrames:
    """Frames out of a features file (.h5, .hdf5) or else a COLMAP database."""
    return FeatureFrames(path) if path.suffix.lower() in (".h5", ".hdf5") else DatabaseFrames(path)
