"""Cameras, points and photos with a true model, and the shortest plan, for the tests of fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.sfm.views import NO_POINT, View
from hardnet_match.store import FeatureWriter
from hardnet_match.training.adapt import Plan
from hardnet_match.world import World

SIZE = (320, 240)
TINY = Plan(passes=1, steps=(3, 3), batch=48, evaluations=1, shares=(0.5, 1.0))


def turn(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def made_view(number: int, points: NDArray[np.float64], rng: np.random.Generator, seen: float = 1.0) -> View:
    """A camera at about z = -6 that looks at points around the origin, each a keypoint of its own."""
    rotation = turn(rng.normal(size=3), rng.uniform(0, 0.2))
    translation = np.array([rng.uniform(-1, 1), rng.uniform(-0.5, 0.5), 6.0])
    inside = points @ rotation.T + translation
    rays, focal = inside[:, :2] / inside[:, 2:], 300.0
    lafs = make_lafs(rays * focal + 160, 0.3 * focal / inside[:, 2])
    known = rng.random(len(points)) < seen
    ids = np.where(known, np.arange(len(points)), NO_POINT)
    position = np.where(known[:, None], points, np.nan)
    return View(f"{number}.jpg", number, lafs, ids, position, rays, focal, (320, 320), rotation, translation)


def made_views() -> list[View]:
    """Eight views of 300 points spread along x, each with a point for most of its keypoints."""
    rng = np.random.default_rng(4)
    points = rng.normal(size=(300, 3)) * [2.0, 0.7, 0.4]
    return [made_view(number, points, rng, 0.8) for number in range(8)]


def made_scene(folder: Path) -> Path:
    """Photos of the rendered world with its true model: points drawn on the surfaces, seen where nothing hides them.

    `photos`, `model` and `features.h5` in the folder; returns it.
    """
    (folder / "photos").mkdir()
    (folder / "model").mkdir()
    world = World(seed=5, texel=0.012)
    shots = world.render(6, SIZE)
    rng = np.random.default_rng(0)
    points = np.concatenate([_on_surface(shot, rng, 110) for shot in shots])
    width, height = SIZE
    k = shots[0].K
    lines = {
        "cameras": [f"1 PINHOLE {width} {height} {k[0, 0]} {k[1, 1]} {k[0, 2] + 0.5} {k[1, 2] + 0.5}"],
        "images": [],
        "points3D": [],
    }
    tracks: dict[int, list[tuple[int, int]]] = {}
    with FeatureWriter(folder / "features.h5", {"made": "by hand"}) as writer:
        for number, shot in enumerate(shots, 1):
            name = f"{number}.png"
            Image.fromarray(shot.image).save(folder / "photos" / name)
            inside = points @ shot.R.T + shot.t
            xy = inside @ k.T
            xy = xy[:, :2] / xy[:, 2:]
            rows = np.flatnonzero(((xy >= 2) & (xy < np.array(SIZE) - 3)).all(axis=1) & (inside[:, 2] > 0))
            depth = shot.depth[xy[rows, 1].round().astype(int), xy[rows, 0].round().astype(int)]
            rows = rows[np.abs(depth - inside[rows, 2]) < 0.05]
            lafs = make_lafs(xy[rows], 0.45 * k[0, 0] / inside[rows, 2])
            ones = np.ones(len(rows), np.float32)
            writer.write(name, Features(lafs, ones, np.zeros((len(rows), 4), np.float32), SIZE))
            lines["images"].append(f"{number} {_quaternion(shot.R)} {' '.join(map(str, shot.t))} 1 {name}")
            lines["images"].append(
                " ".join(f"{x + 0.5} {y + 0.5} {p + 1}" for (x, y), p in zip(xy[rows], rows, strict=True))
            )
            for place, point in enumerate(rows):
                tracks.setdefault(int(point), []).append((number, place))
    single = {point for point, seen in tracks.items() if len(seen) < 2}
    for number in range(1, 12, 2):  # points seen once are none
        words = lines["images"][number].split()
        for place in range(2, len(words), 3):
            words[place] = "-1" if int(words[place]) - 1 in single else words[place]
        lines["images"][number] = " ".join(words)
    for point, seen in tracks.items():
        if point not in single:
            where = " ".join(f"{image} {place}" for image, place in seen)
            lines["points3D"].append(f"{point + 1} {' '.join(map(str, points[point]))} 0 0 0 0.1 {where}")
    for kind, text in lines.items():
        (folder / "model" / f"{kind}.txt").write_text("\n".join(text) + "\n")
    return folder


def _on_surface(shot: Any, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """World points of pixels drawn at random."""
    x, y = rng.integers(6, SIZE[0] - 6, 4 * count), rng.integers(6, SIZE[1] - 6, 4 * count)
    depth = shot.depth[y, x]
    keep = np.flatnonzero(np.isfinite(depth) & (depth < 30))[:count]
    pixels = np.stack([x, y, np.ones_like(x)], axis=1)[keep]
    inside = pixels @ np.linalg.inv(shot.K).T * depth[keep, None]
    return np.asarray((inside - shot.t) @ shot.R)


def _quaternion(rotation: NDArray[np.float64]) -> str:
    from hardnet_match.sfm.colmap import pycolmap

    x, y, z, w = pycolmap.Rotation3d(rotation).quat
    return f"{w} {x} {y} {z}"
