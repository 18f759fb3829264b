"""The same photos, settings and machine give the same files to the bit, however the work is cut."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fault_runs import records

from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images import read_image
from hardnet_match.inference import run_tiled
from hardnet_match.jobs import extract as job
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.jobs.match import match_features
from hardnet_match.store import kept_as


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def photos(rendered: dict[str, Any], tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", folder / f"{i}.jpg")
    return folder


@pytest.mark.parametrize(
    ("preset", "options"),
    [
        ("hesaffnet-hardnet", {}),
        ("hesaffnet-hardnet", {"precision": "half"}),
        ("hesaffnet-hardnet", {"precision": "int8", "orientation": "orinet"}),
        ("dog-rootsift", {}),
    ],
    ids=["float32", "half", "int8", "rootsift"],
)
def test_workers_batches_and_interruptions_change_no_bit(
    photos: Path, tmp_path: Path, preset: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if options.get("precision") == "int8":
        pytest.importorskip("openvino")
    extractor = FeatureExtractor.from_preset(preset, max_keypoints=70, device="cpu", **options)
    names = sorted(path.name for path in photos.iterdir())
    extract_folder(photos, tmp_path / "whole.h5", extractor, workers=1, quiet=True)
    for workers, pixels in ((3, 1), (2, 10**9)):
        monkeypatch.setattr(job, "CORES_PIXELS", pixels)
        extract_folder(photos, tmp_path / "other.h5", extractor, workers=workers, overwrite=True, quiet=True)
        assert digest(tmp_path / "other.h5") == digest(tmp_path / "whole.h5")
    for part in (names[2:3], names):  # in two runs, another order: each image the same, the file need not be
        extract_folder(photos, tmp_path / "parts.h5", extractor, names=part, quiet=True)
    assert records(tmp_path / "parts.h5") == records(tmp_path / "whole.h5")
    pictures = [read_image(photos / name).pixels for name in names]
    for together, name in zip(extractor.extract_batch(pictures), names, strict=True):  # as a GPU has them
        stored = records(tmp_path / "whole.h5")[name]
        together = kept_as(together, "float16")
        assert (together.lafs.tobytes(), together.scores.tobytes(), together.descriptors.tobytes()) == stored


@pytest.mark.parametrize("method", ["smnn", "mnn", "snn", "fginn", "adalam"])
def test_matches_do_not_depend_on_the_cache_or_on_interruptions(photos: Path, tmp_path: Path, method: str) -> None:
    extractor = FeatureExtractor.from_preset("dog-rootsift", max_keypoints=200, device="cpu")
    extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)

    def matched(name: str, **options: Any) -> Path:
        match_features(tmp_path / "f.h5", tmp_path / name, method=method, device="cpu", quiet=True, **options)
        return tmp_path / name

    whole = matched("whole.h5")
    assert digest(matched("again.h5")) == digest(whole)
    assert records(matched("small.h5", cache_bytes=1)) == records(whole)  # pairs in another order, so another file
    matched("parts.h5", pairs=[("3.jpg", "1.jpg")])
    found, stored = records(matched("parts.h5")), records(whole)
    assert found.pop(("3.jpg", "1.jpg"))
    stored.pop(("1.jpg", "3.jpg"))
    assert found == stored


def test_a_patch_is_described_the_same_among_any_others() -> None:
    network = FeatureExtractor.from_preset("dog-affnet-hardnet", device="cpu").descriptor
    patches = torch.rand(150, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    whole = run_tiled(network, patches)
    for rows in (slice(0, 1), slice(60, 70), slice(149, 150), slice(3, 140)):
        np.testing.assert_array_equal(run_tiled(network, patches[rows]).numpy(), whole[rows].numpy())
