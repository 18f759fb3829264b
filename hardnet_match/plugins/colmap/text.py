"""COLMAP's text formats: features for its `feature_importer`, match lists for its `matches_importer`.

Features of image NAME are in NAME.txt: `N 128`, then a row `x y scale orientation d1 ... d128` a feature; x, y with the
corner of the first pixel at (0, 0), the scale a standard deviation in pixels, the orientation in radians, descriptors
whole numbers 0 to 255. COLMAP reads no other columns: the affine shape is not part of the format. Here rows with the
six numbers x y a11 a12 a21 a22 before the descriptor are read as well, and descriptors of any number of columns.

A match list has for each pair a line `NAME0 NAME1`, a line `row0 row1` a match, and an empty line.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, ImageError, OptionError, StoreError
from ...features import Features, Matches
from ...frames import MR_SIZE, from_colmap, laf_orientation, laf_scale, to_colmap
from ...images import read_image
from ...sfm.descriptors import COLMAP_DIM, colmap_descriptors
from ...store import FeatureReader, FeatureWriter, MatchReader, MatchWriter, check_name
from .back import ImportSummary

_SUFFIX = ".txt"


def write_text_features(features: str | Path, folder: str | Path) -> int:
    """Write a features file as COLMAP's text files, subfolders as in the images' names; returns how many images.

    Args:
        features: features file; its descriptors have 128 dimensions.
        folder: made if missing; files of those names are replaced.

    Raises:
        OptionError: descriptors of another size.
        StoreError: the file is missing or damaged.
    """
    folder = Path(folder)
    with FeatureReader(features) as reader:
        names = reader.names()
        for name in names:
            count, dim, _ = reader.descriptor_shape(name)
            if count and dim != COLMAP_DIM:
                raise OptionError(f"COLMAP's text files hold descriptors of {COLMAP_DIM} numbers, {name!r} has {dim}")
        for name in names:
            lafs = reader.lafs(name)
            rows = reader.descriptors(name) if len(lafs) else np.zeros((0, COLMAP_DIM), np.uint8)
            path = folder / f"{name}{_SUFFIX}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_text(lafs, colmap_descriptors(rows)), encoding="ascii")
    return len(names)


def _text(lafs: NDArray[np.float32], descriptors: NDArray[np.uint8]) -> str:
    # COLMAP's angle runs the other way round than ours.
    turns = -np.deg2rad(laf_orientation(lafs).astype(np.float64))
    frames = np.column_stack([to_colmap(lafs)[:, :2], laf_scale(lafs) / MR_SIZE, turns])
    lines = [f"{len(lafs)} {COLMAP_DIM}"]
    for frame, row in zip(frames.tolist(), descriptors.tolist(), strict=True):
        lines.append(f"{frame[0]:.9g} {frame[1]:.9g} {frame[2]:.9g} {frame[3]:.9g} {' '.join(map(str, row))}")
    return "\n".join(lines) + "\n"


def read_text_features(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Frames (N, 2, 3) and descriptors (N, D) of one text file.

    Raises:
        DataError: not such a file.
    """
    path = Path(path)
    try:
        header, _, body = path.read_text(encoding="ascii").partition("\n")
        count, dim = (int(number) for number in header.split())
        numbers = np.array(body.split(), dtype=np.float64)
    except (ValueError, UnicodeError) as error:
        raise DataError(
            f"{path}: not COLMAP's text features ('N 128', rows 'x y scale orientation d1 ...'): {error}"
        ) from None
    width = len(numbers) // count if count else 4 + dim
    if count < 0 or dim < 0 or width * count != len(numbers) or width - dim not in (2, 4, 6):
        raise DataError(
            f"{path}: says {count} features of {dim} dimensions, but has {len(numbers)} numbers, "
            f"not {count} x {4 + dim}; is the file cut off?"
        )
    rows = numbers.reshape(count, width)
    values = rows[:, width - dim :]
    if not np.isfinite(rows).all() or (values < 0).any() or (values > 255).any():
        raise DataError(f"{path}: descriptors are whole numbers 0 to 255, and all numbers finite")
    return from_colmap(rows[:, : width - dim]), np.rint(values).astype(np.uint8)


def features_of_text(
    folder: str | Path, output: str | Path, photos: str | Path | None = None, *, overwrite: bool = False
) -> ImportSummary:
    """Write a folder of text files into a features file.

    Args:
        folder: of files NAME.txt, subfolders included.
        output: features file to write.
        photos: folder of the images, for their sizes; without it an image is as large as its keypoints ask for.
        overwrite: start anew what is there.

    Raises:
        OptionError: no such files.
        StoreError: the output is another program's or of other settings.
    """
    started, folder = time.perf_counter(), Path(folder)
    paths = {path.relative_to(folder).as_posix()[: -len(_SUFFIX)]: path for path in sorted(folder.rglob(f"*{_SUFFIX}"))}
    if not paths:
        raise OptionError(f"{folder}: no text features (NAME.jpg.txt for image NAME.jpg) in it")
    digest = hashlib.sha256()
    for name, path in paths.items():
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(4096))
    settings = {"program": "COLMAP's text features", "files": digest.hexdigest()[:16]}
    skipped: dict[str, str] = {}
    keypoints = 0
    with FeatureWriter(output, settings, overwrite=overwrite) as writer:
        for name, path in paths.items():
            try:
                lafs, descriptors = read_text_features(path)
                size = _size(name, lafs, photos)
                writer.write(check_name(name), Features(lafs, np.ones(len(lafs), np.float32), descriptors, size))
            except (DataError, ImageError, StoreError) as error:
                skipped[name] = str(error).removeprefix(f"{path}: ")
                continue
            keypoints += len(lafs)
    seconds = round(time.perf_counter() - started, 3)
    return ImportSummary(str(output), None, len(paths) - len(skipped), keypoints, 0, 0, seconds, skipped)


def _size(name: str, lafs: NDArray[np.float32], photos: str | Path | None) -> tuple[int, int]:
    if photos is not None:
        return read_image(Path(photos) / name).size
    width, height = np.ceil(lafs[:, :, 2].max(axis=0, initial=0)).astype(int).tolist()
    return width + 1, height + 1


def write_match_list(matches: str | Path, output: str | Path) -> int:
    """Write a matches file as COLMAP's match list; returns how many pairs.

    Raises:
        DataError: a name has a blank, at which COLMAP would cut it.
        StoreError: the file is missing or damaged.
    """
    with MatchReader(matches) as reader:
        pairs = reader.pairs()
        for name in dict.fromkeys(name for pair in pairs for name in pair):
            if len(name.split()) != 1:
                raise DataError(f"COLMAP's match lists are cut at blanks, but an image is called {name!r}; rename it")
        with Path(output).open("w", encoding="utf-8") as file:
            for name0, name1 in pairs:
                rows = "\n".join(f"{row0} {row1}" for row0, row1 in reader.read(name0, name1).pairs.tolist())
                file.write(f"{name0} {name1}\n{rows}\n\n" if rows else f"{name0} {name1}\n\n")
    return len(pairs)


def matches_of_list(
    source: str | Path, features: str | Path, output: str | Path, *, overwrite: bool = False
) -> ImportSummary:
    """Write a COLMAP match list into a matches file.

    Args:
        source: the list.
        features: features file that it is of.
        output: matches file to write.
        overwrite: start anew what is there.

    Raises:
        DataError: not a match list, or it points at features that do not exist.
        StoreError: a file is missing, damaged or of other settings.
    """
    started, source = time.perf_counter(), Path(source)
    pairs = total = 0
    with FeatureReader(features) as reader:
        digest = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        settings = {"method": f"match list {digest}", "features": reader.settings_hash}
        known = set(reader.names())
        with MatchWriter(output, settings, overwrite=overwrite, buffer=16) as writer:
            for name0, name1, rows in _blocks(source):
                for name in (name0, name1):
                    if name not in known:
                        raise DataError(f"{source}: image {name!r} is not in {features}")
                counts = tuple(reader.descriptor_shape(name)[0] for name in (name0, name1))
                if len(rows) and (rows.max(axis=0) >= counts).any():
                    raise DataError(f"{source}: matches of {name0!r} and {name1!r} point beyond {counts} features")
                found = Matches(rows, np.ones(len(rows), np.float32))
                writer.write(name0, name1, found, counts[0])
                pairs, total = pairs + 1, total + len(rows)
    seconds = round(time.perf_counter() - started, 3)
    return ImportSummary(None, str(output), len(known), 0, pairs, total, seconds)


def _blocks(path: Path) -> Iterator[tuple[str, str, NDArray[np.int32]]]:
    """(name0, name1, rows) of each pair of a match list."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise DataError(f"{path}: cannot read the match list: {error}") from error
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*lines, ""], 1):
        if line.strip():
            block.append((number, line))
        elif block:
            yield _block(path, block)
            block = []


def _block(path: Path, block: list[tuple[int, str]]) -> tuple[str, str, NDArray[np.int32]]:
    number, first = block[0]
    names = first.split()
    if len(names) != 2:
        raise DataError(f"{path}, line {number}: a pair begins with two image names without blanks, not {first[:80]!r}")
    rows: Any = []
    for number, line in block[1:]:
        try:
            row0, row1 = (int(field) for field in line.split())
        except ValueError:
            raise DataError(f"{path}, line {number}: a match is two row numbers, not {line[:80]!r}") from None
        if min(row0, row1) < 0 or max(row0, row1) >= 2**31:
            raise DataError(f"{path}, line {number}: row numbers are 0 or more, not {line[:80]!r}")
        rows.append((row0, row1))
    return names[0], names[1], np.array(rows, np.int32).reshape(-1, 2)
