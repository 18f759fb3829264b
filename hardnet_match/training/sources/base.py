"""What a source of patches is: named pieces that can be read one by one, so that a set of any size passes through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..patchset import STORED

Columns = Mapping[str, NDArray[Any]]
ReadPatches = Callable[[NDArray[np.intp]], NDArray[np.uint8]]
GEOMETRY = ("direction", "position", "size")
FAR_APART = 1e5
"""Photos that share no point are laid so many pixels apart: no place of one counts as a place of another."""
MANY = 1 << 32
"""Tracks of unit k of a source (a photo, a webcam, a sequence) start at k times this."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of a source's observations, in any order.

    Args:
        patches: (n, S, S) uint8.
        columns: `track`, `image`, `scene`, and the geometry that the source gives, as in `PatchSet`.
        collisions: (k, 2) int64 tracks that overlap, see `PatchSet`; several pieces may tell the same ones.
    """

    patches: NDArray[np.uint8]
    columns: Columns
    collisions: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.patches)


class Source(ABC):
    """A form that training data comes in.

    Attributes:
        kind: its name on the command line.
        name: of the set that is made of it.
        side, margin: of its stored patches, as in `PatchSet`.
        geometry: which of the columns direction, position and size it gives.
    """

    kind: ClassVar[str]
    geometry: tuple[str, ...] = ()
    name: str
    side: int = STORED
    margin: float = 2.0

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All that the set depends on, plain JSON values."""

    @abstractmethod
    def pieces(self) -> list[str]:
        """Names of the pieces, in order."""

    @abstractmethod
    def read(self, key: str) -> Piece:
        """One piece.

        Raises:
            ImageError: this piece cannot be read; the others may.
            DataError: the source as a whole cannot be used.
        """

    def refine(self, columns: Columns, read: ReadPatches) -> NDArray[np.intp] | None:
        """Which rows to keep once all pieces are there; all if None.

        Args:
            columns: of all observations, sorted by track and, within it, by image.
            read: gives the patches of some of these rows; ask for blocks, not for everything.
        """
        del columns, read
        return None

    def matches(self) -> NDArray[np.int64] | None:
        """Test pairs (K, 3) as `PatchSet` has them, rows numbered in the order of the pieces."""
        return None
