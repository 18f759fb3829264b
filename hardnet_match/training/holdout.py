"""Parting a scene into what is learned from, what a run is chosen by, and what it is measured on.

Two cuts, through the photos and through the scene. Some photos are held out: no pixel of theirs is learned from. And
the scene's points are laid in a row along the direction in which they spread most: one end is for measuring, a strip
beside it for choosing, the rest for learning. A figure is then taken between a held-out photo and another one, on
points of the measuring end, of which nothing was learned whatever photo shows them. Points of the learning part whose
region covers the centre of a point of another part, or whose centre is covered, are left out: they show the same place.
A region that shows a point as a small detail does not count as covering it: one as large as a facade would leave
nothing to learn from.

A split by photos alone would not do: most points of a small scene are seen by some held-out photo, so either they
would be learned from other photos and then measured, or next to nothing would be left to learn from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..frames import laf_scale
from ..sfm.views import NO_POINT, View

LEARN, CHOOSE, MEASURE = 0, 1, 2
MEASURED_SHARE = 0.35
"""Share of the scene's points that is measured on."""
CHOSEN_SHARE = 0.12
"""Share of the scene's points that a run is chosen by; they also keep the measured and the learned ones apart."""
DETAIL = 3.0
"""A region so many times as large as a point's own shows the point as a detail."""
FEWEST_PHOTOS = 4
FEWEST_POINTS = 100
_AT_ONCE = 1 << 22

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Split:
    """Who is for what.

    Args:
        held: names of the photos that nothing is learned from, sorted.
        axis: (3,) direction along which the scene is cut; the measuring end comes first.
        cuts: positions along it where the measuring part and the choosing part end.
    """

    held: tuple[str, ...]
    axis: NDArray[np.float64]
    cuts: tuple[float, float]

    def part(self, positions: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
        """`LEARN`, `CHOOSE` or `MEASURE` of points (N, 3), (N,)."""
        along = np.asarray(positions, dtype=np.float64) @ self.axis
        return np.where(along <= self.cuts[0], MEASURE, np.where(along <= self.cuts[1], CHOOSE, LEARN))

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"held": list(self.held), "axis": self.axis.tolist(), "cuts": list(self.cuts)}

    @classmethod
    def from_plain(cls, value: Mapping[str, Any]) -> Split:
        """Out of what `plain` gave."""
        first, second = value["cuts"]
        return cls(tuple(value["held"]), np.asarray(value["axis"], dtype=np.float64), (float(first), float(second)))


@dataclass(frozen=True, eq=False)
class Points:
    """The points of a model.

    Args:
        ids: (P,) int64, sorted.
        position: (P, 3) float64.
        size: (P,) float64, the radius of the largest region that a photo shows of it, in the unit of `position`.
    """

    ids: Ids
    position: NDArray[np.float64]
    size: NDArray[np.float64]


def points_of(views: Sequence[View]) -> Points:
    """The points that some views see."""
    ids, positions, sizes = [], [], []
    for view in views:
        rows = np.flatnonzero(view.point != NO_POINT)
        depth = view.position[rows] @ view.rotation[2] + view.translation[2]
        ids.append(view.point[rows])
        positions.append(view.position[rows])
        sizes.append(laf_scale(view.lafs[rows]) * depth / view.focal)
    every = np.concatenate(ids) if ids else np.zeros(0, dtype=np.int64)
    found, first, group = np.unique(every, return_index=True, return_inverse=True)
    size = np.zeros(len(found))
    if len(found):
        np.maximum.at(size, group, np.concatenate(sizes))
    return Points(found, np.concatenate(positions)[first] if len(found) else np.zeros((0, 3)), size)


def make_split(views: Sequence[View], share: float = 0.2, seed: int = 0) -> Split:
    """Choose the photos to hold out and the cuts through the scene.

    The photos are taken in order of their names (neighbours see about the same), in as many runs as are held out; of
    each run the one that sees most of the measuring part is held out. `seed` decides which end is measured.

    Args:
        views: of one model.
        share: of the photos to hold out; one at least, and three are left to learn from.

    Raises:
        DataError: there are too few photos or points.
    """
    if len(views) < FEWEST_PHOTOS:
        raise DataError(f"holding photos out needs {FEWEST_PHOTOS} registered photos or more, got {len(views)}")
    points = points_of(views)
    if len(points.ids) < FEWEST_POINTS:
        raise DataError(
            f"the model has {len(points.ids)} points; {FEWEST_POINTS} or more are needed to learn and to measure. "
            "Take more photos that overlap, or more keypoints"
        )
    axis = _longest(points.position) * (1 if np.random.default_rng(seed).random() < 0.5 else -1)
    first, second = np.quantile(points.position @ axis, [MEASURED_SHARE, MEASURED_SHARE + CHOSEN_SHARE])
    ordered = sorted(views, key=lambda view: view.name)
    count = min(max(1, round(share * len(ordered))), len(ordered) - 3)
    with np.errstate(invalid="ignore"):
        seen = np.array([np.count_nonzero(view.position @ axis <= first) for view in ordered])
    runs = np.array_split(np.arange(len(ordered)), count)
    held = sorted(ordered[run[np.argmax(seen[run])]].name for run in runs)
    return Split(tuple(held), axis, (float(first), float(second)))


def _longest(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Direction in which points spread most, their outermost tenth drawn in: a stray point far away decides nothing."""
    low, high = np.quantile(points, [0.05, 0.95], axis=0)
    core = np.clip(points, low, high)
    axis = np.linalg.svd(core - core.mean(axis=0), full_matrices=False)[2][0]
    return np.asarray(axis * np.sign(axis[np.argmax(np.abs(axis))]))


def learning_points(views: Sequence[View], split: Split) -> Ids:
    """Points that may be learned from: of the learning part, and showing no place that another part's point shows."""
    points = points_of(views)
    mine = split.part(points.position) == LEARN
    taken = _overlap(points.position[mine], points.size[mine], points.position[~mine], points.size[~mine])
    return np.asarray(points.ids[mine][~taken])


def choosing_points(views: Sequence[View], split: Split) -> Ids:
    """Points that a run is chosen by."""
    points = points_of(views)
    return np.asarray(points.ids[split.part(points.position) == CHOOSE])


def _overlap(
    points: NDArray[np.float64],
    sizes: NDArray[np.float64],
    others: NDArray[np.float64],
    other_sizes: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """(N,) is one of the others so near that its centre lies in this region, or this centre in its region, be it not
    `DETAIL` times as large?"""
    found = np.zeros(len(points), dtype=bool)
    if not len(others):
        return found
    step = max(1, _AT_ONCE // len(others))
    for start in range(0, len(points), step):
        rows = slice(start, start + step)
        square = np.square(points[rows, None] - others[None]).sum(axis=2)
        mine = sizes[rows, None]
        reach = np.maximum(mine, np.where(other_sizes < DETAIL * mine, other_sizes, 0.0))
        found[rows] = (square < np.square(reach)).any(axis=1)
    return found
