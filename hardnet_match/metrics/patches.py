"""How well descriptors tell matching patches from others: FPR95, and the three tasks of HPatches.

The tasks (Balntas et al., CVPR 2017) are those of the public hpatches-benchmark, with its average precision: the area
under precision over recall by trapezoids, beginning at precision 1 with recall 0. Distances decide; on equal ones, the
order of the arguments does, as told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import DataError

POOLS = (100, 500, 1000, 5000, 10000, 15000, 20000)
"""Sizes of the pools that the benchmark retrieves from, positives included."""
IMBALANCE = 0.2
"""Positives a negative in the benchmark's imbalanced verification."""
_AT_ONCE = 1 << 24
"""Comparisons that retrieval holds in memory at a time."""


def fpr95(positive: Tensor, negative: Tensor, recall: float = 0.95) -> float:
    """Share of negative distances below the threshold that keeps 95 % of the positive ones (Brown et al., 2011).

    The threshold is the least positive distance at which the recall is reached. Negatives at the threshold count as
    errors.

    Args:
        positive: (N,) distances of matching pairs.
        negative: (M,) of others.
        recall: share of the positive ones to keep, in (0, 1].

    Returns:
        FP / (FP + TN), in [0, 1].

    Raises:
        DataError: no positive or no negative distance, or one is NaN.
    """
    positive, negative = _distances(positive, "positive"), _distances(negative, "negative")
    if not 0 < recall <= 1:
        raise DataError(f"recall must lie in (0, 1], got {recall}")
    # in whole numbers, so that 95 % of 20 is 19 and not 19.000000000000004
    keep = -(-round(recall * 10**6) * len(positive) // 10**6)
    threshold = positive.kthvalue(max(keep, 1)).values
    return float((negative <= threshold).double().mean())


def pair_figures(anchors: Tensor, positives: Tensor, ignore: Tensor | None = None) -> dict[str, float]:
    """FPR95 over all other rows as negatives, and how often the own row is the nearest (rank 1).

    Args:
        anchors, positives: (N, D) descriptors.
        ignore: (N, N) bool, pairs that are no negatives.

    Returns:
        `fpr95` and `rank1`, both in [0, 1].
    """
    distances = torch.cdist(_double(anchors), _double(positives))
    own = torch.eye(len(anchors), dtype=torch.bool, device=distances.device)
    skip = own if ignore is None else own | ignore.to(distances.device)
    others = distances.masked_fill(skip, float("inf"))
    first = (distances.diagonal() < others.min(dim=1).values).double().mean()
    return {"fpr95": fpr95(distances.diagonal(), distances[~skip]), "rank1": float(first)}


def average_precision(scores: Tensor, labels: Tensor, positives: int | None = None, *, trapezoid: bool = True) -> float:
    """Area under precision over recall of a ranking.

    Args:
        scores: (N,), higher is better; equal ones keep their order, and -inf was not found at all.
        labels: (N,) bool.
        positives: how many there are altogether, found or not; those of `labels` when None.
        trapezoid: as the hpatches-benchmark has it; else the mean of the precision at every positive, as scikit-learn
            (but for ties) has it.

    Returns:
        in [0, 1]; 0 where there is no positive.

    Raises:
        DataError: shapes differ, a score is NaN, or `positives` is less than there are.
    """
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise DataError(f"scores and labels are (N,) both, got {tuple(scores.shape)} and {tuple(labels.shape)}")
    if scores.isnan().any():
        raise DataError("a score is NaN")
    scores, labels = _double(scores), _double(labels).bool()
    total = int(labels.sum()) if positives is None else positives
    if total < int(labels.sum()):
        raise DataError(f"{int(labels.sum())} positives are labelled, more than the {total} said to be there")
    order = scores.argsort(descending=True, stable=True)
    ranked = labels[order][scores[order] > float("-inf")]
    true = ranked.double().cumsum(0)
    place = torch.arange(1, len(ranked) + 1, device=ranked.device, dtype=torch.float64)
    precision = true / place
    if trapezoid:
        before = torch.cat([precision.new_ones(1), precision[:-1]])
        precision = (precision + before) / 2
    return float((precision * ranked).sum() / max(total, 1))


def roc_area(positive: Tensor, negative: Tensor) -> float:
    """Area under the ROC curve: the chance that a matching pair is nearer than another one.

    Args:
        positive, negative: (N,) and (M,) distances. The negative one of two equal ones counts as nearer, as in the
            hpatches-benchmark.
    """
    positive, negative = _distances(positive, "positive"), _distances(negative, "negative")
    nearer = torch.searchsorted(negative.sort().values, positive, right=True)
    return 1 - float(nearer.double().mean()) / len(negative)


@dataclass(frozen=True)
class Verification:
    """Areas under curves, in [0, 1]; negatives are of the same image sequence (intra) or of another one (inter).

    Args:
        intra_balanced, inter_balanced: under the ROC curve, as many positives as negatives.
        intra_imbalanced, inter_imbalanced: average precision, with one positive to five negatives.
    """

    intra_balanced: float
    inter_balanced: float
    intra_imbalanced: float
    inter_imbalanced: float

    @property
    def balanced(self) -> float:
        """Mean of intra and inter."""
        return (self.intra_balanced + self.inter_balanced) / 2

    @property
    def imbalanced(self) -> float:
        """Mean of intra and inter: the verification mAP that papers print."""
        return (self.intra_imbalanced + self.inter_imbalanced) / 2


def verification_map(positive: Tensor, intra: Tensor, inter: Tensor) -> Verification:
    """The verification task: is this pair of patches a match?

    Args:
        positive: (N,) distances of matching pairs; the first fifth of them is used where positives are few.
        intra, inter: (M,) distances of pairs that do not match, of one sequence and of two. Of equal distances, the
            negative one comes first.

    Raises:
        DataError: an array is empty, or has a NaN.
    """
    few = positive[: max(int(IMBALANCE * len(positive)), 1)]

    def precision(negative: Tensor) -> float:
        scores = -torch.cat([negative, few])
        return average_precision(scores, torch.arange(len(scores), device=scores.device) >= len(negative))

    balanced = [roc_area(positive, negative) for negative in (intra, inter)]
    return Verification(balanced[0], balanced[1], precision(intra), precision(inter))


def matching_ap(reference: Tensor, other: Tensor, ignore: Tensor | None = None) -> float:
    """Average precision of matching one image to another: row i of the one shows what row i of the other shows.

    Every reference patch goes to its nearest of the other image; nearest first, right ones are positives, and a patch
    whose match is wrong is one that was not found.

    Args:
        reference, other: (N, D).
        ignore: (N, N) bool, patches (of the other image) that do not compete, say because they show the same place.
    """
    if len(reference) != len(other) or not len(reference):
        raise DataError(
            f"the matching task needs as many patches in both images, and one at least; got {len(reference)} and "
            f"{len(other)}"
        )
    distances = torch.cdist(_double(reference), _double(other))
    own = torch.arange(len(reference), device=distances.device)
    if ignore is not None:
        ignore = ignore.to(distances.device) & (own[:, None] != own[None])
        distances = distances.masked_fill(ignore, float("inf"))
    nearest, row = distances.min(dim=1)
    return average_precision(-nearest, row == own, len(reference))


def matching_map(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The matching task: mean of `matching_ap` over pairs (reference (N, D), other (N, D)) of images."""
    found = [matching_ap(reference, other) for reference, other in pairs]
    if not found:
        raise DataError("the matching task needs a pair of images")
    return sum(found) / len(found)


def retrieval_map(
    queries: Tensor,
    positives: Tensor,
    distractors: Tensor,
    allowed: Tensor | None = None,
    pools: Sequence[int] = POOLS,
) -> dict[int, float]:
    """The retrieval task: mean average precision of finding a patch's other views among distractors.

    Args:
        queries: (Q, D).
        positives: (Q, K, D), the other views of each.
        distractors: (N, D), in an order of their own: a pool of P holds the K positives and the first P - K of the
            distractors allowed to the query.
        allowed: (Q, N) bool; those of the query's own sequence are not. All when None.
        pools: sizes P, more than K each.

    Returns:
        Size of the pool to mAP in [0, 1]. A pool larger than what there is holds what there is; the figure that papers
        print is the mean over the seven sizes of `POOLS`.

    Raises:
        DataError: no query, or shapes that do not fit.
    """
    count, views = positives.shape[:2]
    if not count or not views or len(queries) != count or not len(distractors):
        raise DataError(
            f"retrieval needs queries (Q, D), positives (Q, K, D) and distractors (N, D), got {tuple(queries.shape)}, "
            f"{tuple(positives.shape)} and {tuple(distractors.shape)}"
        )
    if min(pools) <= views:
        raise DataError(f"a pool must be larger than the {views} positives of a query, got {min(pools)}")
    far = _double(distractors)
    total = dict.fromkeys(pools, 0.0)
    step = max(_AT_ONCE // (len(distractors) * views), 1)
    for start in range(0, count, step):
        part = slice(start, start + step)
        query = _double(queries[part])
        own = torch.cdist(query[:, None], _double(positives[part]))[:, 0].sort(dim=1).values
        distances = torch.cdist(query, far)
        if allowed is None:
            place = torch.arange(1, len(distractors) + 1, device=query.device).expand_as(distances)
        else:
            mine = allowed[part].to(query.device)
            distances = distances.masked_fill(~mine, float("inf"))
            place = mine.cumsum(1)
        # Of two equal distances the positive one comes first, as the benchmark's stable sort has it.
        nearer = distances[:, None] < own[:, :, None]
        for pool in pools:
            false = (nearer & (place <= pool - views)[:, None]).sum(2).double()
            total[pool] += float(_area(false).sum())
    return {pool: value / count for pool, value in total.items()}


def _area(false: Tensor) -> Tensor:
    """(Q,) trapezoids under precision over recall, of the distractors (Q, K) ahead of every positive in turn."""
    found = torch.arange(false.shape[1], device=false.device, dtype=false.dtype)
    after = (found + 1) / (found + 1 + false)
    before = torch.where(found + false > 0, found / (found + false).clamp(min=1), 1)
    return (before + after).mean(dim=1) / 2


def _distances(distances: Tensor, kind: str) -> Tensor:
    if distances.ndim != 1 or not len(distances):
        raise DataError(f"{kind} distances must be (N,) with N of one or more, got {tuple(distances.shape)}")
    if distances.isnan().any():
        raise DataError(f"a {kind} distance is NaN")
    return _double(distances)


def _double(values: Tensor) -> Tensor:
    """In double precision, where the device has it; else on the processor."""
    return values.cpu().double() if values.device.type == "mps" else values.double()
