"""Fine-tuning itself: batches of points that look alike, mixtures of weights, and runs that were stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_helpers import TINY

from hardnet_match import weights
from hardnet_match.descriptors import HardNet
from hardnet_match.errors import DataError
from hardnet_match.training.adapt import Plan, adapt, mixed
from hardnet_match.training.confusable import ConfusableSampler
from hardnet_match.training.patchset import PatchSet


def texture_set(tracks: int, seed: int, views: int = 2) -> PatchSet:
    """Smooth noise, a picture a track, each view of it with noise of its own."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(tracks, 1, 12, 12)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic")[:, 0].numpy()
    shown = np.repeat(fine, views, axis=0) + rng.normal(0, 0.3, (tracks * views, 64, 64))
    place = np.repeat(np.arange(tracks), views)
    position = np.zeros((tracks * views, 3), np.float32)
    position[:, 0] = 10 * place
    return PatchSet(
        (128 + 40 * shown).clip(0, 255).astype(np.uint8),
        place.astype(np.int64),
        np.tile(np.arange(views), tracks).astype(np.int32),
        np.zeros(tracks * views, np.int32),
        np.tile(np.array([0, 0, 1], np.float32), (tracks * views, 1)),
        position,
        np.ones(tracks * views, np.float32),
    )


def bundled() -> HardNet:
    network = HardNet()
    weights.load_into(network, weights.load_state_dict("hardnet-bundled", "hardnet"), "hardnet-bundled")
    return network.eval()


def test_batches_are_of_points_that_look_alike() -> None:
    found = texture_set(60, 0)
    # every fourth track looks like the one before it
    patches = found.patches.copy()
    patches[8::8], patches[9::8] = patches[6:-2:8], patches[7:-1:8]
    found = PatchSet(patches, *(getattr(found, key) for key in found.columns()))
    sampler = ConfusableSampler(found, bundled(), group=2)
    assert (sampler.alike[4::4, 0] == np.arange(3, 57, 4)[: len(sampler.alike[4::4])]).all()
    assert (sampler.alike != np.arange(60)[:, None]).all()
    sampler = ConfusableSampler(texture_set(200, 0), bundled(), group=2)
    rng = np.random.default_rng(0)
    together = 0
    for _ in range(20):
        labels = sampler.choose(20, rng)
        assert len(np.unique(labels)) == 20
        together += int(np.isin(sampler.alike[labels], labels).sum())
    assert together / 20 > 1.3 * 20 * 19 * 12 / 199  # of a random choice
    assert sorted(sampler.choose(200, rng)) == list(range(200))
    same = np.random.default_rng(9), np.random.default_rng(9)
    np.testing.assert_array_equal(sampler.choose(20, same[0]), sampler.choose(20, same[1]))


def test_mixtures() -> None:
    old = {"w": torch.zeros(3), "count": torch.tensor(1)}
    new = {"w": torch.tensor([1.0, 2.0, 4.0]), "count": torch.tensor(5)}
    assert mixed(old, new, 0.5)["w"].tolist() == [0.5, 1.0, 2.0]
    assert mixed(old, new, 1.0)["w"].tolist() == [1, 2, 4]
    assert mixed(old, new, 0.0)["w"].tolist() == [0, 0, 0]


def test_adapting_keeps_statistics_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hardnet_match.training import trainer

    learn, choose, network = texture_set(64, 1), texture_set(40, 2), bundled()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    whole = adapt(network, learn, choose, TINY, out=tmp_path / "whole")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name  # what went in stays as it was
    step = trainer.Trainer._step

    def stopping(self: Any, batch: Any, progress: float) -> None:
        if self.state.step == 2:
            self._save()
            raise KeyboardInterrupt
        step(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            adapt(network, learn, choose, TINY, out=tmp_path / "parts")
    parts = adapt(network, learn, choose, TINY, out=tmp_path / "parts")
    assert (parts.share, parts.step, parts.after, parts.history.steps) == (whole.share, whole.step, whole.after, 3)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name]), name
        if "running" in name:
            assert torch.equal(value, before[name]), name
    last = weights.read_checkpoint(tmp_path / "whole" / "last.safetensors").state
    assert any(not torch.equal(last[name], before[name]) for name in last)
    # What is taken is of the last step, and of the shares that were asked for.
    assert (whole.share, whole.step) in [(0, 0), *((share, 3) for share in TINY.shares)]
    for name, expected in mixed(before, last, whole.share).items():
        torch.testing.assert_close(whole.network.state_dict()[name], expected, msg=name)


def test_a_run_that_learns_nothing_gives_back_what_went_in(tmp_path: Path) -> None:
    network = bundled()
    plan = Plan(passes=1, steps=(2, 2), batch=32, rate=1e3, evaluations=1)  # so fast that everything is lost
    came = adapt(network, texture_set(40, 1), texture_set(20, 2), plan, out=tmp_path)
    assert (came.share, came.step, came.after) == (0, 0, came.before)
    for name, value in network.state_dict().items():
        assert torch.equal(value, came.network.state_dict()[name]), name
    with pytest.raises(DataError, match="too few points"):
        adapt(network, texture_set(10, 1), texture_set(20, 2), plan, out=tmp_path)
