"""Features and matches to a COLMAP database that appears as a whole: an interrupted run leaves none half verified."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import OptionError, StoreError
from ..sfm import verify, write_database
from ..store import FeatureReader, MatchReader
from ..store.hdf5 import acquire, release


@dataclass(frozen=True)
class ColmapSummary:
    """What a COLMAP database holds; `verified_pairs` and `inliers` are 0 without verification."""

    database: str
    images: int
    cameras: int
    keypoints: int
    pairs: int
    matches: int
    descriptors: str
    verified_pairs: int
    inliers: int
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)


def make_database(
    features: str | Path,
    matches: str | Path,
    images: str | Path,
    output: str | Path,
    *,
    names: Sequence[str] | None = None,
    camera_mode: str = "auto",
    camera_model: str = "SIMPLE_RADIAL",
    verified: bool = False,
    overwrite: bool = False,
) -> ColmapSummary:
    """Write a COLMAP database from a features and a matches file, and verify the pairs if asked.

    Args:
        features, matches: of this package or hloc's; all images of the one and all pairs of the other are taken.
        names: only these images and the pairs of them.
        images: folder the features were extracted from.
        output: database to write; its folder exists.
        camera_mode, camera_model: as in `sfm.write_database`.
        verified: also verify the pairs geometrically, as COLMAP's mappers need it.
        overwrite: replace what is at `output`.

    Raises:
        OptionError: `output` exists, or an option cannot work.
        StoreError: a file is missing or damaged, or the matches are of other features.
        DataError: matches point at features that do not exist.
        ReconstructionError: images are missing or of another size, or the database cannot be written.
    """
    started, output = time.perf_counter(), Path(output)
    if output.exists() and not overwrite:
        raise OptionError(f"{output} exists; name another database, or say that it may be overwritten")
    check_belonging(features, matches)
    lock = acquire(output)
    new = output.with_name(f"{output.name}.new")
    try:
        written = write_database(
            new,
            images,
            features,
            matches,
            names=names,
            camera_mode=camera_mode,
            camera_model=camera_model,
            overwrite=True,
        )
        checked = verify(new) if verified else None
        os.replace(new, output)
    finally:
        for end in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{new}{end}")
        release(lock)
    return ColmapSummary(
        database=str(output),
        images=written.images,
        cameras=written.cameras,
        keypoints=written.keypoints,
        pairs=written.pairs,
        matches=written.matches,
        descriptors=written.descriptors,
        verified_pairs=checked.verified_pairs if checked else 0,
        inliers=checked.inliers if checked else 0,
        seconds=round(time.perf_counter() - started, 3),
    )


def check_belonging(features: str | Path, matches: str | Path) -> None:
    """StoreError if the matches say that they were made from other features; other programs' files do not say it."""
    with FeatureReader(features) as first, MatchReader(matches) as second:
        made_from = second.settings.get("features")
        if made_from is not None and first.own and made_from != first.settings_hash:
            raise StoreError(
                f"{matches} was made from other features (settings {made_from}) than {features} "
                f"(settings {first.settings_hash}); match again"
            )
