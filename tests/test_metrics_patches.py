"""FPR95 and the tasks of HPatches: by hand, by plain loops, and beside scikit-learn."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from hardnet_match.errors import DataError
from hardnet_match.metrics.patches import (
    POOLS,
    average_precision,
    fpr95,
    matching_ap,
    matching_map,
    pair_figures,
    retrieval_map,
    roc_area,
    verification_map,
)

# FPR95 -----------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_fpr95_is_the_first_threshold_that_keeps_95_percent(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    positive, negative = rng.random(count), rng.random(40) + 0.5
    threshold = next(t for t in np.sort(positive) if (positive <= t).mean() >= 0.95)
    expected = (negative <= threshold).mean()
    assert fpr95(torch.from_numpy(positive), torch.from_numpy(negative)) == pytest.approx(expected)


def test_fpr95_by_hand() -> None:
    positive = torch.arange(1, 21).double()  # 95 % of 20 is 19: the threshold is 19
    negative = torch.tensor([18.5, 19.0, 19.5, 30.0])
    assert fpr95(positive, negative) == 0.5  # the one at the threshold counts
    assert fpr95(positive, negative, recall=0.99) == 0.75
    assert fpr95(positive, negative, recall=1.0) == 0.75
    assert fpr95(positive, negative, recall=0.05) == 0.0
    assert fpr95(torch.tensor([2.0]), torch.tensor([1.0, 3.0])) == 0.5


def test_fpr95_is_a_point_of_the_roc_curve() -> None:
    from sklearn.metrics import roc_curve

    rng = np.random.default_rng(1)
    positive, negative = rng.normal(0, 1, 777), rng.normal(2, 1, 3001)
    labels = np.r_[np.ones(777), np.zeros(3001)]
    false, true, _ = roc_curve(labels, -np.r_[positive, negative], drop_intermediate=False)
    expected = false[np.flatnonzero(true >= 0.95)[0]]
    assert fpr95(torch.from_numpy(positive), torch.from_numpy(negative)) == pytest.approx(expected)


def test_pair_figures_count_what_they_say() -> None:
    anchors = torch.eye(4)
    positives = torch.eye(4)[[0, 1, 3, 2]]  # rows 2 and 3 are swapped: each other's nearest
    assert pair_figures(anchors, positives)["rank1"] == 0.5
    ignore = torch.zeros(4, 4, dtype=torch.bool)
    ignore[2, 3] = ignore[3, 2] = True
    nearer = torch.eye(4) * 0.9 + 0.01
    assert pair_figures(anchors, nearer)["rank1"] == 1.0
    assert pair_figures(anchors, nearer)["fpr95"] == 0.0
    assert pair_figures(anchors, positives, ignore)["rank1"] == 0.5


# average precision -----------------------------------------------------------------------------------


def plain_area(labels: list[bool], positives: int) -> float:
    """Trapezoids under the points (recall, precision) of a ranking, from (0, 1) on."""
    points, true = [(0.0, 1.0)], 0
    for place, label in enumerate(labels, 1):
        true += label
        points.append((true / positives, true / place))
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def test_average_precision_by_hand() -> None:
    scores, labels = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([True, False, True, False])
    # (0, 1) (1/2, 1) (1/2, 1/2) (1, 2/3) (1, 1/2)
    assert average_precision(scores, labels) == pytest.approx(0.5 * 1 + 0.5 * (1 / 2 + 2 / 3) / 2)
    assert average_precision(scores, labels, trapezoid=False) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(scores, labels, positives=4) == pytest.approx(0.25 * 1 + 0.25 * (1 / 2 + 2 / 3) / 2)
    # the second positive was not found
    scores[2] = float("-inf")
    assert average_precision(scores, labels) == pytest.approx(0.5)
    # false ones first: precision starts anew at zero
    assert average_precision(torch.tensor([2.0, 1.0]), torch.tensor([False, True])) == pytest.approx(0.25)
    # of equal scores the first comes first
    assert average_precision(torch.tensor([1.0, 1.0]), torch.tensor([True, False])) == 1.0
    assert average_precision(torch.tensor([1.0, 2.0]), torch.tensor([False, False])) == 0.0
    assert average_precision(torch.zeros(0), torch.zeros(0, dtype=torch.bool), positives=3) == 0.0


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=25), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_average_precision_is_the_area_under_its_points(ranking: list[tuple[int, bool]], more: int) -> None:
    total = sum(label for _, label in ranking) + more
    ordered = [label for _, label in sorted(ranking, key=lambda entry: -entry[0])]
    scores, labels = (torch.tensor(column) for column in zip(*ranking, strict=True))
    expected = plain_area(ordered, total) if total else 0.0
    assert average_precision(scores.double(), labels, total) == pytest.approx(expected)


def test_average_precision_beside_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    labels = rng.random(500) < 0.2
    scores = rng.random(500) + 0.3 * labels
    ours = average_precision(torch.from_numpy(scores), torch.from_numpy(labels), trapezoid=False)
    assert ours == pytest.approx(average_precision_score(labels, scores))
    area = roc_area(torch.from_numpy(-scores[labels]), torch.from_numpy(-scores[~labels]))
    assert area == pytest.approx(roc_auc_score(labels, scores))


# verification ----------------------------------------------------------------------------------------


def test_verification_by_hand() -> None:
    positive = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])  # one of five remains in the imbalanced protocol
    intra = torch.tensor([0.5, 2.5, 6.0, 7.0, 8.0])
    inter = torch.tensor([9.0, 9.0, 9.0, 9.0, 9.0])
    found = verification_map(positive, intra, inter)
    # of 25 pairs, those where the negative is nearer: 0.5 before all 5, 2.5 before 3
    assert found.intra_balanced == pytest.approx(1 - 8 / 25)
    assert found.inter_balanced == 1.0
    # ranking 0.5 (false), 1.0 (true): precision rises from 0 to 1/2 while recall does from 0 to 1
    assert found.intra_imbalanced == pytest.approx(0.25)
    assert found.inter_imbalanced == 1.0
    assert found.balanced == pytest.approx((17 / 25 + 1) / 2)
    assert found.imbalanced == pytest.approx(0.625)


def test_verification_is_pessimistic_about_equal_distances() -> None:
    level = torch.ones(10)
    found = verification_map(level, level, level)
    assert found.intra_balanced == 0.0
    assert found.intra_imbalanced == pytest.approx(plain_area([False] * 10 + [True] * 2, 2))


def test_verification_is_the_area_under_the_curves() -> None:
    rng = np.random.default_rng(2)
    positive, intra, inter = (np.round(rng.normal(m, 1, 100), 1) for m in (0, 1.5, 2.5))
    found = verification_map(*(torch.from_numpy(d) for d in (positive, intra, inter)))
    for negative, area, precision in (
        (intra, found.intra_balanced, found.intra_imbalanced),
        (inter, found.inter_balanced, found.inter_imbalanced),
    ):
        ranked = sorted([(d, 0) for d in negative] + [(d, 1) for d in positive])  # negatives first at equal distances
        true = 0
        under = 0.0
        for _, label in ranked:  # a step to the right under the curve for every negative
            true += label
            under += (1 - label) * true / 100**2
        assert area == pytest.approx(under)
        few = sorted([(d, 0) for d in negative] + [(d, 1) for d in positive[:20]])
        assert precision == pytest.approx(plain_area([bool(label) for _, label in few], 20))


# matching --------------------------------------------------------------------------------------------


def test_matching_by_hand() -> None:
    reference = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    other = torch.tensor([[1.0], [10.5], [29.0], [26.0]])
    # nearest: 0 -> 0 at 1 (right), 1 -> 1 at .5 (right), 2 -> 3 at 6 (wrong), 3 -> 2 at 1 (wrong; behind row 0)
    assert matching_ap(reference, other) == pytest.approx(plain_area([True, True, False, False], 4))
    ignore = torch.zeros(4, 4, dtype=torch.bool)
    ignore[2, 3] = ignore[3, 2] = True
    # now 2 -> 2 at 9 and 3 -> 3 at 4 are right
    assert matching_ap(reference, other, ignore) == 1.0
    assert matching_map([(reference, other), (reference, reference)]) == pytest.approx((0.5 + 1) / 2)
    assert matching_ap(reference, other.flip(0)) == pytest.approx(plain_area([False] * 4, 4))


def test_matching_is_the_plain_loop() -> None:
    reference, other = described(60, 1), described(60, 2)
    other = normalize(0.6 * reference + 0.4 * other, dim=1)
    ranking = []
    for i, row in enumerate(reference):
        distances = [math.dist(row.tolist(), candidate.tolist()) for candidate in other]
        ranking.append((min(distances), distances.index(min(distances)) == i))
    ordered = [right for _, right in sorted(ranking)]
    assert 0.2 < sum(ordered) / 60 < 1
    assert matching_ap(reference, other) == pytest.approx(plain_area(ordered, 60))


# retrieval -------------------------------------------------------------------------------------------


def described(count: int, seed: int, dim: int = 8) -> Tensor:
    return normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_retrieval_by_hand() -> None:
    queries = torch.tensor([[0.0]])
    positives = torch.tensor([[[1.0], [-4.0]]])
    distractors = torch.tensor([[2.0], [9.0], [-3.0], [0.5]])
    found = retrieval_map(queries, positives, distractors, pools=(3, 4, 6, 100))
    assert found[3] == pytest.approx(plain_area([True, False, True], 2))
    assert found[4] == pytest.approx(plain_area([True, False, True, False], 2))
    assert found[6] == pytest.approx(plain_area([False, True, False, False, True, False], 2))
    assert found[100] == found[6]  # there is no more
    # those of the query's own sequence leave their place to the next
    allowed = torch.tensor([[False, True, True, True]])
    found = retrieval_map(queries, positives, distractors, allowed, pools=(3, 4))
    assert found[3] == pytest.approx(plain_area([True, True, False], 2))
    assert found[4] == pytest.approx(plain_area([True, False, True, False], 2))


def test_retrieval_is_the_plain_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    from hardnet_match.metrics import patches

    monkeypatch.setattr(patches, "_AT_ONCE", 3000)  # in several parts
    queries, distractors = described(12, 3), described(400, 4)
    positives = normalize(queries[:, None] + 1.5 * described(60, 5).reshape(12, 5, 8), dim=2)
    sequence = torch.arange(400) % 7
    allowed = sequence[None] != (torch.arange(12) % 7)[:, None]
    pools = (20, 100, 300, 5000)
    found = retrieval_map(queries, positives, distractors, allowed, pools)
    for pool in pools:
        total = 0.0
        for q in range(12):
            candidates = [(math.dist(queries[q].tolist(), p.tolist()), 0, True) for p in positives[q]]
            rest = [d for d, fine in zip(distractors, allowed[q], strict=True) if fine][: pool - 5]
            candidates += [(math.dist(queries[q].tolist(), d.tolist()), 1, False) for d in rest]
            total += plain_area([label for _, _, label in sorted(candidates)], 5)
        assert found[pool] == pytest.approx(total / 12)
        assert 0.05 < found[pool] < 0.95
    assert retrieval_map(queries, positives, distractors).keys() == set(POOLS)


def test_what_cannot_be_measured_is_said() -> None:
    some, none = torch.ones(3), torch.zeros(0)
    for call in (
        lambda: fpr95(none, some),
        lambda: fpr95(some, none),
        lambda: fpr95(some, torch.tensor([1.0, math.nan])),
        lambda: fpr95(some, some, recall=0.0),
        lambda: roc_area(some, none),
        lambda: average_precision(some, torch.ones(2, dtype=torch.bool)),
        lambda: average_precision(torch.tensor([math.nan]), torch.tensor([True])),
        lambda: average_precision(some, some > 0, positives=2),
        lambda: matching_ap(torch.ones(2, 3), torch.ones(3, 3)),
        lambda: matching_ap(torch.ones(0, 3), torch.ones(0, 3)),
        lambda: matching_map([]),
        lambda: retrieval_map(torch.ones(0, 3), torch.ones(0, 5, 3), torch.ones(4, 3)),
        lambda: retrieval_map(torch.ones(1, 3), torch.ones(1, 5, 3), torch.ones(4, 3), pools=(5,)),
    ):
        with pytest.raises(DataError):
            call()
