"""Patches of HPatches: sixteen views a place, and its splits."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from source_helpers import hpatches_like

from hardnet_match.errors import DataError, OptionError
from hardnet_match.training.sources.gather import gather, gather_to_file
from hardnet_match.training.sources.hpatches import VIEWS, HPatches, split_sequences


def test_hpatches_places_are_tracks_of_sixteen_views(tmp_path: Path) -> None:
    known = hpatches_like(tmp_path / "hp", {"i_b": 5, "v_a": 3, "i_a": 4})
    found, _, _ = gather_to_file(HPatches(tmp_path / "hp"), tmp_path / "set.h5")
    assert (len(found), found.side, found.margin) == (12 * 16, 65, 1.0)
    names, places = ["i_a", "i_b", "v_a"], np.concatenate([np.arange(4), np.arange(5), np.arange(3)])
    for track, place in enumerate(places):
        rows = slice(16 * track, 16 * track + 16)
        assert len(set(found.track[rows].tolist())) == 1
        name = names[int(found.scene[16 * track])]
        for row, view in zip(range(rows.start, rows.stop), VIEWS, strict=True):
            assert (found.patches[row] == known[f"{name}/{view}"][place]).all()
    easy = gather(HPatches(tmp_path / "hp", ["v_a"], noise="e"))
    assert len(easy) == 3 * 6
    assert (easy.patches[1] == known["v_a/e1"][0]).all()


def test_hpatches_splits(tmp_path: Path) -> None:
    folder = tmp_path / "hp"
    hpatches_like(folder, {"i_a": 2, "i_b": 2, "v_a": 2})
    assert split_sequences(folder, "view") == ["i_a", "i_b"]
    assert split_sequences(folder, "view", "test") == ["v_a"]
    assert split_sequences(folder, "illum") == ["v_a"]
    assert split_sequences(folder, "full", "test") == ["i_a", "i_b", "v_a"]
    with pytest.raises(DataError, match="no sequence"):
        split_sequences(folder, "full")
    with pytest.raises(OptionError, match=r"splits\.json"):
        split_sequences(folder, "a")
    splits = {"a": {"name": "a", "train": ["v_a", "i_b", "i_not_here"], "test": ["i_a"]}}
    (tmp_path / "splits.json").write_text(json.dumps(splits))
    assert split_sequences(folder, "a") == ["i_b", "v_a"]
    assert split_sequences(folder, "a", "test") == ["i_a"]
    with pytest.raises(OptionError, match="it has a"):
        split_sequences(folder, "d")
    with pytest.raises(OptionError, match="train and test"):
        split_sequences(folder, "a", "both")
    (folder / "splits.json").write_text("[]")
    with pytest.raises((DataError, OptionError), match=r"splits\.json"):
        split_sequences(folder, "a")


def test_damaged_hpatches_say_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "hp"
    with pytest.raises(DataError, match="no HPatches sequence"):
        HPatches(tmp_path)
    hpatches_like(folder, {"i_a": 2})
    with pytest.raises(OptionError, match="noise"):
        HPatches(folder, noise="x")
    cv2.imwrite(str(folder / "i_a" / "e2.png"), np.zeros((66, 65), np.uint8))
    with pytest.raises(DataError, match="65x66, not a column"):
        gather(HPatches(folder))
    (folder / "i_a" / "t5.png").unlink()
    with pytest.raises(DataError, match=r"lacks i_a/t5\.png"):
        HPatches(folder)
