"""Figures of homographies and relative poses: cases worked out by hand, OpenCV's transforms, what must always hold."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hardnet_match.errors import DataError
from hardnet_match.metrics.homography import (
    checked_homography,
    corner_error,
    in_shared_view,
    matching_accuracy,
    matching_score,
    repeatability,
    transfer,
    transfer_errors,
)
from hardnet_match.metrics.pose import (
    epipolar_distance,
    pose_error,
    relative_pose,
    rotation_error,
    translation_error,
)
from hardnet_match.metrics.recall import recall_auc

SHIFT = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])  # ten pixels to the right
TILTED = np.array([[0.9, 0.1, 5.0], [-0.05, 1.1, -3.0], [1e-4, 2e-4, 1.0]])


def turned(degrees: float, axis: tuple[float, float, float] = (0, 1, 0)) -> NDArray[np.float64]:
    return np.asarray(cv2.Rodrigues(np.deg2rad(degrees) * np.array(axis) / np.linalg.norm(axis))[0])


def test_area_under_recall_by_hand() -> None:
    # Points (0, 0), (1, 1/4), (3, 2/4), (8, 3/4); the fourth pair failed.
    found = recall_auc([3.0, 1.0, np.inf, 8.0], (2, 5, 10))
    # up to 2: triangle 1 * 1/4 / 2, then level at 1/4 for 1
    assert found[2] == pytest.approx((0.125 + 0.25) / 2)
    # up to 5: also the trapezoid from 1/4 to 1/2 over 2, then 2 * 1/2
    assert found[5] == pytest.approx((0.125 + 0.75 + 1.0) / 5)
    # up to 10: 5 * (1/2 + 3/4) / 2, then 2 * 3/4
    assert found[10] == pytest.approx((0.125 + 0.75 + 3.125 + 1.5) / 10)


def test_area_under_recall_at_its_ends() -> None:
    assert recall_auc([0.0, 0.0], (5,)) == {5: 1.0}
    assert recall_auc([np.inf, 7.0], (5,)) == {5: 0.0}
    assert recall_auc([], (5,)) == {5: 0.0}
    for errors, thresholds in (([np.nan], (5,)), ([-1.0], (5,)), ([1.0], (0,))):
        with pytest.raises(DataError):
            recall_auc(errors, thresholds)


@given(st.lists(st.floats(0, 30), min_size=1, max_size=30), st.floats(0.1, 20))
def test_area_under_recall_is_numpys_trapezoid(errors: list[float], threshold: float) -> None:
    ordered = sorted(errors)
    below = [e for e in ordered if e < threshold]
    recall = [(k + 1) / len(errors) for k in range(len(below))]
    x, y = [0.0, *below, threshold], [0.0, *recall, recall[-1] if recall else 0.0]
    found = recall_auc(errors, (threshold,))[threshold]
    assert found == pytest.approx(np.trapezoid(y, x) / threshold)
    assert 0 <= found <= 1


def test_points_are_mapped_as_opencv_maps_them() -> None:
    points = np.random.default_rng(0).uniform(0, 500, (50, 2))
    np.testing.assert_allclose(transfer(TILTED, points), cv2.perspectiveTransform(points[None], TILTED)[0])
    np.testing.assert_allclose(transfer(-3 * TILTED, points), transfer(TILTED, points))
    back = transfer(np.linalg.inv(TILTED), transfer(TILTED, points))
    np.testing.assert_allclose(back, points, atol=1e-9)


def test_points_beyond_the_horizon_are_nowhere() -> None:
    homography = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])  # the horizon is x = 100
    there = transfer(homography, [[50.0, 3.0], [150.0, 3.0], [100.0, 3.0]])
    np.testing.assert_allclose(there[0], [100, 6])
    assert np.isinf(there[1:]).all()
    assert in_shared_view(homography, [[50.0, 3.0], [150.0, 3.0]], (200, 200)).tolist() == [True, False]


def test_accuracy_by_hand() -> None:
    first = np.array([[0.0, 0], [0, 0], [0, 0], [0, 0]])
    second = np.array([[10.0, 0], [11, 0], [10, 2.5], [10, 40]])
    errors = transfer_errors(SHIFT, first, second)
    np.testing.assert_allclose(errors, [0, 1, 2.5, 40])
    # a match exactly one pixel off is within one pixel
    np.testing.assert_allclose(matching_accuracy(errors, (1, 2, 3, 10)), [0.5, 0.5, 0.75, 0.75])
    assert matching_accuracy(np.zeros(0)).tolist() == [0.0] * 10


def test_matching_score_and_repeatability_by_hand() -> None:
    size = (100, 50)
    first = np.array([[0.0, 0], [50, 20], [88, 49], [95, 20]])  # the last lands at x = 105, outside
    second = np.array([[10.0, 0], [60, 24], [98, 49], [3, 3], [50, 40]])  # the fourth came from x = -7, outside
    assert in_shared_view(SHIFT, first, size).tolist() == [True, True, True, False]
    assert in_shared_view(np.linalg.inv(SHIFT), second, size).tolist() == [True, True, True, False, True]
    assert matching_score(2, 3, 4) == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert matching_score(0, 0, 4) == 0
    # (0, 0) and (88, 49) are found again, (50, 20) is 4 pixels off: 2 of 3 and 2 of 4
    assert repeatability(SHIFT, first, second, size, size, 3) == pytest.approx(4 / 7)
    assert repeatability(SHIFT, first, second, size, size, 4) == pytest.approx(6 / 7)
    assert repeatability(SHIFT, first[:0], second, size, size) == 0


def test_corner_error_by_hand() -> None:
    off = SHIFT.copy()
    off[0, 2] += 3
    off[1, 2] += 4
    assert corner_error(off, SHIFT, (640, 480)) == pytest.approx(5)
    stretched = np.diag([2.0, 1, 1])  # the right corners move by the width less one, the left ones stay
    assert corner_error(stretched, np.eye(3), (101, 50)) == pytest.approx(50)
    for nothing in (None, np.zeros((3, 3)), np.full((3, 3), np.nan)):
        assert corner_error(nothing, SHIFT, (640, 480)) == np.inf
    behind = np.array([[1.0, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    assert corner_error(behind, np.eye(3), (640, 480)) == np.inf


@pytest.mark.parametrize("wrong", [np.zeros((3, 3)), np.eye(2), np.full((3, 3), np.inf)])
def test_no_homography_is_refused(wrong: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="homography"):
        checked_homography(wrong)


def test_pose_errors_by_hand() -> None:
    assert rotation_error(turned(30), turned(20)) == pytest.approx(10)
    assert rotation_error(turned(1e-4), np.eye(3)) == pytest.approx(1e-4, rel=1e-6)
    assert rotation_error(turned(180), np.eye(3)) == pytest.approx(180)
    assert translation_error([1, 0, 0], [5, 0, 0]) == pytest.approx(0, abs=1e-9)
    assert translation_error([1, 0, 0], [-5, 0, 0]) == pytest.approx(0, abs=1e-9)  # the sign is not counted
    assert translation_error([1, 1, 0], [0, 2, 0]) == pytest.approx(45)
    assert translation_error([0, 0, 0], [0, 2, 0]) == 90
    with pytest.raises(DataError, match="one place"):
        translation_error([1, 0, 0], [0, 0, 0])
    turn, move, larger = pose_error((turned(3), [1, 0, 0]), (np.eye(3), [1, 1, 0]))
    assert (turn, move, larger) == pytest.approx((3, 45, 45))
    assert pose_error(None, (np.eye(3), [1, 0, 0])) == (np.inf, np.inf, np.inf)


@given(st.floats(-170, 170), st.floats(-1, 1), st.floats(-1, 1), st.floats(-1, 1))
def test_relative_pose_takes_one_cameras_points_to_the_others(angle: float, x: float, y: float, z: float) -> None:
    r0, t0 = turned(angle, (1, 2, 3)), np.array([x, y, z])
    r1, t1 = turned(-angle / 2, (3, 1, -1)), np.array([z, x, 1.0])
    turn, move = relative_pose(r0, t0, r1, t1)
    world = np.array([0.3, -0.7, 5.0])
    np.testing.assert_allclose(turn @ (r0 @ world + t0) + move, r1 @ world + t1, atol=1e-12)


def test_epipolar_distance_is_opencvs() -> None:
    rng = np.random.default_rng(1)
    turn, move = turned(12, (1, 3, 0)), np.array([1.0, 0.2, -0.1])
    points = rng.normal((0, 0, 7), size=(40, 3))
    moved = points @ turn.T + move
    first, second = points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]
    np.testing.assert_allclose(epipolar_distance(first, second, turn, move), 0, atol=1e-12)
    noisy = second + rng.normal(scale=0.01, size=second.shape)
    essential = np.array([[0, -move[2], move[1]], [move[2], 0, -move[0]], [-move[1], move[0], 0]]) @ turn
    there = cv2.computeCorrespondEpilines(first.reshape(-1, 1, 2), 1, essential)[:, 0]
    back = cv2.computeCorrespondEpilines(noisy.reshape(-1, 1, 2), 2, essential)[:, 0]
    expected = np.maximum(
        np.abs((there[:, :2] * noisy).sum(1) + there[:, 2]), np.abs((back[:, :2] * first).sum(1) + back[:, 2])
    )
    np.testing.assert_allclose(epipolar_distance(first, noisy, turn, move), expected, rtol=1e-5, atol=1e-8)
    assert epipolar_distance(np.zeros((0, 2)), np.zeros((0, 2)), turn, move).shape == (0,)
