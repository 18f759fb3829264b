"""A COLMAP database out of a features and a matches file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ReconstructionError
from ..features import Matches
from ..frames import to_colmap
from ..store import FeatureReader, MatchReader
from .cameras import add_images, check_camera_options
from .colmap import part_of, pycolmap
from .descriptors import COLMAP_DIM, colmap_descriptors

_PAIRS_AT_ONCE = 2000  # in one transaction


@dataclass(frozen=True)
class DatabaseSummary:
    """What was written.

    Args:
        images, cameras, keypoints, pairs, matches: how many; `pairs` are those with at least one match.
        descriptors: 'written', or why they were left out.
    """

    images: int
    cameras: int
    keypoints: int
    pairs: int
    matches: int
    descriptors: str


def write_database(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    feature_file: str | os.PathLike[str],
    match_file: str | os.PathLike[str] | None,
    *,
    camera_mode: str = "auto",
    camera_model: str = "SIMPLE_RADIAL",
    names: Sequence[str] | None = None,
    descriptors: bool = True,
    overwrite: bool = False,
) -> DatabaseSummary:
    """Write a COLMAP database; it appears as a whole or not at all.

    Keypoints carry the affine shape (six columns, pixel centres at .5). Everything is checked before pycolmap sees it:
    inside COLMAP a bad index or shape ends the process.

    Args:
        path: the database to make.
        image_dir: the folder the features were extracted from.
        feature_file: of this package or hloc's.
        match_file: of this package or hloc's; None leaves the matching to COLMAP, from the descriptors.
        camera_mode: `auto` (COLMAP's: images share a camera where EXIF names the same one, else each has its own),
            `single`, `per-folder`, `per-image`.
        camera_model: COLMAP's name of a camera model.
        names: the images to take; all of the features file if None.
        descriptors: also write descriptors that COLMAP's own matchers can use (128 dimensions only).
        overwrite: replace an existing database.

    Raises:
        OptionError: unknown camera mode or model.
        StoreError: a file is missing or damaged, or lacks an image that is asked for.
        DataError: matches point at features that do not exist.
        ReconstructionError: the database exists, an image is missing or has another size than its features say.
    """
    path, image_dir = Path(path), Path(image_dir)
    check_camera_options(camera_mode, camera_model)
    if path.exists() and not overwrite:
        raise ReconstructionError(f"{path} exists; name another database or overwrite it")
    if not image_dir.is_dir():
        raise ReconstructionError(f"{image_dir}: no such image folder")
    part = part_of(path)
    _remove(part)
    try:
        with FeatureReader(feature_file) as features:
            chosen = sorted(set(names)) if names is not None else features.names()
            if not chosen:
                raise ReconstructionError(f"{feature_file} has no images")
            sizes = {name: features.image_size(name) for name in chosen}
            path.parent.mkdir(parents=True, exist_ok=True)
            pycolmap.Database.open(part).close()
            ids = add_images(part, image_dir, sizes, camera_mode, camera_model)
            with pycolmap.Database.open(part) as db:
                counts, described = _write_features(db, ids, features, descriptors)
                pairs = matched = 0
                if match_file is not None:
                    with MatchReader(match_file) as matches:
                        pairs, matched = _write_matches(db, ids, counts, matches)
                cameras = int(db.num_cameras())
        os.replace(part, path)
    except OSError as error:
        raise ReconstructionError(f"{path}: cannot write the database: {error}") from error
    finally:
        _remove(part)
    return DatabaseSummary(len(ids), cameras, sum(counts.values()), pairs, matched, described)


def _remove(part: str) -> None:
    for end in ("", "-journal", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(part + end)


def _write_features(
    db: Any, ids: dict[str, int], features: FeatureReader, want_descriptors: bool
) -> tuple[dict[str, int], str]:
    counts: dict[str, int] = {}
    dims = {features.descriptor_shape(name)[1] for name in ids if features.descriptor_shape(name)[0]}
    if not want_descriptors:
        told = "left out: not asked for"
    elif dims - {COLMAP_DIM}:
        told = f"left out: COLMAP's matchers take {COLMAP_DIM} dimensions, these have {max(dims - {COLMAP_DIM})}"
    else:
        told = "written"
    sift = pycolmap.FeatureExtractorType.SIFT
    with pycolmap.DatabaseTransaction(db):
        for name, image_id in ids.items():
            lafs = features.lafs(name)
            counts[name] = len(lafs)
            db.write_keypoints(image_id, checked_keypoints(to_colmap(lafs), name))
            if told == "written":
                rows = features.descriptors(name) if len(lafs) else np.zeros((0, COLMAP_DIM), np.uint8)
                if len(rows) != len(lafs):
                    raise DataError(f"{name!r} has {len(lafs)} keypoints but {len(rows)} descriptors")
                db.write_descriptors(image_id, pycolmap.FeatureDescriptors(sift, colmap_descriptors(rows)))
    return counts, told


def checked_keypoints(rows: NDArray[Any], name: str) -> NDArray[np.float32]:
    """Keypoint rows that COLMAP can bear: (N, 2), (N, 4) or (N, 6), finite; as contiguous float32.

    Raises:
        DataError: they are not.
    """
    if rows.ndim != 2 or rows.shape[1] not in (2, 4, 6):
        raise DataError(f"COLMAP keypoints of {name!r} must have 2, 4 or 6 columns, got {rows.shape}")
    if not np.isfinite(rows).all():
        raise DataError(f"COLMAP keypoints of {name!r} hold NaN or infinity")
    return np.ascontiguousarray(rows, dtype=np.float32)


def checked_matches(matches: Matches, count0: int, count1: int, where: str) -> NDArray[np.uint32]:
    """Match rows that COLMAP can bear: every index below its image's number of keypoints.

    Raises:
        DataError: one is not.
    """
    for column, count in enumerate((count0, count1)):
        if len(matches) and int(matches.pairs[:, column].max()) >= count:
            raise DataError(
                f"matches of {where} point at feature {int(matches.pairs[:, column].max())} of {count}: "
                f"they were made from other features; match again"
            )
    return np.ascontiguousarray(matches.pairs, dtype=np.uint32)


def _write_matches(db: Any, ids: dict[str, int], counts: dict[str, int], matches: MatchReader) -> tuple[int, int]:
    pairs = total = 0
    for batch in _batches(named_pairs(matches, ids), _PAIRS_AT_ONCE):
        with pycolmap.DatabaseTransaction(db):
            for name0, name1 in batch:
                found = matches.read(name0, name1)
                rows = checked_matches(found, counts[name0], counts[name1], f"{name0!r} and {name1!r}")
                if len(rows):
                    db.write_matches(ids[name0], ids[name1], rows)
                    pairs, total = pairs + 1, total + len(rows)
    return pairs, total


def _batches(pairs: list[tuple[str, str]], size: int) -> Iterator[list[tuple[str, str]]]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def named_pairs(matches: MatchReader, names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs by true names, each once, those of images outside `names` left out.

    hloc's files have '-' for '/': the names are found again among the given ones.
    """
    known = set(names)
    by_key: dict[str, list[str]] = {}
    for name in sorted(known):
        by_key.setdefault(name.replace("/", "-"), []).append(name)
    found: dict[frozenset[str], tuple[str, str]] = {}
    for pair in matches.pairs():
        true = pair
        if not matches.own:
            candidates = [by_key.get(name, []) for name in pair]
            if any(len(names) > 1 for names in candidates):
                raise DataError(f"{matches.path}: pair {pair} may be of several images; match again with this package")
            if not all(candidates):
                continue
            true = candidates[0][0], candidates[1][0]
        if known.issuperset(true) and true[0] != true[1]:
            found.setdefault(frozenset(true), true)
    return list(found.values())
