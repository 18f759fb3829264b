"""Every form of training data, written small and read back against what was put in."""

from __future__ import annotations

import hashlib
import http.server
import json
import pickle
import threading
import zipfile
import zlib  # noqa: F401  (before pycolmap)
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from training_helpers import made_up_model, texture

from hardnet_match.descriptors import RootSIFT
from hardnet_match.errors import DataError, ImageError, OptionError
from hardnet_match.features import Features
from hardnet_match.frames import from_colmap, make_lafs
from hardnet_match.store import FeatureReader, FeatureWriter
from hardnet_match.training.judge import descriptor_figures, hold_out
from hardnet_match.training.mining import Filters, mine_keypoints, mine_model
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sources import brown as brown_module
from hardnet_match.training.sources.amos import Amos, overlapping
from hardnet_match.training.sources.brown import SETS, TEST_PAIRS, Brown
from hardnet_match.training.sources.choose import kind_of, models_in, open_source
from hardnet_match.training.sources.colmap import ColmapModel
from hardnet_match.training.sources.cutting import stored_patches
from hardnet_match.training.sources.dictionary import Dictionary
from hardnet_match.training.sources.filters import _blocks_of_tracks, agrees_in_looks, agrees_in_size, evenly
from hardnet_match.training.sources.frames import DatabaseFrames, DetectedFrames, FeatureFrames
from hardnet_match.training.sources.gather import gather, gather_to_file
from hardnet_match.training.sources.hpatches import VIEWS, HPatches, split_sequences
from hardnet_match.training.sources.photos import Photos

# models ----------------------------------------------------------------------------------------------


def test_mined_patches_sit_where_the_frames_say(tmp_path: Path) -> None:
    homographies = made_up_model(tmp_path / "model", tmp_path / "photos")
    found = mine_model(
        tmp_path / "model", tmp_path / "model" / "database.db", tmp_path / "photos", Filters(contrast=1.0, max_views=6)
    )
    assert len(found) > 250
    assert found.position[:, 2] == pytest.approx(10)
    assert np.median(found.size) == pytest.approx(0.45, rel=0.05)
    # by hand: the inner 32x32 cells of a stored patch, through the homography, out of the photo
    steps = (2 * np.arange(32) + 1) / 32 - 1
    photos = sorted((tmp_path / "photos").glob("*.png"))
    images = {i + 1: cv2.imread(str(photo), 0).astype(np.float32) for i, photo in enumerate(photos)}
    errors = []
    for row in range(0, len(found), 7):
        image = int(found.image[row])
        centre = cv2.perspectiveTransform(
            found.position[row, :2].astype(np.float64)[None, None], homographies[image - 1]
        )
        in_plane = found.position[row, :2].astype(np.float64)
        edge = cv2.perspectiveTransform((in_plane + np.array([0.01, 0]))[None, None], homographies[image - 1])
        scale = 0.45 * np.linalg.norm(edge - centre) / 0.01
        axes = make_lafs(centre[0], scale, np.rad2deg(-0.15 * (image - 1)))[0, :, :2]
        x = centre[0, 0, 0] + axes[0, 0] * steps[None] + axes[0, 1] * steps[:, None]
        y = centre[0, 0, 1] + axes[1, 0] * steps[None] + axes[1, 1] * steps[:, None]
        expected = cv2.remap(images[image], x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
        errors.append(np.abs(expected - found.patches[row, 16:48, 16:48]).mean() / expected.std())
    assert np.median(errors) < 0.1
    # patches of one track look alike, of different tracks they do not
    held = hold_out(found, 100)
    assert descriptor_figures(RootSIFT(), held)["rank1"] > 0.9


def test_observations_off_the_mark_are_dropped(tmp_path: Path) -> None:
    made_up_model(tmp_path / "model", tmp_path / "photos")
    database = tmp_path / "model" / "database.db"
    before = mine_model(tmp_path / "model", database, tmp_path / "photos", Filters(contrast=1.0))
    with pycolmap.Database.open(database) as opened:
        image = opened.read_all_images()[0].image_id
        rows = np.asarray(opened.read_keypoints(image)).copy()
        rows[0:30, :2] += 3  # away from the projection
        rows[30:60, 2:] *= 2  # an octave too large
        rows[60:90, 2:] *= -1  # upside down
        opened.update_keypoints(image, rows)
    after = mine_model(tmp_path / "model", database, tmp_path / "photos", Filters(contrast=1.0))
    dropped = (before.image == image).sum() - (after.image == image).sum()
    assert dropped >= 0.9 * (before.image == image).sum() * 90 / 150
    assert (after.image != image).sum() >= 0.97 * (before.image != image).sum()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` (with its database) and `photos` of a made-up scene; nobody may write there."""
    folder = tmp_path_factory.mktemp("scene")
    made_up_model(folder / "model", folder / "photos")
    return folder


def as_features(scene: Path, path: Path, shift: float = 0.0) -> Path:
    """The keypoints of the scene's database as a features file."""
    with (
        pycolmap.Database.open(scene / "model" / "database.db") as database,
        FeatureWriter(path, {"made": "up"}) as writer,
    ):
        for image in database.read_all_images():
            lafs = from_colmap(np.asarray(database.read_keypoints(image.image_id)))
            lafs[:, :, 2] += shift
            descriptors = np.zeros((len(lafs), 8), np.float32)
            writer.write(image.name, Features(lafs, np.ones(len(lafs), np.float32), descriptors, (640, 480)))
    return path


def test_frames_of_a_features_file_give_the_same_patches(scene: Path, tmp_path: Path) -> None:
    features = as_features(scene, tmp_path / "features.h5")
    kept = Filters(contrast=1.0)
    one = mine_model(scene / "model", scene / "model" / "database.db", scene / "photos", kept)
    other = mine_model(scene / "model", features, scene / "photos", kept)
    assert (one.track == other.track).all()
    assert np.abs(one.patches.astype(int) - other.patches).max() <= 1  # COLMAP's half pixel, to float32


def test_frames_of_another_reconstruction_are_refused(scene: Path, tmp_path: Path) -> None:
    moved = as_features(scene, tmp_path / "moved.h5", shift=5.0)
    with pytest.raises(DataError, match=r"lie elsewhere.*another reconstruction"):
        mine_model(scene / "model", moved, scene / "photos")
    with FeatureWriter(tmp_path / "few.h5", {}) as writer:
        for index in range(3):
            one = Features(make_lafs([[9, 9]], 5), np.ones(1, np.float32), np.zeros((1, 8), np.float32), (640, 480))
            writer.write(f"v {index}.png", one)
    with pytest.raises(DataError, match="150 keypoints in the model and 1 where"):
        mine_model(scene / "model", tmp_path / "few.h5", scene / "photos")
    with pytest.raises(DataError, match="no COLMAP model"):
        mine_model(tmp_path, moved, scene / "photos")
    with pytest.raises(DataError, match=r"database\.db: no such database"):
        DatabaseFrames(tmp_path / "database.db")
    (tmp_path / "text.db").write_text("hello")
    with pytest.raises(DataError, match="not a COLMAP database"):
        DatabaseFrames(tmp_path / "text.db")
    with pytest.raises(DataError, match="no such file"):
        FeatureFrames(tmp_path / "nowhere.h5")


def test_a_missing_photo_costs_its_patches_alone(scene: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in (0, 2):
        (photos / f"v {index}.png").write_bytes((scene / "photos" / f"v {index}.png").read_bytes())
    source = ColmapModel(scene / "model", photos, DatabaseFrames(scene / "model" / "database.db"), Filters(contrast=1))
    found, skipped, _ = gather_to_file(source, tmp_path / "set.h5")
    assert list(skipped) == ["v 1.png"]
    assert "no such file" in skipped["v 1.png"]
    assert len(set(found.image.tolist())) == 2
    assert len(found) > 150
    with pytest.raises(ImageError, match=r"v 1\.png"):
        gather(source)


def test_only_the_images_asked_for_are_mined(scene: Path) -> None:
    database = scene / "model" / "database.db"
    found = mine_model(scene / "model", database, scene / "photos", Filters(contrast=1), only=["v 0.png", "v 2.png"])
    every = mine_model(scene / "model", database, scene / "photos", Filters(contrast=1))
    assert len(set(found.image.tolist())) == 2 < len(set(every.image.tolist()))
    with pytest.raises(DataError, match="no observation"):
        mine_model(scene / "model", database, scene / "photos", only=["other.png"])


def test_models_of_one_reconstruction_are_scenes_of_one_set(scene: Path) -> None:
    frames = DatabaseFrames(scene / "model" / "database.db")
    one = gather(ColmapModel(scene / "model", scene / "photos", frames, Filters(contrast=1)))
    two = gather(ColmapModel([scene / "model", scene / "model"], scene / "photos", frames, Filters(contrast=1)))
    assert len(two) == 2 * len(one)
    assert set(two.scene.tolist()) == {0, 1}
    assert (two.patches[len(one) :] == one.patches).all()
    assert len(set(two.track.tolist())) == 2 * len(set(one.track.tolist()))


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 5), st.integers(0, 9))
def test_filters_over_sorted_tracks_do_what_a_loop_does(counts: list[int], most: int, seed: int) -> None:
    track = np.repeat(np.arange(len(counts), dtype=np.int64) * 7, counts)
    rng = np.random.default_rng(seed)
    size = np.exp2(rng.normal(scale=0.6, size=len(track))).astype(np.float32)
    near, some = agrees_in_size(track, size, 0.5), evenly(track, most)
    for label in set(track.tolist()):
        rows = np.flatnonzero(track == label)
        median = np.sort(np.log2(size[rows]))[len(rows) // 2]
        assert near[rows].tolist() == (np.abs(np.log2(size[rows]) - median) < 0.5).tolist()
        assert some[rows].sum() == min(len(rows), most)
        assert some[rows[0]]
        gaps = np.diff(np.flatnonzero(some[rows]))
        assert not len(gaps) or gaps.max() - gaps.min() <= 1
    blocks = list(_blocks_of_tracks(track))
    assert np.concatenate([np.arange(len(track))[b] for b in blocks] or [track[:0]]).tolist() == list(range(len(track)))


def test_the_odd_one_of_a_track_is_found_by_its_looks() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (2, 16, 16)).astype(np.float32)
    looks = np.kron(base, np.ones((4, 4)))[[0, 0, 0, 1, 1, 0]]  # row 5 is no view of track 1
    noisy = np.clip(looks + rng.normal(scale=10, size=looks.shape), 0, 255).astype(np.uint8)
    track = np.array([0, 0, 0, 1, 1, 1])
    assert agrees_in_looks(track, noisy, 0.25).tolist() == [True, True, True, True, True, False]
    # two that disagree leave nothing of their track
    assert not agrees_in_looks(track[:2], noisy[[0, 3]], 0.25).any()
    with pytest.raises(OptionError, match="two views"):
        Filters(max_views=1)


# photos ----------------------------------------------------------------------------------------------


def test_keypoints_of_single_photos_are_tracks_of_one(scene: Path) -> None:
    for frames in (scene / "model" / "database.db", None):
        found = mine_keypoints(frames, scene / "photos", per_photo=50, contrast=1.0)
        assert len(set(found.track.tolist())) == len(found) > 90
        assert set(found.image.tolist()) == {0, 1, 2}
        assert set(found.scene.tolist()) == {0}
        rows = np.arange(len(found))
        same = found.same_place(rows, rows)
        assert same is not None
        assert not same[found.image[:, None] != found.image[None]].any()
    assert (found.patches == mine_keypoints(None, scene / "photos", per_photo=50, contrast=1.0).patches).all()
    other = mine_keypoints(None, scene / "photos", per_photo=50, contrast=1.0, seed=1)
    assert len(other) != len(found) or (other.patches != found.patches).any()


def test_detected_frames_turn_with_the_photo() -> None:
    photo = texture(300, 300, 3)
    frames = DetectedFrames(Path("."), [], count=400)
    one, other = frames.in_photo(photo), frames.in_photo(np.rot90(photo).copy())
    # a quarter turn counter-clockwise takes (x, y) to (y, 299 - x), and patches of the same places look the same
    mapped = np.c_[one[:, 1, 2], 299 - one[:, 0, 2]]
    gaps = np.linalg.norm(mapped[:, None] - other[None, :, :, 2], axis=2)
    near = gaps.min(axis=1) < 0.3
    assert near.mean() > 0.8
    first = stored_patches(photo, one[near])
    second = stored_patches(np.rot90(photo).copy(), other[gaps.argmin(axis=1)[near]])
    difference = np.abs(first[:, 16:48, 16:48].astype(float) - second[:, 16:48, 16:48]).mean(axis=(1, 2))
    assert np.median(difference) < 3
    assert not len(frames.in_photo(np.zeros((64, 64), np.uint8)))
    with pytest.raises(OptionError, match="keynet"):
        DetectedFrames(Path("."), [], "keynet")


def test_a_folder_without_usable_photos_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no photo"):
        Photos(tmp_path)
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8 not much of a picture")
    with pytest.raises(DataError, match=r"nothing to learn from \(1 unreadable, the first: .*torn\.jpg"):
        gather_to_file(Photos(tmp_path), tmp_path / "set.h5")
    cv2.imwrite(str(tmp_path / "flat.png"), np.full((80, 80), 99, np.uint8))
    with pytest.raises(DataError, match="nothing to learn from"):
        gather_to_file(Photos(tmp_path), tmp_path / "set.h5")
    cv2.imwrite(str(tmp_path / "texture.png"), texture(200, 200, 0))
    found, skipped, _ = gather_to_file(Photos(tmp_path, per_photo=20), tmp_path / "set.h5")
    assert list(skipped) == ["torn.jpg"]
    assert 5 < len(found) <= 20


# Brown -----------------------------------------------------------------------------------------------


def brown_like(folder: Path, count: int = 600, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Files as Brown's zips hold them; the patches and points in their order."""
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    patches = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
    points = np.sort(rng.integers(0, count // 3, count))
    for number, start in enumerate(range(0, count, 256)):
        grid = np.zeros((1024, 1024), np.uint8)
        for k, patch in enumerate(patches[start : start + 256]):
            y, x = 64 * (k // 16), 64 * (k % 16)
            grid[y : y + 64, x : x + 64] = patch
        cv2.imwrite(str(folder / f"patches{number:04d}.bmp"), grid)
    (folder / "info.txt").write_text("".join(f"{point} 0\n" for point in points))
    (folder / "interest.txt").write_text("".join(f"{k % 7} {k}.5 3.25 -1.57 2.0\n" for k in range(count)))
    pairs = rng.integers(0, count, (40, 2))
    pairs[::2, 1] = np.searchsorted(points, points[pairs[::2, 0]])
    (folder / TEST_PAIRS).write_text("".join(f"{a} {points[a]} 0 {b} {points[b]} 0 0 \n" for a, b in pairs))
    return patches, points


def zipped(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, inside + file.name)
    return path


@pytest.mark.parametrize("form", ["folder", "zip", "zip with a folder"])
def test_brown_comes_back_in_order(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "liberty-like"
    patches, points = brown_like(folder)
    path = folder
    if form != "folder":
        path = zipped(folder, tmp_path / "b.zip", "liberty/" if "with" in form else "")
    found, _, _ = gather_to_file(Brown(path), tmp_path / "set.h5")
    assert (found.margin, found.side) == (1.0, 64)
    order = np.lexsort((np.arange(600) % 7, points))  # by point, then by reference image
    assert (found.track == points[order]).all()
    assert (found.patches == patches[order]).all()
    assert (found.image == order % 7).all()
    assert found.same_place(order, order) is None
    rows = [line.split() for line in (folder / TEST_PAIRS).read_text().splitlines()]
    assert found.matches is not None
    assert 15 < found.matches[:, 2].sum() < 25
    for (a, b, same), row in zip(found.matches, rows, strict=True):
        assert (found.patches[a] == patches[int(row[0])]).all()
        assert (found.patches[b] == patches[int(row[3])]).all()
        assert same == (row[1] == row[4])


def test_brown_without_its_further_files(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    brown_like(folder)
    (folder / "interest.txt").unlink()
    (folder / TEST_PAIRS).unlink()
    found = gather(Brown(folder))
    assert found.matches is None
    assert not found.image.any()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: (f / "info.txt").unlink(), "has no info.txt"),
        (lambda f: (f / "info.txt").write_text("1 0\nx 0\n"), "no table of numbers"),
        (lambda f: (f / "info.txt").write_text(""), "empty"),
        (lambda f: (f / "patches0001.bmp").unlink(), "need 3 bitmaps, there are 2"),
        (lambda f: (f / "interest.txt").write_text("1 2\n"), "differ in their number of rows"),
        (lambda f: (f / "patches0001.bmp").write_bytes(b"BM"), "not a whole picture"),
        (lambda f: cv2.imwrite(str(f / "patches0001.bmp"), np.zeros((64, 64))), "64x64, not 1024x1024"),
        (lambda f: (f / TEST_PAIRS).write_text("0 1 0 999999 1 0\n"), "does not fit the 600 patches"),
        (lambda f: (f / TEST_PAIRS).write_text("0 77 0 1 77 0\n"), "other points than info.txt"),
    ],
)
def test_damaged_brown_says_what_is_wrong(tmp_path: Path, harm: Any, reason: str) -> None:
    folder = tmp_path / "b"
    brown_like(folder)
    harm(folder)
    with pytest.raises(DataError, match=reason):
        gather_to_file(Brown(folder), tmp_path / "set.h5")
    assert not (tmp_path / "set.h5").exists()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A folder served over HTTP, the paths asked for, and an empty cache."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()
    monkeypatch.setenv("HARDNET_MATCH_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_address[1]}"
    for name, entry in SETS.items():
        urls = tuple(f"{here}/{url.rsplit('/', 1)[1]}" for url in entry.urls)
        monkeypatch.setitem(brown_module.SETS, name, replace(entry, urls=urls))
    yield folder, asked
    server.shutdown()
    server.server_close()


def test_a_set_is_downloaded_by_name_once_and_checked(
    served: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = served
    patches, _ = brown_like(tmp_path / "b")
    zipped(tmp_path / "b", folder / "liberty.zip")
    with pytest.raises(DataError, match=r"(?s)data 'liberty'.*not the official file.*md5 fdd9152f.*folder or zip you"):
        Brown("liberty")
    digest = hashlib.md5((folder / "liberty.zip").read_bytes()).hexdigest()
    monkeypatch.setitem(brown_module.SETS, "liberty", replace(brown_module.SETS["liberty"], md5=digest))
    asked.clear()
    found = gather(Brown("liberty"))
    assert found.name == "liberty"
    assert len(found) == len(patches)
    assert asked == ["/liberty.zip"]
    assert gather(Brown("liberty")).name == "liberty"
    assert asked == ["/liberty.zip"]
    assert (tmp_path / "cache" / "data" / "liberty.zip").is_file()
    # a copy that went bad is fetched again
    (tmp_path / "cache" / "data" / "liberty.zip").write_bytes(b"PK")
    gather(Brown("liberty"))
    assert asked == ["/liberty.zip"] * 2


def test_all_six_sets_are_known_and_what_is_gone_says_where_to_put_it(served: tuple[Path, list[str]]) -> None:
    assert sorted(SETS) == sorted(f"{place}{kind}" for place in ("liberty", "notredame", "yosemite")
                                  for kind in ("", "_harris"))  # fmt: skip
    assert sum(entry.count for entry in SETS.values()) == 450092 + 468159 + 633587 + 379587 + 325295 + 450912
    for name, entry in SETS.items():
        assert len(entry.md5) == 32
        with pytest.raises(DataError, match=rf"HTTP 404.*(?s:.)*{name}\.zip"):
            Brown(name)
    with pytest.raises(OptionError, match="no set of that name"):
        Brown("statue")


# .pt -------------------------------------------------------------------------------------------------


def contents(count: int = 50, side: int = 64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.permutation(np.arange(count) // 2))
    return {
        "patches": torch.from_numpy(rng.integers(0, 256, (count, side, side), dtype=np.uint8)),
        "labels": labels,
        "matches": torch.tensor([[0, 1, 0], [4, 9, 1]]),
        "cam_ids": torch.arange(count) % 5,
    }


def check_contents(found: PatchSet, content: dict[str, Any]) -> None:
    patches, labels = np.asarray(content["patches"]), np.asarray(content["labels"])
    order = np.lexsort((np.arange(len(labels)) % 5, labels))
    assert (found.track == labels[order]).all()
    assert (found.patches == patches[order]).all()
    assert (found.image == order % 5).all()
    assert found.matches is not None
    assert (found.patches[found.matches[:, 0]] == patches[[0, 4]]).all()
    assert (found.patches[found.matches[:, 1]] == patches[[1, 9]]).all()
    assert found.matches[:, 2].tolist() == [0, 1]


@pytest.mark.parametrize("form", ["tensors", "arrays", "old"])
def test_dictionaries_are_read(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardnet_match.training.sources.dictionary.AT_ONCE", 16)
    content = contents()
    if form == "arrays":
        content = {key: value.numpy() for key, value in content.items()}
    torch.save(content, tmp_path / "set.pt", _use_new_zipfile_serialization=form != "old")
    source = Dictionary(tmp_path / "set.pt")
    assert len(source.pieces()) == 4
    found, _, _ = gather_to_file(source, tmp_path / "set.h5")
    check_contents(found, content)
    assert found.margin == 1.0


def test_torchvisions_tuple_and_four_dimensions(tmp_path: Path) -> None:
    content = contents()
    torch.save((content["patches"][:, None], content["labels"], content["matches"]), tmp_path / "set.pt")
    found = gather(Dictionary(tmp_path / "set.pt", margin=1.5))
    assert not found.image.any()
    assert found.margin == 1.5
    assert sorted(found.patches[:, 0, 0]) == sorted(content["patches"][:, 0, 0])


def test_amos_dictionaries_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((6, 4)) < 0.8
    lafs = make_lafs(rng.random((6, 2)) * 400, 20 + 9 * rng.random(6))
    content = {
        "patch_sets": torch.from_numpy(rng.integers(0, 256, (6, 4, 96, 96), dtype=np.uint8)),
        "LAFs": torch.from_numpy(lafs),
        "cam_idxs": torch.tensor([0, 0, 0, 2, 2, 2.0]),
        "view_names": ["a", "b"],
        "patches_mask": mask,
        "collisions": [np.array([0, 2]), np.array([1]), np.array([0, 2]), np.array([3]), np.array([4]), np.array([5])],
    }
    torch.save(content, tmp_path / "amos.pt")
    found = gather(Dictionary(tmp_path / "amos.pt"))
    assert (found.side, found.margin) == (96, 1.5)
    assert len(found) == mask.sum()
    assert found.collisions is not None
    assert found.collisions.tolist() == [[0, 2]]
    assert found.size is not None
    for row in range(len(found)):
        track, view = int(found.track[row]), int(found.image[row]) % 4
        assert (found.patches[row] == content["patch_sets"][track, view].numpy()).all()
        assert found.scene[row] == content["cam_idxs"][track]
        assert found.size[row] == pytest.approx(np.sqrt(np.linalg.det(lafs[track, :, :2])), rel=1e-5)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('ran', 'w').close()",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({**contents(), "extra": Evil()}, "Nothing of it was run"),
        (Evil(), "Nothing of it was run"),
        ([1, 2], "expected a dict"),
        ({"state_dict": {}}, "expected a dict with `patches`"),
        ({"patches": contents()["patches"]}, "no labels"),
        ({**contents(), "labels": torch.zeros(3)}, "3 labels for 50 patches"),
        ({**contents(), "patches": torch.zeros(50, 64, 64)}, "float32"),
        ({**contents(), "patches": contents()["patches"][:, :30]}, "not \\(M, S, S\\)"),
        ({**contents(), "matches": torch.tensor([[0, 50, 1]])}, "outside its 50"),
        ({**contents(), "matches": torch.zeros(5, 2)}, "not \\(K, 3\\)"),
        ({**contents(), "cam_ids": "none"}, "cam_ids is str"),
        ({"patch_sets": torch.zeros(5, 3, 96, 96, 3, dtype=torch.uint8)}, "grey patches"),
    ],
)
def test_hostile_and_wrong_dictionaries_are_refused(
    tmp_path: Path, content: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "set.pt")
    with pytest.raises(DataError, match=reason) as caught:
        Dictionary(Path("set.pt"))
    assert "set.pt" in str(caught.value)
    assert not Path("ran").exists()


def test_damaged_dictionaries_say_so(tmp_path: Path) -> None:
    path = tmp_path / "set.pt"
    with pytest.raises(DataError, match="no such file"):
        Dictionary(path)
    torch.save(contents(), path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2], pickle.dumps({"patches": 1})):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"set\.pt"):
            Dictionary(path)


# HPatches --------------------------------------------------------------------------------------------


def hpatches_like(folder: Path, names: dict[str, int]) -> dict[str, NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    out = {}
    for name, count in names.items():
        (folder / name).mkdir(parents=True)
        for view in VIEWS:
            patches = rng.integers(0, 256, (count, 65, 65), dtype=np.uint8)
            cv2.imwrite(str(folder / name / f"{view}.png"), patches.reshape(-1, 65))
            out[f"{name}/{view}"] = patches
    return out


def test_hpatches_places_are_tracks_of_sixteen_views(tmp_path: Path) -> None:
    known = hpatches_like(tmp_path / "hp", {"i_b": 5, "v_a": 3, "i_a": 4})
    found, _, _ = gather_to_file(HPatches(tmp_path / "hp"), tmp_path / "set.h5")
    assert (len(found), found.side, found.margin) == (12 * 16, 65, 1.0)
    names, places = ["i_a", "i_b", "v_a"], np.concatenate([np.arange(4), np.arange(5), np.arange(3)])
    for track, place in enumerate(places):
        rows = slice(16 * track, 16 * track + 16)
        assert len(set(found.track[rows].tolist())) == 1
        name = names[int(found.scene[16 * track])]
        for row, view in zip(range(rows.start, rows.stop), VIEWS, strict=True):
            assert (found.patches[row] == known[f"{name}/{view}"][place]).all()
    easy = gather(HPatches(tmp_path / "hp", ["v_a"], noise="e"))
    assert len(easy) == 3 * 6
    assert (easy.patches[1] == known["v_a/e1"][0]).all()


def test_hpatches_splits(tmp_path: Path) -> None:
    folder = tmp_path / "hp"
    hpatches_like(folder, {"i_a": 2, "i_b": 2, "v_a": 2})
    assert split_sequences(folder, "view") == ["i_a", "i_b"]
    assert split_sequences(folder, "view", "test") == ["v_a"]
    assert split_sequences(folder, "illum") == ["v_a"]
    assert split_sequences(folder, "full", "test") == ["i_a", "i_b", "v_a"]
    with pytest.raises(DataError, match="no sequence"):
        split_sequences(folder, "full")
    with pytest.raises(OptionError, match=r"splits\.json"):
        split_sequences(folder, "a")
    splits = {"a": {"name": "a", "train": ["v_a", "i_b", "i_not_here"], "test": ["i_a"]}}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    assert split_sequences(folder, "a") == ["i_b", "v_a"]
    assert split_sequences(folder, "a", "test") == ["i_a"]
    with pytest.raises(OptionError, match="it has a"):
        split_sequences(folder, "d")
    with pytest.raises(OptionError, match="train and test"):
        split_sequences(folder, "a", "both")
    (folder / "splits.json").write_text("[]")
    with pytest.raises((DataError, OptionError), match=r"splits\.json"):
        split_sequences(folder, "a")


def test_damaged_hpatches_say_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "hp"
    with pytest.raises(DataError, match="no HPatches sequence"):
        HPatches(tmp_path)
    hpatches_like(folder, {"i_a": 2})
    with pytest.raises(OptionError, match="noise"):
        HPatches(folder, noise="x")
    cv2.imwrite(str(folder / "i_a" / "e2.png"), np.zeros((66, 65), np.uint8))
    with pytest.raises(DataError, match="65x66, not a column"):
        gather(HPatches(folder))
    (folder / "i_a" / "t5.png").unlink()
    with pytest.raises(DataError, match=r"lacks i_a/t5\.png"):
        HPatches(folder)


# webcams ---------------------------------------------------------------------------------------------


def webcams(folder: Path, cameras: int = 2, views: int = 4) -> None:
    """Cameras that see a texture in changing light; the last view of each is night."""
    rng = np.random.default_rng(0)
    for camera in range(cameras):
        place = folder / f"{camera:05d}_square"
        place.mkdir(parents=True)
        seen = texture(360, 480, 20 + camera).astype(np.float32)
        for view in range(views):
            light = (0.5 + 0.6 * rng.random()) * seen + 20 * rng.random() + rng.normal(scale=2, size=seen.shape)
            cv2.imwrite(str(place / f"v{view}.png"), np.clip(light, 0, 255).astype(np.uint8))
        cv2.imwrite(str(place / "z night.png"), np.full(seen.shape, 4, np.uint8))


def test_webcams_give_every_view_of_every_frame(tmp_path: Path) -> None:
    webcams(tmp_path / "cams")
    source = Amos(tmp_path / "cams", count=60)
    found, skipped, _ = gather_to_file(source, tmp_path / "set.h5")
    assert not skipped
    assert (found.side, found.margin) == (96, 1.5)
    assert set(found.scene.tolist()) == {0, 1}
    counts = np.bincount(np.unique(found.track, return_inverse=True)[1])
    assert (counts == 4).all()  # night shows nothing
    assert len(counts) > 40
    camera, first = "00001_square", np.flatnonzero(found.scene == 1)
    lafs = source.frames(camera)
    numbers = found.track[first] % (1 << 32)
    photo = cv2.imread(str(tmp_path / "cams" / camera / "v2.png"), 0)
    view = first[found.image[first] == 5 + 2]
    expected = stored_patches(photo, lafs[found.track[view] % (1 << 32)], side=96, margin=1.5)
    assert (found.patches[view] == expected).all()
    assert found.position is not None
    assert found.size is not None
    assert found.position[first, :2] == pytest.approx(lafs[numbers, :, 2])
    # frames are turned at random, large enough, and lie inside with their margin
    angle = np.arctan2(lafs[:, 0, 1], lafs[:, 0, 0])
    assert np.histogram(angle, 4, (-np.pi, np.pi))[0].min() > 3
    corners = lafs[:, :, :2] @ (1.5 * np.array([[-1, -1, 1, 1], [-1, 1, -1, 1]])) + lafs[:, :, 2:]
    assert corners.min() >= 0
    assert (corners.max(axis=(0, 2)) <= [479, 359]).all()
    assert np.sqrt(np.linalg.det(lafs[:, :, :2])).min() >= 16
    # patches of one track look alike although the light changes
    assert descriptor_figures(RootSIFT(), hold_out(found.select(found.scene == 0), 60))["rank1"] > 0.9
    assert found.collisions is not None
    known = set(map(tuple, found.collisions.tolist()))
    one = np.flatnonzero(found.scene == 1)[::4]
    same = found.same_place(one, one)
    assert same is not None
    for a, b in zip(*np.nonzero(np.triu(same, 1)), strict=True):
        gap = np.linalg.norm(found.position[one[a]] - found.position[one[b]])
        near = gap < 0.5 * max(found.size[one[a]], found.size[one[b]])
        assert near or (int(found.track[one[a]]), int(found.track[one[b]])) in known
    assert same.sum() > len(one)
    assert len(known) > 10


def test_masks_hide_regions(tmp_path: Path) -> None:
    webcams(tmp_path / "cams")
    (tmp_path / "masks").mkdir()
    mask = np.zeros((180, 240), np.uint8)  # of another size, and named by the number alone
    mask[:, :120] = 255
    cv2.imwrite(str(tmp_path / "masks" / "00000.png"), mask)
    source = Amos(tmp_path / "cams", count=200)
    lafs = source.frames("00000_square")
    assert len(lafs) > 10
    corners = lafs[:, :, :2] @ np.array([[-1, -1, 1, 1], [-1, 1, -1, 1.0]]) + lafs[:, :, 2:]
    assert corners[:, 0].max() < 240 + 5
    assert source.frames("00001_square")[:, 0, 2].max() > 260


def test_unregistered_views_and_lonely_ones_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "cams"
    webcams(folder, cameras=1)
    whole = gather(Amos(folder, count=30)).collisions
    (folder / "00000_square" / "a torn first.png").write_bytes(b"\x89PNG")
    cv2.imwrite(str(folder / "00000_square" / "w small.png"), np.zeros((60, 60), np.uint8))
    (folder / "00000_square" / "x torn.png").write_bytes(b"\x89PNG")
    found, skipped, _ = gather_to_file(Amos(folder, count=30), tmp_path / "set.h5")
    names = ["a torn first", "w small", "x torn"]
    assert sorted(skipped) == [f"00000_square/{name}.png" for name in names]
    assert whole is not None
    assert found.collisions is not None
    assert np.array_equal(found.collisions, whole)
    assert "another size" in skipped["00000_square/w small.png"]
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "one.png"), np.zeros((60, 60), np.uint8))
    with pytest.raises(DataError, match="no camera"):
        Amos(tmp_path / "photos")


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.integers(2, 12))
def test_overlaps_are_those_of_the_areas(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    lafs = make_lafs(60 + 200 * rng.random((count, 2)), 8 + 30 * rng.random(count), 360 * rng.random(count))
    lafs[:, :, :2] *= 1 + 0.3 * rng.random((count, 1, 2)).astype(np.float32)
    found = {tuple(pair) for pair in overlapping(lafs).tolist()}
    corners = lafs[:, :, :2] @ np.array([[-1, 1, 1, -1], [-1, -1, 1, 1.0]]) + lafs[:, :, 2:]
    for i in range(count):
        for j in range(i + 1, count):
            one, other = (corners[k].T.astype(np.float32) for k in (i, j))
            area = cv2.intersectConvexConvex(one, other)[0]
            if area > 0.5:
                assert (i, j) in found
            elif area == 0:
                grown = cv2.intersectConvexConvex(one, (other - other.mean(0)) * 1.02 + other.mean(0))[0]
                assert (i, j) not in found or grown > 0


# which is which --------------------------------------------------------------------------------------


def test_kinds_are_told_by_what_is_there(tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    brown_like(tmp_path / "b")
    hpatches_like(tmp_path / "hp", {"i_a": 1})
    zipped(tmp_path / "b", tmp_path / "b.zip")
    assert {path: kind_of(path) for path in ("b", "b.zip", "hp", str(scene / "photos"), str(scene / "model"))} == {
        "b": "brown", "b.zip": "brown", "hp": "hpatches", str(scene / "photos"): "photos",
        str(scene / "model"): "colmap",
    }  # fmt: skip
    assert kind_of("yosemite_harris") == "brown"
    (tmp_path / "liberty").mkdir()
    with pytest.raises(DataError, match="it holds nothing"):
        kind_of("liberty")  # a folder of that name comes first
    with pytest.raises(OptionError, match=r"known: liberty"):
        kind_of("libertee")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes\.txt is no source"):
        kind_of("notes.txt")
    (tmp_path / "out" / "sparse").mkdir(parents=True)
    for number in (10, 2):
        (tmp_path / "out" / "sparse" / str(number)).symlink_to(scene / "model")
    assert [model.name for model in models_in(tmp_path / "out")] == ["2", "10"]
    assert [model.name for model in models_in(tmp_path / "out" / "sparse")] == ["2", "10"]


def test_options_of_another_kind_are_refused(tmp_path: Path, scene: Path) -> None:
    with pytest.raises(OptionError, match="--split is of no use for a source of kind photos"):
        open_source(scene / "photos", split="a")
    with pytest.raises(OptionError, match="--masks"):
        open_source(scene / "model", masks=tmp_path)
    with pytest.raises(OptionError, match="not from both"):
        open_source(scene / "model", database=tmp_path, features=tmp_path)
    with pytest.raises(OptionError, match="kind 'sift'"):
        open_source(scene / "photos", "sift")
    with pytest.raises(OptionError, match="--images"):
        open_source(scene / "model")
    bare = tmp_path / "a" / "b" / "model"
    bare.mkdir(parents=True)
    pycolmap.Reconstruction(scene / "model").write(bare)
    with pytest.raises(OptionError, match=r"--database or the --features"):
        open_source(bare, images=scene / "photos")
    with pytest.raises(OptionError, match="no such folder of photos"):
        open_source(scene / "model", images=tmp_path / "nowhere")
    source = open_source(scene / "model", images=scene / "photos", max_views=2)
    assert isinstance(source, ColmapModel)
    assert source.filters.max_views == 2


def test_photos_are_shrunk_as_their_features_say(scene: Path, tmp_path: Path) -> None:
    features = as_features(scene, tmp_path / "plain.h5")
    with FeatureWriter(tmp_path / "features.h5", {"max_size": 320}) as writer, FeatureReader(features) as reader:
        for name in reader.names():
            writer.write(name, reader.read(name))
    sizes = [
        open_source(scene / "model", images=scene / "photos", **options).max_size  # type: ignore[attr-defined]
        for options in ({}, {"features": features}, {"features": tmp_path / "features.h5"}, {"max_size": 99})
    ]
    assert sizes == [None, None, 320, 99]
    for options, size in (({}, 1600), ({"features": tmp_path / "features.h5"}, 320), ({"max_size": 0}, None)):
        assert open_source(scene / "photos", **options).max_size == size  # type: ignore[attr-defined]
    small = gather(open_source(scene / "model", images=scene / "photos", features=tmp_path / "features.h5"))
    whole = gather(open_source(scene / "model", images=scene / "photos"))
    sharp = [np.abs(np.diff(found.patches.astype(float), axis=2)).mean() for found in (small, whole)]
    assert sharp[0] < 0.9 * sharp[1]
    both = small.track[:, None] * 100 + small.image[:, None] == (whole.track * 100 + whole.image)[None]
    one, other = np.nonzero(both)
    gap = np.abs(small.patches[one].astype(float) - whole.patches[other]).mean()
    assert gap < 0.25 * whole.patches[other].std()  # blurred, not moved
    single = gather(open_source(scene / "photos", max_size=320, per_photo=100))
    assert single.position is not None
    assert single.position[:, 0].max() < 320
