"""What the tests of the comparisons stand on: a planar sequence and a scene with known cameras, both rendered."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

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
