"""Patch sets pickled by torch (.pt): read in every published form, and nothing of them run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardnet_match.errors import DataError
from hardnet_match.frames import make_lafs
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sources.dictionary import Dictionary
from hardnet_match.training.sources.gather import gather, gather_to_file


def contents(count: int = 50, side: int = 64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.permutation(np.arange(count) // 2))
    return {
        "patches": torch.from_numpy(rng.integers(0, 256, (count, side, side), dtype=np.uint8)),
        "labels": labels,
        "matches": torch.tensor([[0, 1, 0], [4, 9, 1]]),
        "cam_ids": torch.arange(count) % 5,
    }


def check_contents(found: PatchSet, content: dict[str, Any]) -> None:
    patches, labels = np.asarray(content["patches"]), np.asarray(content["labels"])
    order = np.lexsort((np.arange(len(labels)) % 5, labels))
    assert (found.track == labels[order]).all()
    assert (found.patches == patches[order]).all()
    assert (found.image == order % 5).all()
    assert found.matches is not None
    assert (found.patches[found.matches[:, 0]] == patches[[0, 4]]).all()
    assert (found.patches[found.matches[:, 1]] == patches[[1, 9]]).all()
    assert found.matches[:, 2].tolist() == [0, 1]


@pytest.mark.parametrize("form", ["tensors", "arrays", "old"])
def test_dictionaries_are_read(tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardnet_match.training.sources.dictionary.AT_ONCE", 16)
    content = contents()
    if form == "arrays":
        content = {key: value.numpy() for key, value in content.items()}
    torch.save(content, tmp_path / "set.pt", _use_new_zipfile_serialization=form != "old")
    source = Dictionary(tmp_path / "set.pt")
    assert len(source.pieces()) == 4
    found, _, _ = gather_to_file(source, tmp_path / "set.h5")
    check_contents(found, content)
    assert found.margin == 1.0


def test_torchvisions_tuple_and_four_dimensions(tmp_path: Path) -> None:
    content = contents()
    torch.save((content["patches"][:, None], content["labels"], content["matches"]), tmp_path / "set.pt")
    found = gather(Dictionary(tmp_path / "set.pt", margin=1.5))
    assert not found.image.any()
    assert found.margin == 1.5
    assert sorted(found.patches[:, 0, 0]) == sorted(content["patches"][:, 0, 0])


def test_amos_dictionaries_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((6, 4)) < 0.8
    lafs = make_lafs(rng.random((6, 2)) * 400, 20 + 9 * rng.random(6))
    content = {
        "patch_sets": torch.from_numpy(rng.integers(0, 256, (6, 4, 96, 96), dtype=np.uint8)),
        "LAFs": torch.from_numpy(lafs),
        "cam_idxs": torch.tensor([0, 0, 0, 2, 2, 2.0]),
        "view_names": ["a", "b"],
        "patches_mask": mask,
        "collisions": [np.array([0, 2]), np.array([1]), np.array([0, 2]), np.array([3]), np.array([4]), np.array([5])],
    }
    torch.save(content, tmp_path / "amos.pt")
    found = gather(Dictionary(tmp_path / "amos.pt"))
    assert (found.side, found.margin) == (96, 1.5)
    assert len(found) == mask.sum()
    assert found.collisions is not None
    assert found.collisions.tolist() == [[0, 2]]
    assert found.size is not None
    for row in range(len(found)):
        track, view = int(found.track[row]), int(found.image[row]) % 4
        assert (found.patches[row] == content["patch_sets"][track, view].numpy()).all()
        assert found.scene[row] == content["cam_idxs"][track]
        assert found.size[row] == pytest.approx(np.sqrt(np.linalg.det(lafs[track, :, :2])), rel=1e-5)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("open('ran', 'w').close()",))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({**contents(), "extra": Evil()}, "Nothing of it was run"),
        (Evil(), "Nothing of it was run"),
        ([1, 2], "expected a dict"),
        ({"state_dict": {}}, "expected a dict with `patches`"),
        ({"patches": contents()["patches"]}, "no labels"),
        ({**contents(), "labels": torch.zeros(3)}, "3 labels for 50 patches"),
        ({**contents(), "patches": torch.zeros(50, 64, 64)}, "float32"),
        ({**contents(), "patches": contents()["patches"][:, :30]}, "not \\(M, S, S\\)"),
        ({**contents(), "matches": torch.tensor([[0, 50, 1]])}, "outside its 50"),
        ({**contents(), "matches": torch.zeros(5, 2)}, "not \\(K, 3\\)"),
        ({**contents(), "cam_ids": "none"}, "cam_ids is str"),
        ({"patch_sets": torch.zeros(5, 3, 96, 96, 3, dtype=torch.uint8)}, "grey patches"),
    ],
)
def test_hostile_and_wrong_dictionaries_are_refused(
    tmp_path: Path, content: Any, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, "set.pt")
    with pytest.raises(DataError, match=reason) as caught:
        Dictionary(Path("set.pt"))
    assert "set.pt" in str(caught.value)
    assert not Path("ran").exists()


def test_damaged_dictionaries_say_so(tmp_path: Path) -> None:
    path = tmp_path / "set.pt"
    with pytest.raises(DataError, match="no such file"):
        Dictionary(path)
    torch.save(contents(), path)
    whole = path.read_bytes()
    for damaged in (b"", b"hello", whole[: len(whole) // 2], pickle.dumps({"patches": 1})):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"set\.pt"):
            Dictionary(path)
