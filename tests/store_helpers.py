"""Features and matches to fill files with, and everything that is in one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hardnet_match.features import Features, Matches

SETTINGS = {"preset": "hesaffnet-hardnet", "max_keypoints": 4096, "weights": {"hardnet": "abc"}}
ODD_NAMES = [
    "plain.jpg",
    "folder/deep/er/photo.JPG",
    "with space/and  two.jpg",
    "été/写真.png",
    "dots.in.name..jpg",
    "new\nline.jpg",
    "x" * 300 + ".jpg",
    "#hash~tilde.jpg",
    "back\\slash.jpg",
]


def make_features(count: int = 20, dim: int = 128, seed: int = 0, dtype: type = np.float32) -> Features:
    rng = np.random.default_rng(seed)
    lafs = rng.normal(size=(count, 2, 3)).astype(np.float32)
    lafs[:, :, 2] = rng.uniform(0, 500, (count, 2))
    descriptors = rng.uniform(0, 255, (count, dim)).astype(dtype)
    return Features(lafs, rng.random(count).astype(np.float32), descriptors, (640, 480), {"preset": "p"})


def make_matches(rows: list[tuple[int, int]]) -> Matches:
    pairs = np.array(rows, dtype=np.int32).reshape(-1, 2)
    return Matches(pairs, np.linspace(0.2, 0.9, len(pairs), dtype=np.float32))


def assert_same(a: Features, b: Features) -> None:
    np.testing.assert_array_equal(a.lafs, b.lafs)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.descriptors, b.descriptors)
    assert a.descriptors.dtype == b.descriptors.dtype
    assert a.image_size == b.image_size
    assert dict(a.meta) == dict(b.meta)


def contents(path: Path) -> dict[str, Any]:
    """Every dataset and attribute of a file, links followed."""
    found: dict[str, Any] = {}

    def look(prefix: str, group: Any) -> None:
        for key, child in group.items():
            if isinstance(child, h5py.Group):
                look(f"{prefix}{key}/", child)
            else:
                found[prefix + key] = (child.dtype, child.shape, child[()].tobytes(), dict(child.attrs))

    with h5py.File(path, "r") as h5:
        look("", h5)
        found["settings"] = h5.attrs["settings"], h5.attrs["settings_hash"], h5.attrs["format"]
    return found
