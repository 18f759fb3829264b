"""Two-view geometry of the matched pairs of a COLMAP database."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError, ReconstructionError
from .colmap import interruptibly, pycolmap, quietly, told_plainly

CancellationToken = pycolmap.CancellationToken

_PAIRS_AT_ONCE = 32  # COLMAP looks at the token between batches


@dataclass(frozen=True)
class VerificationSummary:
    """How many pairs were matched, how many of them have a geometry, and the inliers of these."""

    pairs: int
    verified_pairs: int
    matches: int
    inliers: int


def check_database(path: str | os.PathLike[str]) -> str:
    """The path if a COLMAP database is there.

    Raises:
        ReconstructionError: it is not.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError as error:
        raise ReconstructionError(f"{path}: cannot read the database: {error}") from error
    if start != b"SQLite format 3\0":
        raise ReconstructionError(f"{path} is not a COLMAP database")
    return str(path)


def verify(
    path: str | os.PathLike[str],
    *,
    max_error: float = 4.0,
    confidence: float = 0.999,
    min_inliers: int = 15,
    min_inlier_ratio: float = 0.25,
    max_trials: int = 10_000,
    seed: int = 0,
    threads: int = -1,
    token: Any = None,
    verbose: bool = False,
) -> VerificationSummary:
    """Verify the matches of every pair by an essential, fundamental or homography matrix; COLMAP's RANSAC.

    Args:
        path: a database with keypoints and matches; verified pairs stay as they are.
        max_error: pixels.
        min_inliers: pairs with fewer get no geometry. COLMAP itself empties those under 15 when it maps.
        min_inlier_ratio, confidence, max_trials: bounds of the RANSAC.
        seed: of the RANSAC.
        threads: -1 takes all.
        token: a `CancellationToken`; after `cancel()` the call ends, the pairs done so far kept (Ctrl-C likewise).
        verbose: let COLMAP write its log to stderr.

    Raises:
        OptionError: a value cannot work.
        ReconstructionError: there is no such database, or it cannot be used.
    """
    if (
        not max_error > 0
        or min_inliers < 0
        or not 0 < confidence < 1
        or max_trials < 1
        or not 0 <= min_inlier_ratio <= 1
    ):
        raise OptionError(
            "verification needs max_error > 0, min_inliers >= 0, confidence in (0, 1), "
            "min_inlier_ratio in [0, 1] and max_trials >= 1"
        )
    database = check_database(path)
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.min_num_inliers = min_inliers
    ransac = geometry.ransac
    ransac.max_error, ransac.confidence, ransac.random_seed = max_error, confidence, seed
    ransac.max_num_trials, ransac.min_num_trials = max_trials, min(ransac.min_num_trials, max_trials)
    ransac.min_inlier_ratio = min_inlier_ratio
    verifier = pycolmap.GeometricVerifierOptions()
    verifier.num_threads = threads
    pairing = pycolmap.ExistingMatchedPairingOptions()
    pairing.batch_size = _PAIRS_AT_ONCE

    def call(given: Any) -> None:
        pycolmap.geometric_verification(
            database,
            verifier_options=verifier,
            pairing_options=pairing,
            two_view_geometry_options=geometry,
            cancellation_token=given,
        )

    with quietly(verbose), told_plainly(database, "verify"):
        interruptibly(call, token)
    return summarise(database)


def summarise(path: str | os.PathLike[str]) -> VerificationSummary:
    """What a database holds.

    Raises:
        ReconstructionError: there is no such database.
    """
    with pycolmap.Database.open(check_database(path)) as db:
        # COLMAP's own count has the pairs in it that verification looked at and found nothing in
        verified = sum(count > 0 for count in db.read_two_view_geometry_num_inliers()[1])
        return VerificationSummary(
            int(db.num_matched_image_pairs()),
            verified,
            int(db.num_matches()),
            int(db.num_inlier_matches()),
        )
