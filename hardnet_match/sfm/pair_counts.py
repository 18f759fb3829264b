"""How many matches and inliers each pair of a COLMAP database has, and which kind of geometry it found."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ReconstructionError
from .colmap import pycolmap
from .verification import check_database

KINDS = {2: "calibrated", 3: "uncalibrated", 4: "planar", 5: "panoramic", 6: "planar or panoramic", 7: "watermark"}
"""COLMAP's configurations of a two-view geometry, those that mean something to a user."""


@dataclass(frozen=True, eq=False)
class PairCounts:
    """The pairs of a database.

    Args:
        names: of its images, sorted.
        keypoints: (N,) int64 of these.
        pairs: (P, 2) int64 rows into `names`, each pair that was matched.
        matches, inliers: (P,) int64; inliers are 0 where geometry found nothing.
        kinds: verified pairs by kind of geometry.
    """

    names: list[str]
    keypoints: NDArray[np.int64]
    pairs: NDArray[np.int64]
    matches: NDArray[np.int64]
    inliers: NDArray[np.int64]
    kinds: dict[str, int]


def pair_counts(path: str | os.PathLike[str]) -> PairCounts:
    """Count what a database holds.

    Raises:
        ReconstructionError: there is no such database.
    """
    database = check_database(path)
    with pycolmap.Database.open(database) as db:
        images = sorted(db.read_all_images(), key=lambda image: str(image.name))
        row = {image.image_id: place for place, image in enumerate(images)}
        keypoints = [db.num_keypoints_for_image(image.image_id) for image in images]
        found = dict(zip(*db.read_num_matches(), strict=True))
        kept = dict(zip(*db.read_two_view_geometry_num_inliers(), strict=True))
    ids = sorted(found.keys() | kept.keys())
    ends = [pycolmap.pair_id_to_image_pair(pair) for pair in ids]
    try:
        with closing(sqlite3.connect(database)) as direct:
            rows = direct.execute("SELECT config, COUNT(*) FROM two_view_geometries WHERE rows > 0 GROUP BY config")
            kinds = {KINDS[config]: int(count) for config, count in rows if config in KINDS}
    except sqlite3.Error as error:
        raise ReconstructionError(f"{database}: its geometries cannot be counted: {error}") from error
    return PairCounts(
        names=[str(image.name) for image in images],
        keypoints=np.array(keypoints, np.int64),
        pairs=np.array([(row[first], row[second]) for first, second in ends], np.int64).reshape(-1, 2),
        matches=np.array([found.get(pair, 0) for pair in ids], np.int64),
        inliers=np.array([kept.get(pair, 0) for pair in ids], np.int64),
        kinds=kinds,
    )
