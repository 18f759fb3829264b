"""The views of a model: their geometry, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from finetune_helpers import made_scene, made_views

from hardnet_match.errors import DataError, ReconstructionError
from hardnet_match.sfm.views import NO_POINT, View, epipolar_distance, find_frames, read_views
from hardnet_match.store import FeatureReader, FeatureWriter


@pytest.fixture(scope="module")
def views() -> list[View]:
    return made_views()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos`, their true `model` and `features.h5`; nobody may write there."""
    return made_scene(tmp_path_factory.mktemp("scene"))


def plain_distance(one: View, other: View, first: int, second: int) -> float:
    """The same by the fundamental matrix and a triangulation, one match at a time."""
    turned = other.rotation @ one.rotation.T
    t = other.translation - turned @ one.translation
    essential = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) @ turned
    x, y = np.append(one.rays[first], 1), np.append(other.rays[second], 1)
    line, back = essential @ x, essential.T @ y
    distance = max(abs(y @ line) / np.hypot(*line[:2]) * other.focal, abs(x @ back) / np.hypot(*back[:2]) * one.focal)
    a, b = np.linalg.lstsq(np.stack([turned @ x, -y], axis=1), -t, rcond=None)[0]
    return float(distance) if a > 0 and b > 0 else np.inf


def test_epipolar_distance_is_that_of_the_textbook(views: list[View]) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 300, (200, 2))
    found = epipolar_distance(views[0], views[3], pairs)
    wanted = [plain_distance(views[0], views[3], i, j) for i, j in pairs]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert np.isinf(found).any()
    assert np.isfinite(found).any()
    same = np.repeat(np.arange(300)[:, None], 2, axis=1)
    assert epipolar_distance(views[0], views[3], same).max() < 1e-6
    assert len(epipolar_distance(views[0], views[1], np.zeros((0, 2), int))) == 0
    with pytest.raises(DataError, match="outside"):
        epipolar_distance(views[0], views[1], np.array([[0, 300]]))


def test_views_of_a_model(scene: Path) -> None:
    frames = find_frames(scene / "model")
    assert frames.name == "features.h5"
    views = read_views(scene / "model", frames)
    assert [view.name for view in views] == [f"{n}.png" for n in range(1, 7)]
    for one, other in ((views[0], views[1]), (views[2], views[5])):
        shared, first, second = np.intersect1d(one.point, other.point, return_indices=True)
        rows = np.flatnonzero(shared != NO_POINT)
        pairs = np.stack([first[rows], second[rows]], axis=1)
        assert len(pairs) > 20
        assert epipolar_distance(one, other, pairs).max() < 0.01
        assert (epipolar_distance(one, other, np.roll(pairs, 3, axis=0) * [1, 0] + pairs * [0, 1]) > 1).mean() > 0.7


def test_a_model_without_frames_is_told(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match=r"features\.h5"):
        find_frames(tmp_path / "a" / "b" / "c")
    with FeatureWriter(tmp_path / "features.h5", {}) as writer, FeatureReader(scene / "features.h5") as reader:
        for name in reader.names():
            writer.write(name, reader.read(name).select(slice(0, 50)))
    with pytest.raises(ReconstructionError, match="not of the same run"):
        read_views(scene / "model", tmp_path / "features.h5")
