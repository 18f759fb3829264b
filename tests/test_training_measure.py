"""How well descriptors match held-out photos."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from finetune_helpers import made_views

from hardnet_match.features import Features
from hardnet_match.sfm.views import NO_POINT, View
from hardnet_match.training.holdout import MEASURE, make_split
from hardnet_match.training.measure import held_pairs, measure, measured


@pytest.fixture(scope="module")
def views() -> list[View]:
    return made_views()


def test_keypoints_without_a_point_go_with_their_neighbours(views: list[View]) -> None:
    split = make_split(views)
    found = measured(views[0], split)
    view = views[0]
    known = np.flatnonzero(view.point != NO_POINT)
    for row in range(0, 300, 7):
        nearest = known[np.linalg.norm(view.lafs[known, :, 2] - view.lafs[row, :, 2], axis=1).argmin()]
        assert found[row] == (split.part(view.position[nearest][None])[0] == MEASURE)


def made_features(views: list[View], noise: float, seed: int = 0) -> dict[int, Features]:
    """Every point has a descriptor of its own; a photo shows it with noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(300, 16))
    out = {}
    for place, view in enumerate(views):
        noisy = (truth + noise * rng.normal(size=truth.shape)).astype(np.float32)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        out[place] = Features(view.lafs, np.ones(300, np.float32), noisy, view.size)
    return out


def test_figures_of_perfect_noisy_and_random_descriptors(views: list[View]) -> None:
    split = make_split(views, 0.25)
    pairs = held_pairs(views, split)
    assert all(views[one].name in split.held for one, _ in pairs)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    perfect, answers = measure(made_features(views, 0.0), views, pairs, split)
    assert (perfect.matching_map, perfect.rank1, perfect.fpr95, perfect.inlier_ratio) == (1, 1, 0, 1)
    noisy, _ = measure(made_features(views, 1.0), views, pairs, split)
    random, _ = measure(made_features(views, 50.0), views, pairs, split)
    assert perfect.matching_map > noisy.matching_map > random.matching_map
    assert perfect.correct > noisy.correct > random.correct
    assert perfect.inlier_ratio > noisy.inlier_ratio > random.inlier_ratio
    assert perfect.fpr95 < noisy.fpr95 < random.fpr95
    for one in answers:  # only keypoints of the measuring part count
        mine = measured(views[one.first], split)
        assert mine[one.queries].all()
        assert mine[one.matches[:, 0]].all()
        np.testing.assert_array_equal(views[one.first].point[one.queries], views[one.second].point[one.answers])


def test_keypoints_found_twice_are_no_mistake(views: list[View]) -> None:
    twice = [copy.deepcopy(view) for view in views]
    split = make_split(twice, 0.25)
    pairs = held_pairs(twice, split)
    features = made_features(twice, 0.0)
    one, other = pairs[0]
    row = int(np.flatnonzero(measured(twice[one], split) & (twice[one].point >= 0) & (twice[other].point >= 0))[0])
    double = 299 if row != 299 else 298
    twice[other].point[double] = NO_POINT
    twice[other].lafs[double] = twice[other].lafs[row]
    features[other].descriptors[double] = features[one].descriptors[row]
    features[other].descriptors[row] += 0.05
    figures, _ = measure(features, twice, pairs[:1], split)
    assert figures.rank1 == 1
