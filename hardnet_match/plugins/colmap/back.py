"""A COLMAP project's features and matches as this package's files."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError, ReconstructionError
from ...features import Features, Matches
from ...frames import from_colmap
from ...store import FeatureWriter, MatchWriter, check_name
from ...store.hdf5 import settings_hash
from .tables import ProjectImage, array, images, pair_of, reading

log = logging.getLogger(__name__)

_BEGINNING = 64
"""Bytes of each image's keypoints that tell one project's features from another's."""


@dataclass(frozen=True)
class ImportSummary:
    """What was written; `pairs` and `matches` are 0 where no matches were asked for."""

    features: str | None
    matches_file: str | None
    images: int
    keypoints: int
    pairs: int
    matches: int
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)


def features_of_project(
    project: str | Path,
    features: str | Path,
    matches: str | Path | None = None,
    *,
    inliers: bool = False,
    overwrite: bool = False,
) -> ImportSummary:
    """Write a COLMAP project's features, and its matches, into files of this package.

    Frames are those of the keypoints: affine ones (six columns), circles (four), or upright ones of one pixel (two).
    Descriptors stay COLMAP's bytes; where the project has none (other programs put only keypoints there), they have no
    columns. COLMAP keeps no scores: all are 1.

    Args:
        project: its database; only read.
        features: features file to write.
        matches: matches file to write, if any.
        inliers: the verified matches instead of the tentative ones.
        overwrite: start anew what is there.

    Raises:
        ReconstructionError: not a COLMAP database, a damaged one, or one without keypoints.
        StoreError: a file to write is another program's or of other settings.
        OptionError: `inliers` without a matches file.
    """
    started, project = time.perf_counter(), Path(project)
    if inliers and matches is None:
        raise OptionError("verified matches were asked for, but no matches file to put them in")
    with reading(project) as db:
        known = images(db)
        settings = {"program": "COLMAP", "keypoints": _fingerprint(db)}
        skipped = {name: "no keypoints of it in the project" for name in known}
        counts: dict[str, int] = {}
        with FeatureWriter(features, settings, overwrite=overwrite) as writer:
            done = writer.names_done()
            for name, image in known.items():
                found = _features(db, image)
                if found is None:
                    continue
                counts[check_name(name)] = len(found)
                del skipped[name]
                if name not in done:
                    writer.write(name, found)
        if not counts:
            raise ReconstructionError(f"{project} has no keypoints: nothing to bring over")
        pairs = total = 0
        if matches is not None:
            pairs, total = _bring_matches(db, known, counts, matches, settings, inliers, overwrite)
    for name, reason in skipped.items():
        log.warning("%s: %s", name, reason)
    return ImportSummary(
        features=str(features),
        matches_file=None if matches is None else str(matches),
        images=len(counts),
        keypoints=sum(counts.values()),
        pairs=pairs,
        matches=total,
        seconds=round(time.perf_counter() - started, 3),
        skipped=skipped,
    )


def _fingerprint(db: sqlite3.Connection) -> str:
    digest = hashlib.sha256()
    asked = (
        "SELECT name, rows, cols, substr(data, 1, ?), substr(data, -?) "
        "FROM keypoints JOIN images USING (image_id) ORDER BY name"
    )
    for row in db.execute(asked, (_BEGINNING, _BEGINNING)):
        digest.update(repr(row).encode())
    return digest.hexdigest()[:16]


def _features(db: sqlite3.Connection, image: ProjectImage) -> Features | None:
    row = db.execute("SELECT rows, cols, data FROM keypoints WHERE image_id = ?", (image.image_id,)).fetchone()
    if row is None:
        return None
    keypoints = array(row[2], int(row[0]), int(row[1]), np.float32, f"keypoints of {image.name!r}")
    if keypoints.shape[1] not in (2, 4, 6):
        raise ReconstructionError(f"keypoints of {image.name!r} have {keypoints.shape[1]} columns, not 2, 4 or 6")
    descriptors = _descriptors(db, image, len(keypoints))
    return Features(
        from_colmap(keypoints), np.ones(len(keypoints), np.float32), descriptors, (image.width, image.height)
    )


def _descriptors(db: sqlite3.Connection, image: ProjectImage, count: int) -> NDArray[Any]:
    row = db.execute("SELECT rows, cols, data FROM descriptors WHERE image_id = ?", (image.image_id,)).fetchone()
    if row is None or (count and not row[0]):
        return np.zeros((count, 0), np.uint8)
    rows = array(row[2], int(row[0]), int(row[1]), np.uint8, f"descriptors of {image.name!r}")
    if len(rows) != count:
        raise ReconstructionError(f"{image.name!r} has {count} keypoints but {len(rows)} descriptors")
    # Descriptors of floats are filed as their bytes, under other types than SIFT's.
    return rows


def _bring_matches(
    db: sqlite3.Connection,
    known: dict[str, ProjectImage],
    counts: dict[str, int],
    output: str | Path,
    features: dict[str, str],
    inliers: bool,
    overwrite: bool,
) -> tuple[int, int]:
    table = "two_view_geometries" if inliers else "matches"
    names = {image.image_id: name for name, image in known.items()}
    settings = {"method": f"COLMAP's {'inliers' if inliers else 'matches'}", "features": settings_hash(features)}
    pairs = total = dropped = 0
    with MatchWriter(output, settings, overwrite=overwrite, buffer=16) as writer:
        for number, rows, data in db.execute(
            f"SELECT pair_id, rows, data FROM {table} WHERE rows > 0 ORDER BY pair_id"
        ):
            first, second = (names.get(one) for one in pair_of(int(number)))
            if first is None or second is None or first not in counts or second not in counts:
                raise ReconstructionError(f"pair {number} of the project's {table} is of images that are not there")
            found = array(data, int(rows), 2, np.uint32, f"matches of {first!r} and {second!r}").astype(np.int32)
            if (found < 0).any() or (found.max(axis=0) >= (counts[first], counts[second])).any():
                raise ReconstructionError(f"matches of {first!r} and {second!r} point at keypoints that are not there")
            _, once = np.unique(found[:, 0], return_index=True)
            dropped += len(found) - len(once)
            kept = np.ascontiguousarray(found[np.sort(once)])
            writer.write(first, second, Matches(kept, np.ones(len(kept), np.float32)), counts[first])
            pairs, total = pairs + 1, total + len(kept)
    if dropped:
        log.warning("%d matches left out: their feature of the first image has another match already", dropped)
    return pairs, total
