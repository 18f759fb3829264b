"""The HPatches benchmark (Balntas et al., CVPR 2017) over descriptors of its sequences, with its own task files.

A sequence `i_NAME` (light changes) or `v_NAME` (viewpoint) has descriptors of 16 views: `ref`, and five each with
easy (`e1`, ...), hard (`h1`, ...) and tough (`t1`, ...) errors of frame; row k of each is the same place. The figures
are those of the public hpatches-benchmark, in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from .patches import POOLS, matching_ap, retrieval_map, verification_map

NOISE = {"e": "easy", "h": "hard", "t": "tough"}
VIEWS = ("ref", *(f"{noise}{number}" for noise in NOISE for number in range(1, 6)))
KINDS = {"i": "illumination", "v": "viewpoint"}
Sequences = Mapping[str, Mapping[str, NDArray[np.float32]]]
"""Name of a sequence to name of a view to descriptors (N, D)."""
_PAIR = [("one", "U64"), ("view1", "i8"), ("row1", "i8"), ("other", "U64"), ("view2", "i8"), ("row2", "i8")]
_PLACE = [("one", "U64"), ("row1", "i8")]
_AT_ONCE = 1 << 16


@dataclass(frozen=True, eq=False)
class Tasks:
    """What one split of the benchmark measures; sequences are numbered in the order of `names`.

    Args:
        names: of the sequences.
        positive, intra, inter: (N, 6) int64 pairs of patches, (sequence, image, row) twice; image 0 is the reference.
        queries, distractors: (Q, 2) and (K, 2) int64, (sequence, row) of reference patches.
    """

    names: tuple[str, ...]
    positive: NDArray[np.int64]
    intra: NDArray[np.int64]
    inter: NDArray[np.int64]
    queries: NDArray[np.int64]
    distractors: NDArray[np.int64]


def read_tasks(folder: Path, split: str) -> Tasks:
    """The task files of a split, as the benchmark's repository has them in its folder `tasks`.

    Args:
        folder: with `verif_pos_split-X.csv`, `verif_neg_intra_split-X.csv`, `verif_neg_inter_split-X.csv`,
            `retr_queries_split-X.csv` and `retr_distractors_split-X.csv`.
        split: X: a, b, c, full, illum or view.

    Raises:
        DataError: a file is missing or damaged.
    """

    def table(name: str, columns: list[tuple[str, str]]) -> NDArray[np.void]:
        path = folder / f"{name}_split-{split}.csv"
        if not path.is_file():
            there = sorted(p.stem.rpartition("-")[2] for p in folder.glob("verif_pos_split-*.csv"))
            raise DataError(f"{path}: no such file; {folder} has the splits {', '.join(there) or '(none)'}")
        try:
            found = np.atleast_1d(np.loadtxt(path, dtype=columns, delimiter=",", skiprows=1, encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{path} is not a task file of the hpatches-benchmark: {error}") from error
        if not len(found):
            raise DataError(f"{path} has no rows")
        return found

    pairs = [table(f"verif_{name}", _PAIR) for name in ("pos", "neg_intra", "neg_inter")]
    places = [table(f"retr_{name}", _PLACE) for name in ("queries", "distractors")]
    columns = [part[name] for part in pairs for name in ("one", "other")] + [part["one"] for part in places]
    names, number = np.unique(np.concatenate(columns), return_inverse=True)
    numbers = iter(np.split(number.astype(np.int64), np.cumsum([len(column) for column in columns])[:-1]))
    verification = [
        np.stack([next(numbers), part["view1"], part["row1"], next(numbers), part["view2"], part["row2"]], axis=1)
        for part in pairs
    ]
    retrieval = [np.stack([next(numbers), part["row1"]], axis=1) for part in places]
    return Tasks(tuple(str(name) for name in names), *verification, *retrieval)


@dataclass(frozen=True)
class HPatchesFigures:
    """Figures by name; `mean` of each is what papers print.

    Args:
        matching: `easy/viewpoint`, `easy/illumination`, ..., `viewpoint`, `illumination`, `mean`.
        verification: `easy/intra/balanced` (area under ROC), `easy/intra/imbalanced` (average precision), ...,
            `balanced`, and `mean`, of the imbalanced ones; empty without task files.
        retrieval: `easy`, `hard`, `tough`, `mean`, over pools of `POOLS`; empty without task files.
        pairs: of the matching task, by sequence and by `easy`, `hard`, `tough`: average precision of each of the five
            images against the reference.
    """

    matching: dict[str, float]
    verification: dict[str, float]
    retrieval: dict[str, float]
    pairs: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def hpatches_figures(sequences: Sequences, tasks: Tasks | None = None, device: str = "cpu") -> HPatchesFigures:
    """Measure descriptors on the sequences of a split, or without one, the matching task on all.

    Args:
        sequences: their descriptors. Those of a split take 0.5 GB in 128 dimensions, all of HPatches 1.3 GB.
        tasks: of the split.
        device: where distances are computed.

    Raises:
        DataError: a sequence or view is missing, its shape does not fit, or a task points beyond its rows.
    """
    names = tuple(sorted(sequences)) if tasks is None else tasks.names
    table = _Table(sequences, names, torch.device(device))
    pairs = _pairs(table)
    matching = _matching(pairs)
    if tasks is None:
        return HPatchesFigures(matching, {}, {}, pairs)
    return HPatchesFigures(matching, _verification(table, tasks), _retrieval(table, tasks), pairs)


class _Table:
    """Descriptors of all views in one array."""

    def __init__(self, sequences: Sequences, names: tuple[str, ...], device: torch.device) -> None:
        self.names, self.device = names, device
        counts, parts = [], []
        for name in names:
            if name not in sequences:
                raise DataError(f"there are no descriptors of the sequence {name}")
            views = sequences[name]
            missing = [view for view in VIEWS if view not in views]
            if missing:
                raise DataError(f"the sequence {name} lacks the view {missing[0]}")
            shapes = {views[view].shape for view in VIEWS}
            if len(shapes) > 1 or len(views["ref"].shape) != 2 or not len(views["ref"]):
                raise DataError(f"the views of {name} need descriptors (N, D) of one shape, got {sorted(shapes)}")
            counts.append(len(views["ref"]))
            parts.append(np.concatenate([views[view] for view in VIEWS]))
        if len({part.shape[1] for part in parts}) != 1:
            raise DataError(f"descriptors of {len({p.shape[1] for p in parts})} different lengths, or none at all")
        self.counts = np.array(counts)
        self.starts = np.concatenate([[0], np.cumsum(len(VIEWS) * self.counts)[:-1]])
        self.rows = torch.from_numpy(np.concatenate(parts)).float()

    def view(self, sequence: int, view: str) -> Tensor:
        start = self.starts[sequence] + VIEWS.index(view) * self.counts[sequence]
        return self.rows[start : start + self.counts[sequence]].to(self.device)

    def find(self, sequence: NDArray[np.int64], view: NDArray[np.int64], row: NDArray[np.int64]) -> Tensor:
        """Numbers of rows; a view by its place in `VIEWS`."""
        beyond = np.flatnonzero((row < 0) | (row >= self.counts[sequence]))
        if len(beyond):
            name = self.names[int(sequence[beyond[0]])]
            raise DataError(f"a task asks for patch {int(row[beyond[0]])} of {name}, which has fewer")
        return torch.from_numpy(self.starts[sequence] + view * self.counts[sequence] + row)

    def take(self, rows: Tensor) -> Tensor:
        return self.rows[rows].to(self.device)


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _pairs(table: _Table) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    for k, name in enumerate(table.names):
        reference = table.view(k, "ref")
        found[name] = {
            title: [matching_ap(reference, table.view(k, f"{noise}{number}")) for number in range(1, 6)]
            for noise, title in NOISE.items()
        }
    return found


def _matching(pairs: Mapping[str, Mapping[str, list[float]]]) -> dict[str, float]:
    found: dict[tuple[str, str], list[float]] = {}
    for name, noises in pairs.items():
        for noise, title in NOISE.items():
            found.setdefault((noise, name[:1]), []).append(_mean(noises[title]))
    out = {f"{NOISE[noise]}/{KINDS.get(kind, kind)}": _mean(values) for (noise, kind), values in found.items()}
    kinds = {}
    for kind in sorted({kind for _, kind in found}):
        kinds[KINDS.get(kind, kind)] = _mean(_mean(found[noise, kind]) for noise in NOISE)
    return {**out, **kinds, "mean": _mean(kinds.values())}


def _verification(table: _Table, tasks: Tasks) -> dict[str, float]:
    out: dict[str, float] = {}
    for offset, noise in enumerate(NOISE):

        def distances(pairs: NDArray[np.int64], offset: int = offset) -> Tensor:
            ends = []
            for sequence, image, row in (pairs[:, :3].T, pairs[:, 3:].T):
                if ((image < 0) | (image > 5)).any():
                    raise DataError("a task asks for an image beyond the six of a sequence")
                # image 0 is the reference, image i the i-th view with these errors
                ends.append(table.find(sequence, np.where(image > 0, 5 * offset + image, 0), row))
            parts = [
                (table.take(one) - table.take(other)).norm(dim=1)
                for one, other in zip(*(torch.split(end, _AT_ONCE) for end in ends), strict=True)
            ]
            return torch.cat(parts)

        figures = verification_map(*(distances(pairs) for pairs in (tasks.positive, tasks.intra, tasks.inter)))
        for part in ("intra_balanced", "inter_balanced", "intra_imbalanced", "inter_imbalanced"):
            out[f"{NOISE[noise]}/{part.replace('_', '/')}"] = getattr(figures, part)
    for last in ("balanced", "imbalanced"):
        out["mean" if last == "imbalanced" else last] = _mean(v for k, v in out.items() if k.endswith(f"/{last}"))
    return out


def _retrieval(table: _Table, tasks: Tasks) -> dict[str, float]:
    (query, row), (other, place) = tasks.queries.T, tasks.distractors.T
    queries = table.take(table.find(query, np.zeros_like(query), row))
    distractors = table.take(table.find(other, np.zeros_like(other), place))
    allowed = torch.from_numpy(query[:, None] != other[None])
    out = {}
    for offset, noise in enumerate(NOISE):
        views = [table.take(table.find(query, np.full_like(query, 5 * offset + k), row)) for k in range(1, 6)]
        out[NOISE[noise]] = _mean(retrieval_map(queries, torch.stack(views, 1), distractors, allowed, POOLS).values())
    return {**out, "mean": _mean(out.values())}
