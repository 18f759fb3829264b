"""What is in a features file, a matches file or a patch set."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from ..store import FeatureReader, MatchReader
from ..training import patchfile
from ..training.patchset import PatchSet

_MARKS = {"keypoints": "features", "matches0": "matches"}


@dataclass(frozen=True)
class FileReport:
    """Contents of one file: `kind` is `features`, `matches` or `patches`; `items` has a name and a count each.

    `shard` says which part of the work it is (`i/n`), `joined` of how many files it leads to, if so.
    """

    file: str
    kind: str
    unit: str
    counted: str
    total: int
    descriptors: str
    settings: dict[str, Any]
    items: list[dict[str, Any]] = field(default_factory=list)
    shard: str = ""
    joined: int = 0


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
    # The reader finishes what a killed writer left, says so if this is no HDF5, and goes into no file elsewhere.
    with FeatureReader(path) as reader:
        if reader.kind in ("features", "matches", "patches"):
            return reader.kind
        tree = reader.tree
        if tree.kind(tree.root, "patches") and tree.kind(tree.root, "track"):  # from before sets said what they are
            return "patches"
        waiting: list[Any] = [tree.root]
        seen = set()
        while waiting:
            group = waiting.pop()
            if group.id in seen:
                continue
            seen.add(group.id)
            found = [kind for key, kind in _MARKS.items() if tree.kind(group, key)]
            if found:
                return found[0]
            children = (tree.member(group, key) for key in group)
            waiting += [child for child in children if hasattr(child, "keys")]
    return None


def _about(reader: FeatureReader | MatchReader) -> dict[str, Any]:
    return {"shard": str(reader.shard or ""), "joined": len(reader.shards)}


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
        settings, about = reader.settings, _about(reader)
    total = sum(item["count"] for item in items)
    kind = ", ".join(sorted(kinds))
    return FileReport(str(path), "features", "images", "keypoints", total, kind, settings, items, **about)


def _matches(path: str | Path) -> FileReport:
    items: list[dict[str, Any]] = []
    with MatchReader(path) as reader:
        for name0, name1 in reader.pairs():
            count = len(reader.read(name0, name1))
            items.append({"name": f"{name0} - {name1}", "count": count, "pair": [name0, name1], "note": ""})
        settings, about = reader.settings, _about(reader)
    total = sum(item["count"] for item in items)
    return FileReport(str(path), "matches", "pairs", "matches", total, "", settings, items, **about)


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
