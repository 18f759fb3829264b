"""The tables of a COLMAP database, of any version of COLMAP."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ...errors import ReconstructionError
from ...sfm.verification import check_database

FEATURE_TABLES = ("keypoints", "descriptors", "matches", "two_view_geometries")
"""What hangs on the features; everything else is the project's."""

_NEEDED = ("cameras", "images", *FEATURE_TABLES)
_PAIRS = 2**31 - 1  # a pair's number is this times the smaller image id, plus the larger one


@dataclass(frozen=True)
class ProjectImage:
    """An image of a project; its size is its camera's."""

    image_id: int
    name: str
    width: int
    height: int


def uri(path: Path, mode: str) -> str:
    """SQLite's address of a file."""
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


@contextlib.contextmanager
def told_plainly(path: Path, doing: str) -> Iterator[None]:
    """SQLite's errors as a ReconstructionError that says which file and what was being done."""
    try:
        yield
    except sqlite3.Error as error:
        raise ReconstructionError(f"{path}: cannot {doing}: {error}") from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, to be read only.

    Raises:
        ReconstructionError: there is none, or it is not one of COLMAP.
    """
    check_database(path)
    with told_plainly(path, "read the database"):
        connection = sqlite3.connect(readable(path), uri=True)
        with contextlib.closing(connection):
            missing = [table for table in _NEEDED if not columns(connection, table)]
            if missing:
                raise ReconstructionError(f"{path} is not a COLMAP database: it has no table {missing[0]!r}")
            yield connection


def readable(path: Path) -> str:
    """The address under which SQLite reads a database without leaving anything beside it.

    In write-ahead mode even a reader makes files, unless told that the database stands still: so it does where no log
    is waiting. Where one is, somebody has it open or died, and the log belongs to it.
    """
    log = path.with_name(f"{path.name}-wal")
    waiting = log.is_file() and log.stat().st_size > 0
    return uri(path, "ro") + ("" if waiting else "&immutable=1")


def columns(connection: sqlite3.Connection, table: str, schema: str = "main") -> list[str]:
    """Names of a table's columns, none if there is no such table."""
    return [str(row[1]) for row in connection.execute(f"PRAGMA {schema}.table_info({quoted(table)})")]


def quoted(name: str) -> str:
    """A name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def images(connection: sqlite3.Connection) -> dict[str, ProjectImage]:
    """The project's images by name, sorted."""
    rows = connection.execute(
        "SELECT image_id, name, width, height FROM images JOIN cameras USING (camera_id) ORDER BY name"
    )
    return {str(row[1]): ProjectImage(int(row[0]), str(row[1]), int(row[2]), int(row[3])) for row in rows}


def pair_number(first: int, second: int) -> int:
    """What COLMAP files the pair of two images under."""
    return _PAIRS * min(first, second) + max(first, second)


def pair_of(number: int) -> tuple[int, int]:
    """The two image ids, smaller first."""
    return (number - number % _PAIRS) // _PAIRS, number % _PAIRS


def array(blob: Any, rows: int, cols: int, dtype: Any, what: str) -> NDArray[Any]:
    """A matrix out of a database.

    Raises:
        ReconstructionError: the blob is of another size.
    """
    data = b"" if blob is None else bytes(blob)
    wanted = rows * cols * np.dtype(dtype).itemsize
    if len(data) != wanted:
        raise ReconstructionError(f"{what} are damaged: {len(data)} bytes for {rows} rows of {cols}")
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(rows, cols).astype(dtype, copy=True)


def blob(matrix: NDArray[Any]) -> bytes:
    """A matrix as COLMAP stores it: rows one after the other, little-endian."""
    little = np.ascontiguousarray(matrix).astype(matrix.dtype.newbyteorder("<"), copy=False)
    return little.tobytes()
