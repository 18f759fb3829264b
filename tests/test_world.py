"""The rendered world: its truth is true (geometry, depth, homographies), and COLMAP's own SIFT finds its cameras."""

from __future__ import annotations

import json
import zlib  # noqa: F401  (before pycolmap, whose wheel exports a zlib of its own)
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hardnet_match.errors import OptionError
from hardnet_match.world import Camera, Light, View, World, write_scene


@pytest.fixture(scope="module")
def world() -> World:
    return World(seed=0, texel=0.012)


@pytest.fixture(scope="module")
def views(world: World) -> list[View]:
    return world.render(3, size=(480, 360), light_changes=0.0)


def test_views_have_the_stated_shapes_and_are_exposed_like_photos(views: list[View]) -> None:
    for view in views:
        assert view.image.shape == (360, 480, 3)
        assert view.image.dtype == np.uint8
        assert view.depth.shape == view.plane.shape == (360, 480)
        assert 50 < view.image.mean() < 190
        assert view.image.std() > 30
        assert ((view.image == 0) | (view.image == 255)).mean() < 0.1
        np.testing.assert_array_equal(np.isinf(view.depth), view.plane == -1)
        assert view.depth.min() > 0.5


def test_the_same_seed_is_the_same_picture_and_another_is_another_place(views: list[View]) -> None:
    camera = views[1].camera
    again, other = (World(seed, texel=0.012).view(camera, views[1].light, seed=1) for seed in (0, 5))
    np.testing.assert_array_equal(again.image, views[1].image)
    assert np.abs(other.image.astype(float) - again.image).mean() > 20


def test_plane_points_lie_on_their_plane(world: World, views: list[View]) -> None:
    view = views[2]
    for number in np.unique(view.plane[view.plane >= 0]):
        rows, cols = np.nonzero(view.plane == number)
        points = view.camera.lift(np.column_stack([cols, rows]).astype(float), view.depth[rows, cols].astype(float))
        surface = world.surfaces[number]
        above = (points - surface.origin) @ surface.normal
        s, t = ((points - surface.origin) @ side / (side @ side) for side in (surface.u, surface.v))
        assert min(s.min(), t.min()) > -1e-3
        assert max(s.max(), t.max()) < 1 + 1e-3
        if surface.heights is None:
            assert np.abs(above).max() < 1e-3
        else:
            assert above.max() > 0.2, f"{surface.name} should stand out"
            height, width = surface.heights.shape
            maps = [(v * (n - 1)).astype(np.float32).reshape(1, -1) for v, n in ((s, width), (t, height))]
            expected = cv2.remap(surface.heights, maps[0], maps[1], cv2.INTER_LINEAR)[0] if len(s) < 30000 else None
            if expected is not None:
                assert np.percentile(np.abs(above - expected), 99) < 0.01


def test_homography_agrees_with_depth_and_cameras(world: World, views: list[View]) -> None:
    first, second = views[0], views[1]
    for name in ("house", "ground"):
        rows, cols = np.nonzero(first.plane == world.surface(name))
        pixels = np.column_stack([cols, rows]).astype(float)
        there, _ = second.camera.project(first.camera.lift(pixels, first.depth[rows, cols].astype(float)))
        H = world.homography(first, second, name)
        mapped = np.column_stack([pixels, np.ones(len(pixels))]) @ H.T
        np.testing.assert_allclose(mapped[:, :2] / mapped[:, 2:], there, atol=0.02)
        back = world.homography(second, first, name)
        np.testing.assert_allclose(back @ H / (back @ H)[2, 2], np.eye(3), atol=1e-6)


def test_homography_aligns_the_pictures_to_a_fraction_of_a_pixel(world: World, views: list[View]) -> None:
    """The oracle is OpenCV's ECC alignment: what is left after warping by the truth is hardly any motion."""
    first, second = views[0], views[1]
    H = world.homography(first, second, "house")
    grey = [cv2.GaussianBlur(cv2.cvtColor(v.image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0) for v in (first, second)]
    warped = cv2.warpPerspective(grey[1], H, (480, 360), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    box = np.s_[60:200, 200:360]
    assert (first.plane[box] == world.surface("house")).all()
    score, motion = cv2.findTransformECC(
        grey[0][box], warped[box], np.eye(2, 3, dtype=np.float32), cv2.MOTION_TRANSLATION
    )
    assert score > 0.97
    assert np.abs(motion[:, 2]).max() < 0.03


def test_depth_says_what_the_other_view_sees(views: list[View]) -> None:
    """Points of the first view that the second one's depth map confirms have the same colour there."""
    first, second = views[0], views[1]
    rows, cols = np.nonzero(first.plane >= 0)
    points = first.camera.lift(np.column_stack([cols, rows]).astype(float), first.depth[rows, cols].astype(float))
    there, depth = second.camera.project(points)
    inside = (there > 1).all(1) & (there < [478, 358]).all(1)
    x, y = np.round(there[inside]).astype(int).T
    visible = np.abs(second.depth[y, x] / depth[inside] - 1) < 0.01
    assert visible.mean() > 0.6
    assert (~visible).any(), "something must be hidden, or there is no depth in this scene"
    blur = [cv2.GaussianBlur(v.image, (0, 0), 1.5).astype(float) for v in (first, second)]
    difference = np.abs(blur[0][rows, cols][inside] - blur[1][y, x]).mean(axis=1)
    assert np.median(difference[visible]) < 0.5 * np.median(difference[~visible])


def test_light_changes_the_picture_and_not_the_geometry(world: World) -> None:
    camera = world.cameras(3, (320, 240))[1]
    noon = world.view(camera, Light(azimuth=20, elevation=60))
    evening = world.view(camera, Light(azimuth=-65, elevation=20, warmth=0.9, exposure=0.7))
    np.testing.assert_array_equal(noon.depth, evening.depth)
    assert np.abs(noon.image.astype(float) - evening.image).mean() > 15
    assert evening.image.mean() < noon.image.mean()


def test_pictures_have_thousands_of_repeatable_blobs(world: World, views: list[View]) -> None:
    sift = cv2.SIFT_create(2000)
    found = [sift.detect(cv2.cvtColor(v.image, cv2.COLOR_RGB2GRAY)) for v in views[:2]]
    assert min(len(f) for f in found) >= 1500
    xy = [np.array([k.pt for k in f]) for f in found]
    house = views[0].plane[tuple(np.round(xy[0]).astype(int).clip(0, [479, 359]).T[::-1])] == world.surface("house")
    mapped = np.column_stack([xy[0][house], np.ones(house.sum())]) @ world.homography(*views[:2], "house").T
    mapped = mapped[:, :2] / mapped[:, 2:]
    inside = (mapped > 0).all(1) & (mapped < [479, 359]).all(1)
    nearest = np.sqrt(((mapped[inside][:, None] - xy[1][None]) ** 2).sum(2)).min(axis=1)
    assert (nearest < 2).mean() > 0.5


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.floats(-5, 5), st.floats(-3, -0.5), st.floats(-9, -4)),
    st.tuples(st.floats(-3, 3), st.floats(-3, 0), st.floats(-2, 0)),
    st.floats(-180, 180),
)
def test_look_at_cameras_are_rotations_that_look_there(
    eye: tuple[float, ...], target: tuple[float, ...], roll: float
) -> None:
    camera = Camera.look_at(eye, target, (101, 81), roll_degrees=roll)
    np.testing.assert_allclose(camera.R @ camera.R.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.R) == pytest.approx(1)
    np.testing.assert_allclose(camera.center, eye, atol=1e-9)
    pixel, depth = camera.project(np.array([target]))
    np.testing.assert_allclose(pixel, [[50, 40]], atol=1e-6)
    np.testing.assert_allclose(camera.lift(pixel, depth), [target], atol=1e-9)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (333, 5)])
def test_any_size_renders(world: World, size: tuple[int, int]) -> None:
    view = world.view(Camera.look_at((0, -1.6, -7), (0, -1.5, 0), size))
    assert view.image.shape == (size[1], size[0], 3)


def test_wrong_requests_are_refused_with_the_names_there_are(world: World, views: list[View]) -> None:
    with pytest.raises(OptionError, match=r"no surface 'moon'.*house"):
        world.homography(views[0], views[1], "moon")
    with pytest.raises(OptionError, match="relief"):
        world.homography(views[0], views[1], "rockery")
    with pytest.raises(OptionError, match="n_views"):
        world.cameras(0)
    with pytest.raises(OptionError, match="texel"):
        World(texel=0)
    with pytest.raises(OptionError, match="straight"):
        Camera.look_at((0, 0, 0), (0, 1, 0))


def test_write_scene_writes_pictures_and_their_truth(tmp_path: Path) -> None:
    truth = write_scene(tmp_path, n_views=2, size=(160, 120), seed=4, extension=".png")
    assert json.loads((tmp_path / "cameras.json").read_text()) == truth
    assert sorted(truth["images"]) == ["view_000.png", "view_001.png"]
    assert Image.open(tmp_path / "images" / "view_001.png").size == (160, 120)
    np.testing.assert_allclose(np.array(truth["K"])[:2, 2], [79.5, 59.5])


@pytest.mark.slow
def test_colmaps_own_sift_reconstructs_the_scene(tmp_path: Path) -> None:
    """The oracle is COLMAP from end to end: it registers every picture, and its cameras are the true ones."""
    import pycolmap

    truth = write_scene(tmp_path, n_views=7, size=(560, 420), seed=1)
    database = tmp_path / "database.db"
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = 2500
    pycolmap.extract_features(
        database, tmp_path / "images", camera_mode=pycolmap.CameraMode.SINGLE, extraction_options=extraction
    )
    pycolmap.match_exhaustive(database)
    models = pycolmap.incremental_mapping(database, tmp_path / "images", tmp_path / "sparse")
    model = max(models.values(), key=lambda m: m.num_reg_images())
    assert model.num_reg_images() == 7
    found, true, turned = [], [], []
    for image in model.images.values():
        pose, known = image.cam_from_world(), truth["images"][image.name]
        rotation = np.array(known["R"])
        found.append(image.projection_center())
        true.append(-rotation.T @ np.array(known["t"]))
        turned.append((pose.rotation.matrix(), rotation))
    alignment = pycolmap.estimate_sim3d(np.array(found), np.array(true))
    matrix = alignment.matrix()
    error = np.linalg.norm(np.array(found) @ matrix[:, :3].T + matrix[:, 3] - np.array(true), axis=1)
    assert error.max() < 0.01 * truth["extent"]
    to_truth = alignment.rotation.matrix()
    angles = [np.arccos(np.clip((np.trace(a @ to_truth.T @ b.T) - 1) / 2, -1, 1)) for a, b in turned]
    assert np.rad2deg(max(angles)) < 0.3
    assert model.compute_mean_reprojection_error() < 0.6
