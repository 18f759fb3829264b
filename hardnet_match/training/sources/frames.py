"""Frames of a photo's keypoints: from a COLMAP database, from a features file, or found on the spot."""

from __future__ import annotations

import zlib  # noqa: F401  (before pycolmap, see sfm/colmap.py)
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from ...detectors import DETECTORS
from ...errors import DataError, OptionError, StoreError
from ...frames import from_colmap
from ...inference import run_tiled
from ...orientation import Dominant
from ...patches import extract_patches
from ...pyramid import as_image, patch_pyramid
from ...store import FeatureReader
from .cutting import grey_photo

Lafs = NDArray[np.float32]


class Frames(Protocol):
    """Where the frames of photos come from."""

    def settings(self) -> dict[str, Any]:
        """What they depend on, plain JSON values."""

    def names(self) -> list[str]:
        """The photos that have frames."""

    def of(self, name: str) -> Lafs:
        """(N, 2, 3) float32 frames of a photo; row k is keypoint k of its reconstruction."""


class DatabaseFrames:
    """Keypoints of a COLMAP database.

    Raises:
        DataError: there is no such database, or it is none.
    """

    def __init__(self, path: Path) -> None:
        import pycolmap

        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such database")
        try:
            with pycolmap.Database.open(path) as database:
                self._ids = {image.name: image.image_id for image in database.read_all_images()}
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{path} is not a COLMAP database: {error}") from error

    def settings(self) -> dict[str, Any]:
        return {"frames": "database", "bytes": self.path.stat().st_size}

    def names(self) -> list[str]:
        return sorted(self._ids)

    def of(self, name: str) -> Lafs:
        import pycolmap

        if name not in self._ids:
            raise DataError(f"{self.path} has no image {name!r}")
        with pycolmap.Database.open(self.path) as database:
            rows = np.asarray(database.read_keypoints(self._ids[name]))
        if rows.ndim == 2 and rows.shape[1] == 2:
            raise DataError(
                f"{self.path}: the keypoints of {name!r} have no scale; give the features file they come from instead"
            )
        return from_colmap(rows.reshape(-1, rows.shape[1] if rows.ndim == 2 else 6))


class FeatureFrames:
    """Frames of a features file (this package's, or one in hloc's layout with `scales`).

    Raises:
        DataError: there is no such file, or it is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with FeatureReader(path) as reader:
                self._names, self._hash = reader.names(), reader.settings_hash
        except StoreError as error:
            raise DataError(str(error)) from error

    def settings(self) -> dict[str, Any]:
        return {"frames": "features", "features": self._hash}

    def names(self) -> list[str]:
        return self._names

    def of(self, name: str) -> Lafs:
        try:
            with FeatureReader(self.path) as reader:
                return reader.lafs(name)
        except StoreError as error:
            raise DataError(str(error)) from error


class DetectedFrames:
    """Frames that a detector of this package finds, turned to the dominant gradient.

    Args:
        photos: the folder.
        names: of the photos in it.
        detector: a name of `detectors.DETECTORS` that needs no weights.
        count: the strongest so many a photo.
    """

    def __init__(self, photos: Path, names: list[str], detector: str = "dog", count: int = 5000) -> None:
        usable = [name for name, (_, weights) in DETECTORS.items() if weights is None]
        if detector not in usable:
            raise OptionError(f"detector {detector!r} is unknown here: choose one of {', '.join(usable)}")
        if count < 1:
            raise OptionError(f"a photo needs at least one keypoint, got {count}")
        self.photos, self._names, self.detector, self.count = photos, names, detector, count
        self._detect, self._orient = DETECTORS[detector][0](), Dominant().eval().fused()

    def settings(self) -> dict[str, Any]:
        return {"frames": self.detector, "count": self.count}

    def names(self) -> list[str]:
        return self._names

    def of(self, name: str) -> Lafs:
        return self.in_photo(grey_photo(self.photos / name))

    @torch.inference_mode()
    def in_photo(
        self, pixels: NDArray[np.uint8], most: int | None = None, rng: np.random.Generator | None = None
    ) -> Lafs:
        """Frames of a photo.

        Args:
            pixels: (H, W) uint8.
            most: so many of those found, drawn at random; all if None.
            rng: of the draw.
        """
        image = as_image(pixels)
        lafs, _ = self._detect(image, None, self.count)
        if most is not None and rng is not None:
            lafs = lafs[torch.from_numpy(rng.permutation(len(lafs))[:most])]
        if len(lafs):
            angle = run_tiled(self._orient, extract_patches(patch_pyramid(image), lafs))
            cos, sin = torch.cos(angle), torch.sin(angle)
            turn = torch.stack([cos, sin, -sin, cos], dim=1).reshape(-1, 2, 2)
            lafs = torch.cat([lafs[:, :, :2] @ turn, lafs[:, :, 2:]], dim=2)
        found: Lafs = lafs.numpy()
        return found
