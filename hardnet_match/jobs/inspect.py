"""What is in a features or a matches file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py

from ..errors import StoreError
from ..store import FeatureReader, MatchReader


@dataclass(frozen=True)
class FileReport:
    """Contents of one file: `kind` is `features` or `matches`; `items` has a name and a count each."""

    file: str
    kind: str
    unit: str
    counted: str
    total: int
    descriptors: str
    settings: dict[str, Any]
    items: list[dict[str, Any]] = field(default_factory=list)


def inspect_file(path: str | Path) -> FileReport:
    """Look into a features or a matches file, of this package or of hloc.

    Raises:
        StoreError: it is missing, damaged, or neither of the two.
    """
    kind = _kind(path)
    if kind is None:
        raise StoreError(f"{path}: neither features nor matches are in it")
    return _features(path) if kind == "features" else _matches(path)


def _kind(path: str | Path) -> str | None:
    """`features` or `matches`: what the file says of itself, else (another program's) what lies in it."""
    with FeatureReader(path):  # finishes what a killed writer left, and says so plainly if this is no HDF5
        pass
    with h5py.File(path, "r") as h5:
        own = str(h5.attrs.get("format", "")).removeprefix("hardnet-match ")
        if own in ("features", "matches"):
            return own
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
