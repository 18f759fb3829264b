"""The visual words: k-means centroids of descriptors, with a record of what they were trained on."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError, StoreError
from .assignment import PROBES, Cells
from .files import checked_size, map_array, write_array, write_text

FORMAT = "hardnet-match codebook"
VERSION = 1
# Settings that say how many features there are or where, not what a descriptor looks like.
AMOUNTS = frozenset({"max_keypoints", "max_size", "masks", "store", "precision", "threshold", "tile", "device"})


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What differs between two features' settings such that their descriptors must not be mixed; '' if nothing.

    Amounts (number of keypoints, image size, masks, precision) may differ.
    """
    from ..store.hdf5 import differences

    kept = [{key: value for key, value in settings.items() if key not in AMOUNTS} for settings in (old, new)]
    return differences(*kept) if kept[0] != kept[1] else ""


class Codebook:
    """K visual words of dimension D.

    Args:
        centroids: (K, D) float32.
        about: where they come from, plain JSON: `settings` of the features (as the features file has them), `seed`,
            `sample` (descriptors trained on), `iterations`, `kmeans`, `error` (mean squared
            distance of the sample to its words).
        cells: the coarse cells for fast assignment; made when first needed if None.
        probes: cells a descriptor looks into; stored with it. None looks into all: exact, and ten times slower.

    Raises:
        DataError: the centroids are not (K, D) finite numbers.
        OptionError: `probes` is not positive.
    """

    def __init__(
        self,
        centroids: NDArray[Any],
        about: Mapping[str, Any] | None = None,
        cells: Cells | None = None,
        probes: int | None = PROBES,
    ) -> None:
        # A loaded one has cells, and is not read whole just for being looked at.
        if centroids.ndim != 2 or not centroids.size or (cells is None and not np.isfinite(centroids).all()):
            raise DataError(f"centroids must be (words, dimensions) and finite, got {centroids.shape}")
        if probes is not None and probes < 1:
            raise OptionError(f"probes must be at least 1, got {probes}")
        self.probes = probes
        self.centroids: NDArray[np.float32] = np.ascontiguousarray(centroids, dtype=np.float32)
        self.about: dict[str, Any] = dict(about or {})
        self._cells = cells

    def __len__(self) -> int:
        return len(self.centroids)

    @property
    def dim(self) -> int:
        """D, the dimension of the descriptors."""
        return int(self.centroids.shape[1])

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the features it was trained on; empty if nobody told."""
        return dict(self.about.get("settings", {}))

    @cached_property
    def hash(self) -> str:
        """Short SHA-256 of the centroids."""
        shape = np.array(self.centroids.shape, dtype=np.int64)
        return hashlib.sha256(shape.tobytes() + self.centroids.tobytes()).hexdigest()[:16]

    @property
    def cells(self) -> Cells:
        """The coarse cells that assignment goes through."""
        if self._cells is None:
            self._cells = Cells.build(self.centroids)
        return self._cells

    @classmethod
    def train(
        cls,
        descriptors: NDArray[Any],
        words: int,
        *,
        seed: int = 0,
        iterations: int = 20,
        flat: bool | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Codebook:
        """k-means by faiss, see `clustering.kmeans`.

        Args:
            descriptors: (M, D) float32, float16 or uint8; M at least `words`.
            flat: compare every descriptor with every word in each iteration; if None, where that is quick enough.
            settings: of the features file they come from.

        Raises:
            DataError: there are fewer descriptors than words.
            OptionError: faiss is not installed, or a number cannot work.
        """
        from .clustering import is_quick, kmeans

        if words < 1 or iterations < 1:
            raise OptionError(f"a codebook needs at least one word and one iteration, got {words} and {iterations}")
        if descriptors.ndim != 2 or not descriptors.shape[1] or len(descriptors) < words:
            raise DataError(
                f"{words} words cannot be trained on {len(descriptors)} descriptors: ask for fewer words, "
                f"or give more images"
            )
        flat = is_quick(len(descriptors), words, iterations) if flat is None else flat
        centroids, error = kmeans(descriptors, words, seed=seed, iterations=iterations, flat=flat)
        about = {
            "kmeans": "flat" if flat else "two levels",
            "settings": dict(settings or {}),
            "seed": seed,
            "iterations": iterations,
            "sample": len(descriptors),
            "error": error,
        }
        return cls(centroids, about)

    def checked(self, descriptors: NDArray[Any]) -> NDArray[np.float32]:
        """Descriptors as (N, D) float32; none at all may be of any dimension.

        Raises:
            DataError: they are of another dimension, or not finite.
        """
        if descriptors.ndim == 2 and not len(descriptors):
            return np.empty((0, self.dim), dtype=np.float32)
        if descriptors.ndim != 2 or descriptors.shape[1] != self.dim:
            raise DataError(
                f"descriptors are {descriptors.shape}, the codebook's are of dimension {self.dim}: "
                f"use the features it was trained for"
            )
        cast = np.ascontiguousarray(descriptors, dtype=np.float32)
        if not np.isfinite(cast).all():
            raise DataError("descriptors hold NaN or infinity")
        return cast

    def nearest(
        self, descriptors: NDArray[Any], k: int = 1, *, exact: bool = False
    ) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The k nearest words of each descriptor, nearest first.

        Args:
            descriptors: (N, D) float32, float16 or uint8.
            exact: compare with every word instead of those in the nearest cells.

        Returns:
            words (N, k) uint32, squared distances (N, k) float32.

        Raises:
            DataError: the descriptors are not of the codebook's kind.
            OptionError: the codebook has fewer than k words.
        """
        if not 1 <= k <= len(self):
            raise OptionError(f"a descriptor can go to 1..{len(self)} words of this codebook, not {k}")
        cells = self.cells
        probes = len(cells.centres) if exact or self.probes is None else self.probes
        return cells.nearest(self.checked(descriptors), self.centroids, k, probes=probes)

    def assign(self, descriptors: NDArray[Any], k: int = 1, *, exact: bool = False) -> NDArray[np.uint32]:
        """The k nearest words of each descriptor, (N, k) uint32; see `nearest`."""
        return self.nearest(descriptors, k, exact=exact)[0]

    def check_settings(self, settings: Mapping[str, Any], what: str) -> None:
        """Raise StoreError if features of these settings must not be mixed with the codebook's; `what` names them.

        Features or codebooks that do not say how they were made pass.
        """
        differs = differing(self.settings, settings) if self.settings and settings else ""
        if differs:
            raise StoreError(
                f"{what}: made with other settings or weights than the codebook ({differs}); "
                f"extract with the codebook's, or train a codebook of its own"
            )

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write it into a folder, made if there is none; the record goes last.

        Raises:
            StoreError: it cannot be written.
        """
        place = Path(folder)
        sizes = {"centroids.npy": write_array(place / "centroids.npy", self.centroids)}
        for name, array in self.cells.arrays().items():
            sizes[f"{name}.npy"] = write_array(place / f"{name}.npy", array)
        record = {
            "format": FORMAT,
            "version": VERSION,
            "words": len(self),
            "dim": self.dim,
            "hash": self.hash,
            "probes": self.probes,
            "files": sizes,
            "about": self.about,
        }
        write_text(place / "codebook.json", json.dumps(record, indent=1, sort_keys=True))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Codebook:
        """Open a saved codebook; its arrays are memory-mapped.

        Raises:
            StoreError: it is not there, damaged, truncated or of another version.
        """
        place = Path(folder)
        path = place / "codebook.json"
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] != FORMAT:
                raise ValueError(f"format is {record['format']!r}")
            if record["version"] != VERSION:
                raise StoreError(f"{path}: codebook version {record['version']}, this package reads {VERSION}")
            for name, size in dict(record["files"]).items():
                checked_size(place / name, size)
            cells = Cells(*(map_array(place / f"{name}.npy") for name in Cells.NAMES))
            found = cls(map_array(place / "centroids.npy"), record["about"], cells, record["probes"])
            shape, found.__dict__["hash"] = (record["words"], record["dim"]), str(record["hash"])
        except FileNotFoundError:
            raise StoreError(f"{place}: no codebook there") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise StoreError(f"{path}: not a readable codebook: {error}") from error
        if found.centroids.shape != shape:
            raise StoreError(f"{place / 'centroids.npy'}: {found.centroids.shape}, not as {path} says")
        return found
