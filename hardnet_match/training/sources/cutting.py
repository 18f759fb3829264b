"""Patches out of photos, and what a folder of photos holds."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ...frames import scale_laf
from ...images import read_image
from ...patches import extract_patches
from ...pyramid import as_image, patch_pyramid
from ..patchset import PATCH, STORED


def grey_photo(path: Path) -> NDArray[np.uint8]:
    """A photo as (H, W) uint8, EXIF orientation ignored as COLMAP does.

    Raises:
        ImageError: it cannot be read as a whole.
    """
    return read_image(path).pixels


def stored_patches(
    photo: NDArray[np.uint8], lafs: NDArray[np.float32], *, side: int = STORED, margin: float = STORED / PATCH
) -> NDArray[np.uint8]:
    """(N, side, side) uint8 patches of frames (N, 2, 3), margin included, sampled as inference samples its 32x32."""
    with torch.inference_mode():
        # The measurement region is sampled at side / margin cells: the pyramid must reach down to that density.
        pyramid = patch_pyramid(as_image(photo), max(round(side / margin), 1))
        wide = torch.from_numpy(scale_laf(lafs, margin))
        cut = extract_patches(pyramid, wide, side)[:, 0]
        out: NDArray[np.uint8] = (cut * 255).round().clamp(0, 255).to(torch.uint8).numpy()
    return out


def contrasts(patches: NDArray[np.uint8], margin: float) -> NDArray[np.float32]:
    """Standard deviation of each patch within its measurement region, grey levels, (N,) float32."""
    side = patches.shape[1]
    edge = round(side * (1 - 1 / margin) / 2)
    inner = patches[:, edge : side - edge, edge : side - edge]
    return inner.std(axis=(1, 2), dtype=np.float32) if len(patches) else np.zeros(0, np.float32)


def fingerprint(root: Path, names: Iterable[str]) -> str:
    """Short hash of files' names and sizes, to tell whether a folder is still the one a set was made of."""
    digest = hashlib.sha256()
    for name in names:
        path = root / name
        digest.update(f"{name}\0{path.stat().st_size if path.exists() else -1}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
