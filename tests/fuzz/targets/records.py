"""JSON."""

from __future__ import annotations

from pathlib import Path

from .registry import target, written


@target
def ground_truth(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.ground_truth import read_ground_truth

    read_ground_truth(written(place, data))


@target
def splits(data: bytes, place: Path) -> None:
    from hardnet_match.training.sources.hpatches import _listed

    _listed(written(place, data, "splits.json"), "a", "train")


@target
def manifest(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.index import Index

    written(place, data, "index/manifest.json")
    with Index.open(place / "index"):
        pass


@target
def codebook(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.codebook import Codebook

    written(place, data, "book/codebook.json")
    Codebook.load(place / "book")


@target
def records(data: bytes, place: Path) -> None:
    """Records of our own that a damaged one must not stop: they then count as absent."""
    from hardnet_match.jobs.demo import _rendered
    from hardnet_match.jobs.index import SOURCES, read_sources
    from hardnet_match.jobs.stages import Stages

    written(place, data, SOURCES)
    read_sources(place)
    stages = Stages(written(place, data, "stages.json"), False)
    stages.result("map", "x")
    stages.recorded("map")
    stages.record("map", "x", None)
    written(place, data, "cameras.json")
    _rendered(place, {"seed": 1, "size": [2, 3], "views": 4})
