"""Presets, peers and files of features side by side on the relative poses of photos with known cameras."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmark.estimators import Estimator, has_poselib
from ..benchmark.scenes import Scene, read_scene
from ..errors import DataError, OptionError
from ..features import Features
from ..matching import match, method_settings
from ..metrics.pose import DEGREES, epipolar_distance, pose_error, relative_pose
from ..metrics.recall import recall_auc
from ..store import FeatureReader, read_pairs
from .contestants import Contest, Contestant, contestants, measured, state_of
from .homography import check_matching, place_for
from .ledger import Ledger, ledger_place
from .match import FeatureCache
from .progress import progress_bar

SHARED = 30
PRECISE = 1.0
"""Pixels off the epipolar line within which a match counts as right in the precision."""
_CACHE = 256 << 20


@dataclass(frozen=True)
class PoseScores:
    """One contestant's figures over all pairs.

    Args:
        label: who. pairs: how many.
        keypoints: mean an image. matches: mean a pair.
        precision: mean share of matches within a pixel of the true epipolar lines; 0 for a pair without any.
        auc: by estimator, area under recall of the pose error up to 5, 10 and 20 degrees, in [0, 1].
        median: by estimator, median pose error in degrees; None where half of the pairs or more have no pose.
        each: figures pair by pair; errors None where there is no pose.
    """

    label: str
    pairs: int
    keypoints: float
    matches: float
    precision: float
    auc: dict[str, dict[float, float]]
    median: dict[str, float | None]
    each: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class PoseSummary:
    """What `evaluate_pose` measured; `skipped` images could not be read, and pairs of them are left out."""

    folder: str
    cameras: str
    images: int
    pairs: int
    settings: dict[str, Any]
    scores: list[PoseScores]
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)


def evaluate_pose(
    folder: str | Path,
    options: Contest | None = None,
    *,
    cameras: str | Path | None = None,
    pairs: str | Path | None = None,
    shared: int = SHARED,
    method: str = "smnn",
    ratio: float = 0.9,
    estimators: Sequence[str] = (),
    threshold: float = 1.0,
    seed: int = 0,
    work: str | Path | None = None,
    quiet: bool = False,
) -> PoseSummary:
    """Measure the relative poses that matches give, on pairs of photos with known cameras.

    Args:
        folder, cameras: as `benchmark.scenes.read_scene` takes them.
        options: who takes part.
        pairs: a file of pairs; else those that see `shared` known points in common, or all where no points are known.
        method, ratio: of the matching, the same for all.
        estimators: see `benchmark.estimators`; MAGSAC++ and, where it is installed, PoseLib if empty.
        threshold: of the estimators, pixels off the epipolar line.
        seed: of the estimators.
        work: features and figures are kept in it and used again; None keeps nothing.
        quiet: no progress on a terminal.

    Raises:
        OptionError: an option that cannot work.
        DataError, ReconstructionError: cameras that are damaged, or no pair.
        StoreError, WeightsError: features or weights that cannot be read.
    """
    started, options = time.perf_counter(), options or Contest()
    check_matching(method, ratio)
    asked = tuple(dict.fromkeys(estimators)) or ("magsac", *(["poselib"] if has_poselib() else []))
    robust = [Estimator(name, threshold, seed) for name in asked]
    scene = read_scene(folder, cameras)
    chosen = _chosen(scene, pairs, shared)
    names = sorted({name for pair in chosen for name in pair})
    found, state = contestants(options), state_of(scene.photos, names)
    terms = {"method": method, **method_settings(method), "ratio": ratio, "threshold": threshold, "seed": seed}

    with place_for(work) as kept:

        def measure(one: Contestant, path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
            with FeatureReader(path) as reader:
                there = set(reader.names())
                usable = [pair for pair in chosen if there.issuperset(pair)]
                truth = {name: _known(scene, name) for name in names}
                book = Ledger(
                    ledger_place(kept, "pose", one.label, terms, asked),
                    [terms, asked, state, reader.settings_hash, truth],
                )
                cache = FeatureCache(reader.read, _CACHE)
                with progress_bar(one.label, len(usable), "pair", done=len(book.figures), quiet=quiet) as bar:
                    for pair in usable:
                        if " ".join(pair) not in book.figures:
                            sides = cache.get(pair[0]), cache.get(pair[1])
                            book.add(
                                " ".join(pair), _figures(scene, pair, sides, robust, method, ratio, options.device)
                            )
                            bar.update()
                return one.label, {" ".join(pair): book.figures[" ".join(pair)] for pair in usable}

        results, skipped = measured(found, scene.photos, names, kept, options, quiet, measure)
    common = [" ".join(pair) for pair in chosen if all(" ".join(pair) in each for _, each in results)]
    scores = [_scores(label, {key: each[key] for key in common}, asked) for label, each in results]
    settings = {**terms, "estimators": list(asked), "keypoints": options.keypoints, "max_size": options.max_size}
    seconds = round(time.perf_counter() - started, 3)
    return PoseSummary(str(folder), str(scene.source), len(names), len(common), settings, scores, seconds, skipped)


def _chosen(scene: Scene, listed: str | Path | None, shared: int) -> list[tuple[str, str]]:
    if listed is None:
        if shared < 1:
            raise OptionError(f"pairs must share 1 point or more, got {shared}")
        pairs = scene.pairs(shared)
        if not pairs:
            raise DataError(f"{scene.source}: no two photos see {shared} known points in common; ask for fewer")
    else:
        pairs = [pair for pair in read_pairs(listed) if pair[0] != pair[1]]
        unknown = sorted({name for pair in pairs for name in pair} - set(scene.poses))
        if unknown or not pairs:
            what = f"{unknown[0]!r} has no known camera" if unknown else "there is no pair in it"
            raise DataError(f"{listed}: {what}")
    together = [pair for pair in pairs if _from_one_place(scene, *pair)]
    if together:
        raise DataError(
            f"{scene.source}: {together[0][0]} and {together[0][1]} were taken from one place: no direction"
        )
    return pairs


def _from_one_place(scene: Scene, first: str, second: str) -> bool:
    """Whether two cameras' centres are the same but for rounding."""
    a, b = (-rotation.T @ translation for rotation, translation in (scene.poses[first], scene.poses[second]))
    return bool(np.linalg.norm(a - b) <= 1e-9 * max(np.linalg.norm(a), np.linalg.norm(b)))


def _known(scene: Scene, name: str) -> list[Any]:
    rotation, translation = scene.poses[name]
    camera = scene.cameras[name]
    return [rotation.tolist(), translation.tolist(), str(camera.model), [float(value) for value in camera.params]]


def _figures(
    scene: Scene,
    pair: tuple[str, str],
    sides: tuple[Features, Features],
    robust: Sequence[Estimator],
    method: str,
    ratio: float,
    device: str,
) -> dict[str, Any]:
    """Of one pair."""
    rows = match(*sides, method, ratio, device).pairs
    rays = [
        scene.rays(name, features.keypoints[rows[:, k]])
        for k, (name, features) in enumerate(zip(pair, sides, strict=True))
    ]
    # Where a lens model explains no ray, there is no geometry.
    fine = np.isfinite(rays[0]).all(axis=1) & np.isfinite(rays[1]).all(axis=1)
    first, second = rays[0][fine], rays[1][fine]
    true = relative_pose(*scene.poses[pair[0]], *scene.poses[pair[1]])
    focal = (scene.focal(pair[0]) + scene.focal(pair[1])) / 2
    off = epipolar_distance(first, second, *true) * focal
    errors = {}
    for estimator in robust:
        turn, move, larger = pose_error(estimator.relative_pose(first, second, focal), true)
        errors[estimator.name] = [turn, move, larger] if np.isfinite(larger) else None
    return {
        "keypoints": [len(features) for features in sides],
        "matches": len(rows),
        "precision": float((off <= PRECISE).sum() / len(rows)) if len(rows) else 0.0,
        "errors": errors,
    }


def _scores(label: str, each: dict[str, dict[str, Any]], estimators: Sequence[str]) -> PoseScores:
    rows = list(each.values())
    auc, median = {}, {}
    for name in estimators:
        errors = [np.inf if row["errors"][name] is None else row["errors"][name][2] for row in rows]
        auc[name] = recall_auc(errors, DEGREES)
        middle = float(np.median(errors)) if errors else np.inf
        median[name] = middle if np.isfinite(middle) else None
    return PoseScores(
        label=label,
        pairs=len(rows),
        keypoints=float(np.mean([count for row in rows for count in row["keypoints"]])) if rows else 0.0,
        matches=float(np.mean([row["matches"] for row in rows])) if rows else 0.0,
        precision=float(np.mean([row["precision"] for row in rows])) if rows else 0.0,
        auc=auc,
        median=median,
        each=each,
    )
