"""Patches of a COLMAP model sit where the frames of its keypoints say."""

from __future__ import annotations

import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
from source_helpers import as_features, made_up_scene
from training_helpers import made_up_model

from hardnet_match.descriptors import RootSIFT
from hardnet_match.errors import DataError, ImageError
from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.store import FeatureWriter
from hardnet_match.training.judge import descriptor_figures, hold_out
from hardnet_match.training.mining import Filters, mine_model
from hardnet_match.training.sources.colmap import ColmapModel
from hardnet_match.training.sources.frames import DatabaseFrames, FeatureFrames
from hardnet_match.training.sources.gather import gather, gather_to_file


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` (with its database) and `photos` of a made-up scene; nobody may write there."""
    return made_up_scene(tmp_path_factory.mktemp("scene"))


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
