"""How well a descriptor matches the held-out photos of a model, on frames that stay the same whoever describes them.

Every pair is of a held-out photo and another one, and only the held-out photo's keypoints on the measuring part of the
scene count (see `holdout`); all keypoints of the other photo compete. Two questions are asked. *Tracks*: is the
keypoint of the other photo that the model knows to be the same point the nearest? That gives FPR95 and the matching
mAP. *Matches*: of what the usual matcher finds, how much do the model's cameras allow? That gives the inlier ratio and
the number of correct matches, and does not depend on which matches the model was made of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import DataError
from ..features import Features
from ..images import read_image
from ..inference import PatchNetwork, run_tiled
from ..matching import match
from ..metrics.patches import average_precision, fpr95
from ..patches import extract_patches
from ..pyramid import as_image, patch_pyramid
from ..sfm.views import NO_POINT, View, epipolar_distance
from .holdout import MEASURE, Split

SLACK = 0.002
"""How far a correct match may be from its epipolar line, as a share of the photo's longer side."""
SAME_KEYPOINT = 2.0
"""Keypoints of a photo that lie so near, in pixels, stand for one point: detectors find some twice."""
LEAST_POINTS, FEWEST_POINTS = 30, 8
"""Points that a pair should have, for one of a few points says little; and must have, where no pair has so many."""
PARTNERS = 3
_AT_ONCE = 2048


@dataclass(frozen=True)
class PairFigures:
    """One pair of photos.

    Args:
        held, other: names.
        points: of the measuring part that both show.
        average_precision: of the nearest keypoints, nearest first, over these points; in [0, 1].
        rank1: share of the points whose nearest keypoint is the right one.
        matches, correct: found by the matcher, and of these allowed by the cameras.
    """

    held: str
    other: str
    points: int
    average_precision: float
    rank1: float
    matches: int
    correct: int


@dataclass(frozen=True)
class Figures:
    """All pairs together: means over the pairs of what a pair has one of, FPR95 over all points, counts added up."""

    fpr95: float
    matching_map: float
    rank1: float
    matches: int
    correct: int
    inlier_ratio: float
    pairs: tuple[PairFigures, ...]


@dataclass(frozen=True, eq=False)
class Answers:
    """What was found in one pair.

    Args:
        first, second: places of the two photos among the views.
        queries, answers: (Q,) keypoints of the first and of the second photo that observe the same point.
        nearest: (Q,) keypoints of the second photo that are nearest to the queries.
        right: (Q,) whether the nearest is at the answer's place.
        matches: (M, 2) what the matcher found.
        allowed: (M,) whether the cameras allow it.
    """

    first: int
    second: int
    queries: NDArray[np.intp]
    answers: NDArray[np.intp]
    nearest: NDArray[np.intp]
    right: NDArray[np.bool_]
    matches: NDArray[np.int32]
    allowed: NDArray[np.bool_]


def measured(view: View, split: Split) -> NDArray[np.bool_]:
    """(N,) which keypoints of a photo lie on the measuring part; one without a point goes with the nearest that has."""
    known = np.flatnonzero(view.point != NO_POINT)
    out = np.zeros(len(view.point), dtype=bool)
    if not len(known):
        return out
    mine = split.part(view.position[known]) == MEASURE
    places = torch.from_numpy(np.ascontiguousarray(view.lafs[:, :, 2]))
    for start in range(0, len(out), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        out[rows] = mine[torch.cdist(places[rows], places[known]).argmin(dim=1).numpy()]
    return out


def held_pairs(views: Sequence[View], split: Split, partners: int = PARTNERS) -> list[tuple[int, int]]:
    """Pairs (held-out photo, other photo), places in `views`.

    Partners of a held-out photo are spread evenly from the one that shares most points to the one that shares fewest,
    for easy and hard changes of view alike. Two held-out photos are paired once. Pairs with fewer than `LEAST_POINTS`
    measured points in common are left out, or with fewer than `FEWEST_POINTS` where all have fewer.

    Raises:
        DataError: there is no pair.
    """
    points = [np.unique(view.point[(view.point != NO_POINT) & measured(view, split)]) for view in views]
    held = [place for place, view in enumerate(views) if view.name in split.held]
    shared = {
        one: {other: len(np.intersect1d(points[one], points[other])) for other in range(len(views)) if other != one}
        for one in held
    }
    most = max((count for counts in shared.values() for count in counts.values()), default=0)
    least = LEAST_POINTS if most >= LEAST_POINTS else FEWEST_POINTS
    found: dict[frozenset[int], tuple[int, int]] = {}
    for one, counts in shared.items():
        ranked = sorted((place for place in counts if counts[place] >= least), key=lambda place: -counts[place])
        chosen = np.linspace(0, len(ranked) - 1, min(partners, len(ranked))).round().astype(int)
        for other in (ranked[number] for number in chosen):
            found.setdefault(frozenset((one, other)), (one, other))
    if not found:
        raise DataError("the held-out photos share too few points with any other; nothing could be measured")
    return list(found.values())


def view_patches(
    view: View, rows: NDArray[np.intp] | slice, photos: Path, size: int, max_size: int | None = None
) -> torch.Tensor:
    """(N, 1, size, size) float32 patches of some keypoints of a photo, as extraction cuts them.

    Raises:
        ImageError: the photo cannot be read.
    """
    picture = read_image(photos / view.name, max_size=max_size)
    lafs = torch.from_numpy(picture.from_original(view.lafs[rows]))
    with torch.inference_mode():
        return extract_patches(patch_pyramid(as_image(picture.pixels)), lafs, size)


def describe_views(
    network: PatchNetwork,
    views: Sequence[View],
    wanted: Sequence[int],
    photos: Path,
    *,
    max_size: int | None = None,
    device: torch.device | str = "cpu",
) -> dict[int, Features]:
    """Features of some photos, in the model's frames, by their place in `views`.

    Args:
        network: any descriptor; it is not changed.
        wanted: places in `views`.
        photos: their folder.
        max_size: photos are shrunk to this longer side first, as extraction does.

    Raises:
        ImageError: a photo cannot be read.
    """
    where = torch.device(device)
    ready = network.eval().fused().to(where)
    out = {}
    for place in wanted:
        view = views[place]
        patches = view_patches(view, slice(None), photos, network.patch_size, max_size)
        descriptors = run_tiled(ready, patches.to(where)).cpu().numpy()
        out[place] = Features(view.lafs, np.ones(len(descriptors), dtype=np.float32), descriptors, view.size)
    return out


def measure(
    features: Mapping[int, Features],
    views: Sequence[View],
    pairs: Sequence[tuple[int, int]],
    split: Split,
    *,
    method: str = "smnn",
    ratio: float = 0.9,
    device: torch.device | str = "cpu",
) -> tuple[Figures, list[Answers]]:
    """The figures over `held_pairs`, and what they were made of.

    Args:
        features: of the photos of the pairs, by place; in the views' frames.
        method, ratio: of the matcher, as in `matching.match`.

    Raises:
        OptionError: the matcher does not know the method.
    """
    rows: list[PairFigures] = []
    answers: list[Answers] = []
    positive: list[NDArray[np.float64]] = []
    negative: list[NDArray[np.float64]] = []
    counting = {place: measured(views[place], split) for place in {first for first, _ in pairs}}
    for first, second in pairs:
        one, other, counts = views[first], views[second], counting[first]
        matches = match(features[first], features[second], method=method, ratio=ratio, device=device).pairs
        matches = matches[counts[matches[:, 0]]]
        allowed = epipolar_distance(one, other, matches) <= SLACK * max(*one.size, *other.size)
        queries, right_ones = common_points(one, other, counts)
        distance = _distances(features[first].descriptors[queries], features[second].descriptors)
        every = np.arange(len(queries))
        near = _same_keypoint(other, right_ones)
        nearest = distance.argmin(axis=1)
        right = near[every, nearest]
        scores = torch.from_numpy(-distance[every, nearest])
        precision = average_precision(scores, torch.from_numpy(right), len(queries))
        counted = (len(queries), precision, float(right.mean()), len(matches), int(allowed.sum()))
        rows.append(PairFigures(one.name, other.name, *counted))
        answers.append(Answers(first, second, queries, right_ones, nearest, right, matches, allowed))
        positive.append(distance[every, right_ones])
        negative.append(distance[:, right_ones][~near[:, right_ones]])
    made, correct = sum(row.matches for row in rows), sum(row.correct for row in rows)
    figures = Figures(
        fpr95=fpr95(torch.from_numpy(np.concatenate(positive)), torch.from_numpy(np.concatenate(negative))),
        matching_map=float(np.mean([row.average_precision for row in rows])),
        rank1=float(np.mean([row.rank1 for row in rows])),
        matches=made,
        correct=correct,
        inlier_ratio=correct / max(made, 1),
        pairs=tuple(rows),
    )
    return figures, answers


def common_points(one: View, other: View, counts: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Keypoints of both photos that observe the same point, row by row; of several in a photo the first.

    Args:
        counts: (N,) bool, which keypoints of the first photo are asked for.
    """
    points = np.where(counts, one.point, NO_POINT)
    shared, first, second = np.intersect1d(points, other.point, return_indices=True)
    real = shared != NO_POINT
    return first[real], second[real]


def _distances(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    one, other = (torch.from_numpy(np.asarray(values, dtype=np.float32)) for values in (first, second))
    return np.asarray(torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").double().numpy())


def _same_keypoint(view: View, rows: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(R, N): is a keypoint at the place of one of these?"""
    places = torch.from_numpy(np.ascontiguousarray(view.lafs[:, :, 2]))
    return np.asarray((torch.cdist(places[rows], places) <= SAME_KEYPOINT).numpy())
