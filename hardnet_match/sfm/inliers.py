"""The verified pairs of a COLMAP database and their inlier matches."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from ..errors import ReconstructionError
from .colmap import pycolmap
from .verification import check_database


def verified_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str, int]]:
    """(name0, name1, number of inliers) of the pairs that have a two-view geometry, most inliers first.

    Raises:
        ReconstructionError: there is no such database.
    """
    with pycolmap.Database.open(check_database(path)) as db:
        names = {image.image_id: str(image.name) for image in db.read_all_images()}
        found = []
        for pair_id, count in zip(*db.read_two_view_geometry_num_inliers(), strict=True):
            first, second = pycolmap.pair_id_to_image_pair(pair_id)
            if count > 0:
                found.append((names[first], names[second], int(count)))
    return sorted(found, key=lambda item: (-item[2], item[:2]))


def inlier_matches(path: str | os.PathLike[str], name0: str, name1: str) -> NDArray[np.int32]:
    """Inliers of a pair, (M, 2) rows into the two images' keypoints; none for a pair without geometry.

    Raises:
        ReconstructionError: there is no such database, or it has no such image.
    """
    with pycolmap.Database.open(check_database(path)) as db:
        ids = {str(image.name): image.image_id for image in db.read_all_images()}
        missing = [name for name in (name0, name1) if name not in ids]
        if missing:
            raise ReconstructionError(f"{path} has no image {missing[0]!r}")
        if not db.exists_two_view_geometry(ids[name0], ids[name1]):
            return np.zeros((0, 2), np.int32)
        geometry = db.read_two_view_geometry(ids[name0], ids[name1])
        return np.asarray(geometry.inlier_matches, dtype=np.int32).reshape(-1, 2)
