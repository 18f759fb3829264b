"""Patch sets: observations of tracks (3-D points, or whatever else has a patch in several images), in memory or mapped.

A row is one observation. Its stored patch shows `margin` times the measurement region, what a network is shown, along
each axis: the region is the middle 1/margin of the patch, and what lies around it lets a crop turn, grow and tilt.
A track may have one observation: it is then paired with itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import patchfile

PATCH = 32
STORED = 64
"""Side of the patches that this package cuts itself: twice the measurement region, at a network's density."""
_AT_ONCE = 1 << 21
"""Entries of a table of distances that are worked on at a time."""

Rows = NDArray[np.bool_] | NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Observations, sorted by track.

    Args:
        patches: (M, S, S) uint8 grey, any S; in memory, or mapped from a file and read-only.
        track: (M,) int64, equal for observations of the same point; the class label. Sorted.
        image: (M,) int32, the image (camera) it was seen in.
        scene: (M,) int32; tracks of different scenes never show the same place.
        direction: (M, 3) float32 unit vectors from the point to the camera, or None where nobody knows them.
        position: (M, 3) float32, the point, or None.
        size: (M,) float32, radius of the measurement region in the unit of `position`, or None.
        margin: side of the stored patch over the side of the measurement region; 2 for sets this package cuts, 1 where
            the network is shown the whole stored patch (Brown's, HPatches).
        name: where it comes from, for messages.
        matches: (K, 3) int64 test pairs that come with the data (Brown's): two rows, and 1 where they match.
        collisions: (K, 2) int64 pairs of tracks whose regions overlap, so that neither is a negative of the other.

    Raises:
        DataError: row counts differ, a shape or dtype is wrong, or the tracks are not sorted.
    """

    patches: NDArray[np.uint8]
    track: NDArray[np.int64]
    image: NDArray[np.int32]
    scene: NDArray[np.int32]
    direction: NDArray[np.float32] | None = None
    position: NDArray[np.float32] | None = None
    size: NDArray[np.float32] | None = None
    margin: float = 2.0
    name: str = field(default="", kw_only=True)
    matches: NDArray[np.int64] | None = field(default=None, kw_only=True)
    collisions: NDArray[np.int64] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        shape = self.patches.shape
        if len(shape) != 3 or shape[1] != shape[2] or not shape[1] or self.patches.dtype != np.uint8:
            raise DataError(f"patches must be (M, S, S) uint8, got {shape} {self.patches.dtype}")
        columns = self.columns()
        counts = {"patches": len(self.patches), **{key: len(values) for key, values in columns.items()}}
        if len(set(counts.values())) != 1:
            raise DataError(f"a patch set needs as many rows in every array, got {counts}")
        for key, values in columns.items():
            dtype, row, _ = patchfile.ROWS[key]
            if values.shape[1:] != row or values.dtype != dtype:
                raise DataError(f"{key} must be {('M', *row)} {np.dtype(dtype)}, got {values.shape} {values.dtype}")
        for key, width in patchfile.TABLES.items():
            table = getattr(self, key)
            if table is not None and (table.ndim != 2 or table.shape[1] != width or table.dtype != np.int64):
                raise DataError(f"{key} must be (K, {width}) int64, got {table.shape} {table.dtype}")
        if (np.diff(self.track) < 0).any():
            raise DataError("observations must be sorted by track")
        if self.matches is not None and len(self.matches):
            low, high = int(self.matches[:, :2].min()), int(self.matches[:, :2].max())
            if low < 0 or high >= len(self):
                raise DataError(f"matches point at rows {low} to {high} of {len(self)}")
        if not self.margin >= 1:
            raise DataError(f"margin must be at least 1, got {self.margin}")

    def __len__(self) -> int:
        return len(self.track)

    @property
    def side(self) -> int:
        """S, the side of a stored patch in cells."""
        return int(self.patches.shape[1])

    def columns(self) -> dict[str, Any]:
        """The arrays with a row an observation that the set has, patches aside, by name."""
        present = {key: getattr(self, key) for key in patchfile.ROWS}
        return {key: values for key, values in present.items() if values is not None}

    # rows ---------------------------------------------------------------------------------------------

    def select(self, rows: Rows) -> PatchSet:
        """The same set, only the given rows (which keep their order), their patches in memory.

        Test pairs that lose a patch go; collisions stay as they are. `save` with `rows` writes a part of a set that is
        larger than memory.
        """
        rows = _as_rows(rows)
        return replace(
            self,
            patches=self.patches[rows],
            matches=self._matches_among(rows),
            **{key: values[rows] for key, values in self.columns().items()},
        )

    def _matches_among(self, rows: NDArray[np.intp]) -> NDArray[np.int64] | None:
        if self.matches is None:
            return None
        place = np.full(len(self), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        moved = np.c_[place[self.matches[:, :2]], self.matches[:, 2]]
        return np.asarray(moved[(moved[:, :2] >= 0).all(axis=1)])

    @classmethod
    def joined(cls, parts: Iterable[PatchSet]) -> PatchSet:
        """Several sets as one in memory; tracks, images and scenes are numbered on from set to set.

        Geometry that not all of them have is dropped. `save_joined` does the same from file to file.

        Raises:
            DataError: there is no patch, or they differ in size or margin.
        """
        parts = _alike(parts)
        patches = np.concatenate([part.patches for part in parts])
        return cls(patches, **_numbered_on(parts), margin=parts[0].margin, name=_names(parts))

    # places -------------------------------------------------------------------------------------------

    def same_place(
        self, first: NDArray[np.intp], second: NDArray[np.intp], overlap: float = 0.5
    ) -> NDArray[np.bool_] | None:
        """Which observations are no negatives of each other, because they show about the same place.

        Args:
            first, second: rows, (A,) and (B,).
            overlap: centres nearer than so many radii of the larger region are one place.

        Returns:
            (A, B) bool, true also within a track; None where the set has neither positions nor collisions.
        """
        near = self._near(first, second, overlap) if self.position is not None and self.size is not None else None
        if self.collisions is None:
            return near
        hit = self._collide(self.track[first], self.track[second])
        return hit if near is None else near | hit

    def _near(self, first: NDArray[np.intp], second: NDArray[np.intp], overlap: float) -> NDArray[np.bool_]:
        assert self.position is not None
        assert self.size is not None
        out = np.empty((len(first), len(second)), dtype=bool)
        other = self.position[second].astype(np.float64)
        length, size, scene = (other**2).sum(1), self.size[second], self.scene[second]
        step = max(_AT_ONCE // max(len(second), 1), 1)
        for start in range(0, len(first), step):  # a few wide blocks: a batch of 9,000 would need gigabytes at once
            rows = first[start : start + step]
            one = self.position[rows].astype(np.float64)
            square = (one**2).sum(1)[:, None] + length - 2 * one @ other.T
            reach = overlap * np.maximum(self.size[rows][:, None], size)
            out[start : start + step] = (square < reach**2) & (self.scene[rows][:, None] == scene)
        return out

    @cached_property
    def _neighbours(self) -> NDArray[np.int64]:
        """Collisions both ways round, sorted."""
        assert self.collisions is not None
        both = np.concatenate([self.collisions, self.collisions[:, ::-1]])
        return np.asarray(both[np.lexsort((both[:, 1], both[:, 0]))])

    def _collide(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        of, neighbour = self._neighbours.T
        low, high = np.searchsorted(of, first, "left"), np.searchsorted(of, first, "right")
        counts = high - low
        row = np.repeat(np.arange(len(first)), counts)
        entry = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(low, counts)
        known, column = np.unique(second, return_inverse=True)
        place = np.searchsorted(known, neighbour[entry])
        there = place < len(known)
        there[there] = known[place[there]] == neighbour[entry][there]
        out = np.zeros((len(first), len(known)), dtype=bool)
        out[row[there], place[there]] = True
        return np.asarray(out[:, column] | (first[:, None] == second))

    # files --------------------------------------------------------------------------------------------

    def save(self, path: Path, rows: Rows | None = None, settings: Mapping[str, Any] | None = None) -> None:
        """Write the set, or the given rows of it, as one HDF5 file, replacing it; patches pass in small blocks.

        Args:
            path: the file; written whole or not at all, and it may be the one this set is mapped from.
            rows: which rows; all if None.
            settings: what made it, plain JSON values.

        Raises:
            StoreError: it cannot be written (no space, ...).
        """
        chosen = None if rows is None else _as_rows(rows)
        columns: dict[str, NDArray[Any] | None] = {
            key: values if chosen is None else values[chosen] for key, values in self.columns().items()
        }
        columns["matches"] = self.matches if chosen is None else self._matches_among(chosen)
        columns["collisions"] = self.collisions
        patchfile.write(
            Path(path), patchfile.blocks_of(self.patches, chosen), columns,
            side=self.side, margin=self.margin, name=self.name, settings=settings,
        )  # fmt: skip

    @classmethod
    def load(cls, path: Path, *, mapped: bool = True) -> PatchSet:
        """Read a set.

        Args:
            path: the HDF5 file.
            mapped: leave the patches on disk; rows are read when they are indexed, so a set may be larger than memory.

        Raises:
            DataError: the file is missing, damaged or no patch set.
        """
        return cls(**patchfile.read(Path(path), mapped=mapped))


def save_joined(path: Path, parts: Iterable[PatchSet], settings: Mapping[str, Any] | None = None) -> None:
    """What `PatchSet.joined` makes, straight into a file; the parts may be mapped and larger than memory.

    Raises:
        DataError: there is no patch, or they differ in size or margin.
        StoreError: it cannot be written (no space, ...).
    """
    parts = _alike(parts)
    blocks = (block for part in parts for block in patchfile.blocks_of(part.patches))
    patchfile.write(
        path, blocks, _numbered_on(parts), side=parts[0].side, margin=parts[0].margin, name=_names(parts),
        settings=settings,
    )  # fmt: skip


def _as_rows(rows: Rows) -> NDArray[np.intp]:
    return np.flatnonzero(rows) if rows.dtype == bool else np.asarray(rows, dtype=np.intp)


def _alike(parts: Iterable[PatchSet]) -> list[PatchSet]:
    parts = [part for part in parts if len(part)]
    if not parts:
        raise DataError("there are no patches to join")
    kinds = {(part.side, part.margin): part.name for part in parts}
    if len(kinds) > 1:
        told = "; ".join(f"{name or 'one'}: {side} cells, margin {margin:g}" for (side, margin), name in kinds.items())
        raise DataError(f"patch sets of different size or margin cannot be one set ({told}); mix them while sampling")
    return parts


def _names(parts: list[PatchSet]) -> str:
    return "+".join(dict.fromkeys(part.name for part in parts if part.name))


def _numbered_on(parts: list[PatchSet]) -> dict[str, Any]:
    """Columns and tables of several sets, one after the other, without numbers in common."""
    shared = [key for key in patchfile.ROWS if all(getattr(part, key) is not None for part in parts)]
    columns: dict[str, list[NDArray[Any]]] = {key: [] for key in shared}
    tables: dict[str, list[NDArray[Any]]] = {key: [] for key in patchfile.TABLES}
    shift, rows = {"track": 0, "image": 0, "scene": 0}, 0
    for part in parts:
        for key in shared:
            values = getattr(part, key)
            columns[key].append(values + values.dtype.type(shift[key]) if key in shift else values)
        if part.matches is not None:
            tables["matches"].append(part.matches + np.array([rows, rows, 0]))
        if part.collisions is not None:
            tables["collisions"].append(part.collisions + shift["track"])
        for key in shift:
            shift[key] += int(getattr(part, key).max()) + 1
        rows += len(part)
    whole = {key: np.concatenate(values) for key, values in columns.items()}
    return whole | {key: np.concatenate(values) if values else None for key, values in tables.items()}
