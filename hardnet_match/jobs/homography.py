"""Presets, peers and files of features side by side on planar pairs with known homographies."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmark.estimators import Estimator
from ..benchmark.sequences import PlanarPair, read_sequences
from ..errors import OptionError
from ..features import Features
from ..matching import Options, match, method_named, method_settings
from ..metrics.homography import (
    PIXELS,
    corner_error,
    in_shared_view,
    matching_accuracy,
    matching_score,
    repeatability,
    transfer_errors,
)
from ..metrics.recall import recall_auc
from ..store import FeatureReader
from .contestants import Contest, Contestant, contestants, measured, state_of
from .ledger import Ledger, ledger_place
from .match import FeatureCache
from .progress import progress_bar

CORNERS = (3, 5, 10)
CORRECT = 3
"""Pixels within which a match counts as correct in the matching score and the counts."""
_CACHE = 256 << 20


@dataclass(frozen=True)
class HomographyScores:
    """One contestant's figures over all pairs; shares in [0, 1].

    Args:
        label: who. pairs: how many.
        keypoints: mean an image. matches, correct: sums; correct within 3 px.
        accuracy: mean matching accuracy at 1, ..., 10 px.
        matching_score, repeatability: means over pairs, at 3 px.
        auc: of the corner error, up to 3, 5 and 10 px.
        sequences: accuracy at 3 px by sequence.
        each: figures pair by pair.
    """

    label: str
    pairs: int
    keypoints: float
    matches: int
    correct: int
    accuracy: dict[int, float]
    matching_score: float
    repeatability: float
    auc: dict[float, float]
    sequences: dict[str, float]
    each: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class HomographySummary:
    """What `evaluate_homography` measured; `skipped` images could not be read, and pairs of them are left out."""

    folder: str
    pairs: int
    settings: dict[str, Any]
    scores: list[HomographyScores]
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)


def evaluate_homography(
    folder: str | Path,
    options: Contest | None = None,
    *,
    method: str = "smnn",
    ratio: float = 0.9,
    estimator: str = "ransac",
    threshold: float = 3.0,
    seed: int = 0,
    work: str | Path | None = None,
    quiet: bool = False,
) -> HomographySummary:
    """Measure matching and homographies on every pair of a folder of sequences.

    Args:
        folder: as `benchmark.sequences.read_sequences` takes it.
        options: who takes part.
        method, ratio: of the matching, the same for all.
        estimator, threshold, seed: of the homography, see `benchmark.estimators`.
        work: features and figures are kept in it and used again; None keeps nothing.
        quiet: no progress on a terminal.

    Raises:
        OptionError: an option that cannot work.
        DataError: no pair, or a damaged one.
        StoreError, WeightsError: features or weights that cannot be read.
    """
    started, options = time.perf_counter(), options or Contest()
    check_matching(method, ratio)
    robust = Estimator(estimator, threshold, seed)
    pairs = read_sequences(folder)
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.first, pair.second)))
    found, state = contestants(options), state_of(Path(folder), names)
    terms = {
        "method": method,
        **method_settings(method),
        "ratio": ratio,
        "estimator": estimator,
        "threshold": threshold,
        "seed": seed,
    }

    with place_for(work) as kept:

        def measure(one: Contestant, path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
            with FeatureReader(path) as reader:
                there = set(reader.names())
                usable = [pair for pair in pairs if {pair.first, pair.second} <= there]
                truth = [[pair.name, pair.first, pair.second, pair.homography.tolist()] for pair in usable]
                book = Ledger(
                    ledger_place(kept, "homography", one.label, terms), [terms, state, reader.settings_hash, truth]
                )
                cache = FeatureCache(reader.read, _CACHE)
                with progress_bar(one.label, len(usable), "pair", done=len(book.figures), quiet=quiet) as bar:
                    for pair in usable:
                        if pair.name not in book.figures:
                            sides = cache.get(pair.first), cache.get(pair.second)
                            book.add(pair.name, _figures(pair, *sides, robust, method, ratio, options.device))
                            bar.update()
                return one.label, {pair.name: book.figures[pair.name] for pair in usable}

        results, skipped = measured(found, Path(folder), names, kept, options, quiet, measure)
    sequence = {pair.name: pair.sequence for pair in pairs}
    common = [pair.name for pair in pairs if all(pair.name in each for _, each in results)]
    scores = [_scores(label, {name: each[name] for name in common}, sequence) for label, each in results]
    settings = {**terms, "keypoints": options.keypoints, "max_size": options.max_size}
    seconds = round(time.perf_counter() - started, 3)
    return HomographySummary(str(folder), len(common), settings, scores, seconds, skipped)


def check_matching(method: str, ratio: float) -> None:
    """OptionError unless both can work."""
    method_named(method)
    Options(ratio=ratio)


def place_for(work: str | Path | None) -> Any:
    """A context that gives the folder to keep things in: the one named, made if its parent exists, or one that goes.

    Raises:
        OptionError: the parent is missing, or a file is in its place.
    """
    if work is None:
        return _Temporary()
    place = Path(work)
    if not place.parent.is_dir() or (place.exists() and not place.is_dir()):
        raise OptionError(f"{place} cannot be the work folder: its parent is missing, or it is a file")
    place.mkdir(exist_ok=True)
    return nullcontext(place)


class _Temporary(tempfile.TemporaryDirectory[str]):
    def __enter__(self) -> Path:  # type: ignore[override]
        return Path(super().__enter__())


def _figures(
    pair: PlanarPair, a: Features, b: Features, robust: Estimator, method: str, ratio: float, device: str
) -> dict[str, Any]:
    """Of one pair."""
    rows = match(a, b, method, ratio, device).pairs
    xy0, xy1 = a.keypoints[rows[:, 0]], b.keypoints[rows[:, 1]]
    errors = transfer_errors(pair.homography, xy0, xy1)
    correct = int((errors <= CORRECT).sum())
    back = np.asarray(np.linalg.inv(pair.homography), dtype=np.float64)
    shared0 = int(in_shared_view(pair.homography, a.keypoints, b.image_size).sum())
    shared1 = int(in_shared_view(back, b.keypoints, a.image_size).sum())
    corner = corner_error(robust.homography(xy0, xy1), pair.homography, a.image_size)
    return {
        "keypoints": [len(a), len(b)],
        "matches": len(rows),
        "correct": correct,
        "accuracy": matching_accuracy(errors).tolist(),
        "matching_score": matching_score(correct, shared0, shared1),
        "repeatability": repeatability(pair.homography, a.keypoints, b.keypoints, a.image_size, b.image_size, CORRECT),
        "corner_error": corner if np.isfinite(corner) else None,
    }


def _scores(label: str, each: dict[str, dict[str, Any]], sequence: dict[str, str]) -> HomographyScores:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else 0.0

    rows = list(each.values())
    corners = [np.inf if row["corner_error"] is None else row["corner_error"] for row in rows]
    accuracy = np.array([row["accuracy"] for row in rows]).reshape(-1, len(PIXELS))
    at = PIXELS.index(CORRECT)
    of = {
        name: [row["accuracy"][at] for key, row in each.items() if sequence[key] == name] for name in sequence.values()
    }
    return HomographyScores(
        label=label,
        pairs=len(rows),
        keypoints=mean([count for row in rows for count in row["keypoints"]]),
        matches=sum(row["matches"] for row in rows),
        correct=sum(row["correct"] for row in rows),
        accuracy={pixel: mean(accuracy[:, k].tolist()) for k, pixel in enumerate(PIXELS)},
        matching_score=mean([row["matching_score"] for row in rows]),
        repeatability=mean([row["repeatability"] for row in rows]),
        auc=recall_auc(corners, CORNERS),
        sequences={name: mean(values) for name, values in of.items()},
        each=each,
    )
