"""OpenCV's Feature2D interface: conventions of keypoints, and use by OpenCV's own matchers and stitcher."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hardnet_match import FeatureExtractor
from hardnet_match.errors import DataError, OptionError
from hardnet_match.frames import MR_SIZE, laf_orientation, laf_scale
from hardnet_match.plugins.opencv import Feature2D

ROOT = Path(__file__).parents[1]
COUNT = 120


@pytest.fixture(scope="module")
def finder() -> Feature2D:
    return Feature2D.create(nfeatures=COUNT)


@pytest.fixture(scope="module")
def photo(rendered: dict[str, Any]) -> np.ndarray:
    return cv2.resize(cv2.imread(str(rendered["folder"] / "view_000.jpg")), (320, 240), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def found(finder: Feature2D, photo: np.ndarray) -> tuple[tuple[cv2.KeyPoint, ...], np.ndarray]:
    keypoints, descriptors = finder.detectAndCompute(photo, None)
    assert descriptors is not None
    return keypoints, descriptors


def test_it_says_of_itself_what_opencv_asks(finder: Feature2D) -> None:
    sift = cv2.SIFT.create()
    assert finder.descriptorSize() == sift.descriptorSize() == 128
    assert finder.descriptorType() == cv2.CV_32F
    assert finder.defaultNorm() == sift.defaultNorm() == cv2.NORM_L2
    assert finder.getDefaultName() == "Feature2D.hessian+affnet+dominant+hardnet"
    assert not finder.empty()


def test_the_width_of_any_descriptor_is_known() -> None:
    import torch

    assert Feature2D.create(descriptor=torch.nn.AvgPool2d(8), shape="none").descriptorSize() == 16


def test_keypoints_are_the_extractors_frames(
    finder: Feature2D, photo: np.ndarray, found: tuple[Any, np.ndarray]
) -> None:
    features = finder.extractor.extract(np.ascontiguousarray(photo[:, :, ::-1]))
    keypoints, descriptors = found
    assert isinstance(keypoints, tuple)
    assert descriptors.dtype == np.float32
    np.testing.assert_array_equal(descriptors, features.descriptors)
    np.testing.assert_allclose([point.pt for point in keypoints], features.keypoints, atol=1e-4)
    np.testing.assert_allclose([p.size for p in keypoints], 2 * laf_scale(features.lafs) / MR_SIZE, rtol=1e-5)
    np.testing.assert_allclose([p.response for p in keypoints], features.scores, rtol=1e-6)
    difference = np.array([p.angle for p in keypoints]) + laf_orientation(features.lafs)
    np.testing.assert_allclose((difference + 180) % 360 - 180, 0, atol=1e-3)
    assert all(0 <= point.angle < 360 for point in keypoints)


def test_size_and_angle_are_those_of_opencvs_sift() -> None:
    """A blob on a slope: its place, its size, and its angle up the slope."""
    y, x = np.mgrid[:160, :160].astype(np.float64)
    sift, ours = cv2.SIFT.create(1), Feature2D.create(nfeatures=1, preset="dog-hardnet")
    for degrees in (0, 60, 200):
        t = np.deg2rad(degrees)
        along = (x - 80) * np.cos(t) + (y - 80) * np.sin(t)
        blob = np.exp(-((x - 80) ** 2 + (y - 80) ** 2) / 72)
        image = np.rint(110 + 1.1 * along + 40 * blob).clip(0, 255).astype(np.uint8)
        theirs, own = sift.detect(image)[0], ours.detect(image)[0]
        assert np.hypot(*np.subtract(theirs.pt, own.pt)) < 0.5
        assert abs(own.size / theirs.size - 1) < 0.02
        for keypoint in (theirs, own):
            assert abs((keypoint.angle - degrees + 180) % 360 - 180) < 3


def test_compute_after_detect_is_detect_and_compute(
    finder: Feature2D, photo: np.ndarray, found: tuple[Any, np.ndarray]
) -> None:
    keypoints = finder.detect(photo)
    again, descriptors = finder.compute(photo, keypoints)
    assert again == keypoints
    np.testing.assert_allclose(descriptors, found[1], atol=1e-3)


def test_keypoints_of_other_detectors_are_described_row_by_row(finder: Feature2D, photo: np.ndarray) -> None:
    for detector in (cv2.SIFT.create(80), cv2.ORB.create(80), cv2.FastFeatureDetector.create(60)):
        given = detector.detect(photo)[:80]
        kept, descriptors = finder.compute(photo, given)
        assert len(kept) == len(given) == len(descriptors)
        for before, after in zip(given, kept, strict=True):
            assert (before.pt, before.size, before.octave) == (after.pt, after.size, after.octave)
            assert after.angle == before.angle if before.angle >= 0 else 0 <= after.angle < 360
        np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1, atol=1e-4)
    # Found orientations are the ones that describing with them uses.
    again = finder.compute(photo, kept)[1]
    np.testing.assert_allclose(again, descriptors, atol=1e-3)


def test_angle_and_size_of_given_keypoints_count(photo: np.ndarray) -> None:
    """A picture turned by 90 degrees: the keypoint turned with it has the same descriptor, the unturned one has not."""
    finder = Feature2D.create(preset="dog-hardnet", nfeatures=40)
    keypoints = finder.detect(photo)
    _, straight = finder.compute(photo, keypoints)
    turned = cv2.rotate(photo, cv2.ROTATE_90_CLOCKWISE)
    height = photo.shape[0]
    there = [cv2.KeyPoint(height - 1 - p.pt[1], p.pt[0], p.size, (p.angle + 90) % 360) for p in keypoints]
    _, same = finder.compute(turned, there)
    assert (straight * same).sum(axis=1).mean() > 0.99
    _, other = finder.compute(turned, [cv2.KeyPoint(*p.pt, p.size, (p.angle + 90) % 360) for p in there])
    assert (straight * other).sum(axis=1).mean() < 0.7
    _, larger = finder.compute(turned, [cv2.KeyPoint(*p.pt, 3 * p.size, p.angle) for p in there])
    assert (straight * larger).sum(axis=1).mean() < 0.8


def test_masks(finder: Feature2D, photo: np.ndarray) -> None:
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[:, 200:] = 255
    keypoints = finder.detect(photo, mask)
    assert len(keypoints) > 20
    assert all(point.pt[0] >= 199.5 for point in keypoints)
    assert finder.detect(photo, np.zeros_like(mask)) == ()
    assert [p.pt for p in finder.detect(photo, mask[:, :, None])] == [p.pt for p in keypoints]
    with pytest.raises(DataError, match="mask"):
        finder.detect(photo, mask[1:])


def test_images_of_every_kind(finder: Feature2D, photo: np.ndarray, found: tuple[Any, np.ndarray]) -> None:
    places = [point.pt for point in found[0]]
    alpha = np.dstack([photo, np.full(photo.shape[:2], 7, np.uint8)])
    for same in (alpha, cv2.UMat(photo), photo.astype(np.uint16) * 257, photo.astype(np.float32) / 255):
        got = [point.pt for point in finder.detect(same)]
        assert np.abs(np.subtract(sorted(got), sorted(places))).max() < 0.01
    grey = cv2.cvtColor(photo, cv2.COLOR_BGR2GRAY)
    assert [p.pt for p in finder.detect(grey)] == [p.pt for p in finder.detect(grey[:, :, None])]
    # Red and blue swapped is another grey.
    assert sorted(point.pt for point in finder.detect(photo[:, :, ::-1])) != sorted(places)


@pytest.mark.parametrize("shape", [(0, 0), (0, 0, 3), (1, 1), (3, 200), (64, 64), (64, 64, 3)])
def test_nothing_to_see(finder: Feature2D, shape: tuple[int, ...]) -> None:
    image = np.full(shape, 90, np.uint8)
    assert finder.detectAndCompute(image, None) == ((), None)
    assert finder.detect(image) == ()
    assert finder.compute(image, []) == ((), None)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "imread"),
        (np.zeros((9, 9, 2), np.uint8), "channels"),
        (np.zeros((9, 9), np.int32), "int32"),
        (np.full((9, 9), np.nan), "NaN"),
    ],
)
def test_what_is_no_image_is_told(finder: Feature2D, image: Any, words: str) -> None:
    with pytest.raises(DataError, match=words):
        finder.detect(image)


def test_keypoints_without_size_are_told(finder: Feature2D, photo: np.ndarray) -> None:
    with pytest.raises(DataError, match="keypoint 1 has size"):
        finder.compute(photo, [cv2.KeyPoint(9, 9, 5), cv2.KeyPoint(9, 9, 0)])
    with pytest.raises(DataError, match="compute"):
        finder.detectAndCompute(photo, None, None, True)


def test_lists_of_images(finder: Feature2D, photo: np.ndarray, found: tuple[Any, np.ndarray]) -> None:
    mask = np.zeros(photo.shape[:2], np.uint8)
    both = finder.detect([photo, photo], [None, mask])
    assert [len(points) for points in both] == [len(found[0]), 0]
    points, rows = finder.compute([photo, photo], both)
    assert [len(side) for side in points] == [len(found[0]), 0]
    assert rows[1] is None
    np.testing.assert_allclose(rows[0], found[1], atol=1e-3)


@pytest.fixture(scope="module")
def pair(photo: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two views of a flat picture, and the homography from the second to the first."""
    picture = cv2.resize(photo, None, fx=2.25, fy=2.25)
    truth = np.array([[0.94, -0.25, 60], [0.22, 0.96, -40], [1e-4, 5e-5, 1]])
    second = cv2.warpPerspective(picture, np.linalg.inv(truth), (400, 330))
    return picture[:330, :420].copy(), second, truth


def test_opencvs_matchers_take_the_descriptors(finder: Feature2D, pair: tuple[np.ndarray, ...]) -> None:
    first, second, truth = pair
    (points0, rows0), (points1, rows1) = (finder.detectAndCompute(image, None) for image in (first, second))
    brute = cv2.BFMatcher(finder.defaultNorm(), crossCheck=True).match(rows1, rows0)
    trees = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 4}, {"checks": 64}).knnMatch(rows1, rows0, k=2)
    flann = [nearest for nearest, other in trees if nearest.distance < 0.9 * other.distance]
    for matches in (brute, flann):
        source = np.float32([points1[match.queryIdx].pt for match in matches])
        there = cv2.perspectiveTransform(source[None], truth)[0]
        target = np.float32([points0[match.trainIdx].pt for match in matches])
        assert (np.linalg.norm(there - target, axis=1) < 3).sum() > 30


@pytest.mark.skipif(cv2.__version__ < "5", reason="OpenCV 4 crashes where Python sets the descriptors")
def test_opencvs_stitching_pipeline_takes_the_features(finder: Feature2D, pair: tuple[np.ndarray, ...]) -> None:
    features = [finder.image_features(image) for image in pair[:2]]
    assert features[0].img_size == (420, 330)
    assert len(features[0].getKeypoints()) == len(features[0].descriptors.get()) > 100
    matcher = cv2.detail.BestOf2NearestMatcher(False, 0.3)
    found = matcher.apply2(features)
    matcher.collectGarbage()
    assert found[1].num_inliers > 20
    H = found[1].H / found[1].H[2, 2]  # of coordinates around each picture's middle
    assert H.shape == (3, 3)
    empty = finder.image_features(np.zeros((50, 60), np.uint8))
    assert empty.img_size == (60, 50)
    assert len(empty.getKeypoints()) == 0


def test_an_opencv_that_would_crash_is_refused(finder: Feature2D, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "__version__", "4.12.0")
    with pytest.raises(OptionError, match=r"4\.12\.0 crashes"):
        finder.image_features(np.zeros((50, 60), np.uint8))


def test_the_panorama_example(pair: tuple[np.ndarray, ...], tmp_path: Path) -> None:
    first, second, truth = pair
    cv2.imwrite(str(tmp_path / "a.png"), first)
    cv2.imwrite(str(tmp_path / "b.png"), second)
    script = str(ROOT / "examples" / "panorama.py")
    command = [sys.executable, script, "a.png", "b.png", "-o", "both.png", "--keypoints", "400"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    both = cv2.imread(str(tmp_path / "both.png"))
    corners = cv2.perspectiveTransform(np.float32([[[0, 0], [400, 0], [400, 330], [0, 330]]]), truth)[0]
    low = np.minimum(corners.min(axis=0), 0)
    size = np.maximum(corners.max(axis=0), [420, 330]) - low
    assert np.abs(np.array(both.shape[1::-1]) - size).max() < 6
    # Where both photos are, they agree: the first one lies in the panorama almost unchanged.
    x, y = np.floor(-low).astype(int)
    inside, alone = (cv2.GaussianBlur(image, (0, 0), 2)[:330, :420].astype(int) for image in (both[y:, x:], first))
    assert np.abs(inside - alone)[10:-10, 10:-10].mean() < 5


@pytest.mark.parametrize(
    ("arguments", "words"), [(["no.png", "a.png"], r"no\.png: cannot be read"), (["a.png", "flat.png"], "structure")]
)
def test_the_panorama_example_tells_what_is_wrong(
    arguments: list[str], words: str, pair: tuple[np.ndarray, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("a.png", pair[0][:100, :100])
    cv2.imwrite("flat.png", np.zeros((60, 60), np.uint8))
    monkeypatch.setattr(sys, "argv", ["panorama.py", *arguments])
    with pytest.raises(SystemExit, match=words):
        runpy.run_path(str(ROOT / "examples" / "panorama.py"), run_name="__main__")


def test_it_computes_what_the_extractor_computes(photo: np.ndarray) -> None:
    extractor = FeatureExtractor.from_preset("dog-rootsift", max_keypoints=50)
    assert len(Feature2D(extractor).detect(photo)) == 50
