"""Sequences, scenes, estimators and peers: read from every form, right on known geometry, plain about what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from benchmark_helpers import known_scene, planar_sequence
from numpy.typing import NDArray

from hardnet_match.benchmark import estimators
from hardnet_match.benchmark.estimators import ESTIMATORS, Estimator
from hardnet_match.benchmark.patch_sift import opencv_sift
from hardnet_match.benchmark.peers import PEERS, make_peer
from hardnet_match.benchmark.peers.base import as_bits
from hardnet_match.benchmark.scenes import known_cameras, read_scene
from hardnet_match.benchmark.sequences import read_sequences
from hardnet_match.errors import DataError, OptionError, ReconstructionError
from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.matching import match
from hardnet_match.metrics.homography import corner_error, matching_accuracy, transfer, transfer_errors
from hardnet_match.metrics.pose import pose_error
from hardnet_match.sfm.colmap import pycolmap

H = np.array([[0.9, 0.1, 5.0], [-0.05, 1.1, -3.0], [1e-4, 2e-4, 1.0]])


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planar_sequence(tmp_path_factory.mktemp("planar"))


# Sequences


def blank(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.zeros((8, 8, 3) if path.suffix == ".ppm" else (8, 8), np.uint8))


def test_sequences_of_every_form(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    for number in (1, 2, 3):
        blank(tmp_path / "v_wall" / f"{number}.ppm")
        blank(tmp_path / "graf" / f"img{number}.pgm")
        if number > 1:
            np.savetxt(tmp_path / "v_wall" / f"H_1_{number}", H * number)
            np.savetxt(tmp_path / "graf" / f"H1to{number}p", H)
    np.savetxt(tmp_path / "graf" / "H1to1p", np.eye(3))
    (tmp_path / "graf" / "notes.txt").write_text("not a homography")
    blank(tmp_path / "homogr" / "townA.png")
    blank(tmp_path / "homogr" / "townB.jpg")
    first = np.random.default_rng(0).uniform(0, 300, (12, 2))
    points = np.concatenate([first, np.ones((12, 1)), transfer(H, first), np.ones((12, 1))], axis=1)
    io.savemat(tmp_path / "homogr" / "town_vpts.mat", {"validation": {"pts": points.T}})
    found = read_sequences(tmp_path)
    assert [(pair.name, pair.first, pair.second) for pair in found] == [
        ("graf 1-2", "graf/img1.pgm", "graf/img2.pgm"),
        ("graf 1-3", "graf/img1.pgm", "graf/img3.pgm"),
        ("homogr town", "homogr/townA.png", "homogr/townB.jpg"),
        ("v_wall 1-2", "v_wall/1.ppm", "v_wall/2.ppm"),
        ("v_wall 1-3", "v_wall/1.ppm", "v_wall/3.ppm"),
    ]
    np.testing.assert_allclose(found[2].homography, H, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[4].homography, 3 * H)
    [one, _] = read_sequences(tmp_path / "v_wall")  # a sequence itself
    assert (one.name, one.sequence, one.first) == ("v_wall 1-2", ".", "1.ppm")


def test_names_with_marks_that_patterns_have(tmp_path: Path) -> None:
    """Of every kind of file that photos are found in."""
    for name in ("town[1]A.png", "town[1]B.pnm", "town1A.jpg", "town1B.jpg"):
        blank(tmp_path / name)
    first = np.random.default_rng(0).uniform(0, 300, (12, 2))
    points = np.concatenate([first, np.ones((12, 1)), transfer(H, first), np.ones((12, 1))], axis=1)
    pytest.importorskip("scipy.io").savemat(tmp_path / "town[1]_vpts.mat", {"validation": {"pts": points.T}})
    [pair] = read_sequences(tmp_path)
    assert (pair.first, pair.second) == ("town[1]A.png", "town[1]B.pnm")


def test_what_is_no_sequence_is_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no such folder"):
        read_sequences(tmp_path / "no")
    with pytest.raises(DataError, match="no sequence"):
        read_sequences(tmp_path)
    np.savetxt(tmp_path / "H_1_2", H)
    with pytest.raises(DataError, match="image 1"):
        read_sequences(tmp_path)
    blank(tmp_path / "1.png")
    blank(tmp_path / "2.png")
    for text in ("1 2 3", "a b c\n1 2 3\n1 2 3", "0 0 0\n0 0 0\n0 0 0", ""):
        (tmp_path / "H_1_2").write_text(text)
        with pytest.raises(DataError, match="H_1_2"):
            read_sequences(tmp_path)
    (tmp_path / "H_1_2").unlink()
    blank(tmp_path / "xA.png")
    blank(tmp_path / "xB.png")
    (tmp_path / "x_vpts.mat").write_bytes(b"no matlab file at all" * 20)
    with pytest.raises(DataError, match="annotated"):
        read_sequences(tmp_path)


# Scenes


def test_the_same_cameras_from_every_form(tmp_path: Path, rendered: dict[str, Any]) -> None:
    folder = known_scene(tmp_path / "texts", rendered)
    texts = read_scene(folder)
    names = sorted(texts.poses)
    assert len(names) == 3
    assert texts.pairs() == [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]  # no points are known
    model = pycolmap.Reconstruction()
    camera = texts.cameras[names[0]]
    camera.camera_id = 1
    model.add_camera_with_trivial_rig(camera)
    for number, name in enumerate(names, 1):
        rotation, translation = texts.poses[name]
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(rotation), translation)
        points = [pycolmap.Point2D(np.array([10.0 * k, 5.0])) for k in range(4)]
        model.add_image_with_trivial_frame(
            pycolmap.Image(name=name, camera_id=1, image_id=number, points2D=points), pose
        )
    for k, seen in enumerate(((0, 1), (0, 1, 2), (0, 1))):
        track = pycolmap.Track()
        for view in seen:
            track.add_element(view + 1, k)
        model.add_point3D(np.array([k, 0.0, 9.0]), track)
    (tmp_path / "model").mkdir()
    model.write(tmp_path / "model")
    from_colmap = read_scene(folder, tmp_path / "model")
    assert from_colmap.pairs(1) == [(names[0], names[1]), (names[0], names[2]), (names[1], names[2])]
    assert from_colmap.pairs(2) == [(names[0], names[1])]
    assert from_colmap.pairs(4) == []
    for name in names:
        np.testing.assert_allclose(from_colmap.poses[name][0], texts.poses[name][0], atol=1e-9)
        np.testing.assert_allclose(from_colmap.poses[name][1], texts.poses[name][1], atol=1e-9)
    truth = np.array(rendered["images"][names[1]]["R"])
    np.testing.assert_allclose(texts.poses[names[1]][0], truth, atol=1e-9)
    # The ray of a pixel is the inverse of K, pixel centres at integers.
    pixel = np.array([[100.0, 50.0]])
    expected = np.linalg.inv(np.array(rendered["K"])) @ [100, 50, 1]
    np.testing.assert_allclose(texts.rays(names[0], pixel)[0], expected[:2], atol=1e-9)
    assert read_scene(folder).source == folder
    (folder / "poses.txt").unlink()
    shutil.copytree(tmp_path / "model", folder / "sparse" / "0")
    assert read_scene(folder).source == folder / "sparse" / "0"


def test_bundler_files(tmp_path: Path) -> None:
    for name in ("b.png", "a.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((60, 80), np.uint8))
    eye = "1 0 0\n0 1 0\n0 0 1\n"
    cameras = f"100 -0.1 0.01\n{eye}0 0 0\n120 0 0\n{eye}1 2 3\n"
    points = "0 0 -5\n255 0 0\n2 0 7 1.0 2.0 1 3 4.0 5.0\n1 1 -5\n0 0 0\n1 1 4 0.0 0.0\n"
    (tmp_path / "bundle.out").write_text(f"# Bundle file v0.3\n2 2\n{cameras}{points}")
    (tmp_path / "list.txt").write_text("b.png 0 100\na.png\n")
    scene = read_scene(tmp_path)
    assert {name: points.tolist() for name, points in scene.seen.items()} == {"b.png": [0], "a.png": [0, 1]}
    assert scene.pairs(1) == [("a.png", "b.png")]
    np.testing.assert_allclose(scene.poses["a.png"][0], np.diag([1, -1, -1]))
    # Bundler's distortion: a ray at radius r lands f (1 + k1 r^2 + k2 r^4) r from the centre (39.5, 29.5).
    radius = 0.2
    pixel = 39.5 + 100 * radius * (1 - 0.1 * radius**2 + 0.01 * radius**4)
    np.testing.assert_allclose(scene.rays("b.png", np.array([[pixel, 29.5]])), [[radius, 0]], atol=1e-6)
    (tmp_path / "bundle.out").write_text(f"# Bundle file v0.3\n2 2\n{cameras}{points[:40]}")
    with pytest.raises(DataError, match="cut off"):
        read_scene(tmp_path)
    (tmp_path / "list.txt").unlink()
    with pytest.raises(DataError, match=r"list\.txt"):
        read_scene(tmp_path)


def test_cameras_that_are_missing_or_damaged_are_told(tmp_path: Path, rendered: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="no such folder"):
        read_scene(tmp_path / "no")
    with pytest.raises(OptionError, match="no known cameras"):
        read_scene(tmp_path)
    assert known_cameras(tmp_path) is None
    folder = known_scene(tmp_path / "scene", rendered)
    with pytest.raises(OptionError, match="no such cameras"):
        read_scene(folder, tmp_path / "no")
    with pytest.raises(ReconstructionError, match="no COLMAP model"):
        read_scene(folder, folder / "images")
    poses, intrinsics = ((folder / name).read_text() for name in ("poses.txt", "intrinsics.txt"))
    for file, text, words in (
        ("poses.txt", poses.replace("view_001.jpg", "view_001.jpg x", 1), "could not convert"),
        ("poses.txt", "view_000.jpg 1 0 0\n", r"poses\.txt:1: a row has 4 words"),
        ("poses.txt", "view_000.jpg 0 0 0 0 1 2 3\n", "quaternion"),
        ("poses.txt", "view_000.jpg nan 0 0 0 1 2 3\n", "not finite"),
        ("poses.txt", poses.splitlines()[0], "two are needed"),
        ("intrinsics.txt", intrinsics.replace("PINHOLE", "FISH", 1), "FISH"),
        ("intrinsics.txt", intrinsics.replace("PINHOLE", "SIMPLE_PINHOLE", 1), "takes f, cx, cy"),
        ("intrinsics.txt", "\n".join(intrinsics.splitlines()[:2]), "no row of"),
    ):
        (folder / "poses.txt").write_text(poses)
        (folder / "intrinsics.txt").write_text(intrinsics)
        (folder / file).write_text(text)
        with pytest.raises(DataError, match=words):
            read_scene(folder)


# Estimators


def matched(outliers: int = 40) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(3)
    first = rng.uniform(0, 600, (160, 2))
    second = transfer(H, first) + rng.normal(scale=0.2, size=first.shape)
    second[:outliers] = rng.uniform(0, 600, (outliers, 2))
    return first, second


def seen() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(4)
    turn, move = np.asarray(cv2.Rodrigues(np.array([0.05, 0.2, -0.1]))[0]), np.array([1.0, 0.1, 0.2])
    points = rng.normal((0, 0, 7), size=(200, 3))
    moved = points @ turn.T + move
    first, second = points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]
    second = second + rng.normal(scale=0.0002, size=second.shape)
    second[:60] = rng.uniform(-0.4, 0.4, (60, 2))
    return first, second, turn, move


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_find_the_truth_among_wrong_matches(name: str) -> None:
    pytest.importorskip("poselib")
    first, second = matched()
    plain = Estimator(name, 2.0)
    found = plain.homography(first, second)
    assert corner_error(found, H, (600, 600)) < 1
    np.testing.assert_array_equal(found, plain.homography(first, second))
    rays0, rays1, turn, move = seen()
    pose = Estimator(name, 1.0).relative_pose(rays0, rays1, 1000.0)
    assert pose_error(pose, (turn, move))[2] < 1
    again = Estimator(name, 1.0).relative_pose(rays0, rays1, 1000.0)
    assert pose is not None
    assert again is not None
    np.testing.assert_array_equal(pose[0], again[0])
    np.testing.assert_allclose(np.linalg.norm(pose[1]), 1, atol=1e-4)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_estimators_give_nothing_from_nothing(name: str) -> None:
    pytest.importorskip("poselib")
    robust = Estimator(name, 2.0)
    none = np.zeros((0, 2))
    assert robust.homography(none, none) is None
    assert robust.relative_pose(none, none, 500.0) is None
    few = np.random.default_rng(0).uniform(size=(4, 2))
    assert robust.homography(few[:3], few[:3]) is None
    assert robust.relative_pose(few, few, 500.0) is None
    same = np.ones((30, 2))  # one place over and over is no plane and no pose, and must not end the process
    robust.homography(same, same)
    robust.relative_pose(same, same, 500.0)
    five = seen()
    robust.relative_pose(five[0][60:65], five[1][60:65], 1000.0)


def test_estimators_that_cannot_work_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="no estimator 'lmeds'"):
        Estimator("lmeds", 1.0)
    with pytest.raises(OptionError, match="above 0"):
        Estimator("ransac", 0.0)
    monkeypatch.setattr(estimators, "has_poselib", lambda: False)
    with pytest.raises(OptionError, match=r"hardnet-match\[benchmark\]"):
        Estimator("poselib", 1.0)


# Peers


def picture(sequence: Path, number: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(sequence / "front" / f"img{number}.png"), cv2.IMREAD_GRAYSCALE), np.uint8)


DIMS = {"orb": 256, "akaze": 488}
AVAILABLE = [name for name in PEERS if "keynet" not in name]


@pytest.mark.parametrize("name", AVAILABLE)
def test_peers_match_a_known_plane(name: str, sequence: Path) -> None:
    if name == "akaze" and not hasattr(cv2, "AKAZE_create"):
        with pytest.raises(OptionError, match="opencv-contrib"):
            make_peer(name, 300).extract(picture(sequence, 1))
        return
    peer = make_peer(name, 300)
    a, b = peer.extract_batch([picture(sequence, 1), picture(sequence, 2)])
    assert 100 < len(a) <= 300
    assert a.descriptors.shape == (len(a), DIMS.get(name, 128))
    assert a.image_size == (320, 240)
    truth = np.loadtxt(sequence / "front" / "H1to2p")
    rows = match(a, b, "smnn", 0.9).pairs
    errors = transfer_errors(truth, a.keypoints[rows[:, 0]], b.keypoints[rows[:, 1]])
    assert matching_accuracy(errors)[2] > 0.2  # only the house front moves as the homography says
    assert (errors < 3).sum() > 10
    again = make_peer(name, 300).extract(picture(sequence, 1))
    np.testing.assert_array_equal(a.lafs, again.lafs)
    assert peer.settings["peer"] == name


@pytest.mark.parametrize("name", [name for name in AVAILABLE if name != "akaze" and "kornia" not in name])
def test_peers_find_nothing_in_nothing(name: str) -> None:
    found = make_peer(name, 50).extract(np.full((96, 96), 128, np.uint8))
    assert len(found) == 0
    assert found.descriptors.shape == (0, DIMS.get(name, 128))


def test_peers_give_the_best_they_have(sequence: Path) -> None:
    image = picture(sequence, 1)
    many, few = make_peer("sift", 200).extract(image), make_peer("sift", 40).extract(image)
    assert (len(many), len(few)) == (200, 40)
    assert few.scores.min() >= np.sort(many.scores)[::-1][40] - 1e-7
    coarse = make_peer("colmap-sift", 40).extract(image)
    assert len(coarse) <= 40
    assert (np.diff(coarse.scores) <= 0).all()  # COLMAP's preference: the largest scales


def test_opencvs_sift_is_opencvs(sequence: Path) -> None:
    image = picture(sequence, 1)
    keypoints, described = cv2.SIFT.create(200, 3, 0.01, 10, 1.6, True).detectAndCompute(image, None)
    found = make_peer("sift", 200).extract(image)
    np.testing.assert_allclose(found.keypoints, [k.pt for k in keypoints][:200], atol=1e-4)
    np.testing.assert_array_equal(found.descriptors, described[:200])
    root = make_peer("rootsift", 200).extract(image)
    np.testing.assert_allclose(np.linalg.norm(root.descriptors, axis=1), 1, atol=1e-5)


def test_colmaps_sift_lies_where_opencvs_does(sequence: Path) -> None:
    ours, theirs = (make_peer(name, 300).extract(picture(sequence, 1)).keypoints for name in ("sift", "colmap-sift"))
    distance = np.linalg.norm(ours[:, None] - theirs[None], axis=2)
    near = distance.min(axis=1) < 1
    offset = (ours - theirs[distance.argmin(axis=1)])[near]
    assert near.sum() > 50
    assert np.abs(np.median(offset, axis=0)).max() < 0.1  # half a pixel off would show


def test_bits_are_compared_by_hamming_distance() -> None:
    rng = np.random.default_rng(0)
    packed = rng.integers(0, 256, (60, 32), np.uint8)
    noisy = packed ^ (rng.random((60, 32)) < 0.1) * rng.integers(0, 256, (60, 32)).astype(np.uint8)
    others = rng.integers(0, 256, (40, 32), np.uint8)
    first, second = packed, np.ascontiguousarray(np.concatenate([noisy.astype(np.uint8), others])[rng.permutation(100)])

    def features(bits: NDArray[np.uint8]) -> Features:
        lafs = make_lafs(np.zeros((len(bits), 2)), 3.0)
        return Features(lafs, np.ones(len(bits), np.float32), as_bits(bits), (9, 9))

    expected = {(m.queryIdx, m.trainIdx) for m in cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(first, second)}
    assert set(map(tuple, match(features(first), features(second), "mnn").pairs.tolist())) == expected
    nearest = cv2.BFMatcher(cv2.NORM_HAMMING).knnMatch(first, second, k=2)
    passed = {(m.queryIdx, m.trainIdx) for m, n in nearest if m.distance <= 0.81 * n.distance}
    assert set(map(tuple, match(features(first), features(second), "snn", 0.9).pairs.tolist())) == passed


def test_wrong_peers_are_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no peer 'surf'"):
        make_peer("surf", 10)
    with pytest.raises(OptionError, match="--detector-weights"):
        make_peer("kornia-keynetaffnet-hardnet", 10)
    with pytest.raises(OptionError, match="at least 1"):
        make_peer("sift", 0)
    image = np.zeros((32, 32), np.uint8)
    with pytest.raises(OptionError, match="no masks"):
        make_peer("sift", 10).extract_batch([image], [np.ones((32, 32), bool)])


def test_kornias_keynet_with_weights_given(shared: Path, sequence: Path) -> None:
    weights = shared / "weights" / "keynet" / "keynet_pytorch.pth"
    found = make_peer("kornia-keynetaffnet-hardnet", 60, str(weights)).extract(picture(sequence, 1))
    assert 20 < len(found) <= 60
    assert found.descriptors.shape[1] == 128


# SIFT of patches


def test_sift_of_patches_is_opencvs_one_by_one(sequence: Path) -> None:
    image = picture(sequence, 1)
    patches = np.stack([image[y : y + 32, x : x + 32] for y in range(0, 200, 40) for x in range(0, 280, 40)])
    found = opencv_sift(patches)
    assert found.shape == (len(patches), 128)
    centre = 31 / 2
    for patch, row in zip(patches[:6], found[:6], strict=True):
        alone = cv2.copyMakeBorder(patch, 16, 16, 16, 16, cv2.BORDER_REPLICATE)
        _, expected = cv2.SIFT.create().compute(alone, [cv2.KeyPoint(16 + centre, 16 + centre, 32 / 6, 0)])
        assert np.abs(row - expected[0]).max() <= 2  # rounding where the picture's own edge is
    np.testing.assert_allclose(np.linalg.norm(opencv_sift(patches, root=True), axis=1), 1, atol=1e-5)
    assert opencv_sift(patches[:0]).shape == (0, 128)
    with pytest.raises(DataError, match=r"\(N, S, S\)"):
        opencv_sift(image)
