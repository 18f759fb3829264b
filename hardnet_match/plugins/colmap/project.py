"""A COLMAP project with its features exchanged."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import DataError, OptionError, ReconstructionError
from ...frames import to_colmap
from ...sfm.colmap import pycolmap
from ...sfm.database import checked_keypoints, checked_matches, named_pairs
from ...sfm.descriptors import COLMAP_DIM, colmap_descriptors
from ...sfm.verification import verify
from ...store import FeatureReader, MatchReader
from .tables import (
    FEATURE_TABLES,
    ProjectImage,
    blob,
    columns,
    images,
    pair_number,
    quoted,
    readable,
    reading,
    told_plainly,
    uri,
)

log = logging.getLogger(__name__)

_SIFT = int(pycolmap.FeatureExtractorType.SIFT.value)


@dataclass(frozen=True)
class ProjectSummary:
    """What the new database holds; `skipped` names the project's images without features, and features of no image."""

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


def project_with_features(
    project: str | Path,
    features: str | Path,
    matches: str | Path | None,
    output: str | Path,
    *,
    verified: bool = False,
    overwrite: bool = False,
) -> ProjectSummary:
    """Write a COLMAP project's database anew, with other keypoints, descriptors, matches and geometries.

    All other tables (cameras and who shares them, images, rigs, frames, pose priors, and whatever else is there) are
    the project's, row for row, in its own version's form, so that the COLMAP that made it reads it. The new database
    appears as a whole or not at all; the project is only read. Masks are files beside the images and are not touched:
    give the same folder to `extract --masks`.

    Args:
        project: its database.
        features: features file, image names as in the project (relative to its image folder).
        matches: matches file; None leaves the matching to COLMAP.
        output: database to write, another file than `project`; its folder exists.
        verified: also verify the pairs geometrically, as COLMAP's mappers need it.
        overwrite: replace what is at `output`.

    Raises:
        OptionError: `output` exists, or is the project itself.
        StoreError: a file is missing or damaged.
        DataError: matches point at features that do not exist.
        ReconstructionError: not a COLMAP database, no image in common, or images of another size.
    """
    started, project, output = time.perf_counter(), Path(project), Path(output)
    if output.exists() and output.samefile(project):
        raise OptionError(f"{output} is the project itself, which is only read; name another database")
    if output.exists() and not overwrite:
        raise OptionError(f"{output} exists; name another database, or say that it may be overwritten")
    new = output.with_name(f"{output.name}.new")
    _remove(new)
    try:
        with reading(project) as old, FeatureReader(features) as reader:
            known = images(old)
            chosen, skipped = _chosen(known, reader, project)
            with told_plainly(new, "write the database"), _writing(new) as db:
                cameras = _copy_project(db, project)
                counts = _write_keypoints(db, chosen, reader)
                pairs = total = verified_pairs = inliers = 0
                if matches is not None:
                    with MatchReader(matches) as match_reader:
                        pairs, total = _write_matches(db, chosen, counts, match_reader)
                db.commit()
                if verified:
                    verified_pairs, inliers = _verify(db, new.with_name(f"{output.name}.verify"))
                told = _write_descriptors(db, chosen, reader)
        _remove(output, but_itself=True)
        os.replace(new, output)
    except OSError as error:
        raise ReconstructionError(f"{output}: cannot write the database: {error}") from error
    finally:
        _remove(new)
    for name, reason in skipped.items():
        log.warning("%s: %s", name, reason)
    return ProjectSummary(
        database=str(output),
        images=len(known),
        cameras=cameras,
        keypoints=sum(counts.values()),
        pairs=pairs,
        matches=total,
        descriptors=told,
        verified_pairs=verified_pairs,
        inliers=inliers,
        seconds=round(time.perf_counter() - started, 3),
        skipped=skipped,
    )


def _chosen(
    known: dict[str, ProjectImage], features: FeatureReader, project: Path
) -> tuple[dict[str, ProjectImage], dict[str, str]]:
    """The images that get features, and the names of which only one side knows."""
    have = set(features.names())
    chosen = {name: image for name, image in known.items() if name in have}
    if not chosen:
        shown = f"its first is {min(known)!r}" if known else "it has none"
        raise ReconstructionError(
            f"no image of {project} has features in {features.path}: {shown}, theirs is {min(have, default='')!r}; "
            "names are relative to one folder, the project's image folder"
        )
    for name, image in chosen.items():
        size = features.image_size(name)
        if size != (image.width, image.height):
            raise ReconstructionError(
                f"{name!r} is {image.width} x {image.height} pixels in the project, but its features were extracted "
                f"from {size[0]} x {size[1]}: another image folder?"
            )
    skipped = {name: f"no features of it in {features.path}" for name in known if name not in have}
    return chosen, {**skipped, **{name: "not an image of the project" for name in sorted(have - known.keys())}}


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(uri(path, "rwc"), uri=True)
    try:
        # It is nobody's yet: a crash leaves a file that the next run removes, so nothing need be safe before the end.
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        yield connection
        connection.commit()
    finally:
        connection.close()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_project(db: sqlite3.Connection, project: Path) -> int:
    """All of the project but the rows that hang on its features; returns how many cameras it has."""
    db.execute("ATTACH DATABASE ? AS project", (readable(project),))
    (version,) = db.execute("PRAGMA project.user_version").fetchone()
    made = "SELECT name, sql FROM project.sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
    tables = db.execute(f"{made} AND type = 'table'").fetchall()
    for _, sql in tables:
        db.execute(sql)
    kept = [name for name, _ in tables if name not in FEATURE_TABLES]
    if columns(db, "sqlite_sequence", "project"):  # the next number of what COLMAP numbers by itself
        kept.append("sqlite_sequence")
    for name in kept:
        db.execute(f"DELETE FROM main.{quoted(name)}")
        db.execute(f"INSERT INTO main.{quoted(name)} SELECT * FROM project.{quoted(name)}")
    for _, sql in db.execute(f"{made} AND type != 'table'").fetchall():
        db.execute(sql)
    db.execute(f"PRAGMA main.user_version = {int(version)}")
    db.commit()
    db.execute("DETACH DATABASE project")
    return int(db.execute("SELECT COUNT(*) FROM cameras").fetchone()[0])


def _write_keypoints(
    db: sqlite3.Connection, chosen: dict[str, ProjectImage], features: FeatureReader
) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, image in chosen.items():
        rows = checked_keypoints(to_colmap(features.lafs(name)), name)
        counts[name] = len(rows)
        db.execute(
            "INSERT INTO keypoints (image_id, rows, cols, data) VALUES (?, ?, ?, ?)",
            (image.image_id, *rows.shape, blob(rows)),
        )
    return counts


def _write_matches(
    db: sqlite3.Connection, chosen: dict[str, ProjectImage], counts: dict[str, int], matches: MatchReader
) -> tuple[int, int]:
    pairs = total = 0
    for name0, name1 in named_pairs(matches, chosen):
        rows = checked_matches(matches.read(name0, name1), counts[name0], counts[name1], f"{name0!r} and {name1!r}")
        if not len(rows):
            continue
        first, second = chosen[name0].image_id, chosen[name1].image_id
        ordered = rows if first < second else np.ascontiguousarray(rows[:, ::-1])
        db.execute(
            "INSERT INTO matches (pair_id, rows, cols, data) VALUES (?, ?, ?, ?)",
            (pair_number(first, second), *ordered.shape, blob(ordered)),
        )
        pairs, total = pairs + 1, total + len(rows)
    return pairs, total


def _write_descriptors(db: sqlite3.Connection, chosen: dict[str, ProjectImage], features: FeatureReader) -> str:
    shapes = {name: features.descriptor_shape(name) for name in chosen}
    other = {dim for count, dim, _ in shapes.values() if count} - {COLMAP_DIM}
    if other:
        return f"left out: COLMAP's matchers take {COLMAP_DIM} dimensions, these have {max(other)}"
    typed = "type" in columns(db, "descriptors")
    fields = "image_id, type, rows, cols, data" if typed else "image_id, rows, cols, data"
    for name, image in chosen.items():
        rows = features.descriptors(name) if shapes[name][0] else np.zeros((0, COLMAP_DIM), np.uint8)
        (expected,) = db.execute("SELECT rows FROM keypoints WHERE image_id = ?", (image.image_id,)).fetchone()
        if len(rows) != expected:
            raise DataError(f"{name!r} has {expected} keypoints but {len(rows)} descriptors")
        data = colmap_descriptors(rows)
        values = (image.image_id, *((_SIFT,) if typed else ()), *data.shape, blob(data))
        db.execute(f"INSERT INTO descriptors ({fields}) VALUES ({', '.join('?' * len(values))})", values)
    return "written"


def _verify(db: sqlite3.Connection, scratch: Path) -> tuple[int, int]:
    """Verify the pairs in a copy, and bring the geometries back: pycolmap changes the form of older databases."""
    _remove(scratch)
    try:
        with contextlib.closing(sqlite3.connect(scratch)) as copy:
            db.backup(copy)
        summary = verify(scratch)
        db.execute("ATTACH DATABASE ? AS verified", (uri(scratch, "rw"),))
        both = set(columns(db, "two_view_geometries", "verified"))
        names = ", ".join(quoted(name) for name in columns(db, "two_view_geometries") if name in both)
        db.execute(f"INSERT INTO main.two_view_geometries ({names}) SELECT {names} FROM verified.two_view_geometries")
        db.commit()
        db.execute("DETACH DATABASE verified")
    finally:
        _remove(scratch)
    return summary.verified_pairs, summary.inliers


def _remove(path: Path, *, but_itself: bool = False) -> None:
    """Remove a database, or only what SQLite left beside it: a log of an earlier file would spoil a new one."""
    for end in ("" if not but_itself else None, "-journal", "-wal", "-shm"):
        if end is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}{end}")
