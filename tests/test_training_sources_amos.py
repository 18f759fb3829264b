"""Webcams as AMOS has them: every view of every frame, masks, and which frames overlap."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_helpers import texture

from hardnet_match.descriptors import RootSIFT
from hardnet_match.errors import DataError
from hardnet_match.frames import make_lafs
from hardnet_match.training.judge import descriptor_figures, hold_out
from hardnet_match.training.sources.amos import Amos, overlapping
from hardnet_match.training.sources.cutting import stored_patches
from hardnet_match.training.sources.gather import gather, gather_to_file


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
