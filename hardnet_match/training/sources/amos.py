"""Webcams that look at one place for years (AMOS patches; Pultar, Mishkin, Matas: CVWW 2019).

A folder a camera, its views registered pixel by pixel; a mask a camera (`CAMERA.png`, or named by the part of the
folder's name before the first `_`) hides what is not the place: sky, clocks, logos. Frames are blobs of the mean of the
views, turned at random, and every view gives a patch of each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from ...detectors import Hessian
from ...errors import DataError, ImageError, OptionError
from ...frames import laf_scale, make_lafs
from ...images import list_images
from ...pyramid import as_image
from .base import FAR_APART, MANY, Columns, Piece, ReadPatches, Source
from .cutting import contrasts, fingerprint, grey_photo, stored_patches

SIDE, MARGIN = 96, 1.5
HIDDEN = 0.01
"""Most of a region that a mask may hide."""
_AT_ONCE = 1 << 20


def overlapping(lafs: NDArray[np.float32]) -> NDArray[np.int64]:
    """Pairs of frames (N, 2, 3) whose parallelograms [-1, 1]^2 overlap, (K, 2) int64, first below second, sorted.

    Two of them are apart exactly where the normal of one of their sides separates them.
    """
    axes, centres = lafs[:, :, :2].astype(np.float64), lafs[:, :, 2].astype(np.float64)
    normals = np.stack([-axes[:, 1], axes[:, 0]], axis=2)  # (N, side, 2)
    reach = np.linalg.norm(axes, axis=1).sum(axis=1)
    step = max(_AT_ONCE // max(len(lafs), 1), 1)
    near = []
    for start in range(0, len(lafs), step):
        gaps = np.linalg.norm(centres[start : start + step, None] - centres[None], axis=2)
        one, other = np.nonzero(gaps < reach[start : start + step, None] + reach[None])
        near.append(np.c_[one + start, other])
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *near])
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    one, other = pairs.T
    n = np.concatenate([normals[one], normals[other]], axis=1)  # (K, 4, 2)
    extents = sum(np.abs(n @ axes[side]).sum(axis=2) for side in (one, other))
    apart = np.abs(np.einsum("kij,kj->ki", n, centres[one] - centres[other])) > extents
    return np.asarray(pairs[~apart.any(axis=1)], np.int64)


class _Seen(NamedTuple):
    """A camera: its frames, pairs of them that overlap, and the shape of its views."""

    lafs: NDArray[np.float32]
    overlapping: NDArray[np.int64]
    shape: tuple[int, ...]


class Amos(Source):
    """Patch sets of webcams, a scene each camera, a piece each view: 96 cells, of which the middle 64 are the region.

    Tracks of one camera whose regions overlap are collisions. Patches that show nothing (at night) are left out, and
    tracks with them that keep fewer than two views.

    Args:
        folder: of the cameras' folders.
        masks: folder of the masks; None uses a folder `masks` in or beside it, if there is one.
        count: frames a camera, the strongest.
        smallest: least radius of a region, pixels; smaller ones would be blown up.
        contrast: least standard deviation of a patch, grey levels of 255.
        seed: of the turns.

    Raises:
        DataError: there is no camera with two views.
    """

    kind = "amos"
    geometry = ("position", "size")
    side, margin = SIDE, MARGIN

    def __init__(
        self,
        folder: Path,
        masks: Path | None = None,
        *,
        count: int = 2000,
        smallest: float = 16.0,
        contrast: float = 3.0,
        seed: int = 0,
    ) -> None:
        if count < 1 or smallest <= 0:
            raise OptionError(f"count and smallest must be positive, got {count} and {smallest}")
        if masks is None:
            masks = next((path for path in (folder / "masks", folder.parent / "masks") if path.is_dir()), None)
        self.folder, self.masks, self.name = folder, masks, folder.name or "amos"
        self.count, self.smallest, self.contrast, self.seed = count, smallest, contrast, seed
        views: dict[str, list[str]] = {}
        for name in list_images(folder):
            camera, _, view = name.rpartition("/")
            if camera and camera != "masks" and view:
                views.setdefault(camera, []).append(name)
        self._views = {camera: names for camera, names in views.items() if len(names) > 1}
        if not self._views:
            raise DataError(f"{folder} has no camera: folders of at least two registered views each")
        self._cameras = list(self._views)
        self._images = [name for names in self._views.values() for name in names]
        self._last: tuple[str, _Seen] | None = None

    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "views": fingerprint(self.folder, self._images),
            "masks": fingerprint(self.masks, [self._mask_name(c) or "-" for c in self._cameras]) if self.masks else "",
            "count": self.count,
            "smallest": self.smallest,
            "contrast": self.contrast,
            "seed": self.seed,
        }

    def pieces(self) -> list[str]:
        return self._images

    def _mask_name(self, camera: str) -> str | None:
        last = camera.rpartition("/")[2]
        names = [f"{name}.png" for name in (camera, last, last.split("_")[0])]
        return next((name for name in names if self.masks is not None and (self.masks / name).is_file()), None)

    def _mask(self, camera: str, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
        name = self._mask_name(camera)
        if name is None or self.masks is None:
            return None
        mask = grey_photo(self.masks / name)
        if mask.shape != shape:
            mask = np.asarray(cv2.resize(mask, shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
        return mask > 0

    def frames(self, camera: str) -> NDArray[np.float32]:
        """(N, 2, 3) frames of a camera: blobs of the mean of its views, strongest first, turned at random.

        Raises:
            ImageError: not one of its views can be read.
        """
        return self._camera(camera).lafs

    def _camera(self, camera: str) -> _Seen:
        if self._last is None or self._last[0] != camera:
            self._last = camera, self._found(camera)
        return self._last[1]

    def _found(self, camera: str) -> _Seen:
        total: NDArray[np.float64] = np.zeros((0, 0))
        used, fault = 0, "it has no views"
        for name in self._views[camera]:
            try:
                pixels = grey_photo(self.folder / name)
            except ImageError as error:
                fault = str(error)
                continue
            if not used:
                total = np.zeros(pixels.shape)
            if pixels.shape == total.shape:
                total += pixels
                used += 1
        if not used:
            raise ImageError(f"no view of {camera} can be read: {fault}")
        height, width = total.shape
        mask = self._mask(camera, total.shape)
        image = as_image((total / used / 255).astype(np.float32))
        with torch.inference_mode():
            allowed = None if mask is None else torch.from_numpy(mask)
            found, _ = Hessian(upsample=False)(image, allowed, 4 * self.count)
        size = laf_scale(found.numpy())
        turn = np.random.default_rng([self.seed, self._cameras.index(camera)]).uniform(-180, 180, len(size))
        lafs = make_lafs(found.numpy()[:, :, 2], size, turn)
        half = MARGIN * np.abs(lafs[:, :, :2]).sum(axis=2)  # of the box around the turned square
        centre = lafs[:, :, 2]
        inside = ((centre - half >= 0) & (centre + half <= np.array([width - 1, height - 1]))).all(axis=1)
        lafs = lafs[inside & (size >= self.smallest)]
        if mask is not None and len(lafs):
            shown = stored_patches(mask.astype(np.uint8) * 255, lafs, side=32, margin=1.0).mean(axis=(1, 2)) / 255
            lafs = lafs[shown >= 1 - HIDDEN]
        lafs = lafs[: self.count]
        return _Seen(lafs, overlapping(lafs), total.shape)

    def read(self, key: str) -> Piece:
        camera = key.rpartition("/")[0]
        index, image = self._cameras.index(camera), self._images.index(key)
        seen = self._camera(camera)
        lafs, photo = seen.lafs, grey_photo(self.folder / key)
        if photo.shape != seen.shape:
            raise ImageError(f"{self.folder / key} has another size than the others; views of a camera are registered")
        patches = stored_patches(photo, lafs, side=SIDE, margin=MARGIN)
        rows = np.flatnonzero(contrasts(patches, MARGIN) > self.contrast)
        position = np.c_[lafs[:, :, 2], np.full(len(lafs), FAR_APART * index)].astype(np.float32)
        return Piece(
            patches[rows],
            {
                "track": index * MANY + rows.astype(np.int64),
                "image": np.full(len(rows), image, np.int32),
                "scene": np.full(len(rows), index, np.int32),
                "position": position[rows],
                "size": laf_scale(lafs)[rows],
            },
            seen.overlapping + index * MANY,  # with every view: any of them may be missing
        )

    def refine(self, columns: Columns, read: ReadPatches) -> NDArray[np.intp]:
        del read
        _, group, counts = np.unique(columns["track"], return_inverse=True, return_counts=True)
        return np.flatnonzero(counts[group] > 1)
