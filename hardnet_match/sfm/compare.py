"""How far reconstructed cameras are from known ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, ReconstructionError
from .colmap import pycolmap, quietly, told_plainly

Pose = tuple[NDArray[np.float64], NDArray[np.float64]]
"""(R, t): a world point X is R X + t in the camera's frame, z forward, y down."""


@dataclass(frozen=True)
class CameraErrors:
    """Errors of each common camera after the best similarity between the two worlds.

    Args:
        names: the common images, sorted.
        missing: known cameras that the model lacks, sorted.
        rotation: degrees, (N,) float64.
        position: distance of the centres over the extent of the known ones (their largest distance), (N,) float64.
        scale: known world's units per unit of the model.
    """

    names: tuple[str, ...]
    missing: tuple[str, ...]
    rotation: NDArray[np.float64]
    position: NDArray[np.float64]
    scale: float

    def summary(self) -> dict[str, float]:
        """Counts, and medians and maxima of both errors."""
        return {
            "common": len(self.names),
            "missing": len(self.missing),
            "rotation_median_degrees": float(np.median(self.rotation)),
            "rotation_max_degrees": float(self.rotation.max()),
            "position_median": float(np.median(self.position)),
            "position_max": float(self.position.max()),
        }


def compare_cameras(
    model: str | os.PathLike[str] | Any, truth: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> CameraErrors:
    """Compare a model's cameras with known ones.

    The rotation between the worlds is the mean over all cameras (cameras on a line leave it open otherwise), scale
    and translation are the least squares over the centres.

    Args:
        model: folder of a COLMAP model, or a `pycolmap.Reconstruction`.
        truth: (R, t) by image name: a world point X is R X + t in the camera's frame.

    Raises:
        ReconstructionError: no such model, or fewer than two cameras in common.
        DataError: a known pose is not a rotation and a translation.
    """
    poses = read_colmap_cameras(model)
    names = sorted(set(poses) & set(truth))
    missing = tuple(sorted(set(truth) - set(poses)))
    if len(names) < 2:
        raise ReconstructionError(f"only {len(names)} of {len(truth)} known cameras are in the model; two are needed")
    known = [_checked(name, *truth[name]) for name in names]
    rotations, centres = _stacked([poses[name] for name in names])
    true_rotations, true_centres = _stacked(known)
    turn = _mean_rotation(np.einsum("nji,njk->nik", true_rotations, rotations))
    turned = centres @ turn.T
    spread, true_spread = turned - turned.mean(axis=0), true_centres - true_centres.mean(axis=0)
    weight = float((spread**2).sum())
    scale = float((spread * true_spread).sum()) / weight if weight > 0 else 1.0
    apart = np.linalg.norm(scale * spread - true_spread, axis=1)
    extent = float(np.linalg.norm(true_centres[:, None] - true_centres[None], axis=2).max())
    if extent <= 0:
        raise DataError("all known cameras are in one place; positions cannot be compared")
    between = np.einsum("nij,njk,nlk->nil", rotations, np.broadcast_to(turn.T, rotations.shape), true_rotations)
    return CameraErrors(tuple(names), missing, _angles(between), apart / extent, scale)


def read_colmap_cameras(model: str | os.PathLike[str] | Any) -> dict[str, Pose]:
    """(R, t) by image name of a COLMAP model, binary or text, or of a `pycolmap.Reconstruction`.

    Raises:
        ReconstructionError: there is no such model.
    """
    if isinstance(model, str | os.PathLike):
        folder = Path(model)
        if not any((folder / f"images{end}").is_file() for end in (".bin", ".txt")):
            raise ReconstructionError(f"{folder}: no COLMAP model here (images.bin or images.txt)")
        with quietly(), told_plainly(folder, "read the model"):
            model = pycolmap.Reconstruction(folder)
    poses = {}
    for image_id in model.reg_image_ids():
        image = model.image(image_id)
        matrix = np.asarray(image.cam_from_world().matrix(), dtype=np.float64)
        poses[str(image.name)] = (matrix[:, :3], matrix[:, 3])
    return poses


def read_bundler_cameras(path: str | os.PathLike[str], names: list[str]) -> dict[str, Pose]:
    """(R, t) by image name of a Bundler v0.3 file, turned to z forward, y down.

    Args:
        path: the `.out` file.
        names: image names in the file's order. Cameras without a focal length were not registered and are left out.

    Raises:
        DataError: it is not such a file, or the number of names differs.
    """
    try:
        lines = Path(path).read_text(encoding="ascii").splitlines()
        if not lines or not lines[0].startswith("# Bundle file"):
            raise ValueError("the first line does not say '# Bundle file'")
        count = int(lines[1].split()[0])
        rows = np.array([line.split() for line in lines[2 : 2 + 5 * count]], dtype=np.float64).reshape(count, 5, 3)
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{path}: not a Bundler file: {error}") from None
    if count != len(names):
        raise DataError(f"{path} has {count} cameras, but there are {len(names)} names")
    flip = np.diag([1.0, -1.0, -1.0])  # Bundler looks along -z with y up
    return {name: (flip @ row[1:4], flip @ row[4]) for name, row in zip(names, rows, strict=True) if row[0, 0] > 0}


def _checked(name: str, rotation: ArrayLike, translation: ArrayLike) -> Pose:
    r, t = np.asarray(rotation, dtype=np.float64), np.asarray(translation, dtype=np.float64).reshape(-1)
    if r.shape != (3, 3) or t.shape != (3,) or not np.allclose(r @ r.T, np.eye(3), atol=1e-4) or np.linalg.det(r) < 0:
        raise DataError(f"the known pose of {name!r} is not a rotation (3, 3) and a translation (3,)")
    if not np.isfinite(t).all():
        raise DataError(f"the known translation of {name!r} is not finite")
    return r, t


def _stacked(poses: list[Pose]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotations (N, 3, 3) and camera centres (N, 3)."""
    rotations = np.stack([r for r, _ in poses])
    return rotations, -np.einsum("nji,nj->ni", rotations, np.stack([t for _, t in poses]))


def _mean_rotation(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rotation nearest to the mean matrix (chordal mean)."""
    u, _, vt = np.linalg.svd(rotations.sum(axis=0))
    return np.asarray(u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt)


def _angles(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angles in degrees, (N,); exact for small ones, where acos is not."""
    chord = np.linalg.norm(rotations - np.eye(3), axis=(1, 2)) / np.sqrt(8)
    return np.asarray(np.rad2deg(2 * np.arcsin(np.clip(chord, 0, 1))))
