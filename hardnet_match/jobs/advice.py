"""What a user should know of a reconstruction that is not perfect: what is wrong, whom it concerns, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..report.parts import Warn
from ..sfm.pair_counts import PairCounts

FEW_KEYPOINTS = 100
FEW_POINTS = 50
SHORT_TRACK = 2.6
LARGE_ERROR = 1.2
FEW_INLIERS_SHARE = 0.25
BLURRED = 0.25
"""Sharpness, over the median of the others', below which a photo is called blurred."""


@dataclass(frozen=True)
class Case:
    """A finished run, as advice is given on it.

    Args:
        counts: of the database, None where there is none.
        models: names of the images of each model, the largest first.
        skipped: images that could not be used, with the reason.
        seen: points that each image of the first model sees.
        points, track_length, reprojection_error: of the first model.
        settings: of the extraction. pairs: how pairs were chosen (a mode or a file).
        camera_model, camera_mode: as they were asked for.
        sharpness: of some images, over the median of the registered ones'.
    """

    counts: PairCounts
    models: Sequence[Sequence[str]]
    skipped: Mapping[str, str] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    points: int = 0
    track_length: float = 0.0
    reprojection_error: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    pairs: str = "exhaustive"
    camera_model: str = "SIMPLE_RADIAL"
    camera_mode: str = "auto"
    sharpness: Mapping[str, float] = field(default_factory=dict)


def advice(case: Case) -> list[Warn]:
    """All there is to say about a run, none where it went well."""
    found = [
        _skipped(case),
        _unregistered(case),
        _several(case),
        _weak(case),
        _few_keypoints(case),
        _inliers(case),
        _tracks(case),
        _error(case),
        _turning(case),
        _blurred(case),
    ]
    return [warning for warning in found if warning is not None]


def outside(case: Case) -> list[str]:
    """Images of the database that are not in the first model, sorted."""
    inside = set(case.models[0]) if case.models else set()
    return [name for name in case.counts.names if name not in inside]


def reason(case: Case, name: str) -> str:
    """Why an image is not in the first model, in words."""
    counts = case.counts
    row = counts.names.index(name)
    for number, images in enumerate(case.models[1:], 1):
        if name in images:
            return f"it is in model {number} (sparse/{number}), with {_photos(len(images) - 1, 'other')}"
    mine = np.flatnonzero((counts.pairs == row).any(axis=1))
    soft = case.sharpness.get(name, 1.0)
    blur = f"; it looks blurred ({soft:.0%} of the others' sharpness)" if soft < BLURRED else ""
    if counts.keypoints[row] < FEW_KEYPOINTS:
        return f"it has {counts.keypoints[row]} keypoints: too dark, too bright, or without texture{blur}"
    if not len(mine):
        return f"it was in no pair{blur}"
    partners = counts.pairs[mine].sum(axis=1) - row
    verified = counts.inliers[mine] > 0
    if not verified.any():
        best = int(counts.matches[mine].max())
        return f"it agrees with no photo; the best of its {_pairs(len(mine))} has {best} matches, none verified{blur}"
    inside = set(case.models[0]) if case.models else set()
    linked = [place for place in np.flatnonzero(verified) if counts.names[partners[place]] in inside]
    if inside and not linked:
        others = [counts.names[partners[place]] for place in np.flatnonzero(verified)]
        return f"it agrees only with {_listed(others)}, not in the model either{blur}"
    best_place = max(linked or list(np.flatnonzero(verified)), key=lambda place: int(counts.inliers[mine[place]]))
    inliers, partner = int(counts.inliers[mine[best_place]]), counts.names[partners[best_place]]
    also = f", in {_pairs(int(verified.sum()))} in all" if verified.sum() > 1 else ""
    return f"it shares too little with the model: {inliers} inliers with {partner} at best{also}{blur}"


def _skipped(case: Case) -> Warn | None:
    if not case.skipped:
        return None
    return Warn(
        f"{_photos(len(case.skipped))} could not be used.",
        "Mend or remove them; the same command then goes on with the rest.",
        list(case.skipped.items()),
    )


def _unregistered(case: Case) -> Warn | None:
    names = outside(case)
    if not names:
        return None
    tips = ["Take photos in between, that overlap with these by half"]
    if case.pairs not in ("exhaustive", "retrieval"):
        tips.append("match more pairs (--pairs exhaustive or retrieval)")
    tips.append(_more_features(case))
    if case.models and sum("shares too little" in reason(case, name) for name in names) > len(names) / 2:
        tips.append("another mapper (--mapper global or incremental): these photos do agree with some of the model")
    if not case.models:
        what = "Nothing could be reconstructed."
    else:
        what = f"{_photos(len(names))} {'is' if len(names) == 1 else 'are'} not in the model."
    return Warn(what, "; or ".join(tips) + ".", [(name, reason(case, name)) for name in names])


def _more_features(case: Case) -> str:
    keypoints, size = case.settings.get("max_keypoints"), case.settings.get("max_size")
    asked = f"more keypoints (--max-keypoints {2 * int(keypoints)})" if keypoints else "more keypoints"
    return f"{asked} on larger images (--max-size {2 * int(size)})" if size and int(size) < 3000 else asked


def _several(case: Case) -> Warn | None:
    if len(case.models) < 2:
        return None
    sizes = ", ".join(str(len(images)) for images in case.models)
    return Warn(
        f"The photos fell into {len(case.models)} models, of {sizes} photos; this page shows the first.",
        "Nothing ties them together: photos that show parts of both would. If they do overlap, try more keypoints or "
        "another preset.",
    )


def _weak(case: Case) -> Warn | None:
    weak = sorted((count, name) for name, count in case.seen.items() if count < FEW_POINTS)
    if not weak:
        return None
    return Warn(
        f"{_photos(len(weak))} of the model {'sees' if len(weak) == 1 else 'see'} fewer than {FEW_POINTS} points; "
        "do not rely on where the camera is.",
        "More photos around there, or " + _more_features(case) + ", would settle it.",
        [(name, f"{count} points") for count, name in weak],
        grave=False,
    )


def _few_keypoints(case: Case) -> Warn | None:
    counts = case.counts
    few = [name for name, count in zip(counts.names, counts.keypoints, strict=True) if count < FEW_KEYPOINTS]
    inside = set(case.models[0]) if case.models else set()
    few = [name for name in few if name in inside]
    if not few:
        return None
    found = dict(zip(counts.names, counts.keypoints.tolist(), strict=True))
    return Warn(
        f"{_photos(len(few))} {'has' if len(few) == 1 else 'have'} fewer than {FEW_KEYPOINTS} keypoints.",
        "They are too dark, too bright, or without texture; a mask may hide too much.",
        [(name, f"{found[name]} keypoints") for name in few],
        grave=False,
    )


def _inliers(case: Case) -> Warn | None:
    verified = case.counts.inliers > 0
    matches = int(case.counts.matches[verified].sum())
    if not matches:
        return None
    share = int(case.counts.inliers.sum()) / matches
    if share >= FEW_INLIERS_SHARE:
        return None
    return Warn(
        f"Only {share:.0%} of the matches of verified pairs are inliers.",
        "That is how repeated patterns and moving things look: a stricter --ratio 0.8, --method adalam, or masks over "
        "what moves help.",
        grave=False,
    )


def _tracks(case: Case) -> Warn | None:
    if not case.points or case.track_length >= SHORT_TRACK or len(case.models[0]) < 4:
        return None
    return Warn(
        f"A point is seen in {case.track_length:.2f} photos on average: the photos overlap little.",
        "Aim for every part of the scene in three photos or more; for a video, take more of its frames.",
        grave=False,
    )


def _error(case: Case) -> Warn | None:
    if not case.points or case.reprojection_error <= LARGE_ERROR:
        return None
    other = "OPENCV" if case.camera_model.startswith("SIMPLE") else "SIMPLE_RADIAL"
    return Warn(
        f"The mean reprojection error is {case.reprojection_error:.2f} pixels, more than sharp photos give.",
        f"The cameras may not be what was assumed: try --camera-model {other}, or --camera-mode per-image if the "
        "photos were cropped, resized or taken by several cameras.",
        grave=False,
    )


def _turning(case: Case) -> Warn | None:
    whole = sum(case.counts.kinds.values())
    still = case.counts.kinds.get("panoramic", 0)
    if whole < 3 or still < 0.5 * whole:
        return None
    return Warn(
        f"{still} of {whole} verified pairs were taken from one spot, by turning the camera.",
        "Depth needs another point of view: step aside between photos.",
    )


def _blurred(case: Case) -> Warn | None:
    inside = set(case.models[0]) if case.models else set()
    soft = sorted((value, name) for name, value in case.sharpness.items() if value < BLURRED and name in inside)
    if not soft:
        return None
    return Warn(
        f"{_photos(len(soft))} {'looks' if len(soft) == 1 else 'look'} blurred, and few of their points are exact.",
        "Leave them out if there are sharp ones of the same place.",
        [(name, f"{value:.0%} of the others' sharpness") for value, name in soft],
        grave=False,
    )


def _photos(count: int, kind: str = "") -> str:
    return f"{count:,} {f'{kind} ' if kind else ''}photo{'' if count == 1 else 's'}"


def _pairs(count: int) -> str:
    return f"{count} pair{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown
