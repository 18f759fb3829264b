"""Batches of pairs out of a patch set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .patchset import PatchSet


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
