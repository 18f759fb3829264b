"""Small indexes of made-up images, and when two of them are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from retrieval_helpers import SETTINGS, make_codebook, make_features, make_images

from hardnet_match.features import Features
from hardnet_match.retrieval.index import Index

CODEBOOK = make_codebook()
IMAGES = make_images(CODEBOOK, 12)
QUERY = make_features(CODEBOOK, 50, seed=77)


def built(folder: Path, groups: list[list[tuple[str, Features]]], method: str = "asmk", **parameters: Any) -> Index:
    """An index of the images, each group committed on its own."""
    with Index.create(folder, CODEBOOK, method, SETTINGS, overwrite=True, **parameters) as index:
        for group in groups:
            index.add_many(group)
            index.flush()
    return Index.open(folder)


def stored(folder: Path) -> list[bytes]:
    """Contents of the segments, whatever number they have."""
    manifest = json.loads((folder / "manifest.json").read_text())
    return [(folder / "segments" / entry["file"]).read_bytes() for entry in manifest["segments"]]


def same_ranking(first: Index, second: Index) -> bool:
    one, other = first.rank(QUERY), second.rank(QUERY)
    return np.array_equal(one.images, other.images) and np.array_equal(one.scores, other.scores)
