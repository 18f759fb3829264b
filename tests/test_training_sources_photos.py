"""Patches of single photos, with frames of a database or detected."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from source_helpers import made_up_scene
from training_helpers import texture

from hardnet_match.errors import DataError, OptionError
from hardnet_match.training.mining import mine_keypoints
from hardnet_match.training.sources.cutting import stored_patches
from hardnet_match.training.sources.frames import DetectedFrames
from hardnet_match.training.sources.gather import gather_to_file
from hardnet_match.training.sources.photos import Photos


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` (with its database) and `photos` of a made-up scene; nobody may write there."""
    return made_up_scene(tmp_path_factory.mktemp("scene"))


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
