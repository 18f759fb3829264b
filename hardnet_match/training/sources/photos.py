"""A plain folder of unrelated photos: each keypoint is a track of one observation, for synthetic warps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, OptionError
from ...frames import laf_scale
from ...images import list_images, read_image
from .base import FAR_APART, GEOMETRY, MANY, Piece, Source
from .cutting import contrasts, fingerprint, stored_patches
from .frames import DetectedFrames, Frames


class Photos(Source):
    """Patches around keypoints of single photos; all photos together are one scene, so that any may meet in a batch.

    Positions are pixels (of the shrunk photo), photos far apart from each other: two keypoints of one photo that
    overlap count as the same place and are no negatives.

    Args:
        folder: of the photos, subfolders included.
        frames: of the keypoints; None finds them with this package's DoG detector.
        per_photo: keypoints taken of a photo, at random among those found.
        contrast: least standard deviation of a patch, grey levels of 255.
        seed: of the draw.
        max_size: photos are shrunk to this longer side first, before keypoints are looked for; None leaves them.

    Raises:
        DataError: the folder holds no photo that has keypoints.
    """

    kind = "photos"
    geometry = GEOMETRY

    def __init__(
        self,
        folder: Path,
        frames: Frames | None = None,
        per_photo: int = 2500,
        contrast: float = 8.0,
        seed: int = 0,
        max_size: int | None = None,
    ) -> None:
        if per_photo < 1:
            raise OptionError(f"a photo needs at least one keypoint, got {per_photo}")
        names = list_images(folder)
        if not names:
            raise DataError(f"{folder} holds no photo")
        self.folder, self.name = folder, folder.name or "photos"
        self.frames = frames or DetectedFrames(folder, names)
        self.per_photo, self.contrast, self.seed, self.max_size = per_photo, contrast, seed, max_size
        known = set(self.frames.names())
        self._names = [name for name in names if name in known]
        if not self._names:
            raise DataError(f"no photo of {folder} has keypoints there; name the folder they were found in")

    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "photos": fingerprint(self.folder, self._names),
            **self.frames.settings(),
            "per_photo": self.per_photo,
            "contrast": self.contrast,
            "seed": self.seed,
            "max_size": self.max_size or 0,
        }

    def pieces(self) -> list[str]:
        return self._names

    def read(self, key: str) -> Piece:
        index = self._names.index(key)
        picture = read_image(self.folder / key, max_size=self.max_size)
        rng = np.random.default_rng([self.seed, index])
        if isinstance(self.frames, DetectedFrames):
            lafs = self.frames.in_photo(picture.pixels, self.per_photo, rng)
        else:
            lafs = self.frames.of(key)
            lafs = picture.from_original(lafs[rng.permutation(len(lafs))[: self.per_photo]])
        patches = stored_patches(picture.pixels, lafs)
        rows = np.flatnonzero(contrasts(patches, self.margin) > self.contrast)
        position = np.full((len(rows), 3), FAR_APART * index, np.float32)
        position[:, :2] = lafs[rows, :, 2]
        return Piece(
            patches[rows],
            {
                "track": index * MANY + np.arange(len(rows), dtype=np.int64),
                "image": np.full(len(rows), index, np.int32),
                "scene": np.zeros(len(rows), np.int32),
                "direction": np.tile(np.array([0, 0, 1], np.float32), (len(rows), 1)),
                "position": position,
                "size": laf_scale(lafs[rows]),
            },
        )
