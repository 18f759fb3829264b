"""Conventions of frames: every conversion there and back, and against OpenCV, kornia and pycolmap."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hardnet_match import frames
from hardnet_match.errors import DataError

# Angles a degree short of the wrap, where 180 and -180 are the same frame but not the same number.
rows = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 20), st.just(4)),
    elements=st.floats(0, 1, allow_nan=False, width=32),
).map(lambda u: u * [4000, 3000, 198, 358] + [0, 0, 2, -179])


def lafs_of(values: np.ndarray) -> np.ndarray:
    return frames.make_lafs(values[:, :2], values[:, 2], values[:, 3])


def affine_lafs(seed: int, count: int = 50) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lafs = frames.make_lafs(rng.uniform(0, 1000, (count, 2)), rng.uniform(2, 100, count), rng.uniform(-180, 180, count))
    shear = np.eye(2) + rng.uniform(-0.4, 0.4, (count, 2, 2))
    lafs[:, :, :2] = lafs[:, :, :2] @ shear
    return lafs


def test_an_upright_frame_turned_left_points_up_and_right() -> None:
    laf = frames.make_lafs([[10, 20]], 6, 90)[0]
    np.testing.assert_allclose(laf, [[0, 6, 10], [-6, 0, 20]], atol=1e-5)


@given(rows)
def test_scale_and_orientation_are_what_the_frame_was_made_of(values: np.ndarray) -> None:
    lafs = lafs_of(values)
    np.testing.assert_allclose(frames.laf_scale(lafs), values[:, 2], rtol=1e-5)
    np.testing.assert_allclose(frames.laf_orientation(lafs), values[:, 3], atol=1e-3)


def test_scale_and_orientation_are_kornias() -> None:
    torch = pytest.importorskip("torch")
    from kornia import feature

    lafs = affine_lafs(0)
    tensor = torch.from_numpy(lafs)[None]
    np.testing.assert_allclose(frames.laf_scale(lafs), feature.get_laf_scale(tensor).flatten(), rtol=1e-4)
    np.testing.assert_allclose(frames.laf_orientation(lafs), feature.get_laf_orientation(tensor).flatten(), atol=1e-3)
    made = feature.laf_from_center_scale_ori(
        torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[[5.0]]]]), torch.tensor([[[30.0]]])
    )
    np.testing.assert_allclose(frames.make_lafs([[3, 4]], 5, 30), made[0], atol=1e-5)


@given(rows)
def test_opencv_and_back(values: np.ndarray) -> None:
    lafs = lafs_of(values)
    back = frames.from_opencv(frames.to_opencv(lafs))
    np.testing.assert_allclose(back, lafs, atol=2e-3)


def test_opencv_keypoint_is_a_diameter_and_turns_clockwise() -> None:
    [keypoint] = frames.to_opencv(frames.make_lafs([[10, 20]], 12, 30), [0.5])
    assert keypoint.pt == (10, 20)
    assert keypoint.size == pytest.approx(4)  # sigma 2
    assert keypoint.angle == pytest.approx(330)
    assert keypoint.response == pytest.approx(0.5)


def test_opencv_orientation_is_the_content_of_the_patch() -> None:
    """A patch sampled through an OpenCV keypoint's frame looks the same however the picture is turned."""
    import torch

    from hardnet_match.patches import extract_patches
    from hardnet_match.pyramid import as_image, patch_pyramid

    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.uniform(0, 255, (256, 256)).astype(np.float32), (0, 0), 6)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    turned = np.ascontiguousarray(np.rot90(picture))  # counter-clockwise on the screen
    a = frames.from_opencv([cv2.KeyPoint(120, 130, 6, 40)])
    b = frames.from_opencv([cv2.KeyPoint(130, 255 - 120, 6, 40 - 90 + 360)])
    first = extract_patches(patch_pyramid(as_image(picture)), torch.from_numpy(a))
    second = extract_patches(patch_pyramid(as_image(turned)), torch.from_numpy(b))
    np.testing.assert_allclose(first, second, atol=0.02)


def test_colmap_and_back() -> None:
    lafs = affine_lafs(1)
    keypoints = frames.to_colmap(lafs)
    np.testing.assert_allclose(keypoints[:, :2], lafs[:, :, 2] + 0.5)
    np.testing.assert_allclose(frames.from_colmap(keypoints), lafs, rtol=1e-5, atol=1e-3)


def test_colmap_four_columns_mean_what_pycolmap_computes() -> None:
    from hardnet_match.sfm.colmap import pycolmap

    [row] = frames.to_colmap(frames.from_colmap([[5.5, 7.5, 2.0, 0.7]]))
    keypoint = pycolmap.FeatureKeypoint(dict(zip(("x", "y", "a11", "a12", "a21", "a22"), map(float, row), strict=True)))
    assert (keypoint.x, keypoint.y) == (5.5, 7.5)
    assert keypoint.compute_scale() == pytest.approx(2.0, rel=1e-5)
    assert keypoint.compute_orientation() == pytest.approx(0.7, rel=1e-5)


def test_colmap_two_columns_are_places_only() -> None:
    np.testing.assert_allclose(frames.from_colmap([[1.5, 2.5]]), frames.make_lafs([[1, 2]], frames.MR_SIZE))


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (6,), (2, 2, 3)])
def test_colmap_rows_of_other_widths_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="columns"):
        frames.from_colmap(np.ones(shape))


def test_oxford_and_back_keeps_the_ellipse(tmp_path: Path) -> None:
    lafs = affine_lafs(2)
    frames.write_oxford(tmp_path / "regions.txt", lafs)
    back = frames.read_oxford(tmp_path / "regions.txt")
    upright = frames.make_upright(lafs)
    np.testing.assert_allclose(back, upright, rtol=1e-3, atol=1e-2)
    assert (back[:, 0, 1] == 0).all()
    assert (np.linalg.det(back[:, :, :2]) > 0).all()


def test_oxford_is_kornias_ellipse() -> None:
    import torch
    from kornia.feature import ellipse_to_laf

    rows = frames.to_oxford(affine_lafs(5)).astype(np.float32)
    theirs = ellipse_to_laf(torch.from_numpy(rows)[None])[0].numpy()
    np.testing.assert_allclose(frames.from_oxford(rows), frames.make_upright(theirs), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    "text", ["", "1.0\n", "1.0\n3\n1 2 3 4 5\n", "1.0\n1\n1 2 x 4 5\n", "1.0\n1\n1 2 -1 0 1\n", "1.0\n-4\n"]
)
def test_a_damaged_oxford_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.txt"
    path.write_text(text)
    with pytest.raises(DataError, match=r"broken\.txt: "):
        frames.read_oxford(path)


def test_a_frame_without_area_has_no_ellipse() -> None:
    with pytest.raises(DataError, match="no area"):
        frames.to_oxford(np.zeros((1, 2, 3)))


@pytest.mark.parametrize("bad", [np.zeros((3, 2, 2)), np.full((1, 2, 3), np.nan)])
def test_what_is_no_frame_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(DataError, match="frames"):
        frames.as_lafs(bad)


@given(st.integers(0, 10_000), st.floats(0.1, 10))
def test_scaling_a_frame_scales_its_axes_only(seed: int, factor: float) -> None:
    lafs = affine_lafs(seed, 3)
    scaled = frames.scale_laf(lafs, factor)
    np.testing.assert_allclose(frames.laf_scale(scaled), frames.laf_scale(lafs) * factor, rtol=1e-3)
    np.testing.assert_array_equal(scaled[:, :, 2], lafs[:, :, 2])
