"""What is in a features file, a matches file or a patch set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import StoreError
from ..store import FeatureReader, MatchReader
from ..training import patchfile
from ..training.patchset import PatchSet


@dataclass(frozen=True)
class FileReport:
    """Contents of one file: `kind` is `features`, `matches` or `patches`; `items` has a name and a count each."""

    file: str
    kind: str
    unit: str
    counted: str
    total: int
    descriptors: str
    settings: dict[str, Any]
    items: list[dict[str, Any]] = field(default_factory=list)


def inspect_file(path: str | Path) -> FileReport:
    """Look into a features or a matches file, of this package or of hloc, or a patch set.

    Raises:
        StoreError: it is missing, damaged, or none of the three.
        DataError: it is a damaged patch set.
    """
    kind = _kind(path)
    if kind is None:
        raise StoreError(f"{path}: neither features nor matches nor patches are in it")
    return {"features": _features, "matches": _matches, "patches": _patches}[kind](path)


def _kind(path: str | Path) -> str | None:
    """`features`, `matches` or `patches`: what the file says of itself, else (another program's) what lies in it."""
    with FeatureReader(path):  # finishes what a killed writer left, and says so plainly if this is no HDF5
        pass
    with h5py.File(path, "r") as h5:
        own = str(h5.attrs.get("format", "")).removeprefix("hardnet-match ")
        if own in ("features", "matches", "patches"):
            return own
        if "patches" in h5 and "track" in h5:  # from before sets said what they are
            return "patches"
        waiting: list[Any] = [h5]
        while waiting:
            group = waiting.pop()
            if "keypoints" in group or "matches0" in group:
                return "features" if "keypoints" in group else "matches"
            waiting += [child for child in map(group.get, group) if isinstance(child, h5py.Group)]
    return None


def _features(path: str | Path) -> FileReport:
    items: list[dict[str, Any]] = []
    kinds = set()
    with FeatureReader(path) as reader:
        for name in reader.names():
            width, height = reader.image_size(name)
            count, dim, dtype = reader.descriptor_shape(name)
            kinds.add(f"{dim} x {dtype}")
            items.append(
                {"name": name, "count": count, "image_size": [width, height], "note": f" ({width} x {height})"}
            )
        settings = reader.settings
    total = sum(item["count"] for item in items)
    return FileReport(str(path), "features", "images", "keypoints", total, ", ".join(sorted(kinds)), settings, items)


def _matches(path: str | Path) -> FileReport:
    items: list[dict[str, Any]] = []
    with MatchReader(path) as reader:
        for name0, name1 in reader.pairs():
            count = len(reader.read(name0, name1))
            items.append({"name": f"{name0} - {name1}", "count": count, "pair": [name0, name1], "note": ""})
        settings = reader.settings
    total = sum(item["count"] for item in items)
    return FileReport(str(path), "matches", "pairs", "matches", total, "", settings, items)


def _patches(path: str | Path) -> FileReport:
    found = PatchSet.load(Path(path))
    items: list[dict[str, Any]] = []
    for scene in np.unique(found.scene).tolist():
        rows = found.scene == scene
        tracks, images = (len(np.unique(column[rows])) for column in (found.track, found.image))
        note = f" ({tracks} tracks in {images} images)"
        items.append(
            {"name": f"scene {scene}", "count": int(rows.sum()), "tracks": tracks, "images": images, "note": note}
        )
    stored = {"side": found.side, "margin": found.margin, **patchfile.settings_of(Path(path))}
    return FileReport(str(path), "patches", "scenes", "patches", len(found), "", stored, items)
