"""COLMAP databases and models from known geometry; COLMAP's own tools as the judges."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sfm_helpers import NAMES, SIZE, Scene, make_scene

from hardnet_match.errors import DataError, HardnetMatchError, OptionError, ReconstructionError, StoreError
from hardnet_match.features import Features, Matches
from hardnet_match.frames import MR_SIZE
from hardnet_match.sfm import (
    CancellationToken,
    colmap_descriptors,
    compare_cameras,
    reconstruct,
    summarise,
    verify,
    write_database,
)
from hardnet_match.sfm.colmap import pycolmap, quietly
from hardnet_match.sfm.database import checked_keypoints
from hardnet_match.store import FeatureWriter, MatchWriter

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return make_scene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def database(scene: Scene) -> Path:
    path = scene.folder.parent / "verified.db"
    write_database(path, scene.folder, scene.features, scene.matches, camera_mode="single")
    verify(path)
    return path


def test_database_holds_what_the_files_hold(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "a" / "db.db"
    done = write_database(path, scene.folder, scene.features, scene.matches)
    assert (done.images, done.pairs, done.descriptors) == (6, 15, "written")
    assert done.cameras == 6
    assert os.listdir(path.parent) == ["db.db"]
    from hardnet_match.store import FeatureReader, MatchReader

    with pycolmap.Database.open(path) as db, FeatureReader(scene.features) as features, MatchReader(scene.matches) as m:
        images = {image.name: image for image in db.read_all_images()}
        assert set(images) == set(NAMES)
        assert {(c.width, c.height, c.model_name) for c in db.read_all_cameras()} == {(*SIZE, "SIMPLE_RADIAL")}
        for name, image in images.items():
            rows = db.read_keypoints(image.image_id)
            lafs = features.lafs(name)
            np.testing.assert_allclose(rows[:, :2], lafs[:, :, 2] + 0.5, atol=1e-4)
            np.testing.assert_allclose(rows[:, 2:].reshape(-1, 2, 2), lafs[:, :, :2] / MR_SIZE, rtol=1e-5)
            stored = db.read_descriptors(image.image_id).data
            np.testing.assert_array_equal(stored, colmap_descriptors(features.descriptors(name)))
        first, second = NAMES[1], NAMES[4]
        stored = db.read_matches(images[first].image_id, images[second].image_id)
        np.testing.assert_array_equal(stored, m.read(first, second).pairs)


def test_known_cameras_come_back(scene: Scene, database: Path, tmp_path: Path) -> None:
    summary = summarise(database)
    assert summary.verified_pairs >= 12
    assert 0.8 * summary.matches < summary.inliers <= summary.matches
    (model,) = reconstruct(database, scene.folder, tmp_path / "sparse")
    assert model.path == str(tmp_path / "sparse" / "0")
    assert model.images == tuple(sorted(NAMES))
    assert model.left_out == ()
    assert model.registered == 6
    assert model.points > 300
    assert model.observations == pytest.approx(model.points * model.track_length)
    assert model.reprojection_error < 0.4
    errors = compare_cameras(model.path, scene.truth)
    assert errors.names == tuple(sorted(NAMES))
    assert errors.rotation.max() < 0.5
    assert errors.position.max() < 0.01
    assert os.listdir(tmp_path) == ["sparse"]
    with pytest.raises(ReconstructionError, match="not empty"):
        reconstruct(database, scene.folder, tmp_path / "sparse")


def test_the_global_mapper_finds_them_too(scene: Scene, database: Path, tmp_path: Path) -> None:
    (tmp_path / "sparse" / "0").mkdir(parents=True)
    model = reconstruct(database, scene.folder, tmp_path / "sparse", "global", overwrite=True)[0]
    assert model.registered == 6
    errors = compare_cameras(model.path, scene.truth)
    assert errors.rotation.max() < 1
    assert errors.position.max() < 0.02


def test_colmap_matches_our_descriptors(scene: Scene, tmp_path: Path) -> None:
    """COLMAP's own matchers on the bytes we wrote find what our matcher finds on the floats."""
    path = tmp_path / "db.db"
    done = write_database(path, scene.folder, scene.features, None)
    assert done.pairs == 0
    for brute_force in (False, True):
        with pycolmap.Database.open(path) as db:
            db.clear_matches()
            db.clear_two_view_geometries()
        options = pycolmap.FeatureMatchingOptions()
        options.sift.cpu_brute_force_matcher = brute_force
        with quietly():
            pycolmap.match_exhaustive(path, options)
        found = summarise(path)
        assert found.pairs == 15
        assert found.inliers > 3000


def test_descriptors_are_bytes_of_norm_512() -> None:
    rng = np.random.default_rng(0)
    unit = rng.normal(size=(200, 128)).astype(np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for rows in (unit, np.abs(unit), unit.astype(np.float16)):
        stored = colmap_descriptors(rows)
        assert stored.dtype == np.uint8
        np.testing.assert_allclose(np.linalg.norm(stored.astype(float), axis=1), 512, atol=4)
    np.testing.assert_allclose(colmap_descriptors(np.abs(unit)), 512 * np.abs(unit), atol=0.51)
    near = unit + 0.05 * rng.normal(size=unit.shape).astype(np.float32)
    stored = colmap_descriptors(unit).astype(float) @ colmap_descriptors(near).astype(float).T
    np.testing.assert_array_equal(stored.argmax(axis=1), np.arange(200))
    np.testing.assert_array_equal(
        colmap_descriptors(stored[:, :128].astype(np.uint8)), stored[:, :128].astype(np.uint8)
    )
    assert colmap_descriptors(np.zeros((2, 128), np.float32)).sum() == 0
    assert colmap_descriptors(np.zeros((0, 128), np.float32)).shape == (0, 128)
    with pytest.raises(DataError, match="128"):
        colmap_descriptors(np.zeros((2, 64), np.float32))
    with pytest.raises(DataError, match="NaN"):
        colmap_descriptors(np.full((2, 128), np.nan, np.float32))


def test_other_dimensions_leave_descriptors_out(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], dim=64)
    done = write_database(tmp_path / "db.db", scene.folder, scene.features, scene.matches)
    assert "these have 64" in done.descriptors
    assert verify(tmp_path / "db.db").verified_pairs == 3
    assert reconstruct(tmp_path / "db.db", scene.folder, tmp_path / "out")[0].registered == 3


@pytest.mark.parametrize(("mode", "cameras"), [("auto", 6), ("single", 1), ("per-folder", 3), ("per-image", 6)])
def test_camera_modes(scene: Scene, tmp_path: Path, mode: str, cameras: int) -> None:
    """One image is WebP, which COLMAP cannot decode: its camera is written by us, and shared as asked."""
    done = write_database(
        tmp_path / "d.db", scene.folder, scene.features, None, camera_mode=mode, camera_model="PINHOLE"
    )
    assert done.cameras == cameras
    with pycolmap.Database.open(tmp_path / "d.db") as db:
        assert db.num_rigs() == cameras
        assert db.num_frames() == 6
        assert {camera.model_name for camera in db.read_all_cameras()} == {"PINHOLE"}
        assert {tuple(camera.params) for camera in db.read_all_cameras()} == {(768.0, 768.0, 320.0, 240.0)}


def test_exif_focal_length_is_used(scene: Scene, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = 28
    (tmp_path / "p").mkdir()
    names = ["a.jpg", "b.webp"]
    for name in names:
        Image.new("RGB", SIZE).save(tmp_path / "p" / name, exif=exif)
    with FeatureWriter(tmp_path / "f.h5", {}) as writer:
        for name in names:
            writer.write(name, empty_features())
    write_database(tmp_path / "d.db", tmp_path / "p", tmp_path / "f.h5", None)
    with pycolmap.Database.open(tmp_path / "d.db") as db:
        cameras = db.read_all_cameras()
    assert all(camera.has_prior_focal_length for camera in cameras)
    assert cameras[0].focal_length == pytest.approx(28 / 43.27 * 800, rel=1e-3)
    assert cameras[1].focal_length == pytest.approx(cameras[0].focal_length, rel=1e-3)


def empty_features(size: tuple[int, int] = SIZE) -> Features:
    return Features(np.zeros((0, 2, 3), np.float32), np.zeros(0, np.float32), np.zeros((0, 128), np.float32), size)


def test_images_without_features_do_no_harm(scene: Scene, tmp_path: Path) -> None:
    """An image with no keypoint is in the database, is never registered, and crashes nothing."""
    names = [*NAMES, "zero.jpg"]
    small = make_scene(tmp_path, names[:3])
    Image.new("RGB", SIZE).save(small.folder / "zero.jpg")
    with FeatureWriter(small.features, {}) as writer:
        writer.write("zero.jpg", empty_features())
    with MatchWriter(small.matches, {}) as writer:
        writer.write("zero.jpg", names[0], Matches(np.zeros((0, 2), np.int32), np.zeros(0, np.float32)), 0)
    done = write_database(tmp_path / "db.db", small.folder, small.features, small.matches)
    assert (done.images, done.pairs) == (4, 3)
    verify(tmp_path / "db.db")
    (model,) = reconstruct(tmp_path / "db.db", small.folder, tmp_path / "out")
    assert model.left_out == ("zero.jpg",)
    with quietly():
        pycolmap.match_exhaustive(tmp_path / "db.db")


def test_hloc_files_make_a_database_too(scene: Scene, tmp_path: Path) -> None:
    import h5py

    with h5py.File(scene.features) as ours, h5py.File(tmp_path / "f.h5", "w") as theirs:
        for name in ("plain.jpg", "sub/été.png"):
            for key in ("keypoints", "descriptors", "scores"):
                theirs[f"{name}/{key}"] = ours[name][key][()].astype(np.float16)
            theirs[f"{name}/image_size"] = np.array(SIZE)
    with h5py.File(tmp_path / "m.h5", "w") as theirs:
        matches0 = np.full(450, -1, np.int16)
        matches0[:3] = [5, 6, 7]
        theirs["sub-été.png/plain.jpg/matches0"] = matches0
        theirs["sub-été.png/plain.jpg/matching_scores0"] = np.ones(450, np.float16)
    done = write_database(tmp_path / "db.db", scene.folder, tmp_path / "f.h5", tmp_path / "m.h5")
    assert (done.images, done.pairs, done.matches) == (2, 1, 3)
    with pycolmap.Database.open(tmp_path / "db.db") as db:
        ids = {image.name: image.image_id for image in db.read_all_images()}
        assert db.read_matches(ids["plain.jpg"], ids["sub/été.png"]).tolist() == [[5, 0], [6, 1], [7, 2]]


# ---- what is refused, in words


def refused(scene: Scene, tmp_path: Path, **more: object) -> str:
    arguments: dict[str, object] = {
        "path": tmp_path / "d.db",
        "image_dir": scene.folder,
        "feature_file": scene.features,
        "match_file": scene.matches,
        **more,
    }
    with pytest.raises(HardnetMatchError) as caught:
        write_database(**arguments)  # type: ignore[arg-type]
    assert not any("d.db" in name for name in os.listdir(tmp_path)), "nothing may be left behind"
    return str(caught.value)


def test_bad_inputs_are_refused(scene: Scene, tmp_path: Path) -> None:
    assert "camera mode" in refused(scene, tmp_path, camera_mode="many")
    assert "SIMPLE_RADIAL" in refused(scene, tmp_path, camera_model="CAMERA OBSCURA")
    assert "no such image folder" in refused(scene, tmp_path, image_dir=tmp_path / "none")
    assert "6 of 6 images are not in" in refused(scene, tmp_path, image_dir=tmp_path)
    assert "no features of image 'other.jpg'" in refused(scene, tmp_path, names=["other.jpg", "plain.jpg"])
    assert "no such file" in refused(scene, tmp_path, feature_file=tmp_path / "f.h5")
    assert "no such file" in refused(scene, tmp_path, match_file=tmp_path / "m.h5")
    with MatchWriter(tmp_path / "m.h5", {}) as writer:
        far = Matches(np.array([[0, 100_000]], np.int32), np.ones(1, np.float32))
        writer.write(NAMES[0], NAMES[1], far, 5)
    assert "point at feature 100000 of 450" in refused(scene, tmp_path, match_file=tmp_path / "m.h5")
    with FeatureWriter(tmp_path / "f.h5", {}) as writer2:
        writer2.write(NAMES[0], empty_features((480, 640)))
    assert "480 x 640" in refused(scene, tmp_path, feature_file=tmp_path / "f.h5")
    with FeatureWriter(tmp_path / "f.h5", {}) as writer2:
        writer2.write(NAMES[1], empty_features())
    assert "one size" in refused(scene, tmp_path, feature_file=tmp_path / "f.h5", camera_mode="single")


def test_an_existing_database_stays(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "d.db"
    path.write_bytes(b"precious")
    with pytest.raises(ReconstructionError, match="exists"):
        write_database(path, scene.folder, scene.features, None)
    with pytest.raises(StoreError):
        write_database(path, scene.folder, tmp_path / "none.h5", None, overwrite=True)
    assert path.read_bytes() == b"precious"
    with pytest.raises(ReconstructionError, match="not a COLMAP database"):
        verify(path)
    with pytest.raises(ReconstructionError, match="not a COLMAP database"):
        reconstruct(path, scene.folder, tmp_path / "out")
    with pytest.raises(ReconstructionError, match="cannot read"):
        verify(tmp_path / "none.db")
    write_database(path, scene.folder, scene.features, None, overwrite=True)
    with pytest.raises(ReconstructionError, match="no verified image pairs"):
        reconstruct(path, scene.folder, tmp_path / "out")
    with pytest.raises(OptionError, match="mapper"):
        reconstruct(path, scene.folder, tmp_path / "out", "hierarchical")
    with pytest.raises(OptionError, match="max_error"):
        verify(path, max_error=0)


@pytest.mark.parametrize(
    "rows", [np.zeros((3, 5)), np.zeros(6), np.full((2, 6), np.inf)], ids=["columns", "one row", "infinite"]
)
def test_keypoints_that_would_end_the_process(rows: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="keypoints of 'a'"):
        checked_keypoints(rows, "a")


def test_a_hopeless_scene_is_an_error(scene: Scene, tmp_path: Path) -> None:
    """Random matches between images: no geometry, or none that makes a model."""
    rng = np.random.default_rng(0)
    with MatchWriter(tmp_path / "m.h5", {}) as writer:
        for i, first in enumerate(NAMES):
            for second in NAMES[i + 1 :]:
                pairs = np.stack([rng.permutation(400)[:200], rng.permutation(400)[:200]], axis=1).astype(np.int32)
                writer.write(first, second, Matches(pairs, np.ones(200, np.float32)), 450)
    write_database(tmp_path / "d.db", scene.folder, scene.features, tmp_path / "m.h5")
    verify(tmp_path / "d.db")
    with pytest.raises(ReconstructionError):
        reconstruct(tmp_path / "d.db", scene.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert sorted(os.listdir(tmp_path)) == ["d.db", "m.h5"]


def test_cancelled_mapping_stops(scene: Scene, database: Path, tmp_path: Path) -> None:
    token = CancellationToken()
    token.cancel()
    with pytest.raises(InterruptedError):
        reconstruct(database, scene.folder, tmp_path / "out", token=token)
    assert "out.part" not in os.listdir(tmp_path)


def test_cancelled_verification_goes_on_later(scene: Scene, tmp_path: Path) -> None:
    write_database(tmp_path / "d.db", scene.folder, scene.features, scene.matches)
    token = CancellationToken()
    token.cancel()
    with pytest.raises(InterruptedError):
        verify(tmp_path / "d.db", token=token)
    there = summarise(tmp_path / "d.db").verified_pairs  # of 15; what workers had in hand when they saw the token
    first = verify(tmp_path / "d.db")
    assert first.verified_pairs >= max(12, there)
    assert verify(tmp_path / "d.db") == first, "what is verified stays"


def test_ctrl_c_reaches_colmap() -> None:
    """COLMAP looks at its token, not at signals; the call has ended when KeyboardInterrupt arrives.

    In a process of its own: what a Ctrl-C breaks shows in its exit code, and not in the tests' own process.
    """
    code = """
import os, signal, time
from hardnet_match.sfm.colmap import interruptibly

steps = []

def call(token):
    os.kill(os.getpid(), signal.SIGINT)
    while not token.is_cancelled:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.2)
    steps.append("ended")
    raise InterruptedError

def note(*_):
    steps.append("noted")

for caught, handler in ((KeyboardInterrupt, signal.default_int_handler), (InterruptedError, note)):
    signal.signal(signal.SIGINT, handler)
    try:
        interruptibly(call)
    except caught:
        steps.append("raised")
    assert signal.getsignal(signal.SIGINT) is handler
signal.signal(signal.SIGINT, signal.SIG_IGN)
interruptibly(lambda token: os.kill(os.getpid(), signal.SIGINT))
try:
    interruptibly(lambda token: 1 / 0)
except ZeroDivisionError:
    steps.append("told")
print(*steps)
"""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ended raised ended noted raised told\n"), done.stderr


def test_zlib_and_png_survive_pycolmap(tmp_path: Path) -> None:
    code = (
        "import sys, hardnet_match.sfm, zlib, io\nfrom PIL import Image\nimport cv2, numpy as np\n"
        "zlib.decompress(zlib.compress(bytes(100000)))\nImage.new('RGB', (99, 99)).save(sys.argv[1])\n"
        "assert cv2.imencode('.png', np.zeros((99, 99), np.uint8))[0]\nprint('alive')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.png")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "alive\n", done.stderr


def test_nothing_is_said_on_stderr(scene: Scene, tmp_path: Path) -> None:
    code = """
import sys
from hardnet_match.sfm import reconstruct, verify, write_database
write_database(sys.argv[1] + "/d.db", *sys.argv[2:5])
verify(sys.argv[1] + "/d.db")
reconstruct(sys.argv[1] + "/d.db", sys.argv[2], sys.argv[1] + "/out")
"""
    arguments = [tmp_path, scene.folder, scene.features, scene.matches]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
