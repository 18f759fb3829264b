"""Summaries of the comparisons as tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..report.scores import Column, ScoreTable
from .brown import BrownSummary
from .evaluate import RetrievalScores
from .homography import HomographySummary
from .hpatches import HPatchesSummary
from .pose import PoseSummary
from .sfm_scores import SfmSummary

KINDS = {"i_": "illumination", "v_": "viewpoint"}
MOST_COLUMNS = 12


def brown_tables(found: BrownSummary) -> list[ScoreTable]:
    """FPR95 of each descriptor."""
    columns = (Column("dim", 0, None), Column("FPR95 %", 2, False, share=True))
    rows = {one.label: (one.dim, one.fpr95) for one in found.scores}
    return [ScoreTable(f"{found.set}: {found.pairs:,} pairs", columns, rows, "descriptor")]


def hpatches_tables(found: HPatchesSummary) -> list[ScoreTable]:
    """The three tasks' means, and every part of them."""
    tasks = {
        "verification": found.figures.verification,
        "matching": found.figures.matching,
        "retrieval": found.figures.retrieval,
    }
    there = {name: figures for name, figures in tasks.items() if figures}
    columns = tuple(Column(f"{name} mAP", 2, share=True) for name in there)
    label = Path(found.descriptors).name
    tables = [
        ScoreTable(f"split {found.split or 'of all there are'}", columns, {label: [f["mean"] for f in there.values()]})
    ]
    for name, figures in there.items():
        parts = {part: (value,) for part, value in figures.items()}
        tables.append(ScoreTable(name.capitalize(), (Column("per cent", 2, None, share=True),), parts, "part"))
    return tables


def retrieval_tables(found: RetrievalScores) -> list[ScoreTable]:
    """Means by protocol, and average precision query by query."""
    ranks = list(dict.fromkeys(k for scores in found.protocols.values() for k in scores.precision))
    columns = (
        Column("queries", 0, None),
        Column("mAP", 2, None, True),
        *(Column(f"mP@{k}", 2, None, True) for k in ranks),
    )
    rows = {
        name: (scores.queries, scores.map, *(scores.precision.get(k) for k in ranks))
        for name, scores in found.protocols.items()
    }
    names = list(found.protocols)
    each = {
        f"{number}. {one.query}": [one.average_precision.get(name) for name in names]
        for number, one in enumerate(found.queries, 1)
    }
    by_query = ScoreTable("Average precision by query", [Column(n, 2, None, True) for n in names], each, "query")
    return [ScoreTable(f"{found.images:,} images", columns, rows, "protocol"), by_query]


def homography_tables(found: HomographySummary) -> list[ScoreTable]:
    """Means over all pairs; accuracy at 3 px by sequence; correct matches pair by pair."""
    shares = ("MMA@1", "MMA@3", "MMA@5", "MMA@10", "m. score", "repeat.", "AUC@3", "AUC@5", "AUC@10")
    columns = (
        Column("keypoints", 0, None), Column("matches", 0, None), Column("correct", 0),
        *(Column(name, 1, share=True) for name in shares),
    )  # fmt: skip
    rows = {
        one.label: (
            one.keypoints, one.matches, one.correct, *(one.accuracy[pixel] for pixel in (1, 3, 5, 10)),
            one.matching_score, one.repeatability, *one.auc.values(),
        )
        for one in found.scores
    }  # fmt: skip
    tables = [ScoreTable(_counted(found.pairs, "pair"), columns, rows)]
    parts = {one.label: _by_part(one.sequences) for one in found.scores}
    names = list(parts[found.scores[0].label])
    if 1 < len(names) <= MOST_COLUMNS:
        columns = tuple(Column(name, 1, share=True) for name in names)
        by = {label: [part[name] for name in names] for label, part in parts.items()}
        tables.append(ScoreTable("Matching accuracy at 3 px by sequence, per cent", columns, by))
    labels = tuple(Column(one.label, 0) for one in found.scores)
    pairs = {name: [one.each[name]["correct"] for one in found.scores] for name in found.scores[0].each}
    tables.append(_across("Correct matches within 3 px, pair by pair", labels, pairs))
    return tables


def pose_tables(found: PoseSummary) -> list[ScoreTable]:
    """Means over all pairs, and pose errors pair by pair with the first estimator."""
    estimators = found.settings["estimators"]
    columns = [Column("keypoints", 0, None), Column("matches", 0, None), Column("precision", 1, share=True)]
    for name in estimators:
        columns += [Column(f"{name} AUC@{degrees}", 1, share=True) for degrees in (5, 10, 20)]
        columns.append(Column(f"{name} median °", 2, False))
    rows = {}
    for one in found.scores:
        cells: list[float | None] = [one.keypoints, one.matches, one.precision]
        for name in estimators:
            cells += [*one.auc[name].values(), one.median[name]]
        rows[one.label] = cells
    labels = tuple(Column(one.label, 2, False) for one in found.scores)
    pairs = {
        pair: [None if (e := one.each[pair]["errors"][estimators[0]]) is None else e[2] for one in found.scores]
        for pair in found.scores[0].each
    }
    return [
        ScoreTable(f"{_counted(found.pairs, 'pair')} of {found.images} images", columns, rows),
        _across(f"Pose error with {estimators[0]}, degrees, pair by pair", labels, pairs),
    ]


def sfm_tables(found: SfmSummary) -> list[ScoreTable]:
    """The largest model of each; of several mappings the one in the middle, and between which points they lie."""
    columns = [
        Column("keypoints", 0, None), Column("inliers", 0), Column("registered", 0), Column("models", 0, False),
        Column("points", 0), Column("observations", 0), Column("track", 2), Column("reproj. px", 3, False),
    ]  # fmt: skip
    spread = found.settings["repeats"] > 1
    if spread:
        columns += [Column("fewest points", 0, None), Column("most points", 0, None)]
    if found.cameras:
        columns += [Column("rotation °", 3, False), Column("position %", 3, False, share=True)]
    rows: dict[str, list[float | None]] = {}
    for one in found.scores:
        there = one.models > 0
        cells: list[float | None] = [one.keypoints, one.inliers, one.registered, one.models or None, one.points]
        cells += [one.observations, one.track_length if there else None, one.reprojection_error if there else None]
        if spread:
            points = [points for _, points in one.runs]
            cells += [min(points), max(points)]
        if found.cameras:
            known: Mapping[str, Any] = one.cameras or {}
            cells += [known.get("rotation_median_degrees"), known.get("position_median")]
        rows[one.label] = cells
    return [ScoreTable(f"{found.images} images", columns, rows)]


def _by_part(sequences: Mapping[str, float]) -> dict[str, float]:
    """The sequences' figures; of HPatches, whose names say what changes in them, the means of the two kinds."""
    if not sequences or not all(name[:2] in KINDS for name in sequences):
        return dict(sequences)
    kinds: dict[str, list[float]] = {}
    for name, value in sequences.items():
        kinds.setdefault(KINDS[name[:2]], []).append(value)
    return {kind: sum(values) / len(values) for kind, values in kinds.items()}


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _across(title: str, labels: tuple[Column, ...], pairs: Mapping[str, list[Any]]) -> ScoreTable:
    """A row a pair, a column a contestant: the best is of a row there, so none is marked."""
    plain = [Column(column.name, column.digits, None) for column in labels]
    return ScoreTable(title, plain, pairs, "pair")
