"""Which images to match with which: all, neighbours in a sequence, or neighbours on the map."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, OptionError
from ..images import gps, list_images

MODES = ("exhaustive", "sequential", "spatial")
# WGS84: equatorial radius in metres and squared eccentricity.
EARTH_RADIUS = 6378137.0
EARTH_ECCENTRICITY2 = 6.69437999014e-3
# Distances are computed for so many images against all others at a time.
CHUNK = 512


@dataclass(frozen=True)
class PairsSummary:
    """What `choose_pairs` chose, from how many images; images it had to leave out, with the reason."""

    mode: str
    images: int
    pairs: list[tuple[str, str]]
    skipped: dict[str, str] = field(default_factory=dict)


def choose_pairs(
    folder: str | Path,
    mode: str = "exhaustive",
    *,
    names: Sequence[str] | None = None,
    overlap: int = 10,
    quadratic: bool = False,
    max_distance: float = 100.0,
    neighbours: int = 50,
) -> PairsSummary:
    """Choose the image pairs of a folder.

    Args:
        folder: of the images.
        mode: `exhaustive`, `sequential` (names in natural order, so that 2 comes before 10) or `spatial` (GPS in EXIF).
        names: only these images, relative to the folder; all of them if None.
        overlap: sequential: each image with so many that follow it.
        quadratic: sequential: also with those 2, 4, 8, ... further, up to 2^(overlap - 1), against drift.
        max_distance: spatial: metres at most between the two.
        neighbours: spatial: each image with at most so many of its nearest.

    Raises:
        OptionError: the mode is unknown, a number cannot work, or spatial pairs are asked for and fewer than two
            images have GPS.
    """
    if mode not in MODES:
        raise OptionError(
            f"mode {mode!r} is unknown: choose one of {', '.join(MODES)}, or retrieval of a features file"
        )
    found = list(names) if names is not None else list_images(folder)
    if mode == "exhaustive":
        return PairsSummary(mode, len(found), exhaustive_pairs(found))
    if mode == "sequential":
        return PairsSummary(mode, len(found), sequential_pairs(found, overlap, quadratic))
    located, skipped = _positions(Path(folder), found)
    if len(located) < 2:
        raise OptionError(
            f"spatial pairs need GPS in the EXIF data: {len(located)} of {len(found)} images in {folder} have it; "
            "use mode exhaustive or sequential"
        )
    pairs = spatial_pairs(list(located), np.array(list(located.values())), max_distance, neighbours)
    return PairsSummary(mode, len(found), pairs, skipped)


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which `img2` comes before `img10`; equal numbers with other zeros keep an order of their own."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def exhaustive_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Every image with every other, once; N (N - 1) / 2 pairs."""
    return [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]


def sequential_pairs(names: Sequence[str], overlap: int = 10, quadratic: bool = False) -> list[tuple[str, str]]:
    """Each image with the `overlap` that follow it in natural order, and with those 2, 4, 8, ... on if `quadratic`.

    Raises:
        OptionError: the overlap is below 1.
    """
    if overlap < 1:
        raise OptionError(f"overlap must be 1 or more, got {overlap}")
    ordered = sorted(names, key=natural_key)
    steps = set(range(1, overlap + 1))
    if quadratic:
        # A sequence of N images needs no step beyond N, however large the overlap.
        steps |= {1 << power for power in range(min(overlap, len(ordered).bit_length()))}
    return [(a, ordered[i + step]) for i, a in enumerate(ordered) for step in sorted(steps) if i + step < len(ordered)]


def spatial_pairs(
    names: Sequence[str], positions: NDArray[np.float64], max_distance: float = 100.0, neighbours: int = 50
) -> list[tuple[str, str]]:
    """Each image with its nearest within reach; a pair that is near from either side is taken once.

    Args:
        names: of N images.
        positions: (N, 3) degrees latitude, degrees longitude, metres altitude, NaN where unknown. If any is unknown
            altitude is left out for all: a mixture would tear neighbours apart.

    Raises:
        OptionError: a limit is not positive.
    """
    if max_distance <= 0 or neighbours < 1:
        raise OptionError(f"max distance and neighbours must be positive, got {max_distance} and {neighbours}")
    metres = _to_metres(positions)
    chosen: set[tuple[int, int]] = set()
    for start in range(0, len(metres), CHUNK):
        block = metres[start : start + CHUNK]
        squared = np.zeros((len(block), len(metres)))
        for axis in range(3):
            squared += np.square(block[:, None, axis] - metres[None, :, axis])
        rows = np.arange(len(block))
        squared[rows, start + rows] = np.inf
        count = min(neighbours, len(metres) - 1)
        nearest = np.argpartition(squared, count - 1, axis=1)[:, :count] if count else np.empty((len(block), 0), int)
        near = np.take_along_axis(squared, nearest, axis=1) <= max_distance**2
        left, right = (start + np.nonzero(near)[0]), nearest[near]
        chosen.update(zip(np.minimum(left, right).tolist(), np.maximum(left, right).tolist(), strict=True))
    return [(names[i], names[j]) for i, j in sorted(chosen)]


def _positions(folder: Path, names: Sequence[str]) -> tuple[dict[str, tuple[float, float, float]], dict[str, str]]:
    located: dict[str, tuple[float, float, float]] = {}
    skipped: dict[str, str] = {}
    for name in names:
        try:
            place = gps(folder / name)
        except ImageError as error:
            skipped[name] = str(error).removeprefix(f"{folder / name}: ")
            continue
        if place is None:
            skipped[name] = "no GPS in its EXIF data"
        else:
            altitude = float("nan") if place.altitude is None else place.altitude
            located[name] = (place.latitude, place.longitude, altitude)
    return located, skipped


def _to_metres(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Earth-centred coordinates of WGS84 positions: straight distances, right at the date line and at the poles."""
    latitude, longitude = np.radians(positions[:, 0]), np.radians(positions[:, 1])
    altitude = positions[:, 2] if np.isfinite(positions[:, 2]).all() else np.zeros(len(positions))
    normal = EARTH_RADIUS / np.sqrt(1 - EARTH_ECCENTRICITY2 * np.sin(latitude) ** 2)
    across = (normal + altitude) * np.cos(latitude)
    up = (normal * (1 - EARTH_ECCENTRICITY2) + altitude) * np.sin(latitude)
    return np.stack([across * np.cos(longitude), across * np.sin(longitude), up], axis=1)
