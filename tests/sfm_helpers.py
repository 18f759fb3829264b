"""Random points seen by cameras on an arc, as photos, features and matches of known geometry."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.matching import match
from hardnet_match.store import FeatureWriter, MatchWriter

SIZE = (640, 480)
FOCAL = 700.0
NAMES = ["plain.jpg", "with space.jpg", "sub/été.png", "sub/new\nline.jpg", "e.webp", "sub dir/f.jpg"]


@dataclass
class Scene:
    folder: Path
    features: Path
    matches: Path
    truth: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]


def look_at(centre: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    forward = -centre / np.linalg.norm(centre)
    right = np.cross(forward, [0, -1.0, 0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return rotation, -rotation @ centre


def make_scene(folder: Path, names: list[str] = NAMES, points: int = 500, dim: int = 128) -> Scene:
    """Random points seen by cameras on an arc; their descriptors repeat from view to view, with noise."""
    rng = np.random.default_rng(1)
    world = rng.uniform(-1, 1, (points, 3))
    codes = rng.normal(size=(points, dim))
    truth, features = {}, {}
    for i, name in enumerate(names):
        turn = np.deg2rad(-40 + 80 * i / (len(names) - 1))
        rotation, translation = look_at(5 * np.array([np.sin(turn), -0.15 * (i % 2), -np.cos(turn)]))
        truth[name] = rotation, translation
        camera = world @ rotation.T + translation
        xy = FOCAL * camera[:, :2] / camera[:, 2:] + np.array([SIZE[0] / 2 - 0.5, SIZE[1] / 2 - 0.5])
        xy += rng.normal(scale=0.2, size=xy.shape)
        seen = rng.permutation(np.flatnonzero(((xy > 0) & (xy < np.array(SIZE) - 1)).all(axis=1)))[: int(0.9 * points)]
        noisy = codes[seen] + 0.1 * rng.normal(size=(len(seen), dim))
        noisy = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
        lafs = make_lafs(xy[seen], rng.uniform(12, 60, len(seen)), rng.uniform(-180, 180, len(seen)))
        features[name] = Features(lafs, np.ones(len(seen), np.float32), noisy, SIZE)
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (SIZE[1], SIZE[0], 3), dtype=np.uint8)).save(path)
    with FeatureWriter(folder / "features.h5", {}) as writer:
        for name, one in features.items():
            writer.write(name, one)
    with MatchWriter(folder / "matches.h5", {}) as matcher:
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                matcher.write(first, second, match(features[first], features[second]), len(features[first]))
    return Scene(folder / "photos", folder / "features.h5", folder / "matches.h5", truth)
