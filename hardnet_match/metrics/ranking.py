"""Figures of a ranking: average precision and precision at k, as the Oxford / Paris benchmarks define them.

Classic protocol: J. Philbin et al., "Object retrieval with large vocabularies and fast spatial matching", CVPR 2007
(junk images are taken out of the ranking before anything is counted; average precision is the area under the
precision-recall curve by the trapezoidal rule). Revisited: F. Radenovic et al., "Revisiting Oxford and Paris", CVPR
2018 (the same average precision, and mean precision at k).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

KAPPAS = (1, 5, 10)
Image = TypeVar("Image", bound=Hashable)


@dataclass(frozen=True)
class RankedQuery:
    """One query's result, reduced to what scoring needs.

    Args:
        positions: (P,) int64, zero-based ranks of the positives that were found, junk taken out, ascending.
        positives: how many positives there are, found or not.
    """

    positions: NDArray[np.int64]
    positives: int


def locate(ranking: Sequence[Hashable], positives: Collection[Hashable], junk: Collection[Hashable]) -> RankedQuery:
    """Where a ranking holds the positives once its junk is taken out.

    Args:
        ranking: image names or numbers, best first; it may end early, what is missing was not found.
        positives: what should have been found.
        junk: what counts neither for nor against (the query itself among it, where it is in the database).

    Raises:
        DataError: an image is ranked twice, or is both positive and junk.
    """
    if len(set(ranking)) != len(ranking):
        twice = next(image for place, image in enumerate(ranking) if image in ranking[:place])
        raise DataError(f"a ranking holds {twice!r} twice; each image is ranked once")
    wanted, ignored = set(positives), set(junk)
    if wanted & ignored:
        raise DataError(f"{next(iter(wanted & ignored))!r} is both positive and junk for one query")
    kept = [image for image in ranking if image not in ignored]
    return RankedQuery(np.array([place for place, image in enumerate(kept) if image in wanted], np.int64), len(wanted))


def trapezoidal_ap(query: RankedQuery) -> float:
    """Area under the precision-recall curve by the trapezoidal rule, in [0, 1]; NaN without positives.

    At the j-th positive (from 0), found at rank r (from 0), recall grows by 1 / positives, and precision goes from
    j / r (1 if r = 0) to (j + 1) / (r + 1).
    """
    if not query.positives:
        return float("nan")
    found = np.arange(len(query.positions))
    rank = query.positions
    before = np.where(rank == 0, 1.0, found / np.maximum(rank, 1))
    after = (found + 1) / (rank + 1)
    return float(((before + after) / 2).sum() / query.positives)


def precision_at(query: RankedQuery, k: int) -> float:
    """Share of positives among the first k, in [0, 1]; NaN without positives.

    As in the revisited benchmark, a query all of whose positives come earlier is cut at its last positive, so that
    one with three positives can reach 1 at k = 10. Positives that were not found at all leave the cut at k.

    Raises:
        DataError: k is below 1.
    """
    if k < 1:
        raise DataError(f"precision at k needs a k of 1 or more, got {k}")
    if not query.positives:
        return float("nan")
    if len(query.positions) == query.positives:
        k = min(k, int(query.positions[-1]) + 1)
    return float((query.positions < k).sum() / k)


@dataclass(frozen=True)
class RankingScores:
    """Means over the queries that have positives, all in [0, 1].

    `mean_precision` maps k to mP@k; `average_precision` has every query's own, NaN for a query without positives;
    `counted` queries are in the means.
    """

    mean_average_precision: float
    mean_precision: dict[int, float]
    average_precision: list[float]
    counted: int


def score_rankings(queries: Iterable[RankedQuery], kappas: Sequence[int] = KAPPAS) -> RankingScores:
    """mAP and mP@k of a set of queries; those without positives are left out of the means.

    The means are NaN if no query has a positive.
    """
    rows = list(queries)
    precisions = [trapezoidal_ap(row) for row in rows]
    counted = [row for row in rows if row.positives]
    return RankingScores(
        _mean([value for row, value in zip(rows, precisions, strict=True) if row.positives]),
        {k: _mean([precision_at(row, k) for row in counted]) for k in kappas},
        precisions,
        len(counted),
    )


def revisited_protocols(
    easy: Collection[Image], hard: Collection[Image], junk: Collection[Image]
) -> dict[str, tuple[frozenset[Image], frozenset[Image]]]:
    """(positives, junk) of the three setups: easy, medium (easy and hard are sought) and hard."""
    e, h, j = frozenset(easy), frozenset(hard), frozenset(junk)
    return {"easy": (e, j | h), "medium": (e | h, j), "hard": (h, j | e)}


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
