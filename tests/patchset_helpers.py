"""Patch sets of noise, a source of such, and when two sets are equal."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardnet_match.errors import ImageError
from hardnet_match.training import patchfile
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sources.base import Piece, Source


def equal(one: PatchSet, other: PatchSet) -> bool:
    """The same observations, whatever the name."""
    assert one.columns().keys() == other.columns().keys()
    tables = [(getattr(one, key), getattr(other, key)) for key in patchfile.TABLES]
    return (
        np.array_equal(one.patches, other.patches)
        and all(np.array_equal(values, other.columns()[key]) for key, values in one.columns().items())
        and all((a is None and b is None) or np.array_equal(a, b) for a, b in tables)
        and one.margin == other.margin
    )


def plain(tracks: int = 30, views: int = 3, side: int = 16, seed: int = 0, **more: Any) -> PatchSet:
    """A set of noise without geometry."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(tracks, dtype=np.int64) * 3, views)
    return PatchSet(
        rng.integers(0, 256, (len(track), side, side), dtype=np.uint8),
        track,
        np.tile(np.arange(views, dtype=np.int32), tracks),
        np.zeros(len(track), np.int32),
        **more,
    )


class Noise(Source):
    """Pieces of noise, their tracks in any order, shared between pieces."""

    kind = "noise"
    geometry = ("size",)
    side, margin = 8, 1.0

    def __init__(self, pieces: int = 6, seed: int = 0, bad: tuple[str, ...] = (), slow: float = 0.0) -> None:
        self.name, self.seed, self.count, self.bad, self.slow = "noise", seed, pieces, bad, slow
        self.asked: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"seed": self.seed, "pieces": self.count}

    def pieces(self) -> list[str]:
        return [f"piece {number}" for number in range(self.count)]

    def read(self, key: str) -> Piece:
        self.asked.append(key)
        time.sleep(self.slow)
        if key in self.bad:
            raise ImageError(f"{key} is torn")
        number = int(key.split()[1])
        rng = np.random.default_rng([self.seed, number])
        track = rng.permutation(40)[:20].astype(np.int64)
        columns: dict[str, NDArray[Any]] = {
            "track": track,
            "image": np.full(20, number, np.int32),
            "scene": np.zeros(20, np.int32),
            "size": rng.random(20).astype(np.float32),
        }
        patches = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
        return Piece(patches, columns, np.array([[number, number + 1]], np.int64))

    def refine(self, columns: Any, read: Any) -> NDArray[np.intp]:
        kept = np.flatnonzero(columns["track"] % 5 > 0)
        assert read(kept[:3]).shape == (3, 8, 8)
        return kept

    def matches(self) -> NDArray[np.int64]:
        rng = np.random.default_rng(9)
        return np.c_[rng.integers(0, 20 * self.count, (50, 2)), rng.integers(0, 2, 50)].astype(np.int64)
