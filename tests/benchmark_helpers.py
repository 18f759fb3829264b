"""What the tests of the comparisons stand on: a planar sequence, a scene with known cameras, a set of patches."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hardnet_match.sfm.colmap import pycolmap
from hardnet_match.world import World


def planar_sequence(folder: Path, views: int = 2, size: tuple[int, int] = (320, 240)) -> Path:
    """`folder`/front: views of a house front as the Oxford sequences have them."""
    place = folder / "front"
    place.mkdir(parents=True)
    world = World(seed=2)
    first, *others = world.render(views, size)
    for number, view in enumerate([first, *others], 1):
        cv2.imwrite(str(place / f"img{number}.png"), cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR))
        if number > 1:
            np.savetxt(place / f"H1to{number}p", world.homography(first, view, "house"))
    return folder


def known_scene(folder: Path, rendered: dict[str, Any], count: int = 3) -> Path:
    """Some of the rendered photos with `intrinsics.txt` and `poses.txt` beside them."""
    (folder / "images").mkdir(parents=True)
    width, height = rendered["size"]
    matrix = rendered["K"]
    intrinsics, poses = ["# name model width height params"], []
    for name, pose in list(rendered["images"].items())[:count]:
        shutil.copy(rendered["folder"] / name, folder / "images" / name)
        numbers = [matrix[0][0], matrix[1][1], matrix[0][2] + 0.5, matrix[1][2] + 0.5]
        intrinsics.append(f"{name} PINHOLE {width} {height} {' '.join(map(repr, numbers))}")
        x, y, z, w = pycolmap.Rotation3d(np.array(pose["R"])).quat
        poses.append(" ".join([name, *(repr(float(value)) for value in (w, x, y, z, *pose["t"]))]))
    (folder / "intrinsics.txt").write_text("\n".join(intrinsics) + "\n")
    (folder / "poses.txt").write_text("\n".join(poses) + "\n")
    return folder


def brown_set(folder: Path, pairs: int = 60) -> tuple[Path, NDArray[np.uint8], NDArray[np.int64]]:
    """300 patches of 150 points in Brown's form, and pairs of them."""
    rng = np.random.default_rng(0)
    base = np.stack([cv2.GaussianBlur(rng.integers(0, 256, (64, 64), np.uint8), None, 3) for _ in range(150)])
    base = cv2.normalize(base, None, 0, 255, cv2.NORM_MINMAX)
    noise = rng.normal(scale=12, size=(300, 64, 64))
    patches = np.clip(np.repeat(base, 2, axis=0) + noise, 0, 255).astype(np.uint8)
    grid = np.zeros((512, 64, 64), np.uint8)
    grid[:300] = patches
    folder.mkdir()
    for number in range(2):
        cells = grid[256 * number : 256 * (number + 1)].reshape(16, 16, 64, 64).swapaxes(1, 2).reshape(1024, 1024)
        cv2.imwrite(str(folder / f"patches{number:04d}.bmp"), cells)
    (folder / "info.txt").write_text("".join(f"{k // 2} 0\n" for k in range(300)))
    first = rng.permutation(150)[:pairs] * 2
    rows = np.concatenate([np.stack([first, first + 1], 1), np.stack([first, np.roll(first, 1) + 1], 1)])
    lines = [f"{a} {a // 2} 0 {b} {b // 2} 0 0\n" for a, b in rows.tolist()]
    (folder / "m50_100000_100000_0.txt").write_text("".join(lines))
    return folder, patches, rows
