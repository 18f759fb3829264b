"""Pairs of planar views with known homographies, in the forms they are handed around in.

- HPatches (Balntas et al., CVPR 2017): `1.ppm`, ..., `6.ppm` with `H_1_2`, ..., `H_1_6`;
- Oxford (Mikolajczyk et al., IJCV 2005): `img1.ppm`, ..., with `H1to2p`, ..., `H1to6p`;
- homogr (Lebeda et al., BMVC 2012): `nameA.png`, `nameB.png` with `name_vpts.mat`, points matched by hand, to which
  the homography is fitted by least squares.
"""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError
from ..images import EXTENSIONS
from ..metrics.homography import checked_homography
from .matlab import read_field

_NUMBERED = re.compile(r"H1to(\d+)p|H_1_(\d+)")
_POINTS = "_vpts.mat"


@dataclass(frozen=True, eq=False)
class PlanarPair:
    """Two views of a plane.

    Args:
        name: for tables. sequence: the folder it is from, "." for the one that was named.
        first, second: image names relative to the folder that was named, POSIX.
        homography: (3, 3) float64, first to second, pixel centres at integers.
    """

    name: str
    sequence: str
    first: str
    second: str
    homography: NDArray[np.float64]


def read_sequences(root: str | Path) -> list[PlanarPair]:
    """All pairs in a folder: it is a sequence itself, or its subfolders are.

    Raises:
        OptionError: no such folder.
        DataError: there is no pair in it, an image of one is missing, or a homography is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise OptionError(f"{root}: no such folder of sequences")
    found = [
        pair
        for folder in [root, *sorted(path for path in root.iterdir() if path.is_dir() and path.name[:1] != ".")]
        for pair in _pairs(root, folder)
    ]
    if not found:
        raise DataError(
            f"{root} has no sequence: a folder with 1.ppm, ... and H_1_2, ... (HPatches), img1.ppm, ... and H1to2p, "
            f"... (Oxford), or nameA, nameB and name{_POINTS} (homogr), here or one folder down"
        )
    return found


def _pairs(root: Path, folder: Path) -> list[PlanarPair]:
    sequence = folder.relative_to(root).as_posix()
    title = root.resolve().name if sequence == "." else sequence
    found = []
    for file in sorted(folder.iterdir()):
        numbered = _NUMBERED.fullmatch(file.name)
        if numbered:
            oxford = numbered[1] is not None
            other, prefix = (numbered[1], "img") if oxford else (numbered[2], "")
            if int(other) == 1:
                continue
            first, second = (_image(root, folder, f"{prefix}{number}") for number in ("1", other))
            found.append(PlanarPair(f"{title} 1-{other}", sequence, first, second, _matrix(file)))
        elif file.name.endswith(_POINTS):
            stem = file.name.removesuffix(_POINTS)
            first, second = (_image(root, folder, f"{stem}{side}") for side in "AB")
            found.append(PlanarPair(f"{title} {stem}", sequence, first, second, _fitted(file)))
    return found


def _image(root: Path, folder: Path, stem: str) -> str:
    there = [path for path in sorted(folder.glob(f"{glob.escape(stem)}.*")) if path.suffix.lower() in EXTENSIONS]
    if not there:
        raise DataError(f"{folder}: the image {stem}.* is missing ({', '.join(EXTENSIONS)})")
    return there[0].relative_to(root).as_posix()


def _matrix(path: Path) -> NDArray[np.float64]:
    try:
        lines = path.read_text(encoding="ascii").splitlines()
        return checked_homography([line.split() for line in lines if line.strip()])
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a homography, three rows of three numbers: {error}") from error


def _fitted(path: Path) -> NDArray[np.float64]:
    """The least squares homography of the annotated points: columns x y 1 x' y' 1 of `validation.pts`."""
    import cv2

    try:
        points = read_field(path, "validation", "pts")
        if points.shape[0] != 6:
            raise DataError(f"validation.pts has {points.shape[0]} rows")
        matrix, _ = cv2.findHomography(points[:2].T, points[3:5].T)
        return checked_homography(matrix)
    except (DataError, OSError, ValueError, cv2.error) as error:
        raise DataError(f"{path} holds no annotated points (validation.pts, 6 rows): {error}") from error
