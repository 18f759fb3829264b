"""Patch sets on disk and pairs out of them.

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


class PairSampler:
    """Draws batches of pairs of observations, each pair of another track.

    Half of a batch comes from one scene, where negatives are hardest; the other half from all scenes, a scene being
    drawn in proportion to the square root of its tracks, so that large scenes do not drown small ones.

    Args:
        observations: what to draw from.
        focus: share of the batch that comes from one scene.
    """

    def __init__(self, observations: PatchSet, focus: float = 0.5) -> None:
        self.set = observations
        self.focus = focus
        starts = np.flatnonzero(np.r_[True, np.diff(observations.track) > 0])
        self.starts = starts
        self.counts = np.diff(np.r_[starts, len(observations)])
        scene_of_track = observations.scene[starts]
        self.by_scene = [np.flatnonzero(scene_of_track == scene) for scene in np.unique(scene_of_track)]
        weights = np.sqrt([len(tracks) for tracks in self.by_scene])
        self.weights = weights / weights.sum()

    def tracks(self, count: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Row numbers of `count` different tracks; fewer when the set has fewer."""
        focused = round(count * self.focus)
        scene = rng.choice(len(self.by_scene), p=self.weights)
        chosen = [rng.permutation(self.by_scene[scene])[:focused]]
        per_scene = rng.multinomial(2 * count, self.weights)
        for tracks, wanted in zip(self.by_scene, per_scene, strict=True):
            chosen.append(tracks[rng.integers(0, len(tracks), wanted)])
        rest = rng.permutation(np.setdiff1d(np.concatenate(chosen[1:]), chosen[0]))
        return np.concatenate([chosen[0], rest[: count - len(chosen[0])]])

    def pairs(
        self, count: int, rng: np.random.Generator, *, wide: bool = True
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Observations (B,), (B,) of the same tracks, from different images where the track has several.

        Args:
            count: B, at most.
            rng: what is drawn depends on it alone.
            wide: of two partners drawn, take the one seen from the more different direction.
        """
        tracks = self.tracks(count, rng)
        start, views = self.starts[tracks], self.counts[tracks]
        first = rng.integers(0, views)
        partners = [(first + 1 + rng.integers(0, np.maximum(views - 1, 1))) % views for _ in range(2 if wide else 1)]
        rows = [start + partner for partner in partners]
        first = start + first
        directions = self.set.direction
        if wide:
            closeness = [np.einsum("ij,ij->i", directions[first], directions[row]) for row in rows]
            rows[0] = np.where(closeness[1] < closeness[0], rows[1], rows[0])
        return first, rows[0]

    def same_place(self, first: NDArray[np.intp], second: NDArray[np.intp], overlap: float = 0.5) -> NDArray[np.bool_]:
        """(A, B): do two observations show about the same place, centres within `overlap` regions?"""
        one, other = self.set.position[first].astype(np.float64), self.set.position[second].astype(np.float64)
        square = (one**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2 * one @ other.T
        reach = overlap * np.maximum(self.set.size[first][:, None], self.set.size[second][None])
        one_scene = self.set.scene[first][:, None] == self.set.scene[second][None]
        return np.asarray((square < reach**2) & one_scene)
