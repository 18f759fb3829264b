"""Which photos and points are held out of fine-tuning, and that nothing measured is learned."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
from finetune_helpers import made_view, made_views

from hardnet_match.errors import DataError
from hardnet_match.sfm.views import NO_POINT, View
from hardnet_match.training.holdout import (
    LEARN,
    MEASURE,
    Split,
    choosing_points,
    learning_points,
    make_split,
    points_of,
)


@pytest.fixture(scope="module")
def views() -> list[View]:
    return made_views()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_measured_is_learned(views: list[View], seed: int) -> None:
    split = make_split(views, 0.25, seed)
    learn, choose = learning_points(views, split), choosing_points(views, split)
    points = points_of(views)
    assert len(split.held) == 2
    measured_ones = points.ids[split.part(points.position) == MEASURE]
    assert 0.3 < len(measured_ones) / len(points.ids) < 0.4
    assert not set(learn) & set(measured_ones) | set(learn) & set(choose) | set(choose) & set(measured_ones)
    others = np.setdiff1d(points.ids[split.part(points.position) != LEARN], [])
    for point in learn:  # plainly: no region of the one covers the centre of the other
        for other in others:
            gap = np.linalg.norm(points.position[point] - points.position[other])
            assert gap >= max(points.size[point], points.size[other])
    grown = copy.deepcopy(views)  # one measured region as large as the scene: the others are details in it
    one = measured_ones[0]
    for view in grown:
        view.lafs[view.point == one, :, :2] *= 100
    kept = learning_points(grown, split)
    np.testing.assert_array_equal(kept, np.setdiff1d(kept, measured_ones))
    assert set(learn) <= set(kept)
    back = Split.from_plain(json.loads(json.dumps(split.plain())))
    np.testing.assert_array_equal(back.part(points.position), split.part(points.position))
    assert back.held == split.held


def test_size_of_a_point_is_that_of_its_largest_region(views: list[View]) -> None:
    points = points_of(views)
    assert points.ids.tolist() == list(range(300))
    np.testing.assert_allclose(points.size, 0.3, rtol=1e-4)  # as made_view makes every region
    for view in views:
        known = view.point != NO_POINT
        np.testing.assert_allclose(points.position[view.point[known]], view.position[known])
    grown = copy.deepcopy(views)
    seen_by = [view for view in grown if view.point[7] == 7 and view.point[8] == 8]
    seen_by[0].lafs[7, :, :2] *= 2
    seen_by[1].lafs[8, :, :2] /= 2  # others still show it as large as it was
    np.testing.assert_allclose(points_of(grown).size[[6, 7, 8]], [0.3, 0.6, 0.3], rtol=1e-4)


def test_a_stray_point_does_not_decide_the_cut(views: list[View]) -> None:
    split = make_split(views)
    assert abs(split.axis[0]) > 0.95  # the points spread along x
    far = copy.deepcopy(views)
    for view in far:
        view.position[view.point == 5] = [0, 0, 1e6]
    assert abs(make_split(far).axis[0]) > 0.95


def test_too_little_to_hold_out_is_told(views: list[View]) -> None:
    with pytest.raises(DataError, match="4 registered photos"):
        make_split(views[:3])
    few = [made_view(n, np.random.default_rng(1).normal(size=(30, 3)), np.random.default_rng(n)) for n in range(5)]
    with pytest.raises(DataError, match="30 points"):
        make_split(few)
    assert len(make_split(views[:4], 0.9).held) == 1  # three are left to learn from
