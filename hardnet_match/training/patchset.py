"""Patch sets in memory and on disk.

One HDF5 file holds patches (M, 64, 64) uint8 of observations of tracks (3-D points). The measurement region of the
frame, what a network is shown, is the inner 32x32; the margin around it lets a crop turn, grow and tilt. Beside them,
a row an observation: `track` int64 (equal for the same point), `image` and `scene` int32, `direction` (3,) float32
(unit vector from the point to the camera), `position` (3,) and `size` float32 (the point, and the radius of the
region, in the same unit of length within a scene). A track may have one observation: it is then paired with itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

PATCH = 32
STORED = 64
"""Side of a stored patch: twice the measurement region in each direction, at the density of a network's patch."""


@dataclass(frozen=True, eq=False)
class PatchSet:
    """Observations in memory, sorted by track; the arrays are described in the module's docstring."""

    patches: NDArray[np.uint8]
    track: NDArray[np.int64]
    image: NDArray[np.int32]
    scene: NDArray[np.int32]
    direction: NDArray[np.float32]
    position: NDArray[np.float32]
    size: NDArray[np.float32]

    def __post_init__(self) -> None:
        counts = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(counts.values())) != 1:
            raise DataError(f"a patch set needs as many rows in every array, got {counts}")
        if self.patches.shape[1:] != (STORED, STORED) or self.patches.dtype != np.uint8:
            raise DataError(f"patches must be (M, {STORED}, {STORED}) uint8, got {self.patches.shape}")
        if (np.diff(self.track) < 0).any():
            raise DataError("observations must be sorted by track")

    def __len__(self) -> int:
        return len(self.track)

    def select(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> PatchSet:
        """The same set, only the given rows (which keep their order)."""
        return PatchSet(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def save(self, path: Path) -> None:
        """Write the set as one HDF5 file, replacing it."""
        with h5py.File(path, "w") as file:
            for field in fields(self):
                file.create_dataset(field.name, data=getattr(self, field.name))

    @classmethod
    def load(cls, path: Path) -> PatchSet:
        """Read a set; DataError when the file is none."""
        try:
            with h5py.File(path) as file:
                return cls(**{field.name: file[field.name][:] for field in fields(cls)})
        except (OSError, KeyError) as error:
            raise DataError(f"{path} is not a patch set: {error}") from error

    @classmethod
    def joined(cls, parts: Iterable[PatchSet]) -> PatchSet:
        """Several sets as one; tracks, images and scenes are numbered on from set to set."""
        parts = [part for part in parts if len(part)]
        if not parts:
            raise DataError("there are no patches to join")
        columns: dict[str, list[NDArray[np.generic]]] = {field.name: [] for field in fields(cls)}
        shift = {"track": 0, "image": 0, "scene": 0}
        for part in parts:
            for name, column in columns.items():
                values = getattr(part, name)
                column.append(values + values.dtype.type(shift[name]) if name in shift else values)
            for name in shift:
                shift[name] += int(getattr(part, name).max()) + 1
        return cls(**{name: np.concatenate(column) for name, column in columns.items()})
