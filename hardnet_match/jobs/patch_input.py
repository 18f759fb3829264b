"""Files of patches in the forms they are handed around in, read block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, OptionError
from ..images import list_images, read_image
from ..patches import fit_patches
from ..training.augment.frames import crop
from ..training.patchset import PatchSet
from ..training.sources.brown import Brown

BLOCK = 2048


@dataclass(frozen=True)
class PatchInput:
    """Patches in order, as a network takes them.

    Args:
        count: how many.
        blocks: (n, 1, P, P) float32 in [0, 1] for the network's P, `BLOCK` at most at a time.
    """

    count: int
    blocks: Callable[[int], Iterator[Tensor]]


def is_collection(path: Path) -> bool:
    """Whether a path is a folder of patch columns, each with a result of its own."""
    return path.is_dir() and not (path / "info.txt").is_file()


def open_patches(path: Path) -> PatchInput:
    """Patches of one file or set.

    Args:
        path: a picture (a column of square patches, HPatches' form), `.npy` (N, w, w) uint8, a patch set `.h5`, or a
            folder or zip of Brown's PhotoTour.

    Raises:
        ImageError: the picture cannot be read.
        DataError: no column, no such array, or a damaged set.
        OptionError: there is no such file.
    """
    if not path.exists():
        raise OptionError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if path.is_dir() or suffix == ".zip":
        return _brown(path)
    if suffix == ".npy":
        return _stored(_array(path), 1.0)
    if suffix in (".h5", ".hdf5"):
        patches = PatchSet.load(path)
        return _stored(patches.patches, patches.margin)
    return _stored(read_column(path), 1.0)


def list_columns(folder: Path) -> list[str]:
    """Pictures in a folder and its subfolders, as relative names.

    Raises:
        OptionError: there are none.
    """
    found = list_images(folder)
    if not found:
        raise OptionError(f"{folder}: neither pictures of patches nor Brown's info.txt in it")
    return found


def read_column(path: Path) -> NDArray[np.uint8]:
    """The patches (N, w, w) uint8 of a picture that is w wide and N w high.

    Raises:
        ImageError: it cannot be read.
        DataError: its height is no multiple of its width.
    """
    pixels = read_image(path).pixels
    height, width = pixels.shape
    if height % width:
        raise DataError(
            f"{path}: {width} wide and {height} high; a column of square patches is a whole number of times as high "
            f"as wide ({height // width} patches would leave {height % width} rows over)"
        )
    return pixels.reshape(height // width, width, width)


def _array(path: Path) -> NDArray[np.uint8]:
    try:
        stored: NDArray[np.uint8] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no array file: {error}") from error
    if stored.ndim == 4 and stored.shape[1] == 1:
        stored = stored[:, 0]
    if stored.ndim != 3 or stored.shape[1] != stored.shape[2] or not stored.shape[1] or stored.dtype != np.uint8:
        raise DataError(f"{path}: patches are (N, w, w) uint8, this is {stored.shape} {stored.dtype}")
    return stored


def _stored(patches: NDArray[np.uint8], margin: float) -> PatchInput:
    def blocks(size: int) -> Iterator[Tensor]:
        for start in range(0, len(patches), BLOCK):
            part = torch.from_numpy(np.array(patches[start : start + BLOCK]))
            yield fit_patches(part, size) if margin == 1 else _region(part, size, margin)

    return PatchInput(len(patches), blocks)


def _region(stored: Tensor, size: int, margin: float) -> Tensor:
    """The measurement region out of patches that show what lies around it."""
    return crop(stored, torch.eye(2, 3).expand(len(stored), 2, 3), size, margin)


def _brown(path: Path) -> PatchInput:
    source = Brown(path)

    def blocks(size: int) -> Iterator[Tensor]:
        for key in source.pieces():
            yield fit_patches(torch.from_numpy(np.ascontiguousarray(source.read(key).patches)), size)

    return PatchInput(len(source.points), blocks)
