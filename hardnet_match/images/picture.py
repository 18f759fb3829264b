"""A decoded picture that knows the way back to the coordinates of its file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, OptionError
from .decode import MAX_PIXELS, decode
from .exif import orientation
from .files import read_bytes, shown

# EXIF orientation -> (columns of the stored picture along the upright one's x and y axes)
_UPRIGHT = {
    1: ((1, 0), (0, 1)), 2: ((-1, 0), (0, 1)), 3: ((-1, 0), (0, -1)), 4: ((1, 0), (0, -1)),
    5: ((0, 1), (1, 0)), 6: ((0, 1), (-1, 0)), 7: ((0, -1), (-1, 0)), 8: ((0, -1), (1, 0)),
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    Args:
        pixels: (H, W) or (H, W, 3) RGB uint8, perhaps smaller than the file's, perhaps turned upright.
        size: (width, height) of the file as COLMAP reads it.
        to_file: (2, 3) float64, pixels of `pixels` to pixels of the file, pixel centres at integers in both.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    to_file: NDArray[np.float64]

    def to_original(self, lafs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Frames (N, 2, 3) or points (N, 2) found in `pixels`, in pixels of the file. Whole frames are mapped: axes
        too, each direction with its own scale."""
        return _mapped(self.to_file, lafs)

    def from_original(self, lafs: NDArray[np.float32]) -> NDArray[np.float32]:
        """The way back: frames (N, 2, 3) or points (N, 2) of the file, in pixels of `pixels`."""
        inverse = np.linalg.inv(np.vstack([self.to_file, [0, 0, 1]]))[:2]
        return _mapped(inverse, lafs)

    def shrunk(self, max_size: int) -> Picture:
        """The picture with its longer side at most `max_size` pixels, by area averaging; itself if it is that small."""
        rows, cols = self.pixels.shape[:2]
        if max(rows, cols) <= max_size:
            return self
        import cv2

        new = [max(1, round(side * max_size / max(rows, cols))) for side in (cols, rows)]
        pixels = np.asarray(cv2.resize(self.pixels, new, interpolation=cv2.INTER_AREA), np.uint8)
        sx, sy = cols / new[0], rows / new[1]
        shrink = np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]])
        return Picture(pixels, self.size, self.to_file @ shrink)

    def cropped(self, box: tuple[float, float, float, float]) -> Picture:
        """The part of the picture in a box; coordinates of the file stay those of the whole file.

        Args:
            box: x0, y0, x1, y1 in pixels of the file, edges as PIL's `crop` takes them: rounded, (0, 0) the outer
                corner of the top left pixel. What sticks out of the picture is cut off.

        Raises:
            OptionError: nothing of the picture is in it.
        """
        bounded = np.clip(np.nan_to_num(np.array(box, float)), -1e6, 1e6)
        edges = np.round(bounded.reshape(2, 2)) - 0.5
        inside = np.round(self.from_original(np.asarray(edges, np.float32)) + 0.5).astype(int)
        rows, cols = self.pixels.shape[:2]
        (x0, y0), (x1, y1) = np.clip(np.sort(inside, axis=0), 0, [cols, rows]).tolist()
        if x0 >= x1 or y0 >= y1 or box[0] >= box[2] or box[1] >= box[3]:
            raise OptionError(
                f"the box {' '.join(f'{edge:g}' for edge in box)} holds nothing of the image of {self.size[0]}x"
                f"{self.size[1]} pixels; it is x0 y0 x1 y1, the top left and the bottom right corner"
            )
        corner = np.array([[1.0, 0, x0], [0, 1, y0], [0, 0, 1]])
        return Picture(np.ascontiguousarray(self.pixels[y0:y1, x0:x1]), self.size, self.to_file @ corner)

    def fit_mask(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """A mask of the file's size as one of `pixels`' size: true where the pixel's centre is true in the file.

        Raises:
            ImageError: the mask has another size than the file.
        """
        if mask.shape != self.size[::-1]:
            raise ImageError(f"mask is {mask.shape[1]}x{mask.shape[0]}, image is {self.size[0]}x{self.size[1]} pixels")
        rows, cols = self.pixels.shape[:2]
        y, x = np.mgrid[0:rows, 0:cols]
        there = np.einsum("ij,jhw->ihw", self.to_file[:, :2], np.stack([x, y])) + self.to_file[:, 2, None, None]
        nearest = np.clip(np.floor(there + 0.5).astype(int), 0, np.array(self.size)[:, None, None] - 1)
        return np.asarray(mask[nearest[1], nearest[0]])


def _mapped(affine: NDArray[np.float64], lafs: NDArray[np.float32]) -> NDArray[np.float32]:
    linear, offset = affine[:, :2], affine[:, 2]
    if lafs.ndim == 2:
        return np.asarray(lafs @ linear.T + offset, np.float32)
    mapped = linear @ lafs.astype(np.float64)
    mapped[:, :, 2] += offset
    return np.asarray(mapped, np.float32)


def read_image(
    path: str | os.PathLike[str],
    *,
    max_size: int | None = None,
    color: bool = False,
    apply_orientation: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Read a whole picture, or say why not.

    Args:
        path: JPEG, PNG, TIFF, WebP, BMP, PGM or PPM, told by content; grey, colour, palette, CMYK, 8 or 16 bits, with
            or without alpha (dropped, as COLMAP does); of several frames or pages the first.
        max_size: longest side of `pixels`; a larger picture is shrunk by area averaging.
        color: (H, W, 3) RGB rather than (H, W) grey (0.2126 R + 0.7152 G + 0.0722 B, as COLMAP has it).
        apply_orientation: turn `pixels` upright by the EXIF tag. COLMAP does not, so `size` and `to_original` stay
            those of the file as stored.
        max_pixels: refuse a picture whose header promises more.

    Raises:
        ImageError: missing, empty, cut off, not an image, too large, or of an unsupported kind; names the file.
        OptionError: `max_size` is not positive.
    """
    _check_max_size(max_size)
    return picture_of(
        read_bytes(path),
        shown(path),
        max_size=max_size,
        color=color,
        apply_orientation=apply_orientation,
        max_pixels=max_pixels,
    )


def _check_max_size(max_size: int | None) -> None:
    if max_size is not None and max_size < 1:
        raise OptionError(f"max_size must be at least 1 pixel, got {max_size}")


def picture_of(
    data: bytes,
    name: str,
    *,
    max_size: int | None = None,
    color: bool = False,
    apply_orientation: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """`read_image` of a file that was read already; `name` is what messages call it."""
    _check_max_size(max_size)
    pixels = decode(data, name, color, max_pixels)
    height, width = pixels.shape[:2]
    affine = np.array([[1.0, 0, 0], [0, 1, 0]])
    if apply_orientation:
        pixels, affine = _upright(pixels, orientation(data))
    picture = Picture(pixels, (width, height), affine)
    return picture if max_size is None else picture.shrunk(max_size)


def _upright(pixels: NDArray[np.uint8], tag: int) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The picture turned as its EXIF tag says, and the (2, 3) map from the turned to the stored one."""
    height, width = pixels.shape[:2]
    linear = np.array(_UPRIGHT[tag], float)
    corner = np.array([width - 1 if linear[0].sum() < 0 else 0, height - 1 if linear[1].sum() < 0 else 0], float)
    turned = pixels.swapaxes(0, 1) if linear[0, 0] == 0 else pixels
    # after the swap an axis of the turned picture runs along one of the stored picture's, perhaps backwards
    backwards = linear.sum(axis=0) < 0
    turned = turned[:: -1 if backwards[1] else 1, :: -1 if backwards[0] else 1]
    return np.ascontiguousarray(turned), np.column_stack([linear, corner])


def read_mask(folder: str | os.PathLike[str], name: str, size: tuple[int, int]) -> NDArray[np.bool_] | None:
    """The mask of an image, (H, W) bool, False where no features are wanted; None when there is no mask file.

    COLMAP's naming: the mask of `a/b.jpg` is `folder/a/b.jpg.png`; that of `a/b.png` may also be `folder/a/b.png`.
    Black (0) is ignored, all else used.

    Args:
        folder: masks folder. name: the image's name relative to its own folder. size: its (width, height).

    Raises:
        ImageError: the mask cannot be read, or has another size than the image.
    """
    path = mask_path(folder, name)
    return None if path is None else decode_mask(read_bytes(path), shown(path), size)


def mask_path(folder: str | os.PathLike[str], name: str) -> Path | None:
    """Where the mask of an image is, None if there is none; see `read_mask`."""
    path = Path(folder, f"{name}.png")
    if not path.exists() and name.lower().endswith(".png"):
        path = Path(folder, name)
    return path if path.exists() else None


def decode_mask(data: bytes, name: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """`read_mask` of a file that was read already; `name` is what messages call it."""
    pixels = decode(data, name, color=False)
    if pixels.shape != (size[1], size[0]):
        raise ImageError(
            f"{name}: the mask is {pixels.shape[1]}x{pixels.shape[0]} pixels and its image {size[0]}x{size[1]}; "
            "make them the same size (EXIF orientation is not applied)"
        )
    return np.asarray(pixels > 0)
