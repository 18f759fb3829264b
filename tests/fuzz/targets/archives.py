"""Archives, pickles and other packed files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .registry import target, written


@target
def weights(data: bytes, place: Path) -> None:
    from hardnet_match.weights.reading import read_checkpoint

    found = read_checkpoint(written(place, data, "w.pth"))
    assert found.epoch >= 0


@target
def checkpoint(data: bytes, place: Path) -> None:
    from hardnet_match.training.checkpoint import load_checkpoint

    load_checkpoint(written(place, data, "last.pt"))


@target
def dictionary(data: bytes, place: Path) -> None:
    from hardnet_match.training.sources.dictionary import Dictionary

    source = Dictionary(written(place, data, "set.pt"))
    source.read(source.pieces()[0])


@target
def archive(data: bytes, place: Path) -> None:
    from hardnet_match.training.sources.files import Files

    before = set(place.parent.rglob("*"))
    files = Files(written(place, data, "set.zip"))
    for name in files.names()[:3]:
        files.size(name)
        files.read(name)
    assert set(place.parent.rglob("*")) - before == {place / "set.zip"}


@target
def journal(data: bytes, place: Path) -> None:
    from hardnet_match.store.journal import journal_path, recover

    path = written(place, bytes(5000), "f.h5")
    journal_path(path).write_bytes(data)
    recover(path)
    assert not journal_path(path).exists()


@target
def annotated_points(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.sequences import _fitted

    assert np.isfinite(_fitted(written(place, data, "a.mat"))).all()
