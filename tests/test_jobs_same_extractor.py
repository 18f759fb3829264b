"""An extractor is made again from the settings of its features, or it is said what is missing for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hardnet_match.errors import OptionError, StoreError
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.jobs.same_extractor import extractor_like
from hardnet_match.weights import resolve


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"shape": "none", "orientation": "upright", "descriptor": "rootsift", "max_keypoints": 77},
        {"detector": "dog", "orientation": "orinet", "precision": "half"},
        {"shape": "baumberg"},
    ],
)
def test_settings_make_their_extractor(parts: dict[str, object]) -> None:
    first = FeatureExtractor.from_preset("hesaffnet-hardnet", device="cpu", **parts)
    settings = {**first.settings, "max_size": 640, "masks": True}
    assert extractor_like(settings, "index", device="cpu").settings == first.settings


def test_another_ranking_of_keypoints_is_brought_back() -> None:
    first = FeatureExtractor.from_preset("hesaffnet-hardnet", device="cpu")
    first.detector.scale_weight = 0.5
    assert first.settings["scale_weight"] == 0.5
    assert extractor_like(first.settings, "index", device="cpu").settings == first.settings


def test_own_weights_are_known_by_their_hash(tmp_path: Path) -> None:
    state = load_file(resolve("hardnet-bundled"))
    own = tmp_path / "own.safetensors"
    save_file({key: value + torch.full_like(value, 0.001) for key, value in state.items()}, own)
    first = FeatureExtractor.from_preset(weights=str(own), device="cpu")
    with pytest.raises(OptionError, match=r"index.*descriptor weights of hash .*--weights FILE"):
        extractor_like(first.settings, "index")
    with pytest.raises(OptionError, match="not among hardnet-bundled"):
        extractor_like(first.settings, "index", weights=["hardnet-bundled"])
    again = extractor_like(first.settings, "index", weights=["affnet-bundled", str(own)], device="cpu")
    assert again.settings == first.settings


def test_settings_of_others_are_refused() -> None:
    with pytest.raises(StoreError, match="another program"):
        extractor_like({}, "index")
    settings = {**FeatureExtractor.from_preset(device="cpu").settings, "sharpening": 3}
    with pytest.raises(StoreError, match="sharpening: 3"):
        extractor_like(settings, "index", device="cpu")
