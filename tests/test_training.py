"""Pairs, augmentation and the three training runs, on made-up scenes."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from training_helpers import made_up_set

from hardnet_match import weights
from hardnet_match.descriptors import HardNet, RootSIFT
from hardnet_match.orientation import Dominant, OriNet
from hardnet_match.shape import AffNet, Baumberg
from hardnet_match.training.augment import (
    Light,
    Warp,
    crop,
    random_frames,
    random_tilt,
    relight,
    rotation_matrix,
)
from hardnet_match.training.augment.frames import uniform
from hardnet_match.training.card import write_card
from hardnet_match.training.export import load_bundled, save_bundled
from hardnet_match.training.judge import descriptor_figures, hold_out, orientation_figures, shape_figures
from hardnet_match.training.loop import Schedule, train_descriptor, train_orientation, train_shape
from hardnet_match.training.sampling import PairSampler

# pairs -----------------------------------------------------------------------------------------------


def test_pairs_are_of_one_track_and_of_different_views_where_there_are_several() -> None:
    observations = made_up_set(200)
    sampler, rng = PairSampler(observations), np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        first, second = sampler.pairs(64, rng)
        tracks = observations.track[first]
        assert (tracks == observations.track[second]).all()
        assert len(set(tracks.tolist())) == len(tracks) == 64
        assert ((first == second) == (tracks >= 100)).all()
        seen |= set(first.tolist())
    assert len(seen) > 0.9 * len(observations)  # every member is drawn, the last of a track too


def test_more_pairs_than_tracks_gives_what_there_is() -> None:
    first, _ = PairSampler(made_up_set(20)).pairs(500, np.random.default_rng(0))
    assert 10 <= len(first) <= 20


def test_the_wider_partner_is_taken() -> None:
    observations = made_up_set(200, views=5)
    sampler = PairSampler(observations)
    mean = []
    for wide in (False, True):
        first, second = sampler.pairs(100, np.random.default_rng(1), wide=wide)
        several = first != second
        mean.append((observations.direction[first] * observations.direction[second]).sum(1)[several].mean())
    assert mean[1] < mean[0] - 0.1


def test_neighbours_are_no_negatives() -> None:
    observations = made_up_set(100)
    sampler = PairSampler(observations)
    first, second = sampler.pairs(60, np.random.default_rng(0))
    same = sampler.same_place(first, second)
    for i in range(len(first)):
        for j in range(len(second)):
            a, b = first[i], second[j]
            gap = np.linalg.norm(observations.position[a] - observations.position[b])
            near = gap < 0.5 * max(observations.size[a], observations.size[b])
            assert same[i, j] == (near and observations.scene[a] == observations.scene[b])
    assert same.diagonal().all()


# augmentation ----------------------------------------------------------------------------------------


def test_the_unchanged_crop_is_the_inner_half_to_the_bit() -> None:
    stored = torch.from_numpy(made_up_set(10).patches)
    frames = random_frames(len(stored), Warp(), torch.Generator())
    torch.testing.assert_close(crop(stored, frames)[:, 0], stored[:, 16:48, 16:48] / 255, atol=1e-5, rtol=0)


def test_a_crop_through_a_turned_frame_is_the_turned_crop() -> None:
    stored = torch.from_numpy(made_up_set(10).patches)
    quarter = rotation_matrix(torch.full((len(stored),), math.pi / 2))
    frames = torch.cat([quarter, torch.zeros(len(stored), 2, 1)], dim=2)
    # the frame turns counter-clockwise on the screen, so the content turns clockwise
    expected = stored[:, 16:48, 16:48].rot90(-1, (1, 2)) / 255
    torch.testing.assert_close(crop(stored, frames)[:, 0], expected, atol=1e-5, rtol=0)


def test_random_frames_stay_within_their_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = random_frames(2000, Warp(rotation=20, octaves=0.5, shift=2, tilt=1.0), generator)
    axes = frames[:, :, :2]
    assert torch.linalg.det(axes).sqrt().log2().abs().max() <= 0.5 + 1e-4
    assert torch.rad2deg(torch.atan2(axes[:, 0, 1], axes[:, 0, 0])).abs().max() <= 20 + 1e-3
    assert frames[:, :, 2].abs().max() <= 2 * 2 / 32
    tilts = random_tilt(2000, 3.0, generator)
    ratio = torch.linalg.svdvals(tilts)
    torch.testing.assert_close(torch.linalg.det(tilts), torch.ones(2000), atol=1e-4, rtol=0)
    assert 2.8 < float((ratio[:, 0] / ratio[:, 1]).max()) <= 3.0 + 1e-4


def test_light_changes_leave_the_content() -> None:
    patches = crop(torch.from_numpy(made_up_set(60).patches), random_frames(120, Warp(), torch.Generator()))
    lit = relight(patches, Light(), torch.Generator().manual_seed(0))
    flat, other = patches.flatten(1), lit.flatten(1)
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(flat, other, strict=True)])
    assert correlation.median() > 0.75
    assert correlation.min() > 0
    assert (lit - patches).abs().mean() > 0.02
    torch.testing.assert_close(relight(patches, Light(0, 0, 0, 0), torch.Generator()), patches, atol=2e-3, rtol=0)


def test_defocus_is_a_gaussian_of_each_patch_s_own() -> None:
    """Beside OpenCV's, away from the border; with none of it, nothing else that is drawn changes."""
    patches = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    light = Light(0, 0, 0, 0, defocus=2.0)
    draws = torch.Generator().manual_seed(2)
    for _ in range(5):
        uniform(64, 0, 1, draws)
    torch.randn((64, 1, 32, 32), generator=draws)
    sigma = (uniform(64, -1, 1, draws) * 2).clamp(min=0)
    blurred = relight(patches, light, torch.Generator().manual_seed(2))
    assert 16 < int((sigma == 0).sum()) < 48
    for patch, out, s in zip(patches.clamp(min=1e-3), blurred, sigma.tolist(), strict=True):
        oracle = cv2.GaussianBlur(patch[0].numpy(), (25, 25), s) if s > 0.05 else patch[0].numpy()
        np.testing.assert_allclose(out[0, 8:-8, 8:-8].numpy(), oracle[8:-8, 8:-8], atol=5e-3)
    torch.testing.assert_close(
        relight(patches[:9], light, torch.Generator().manual_seed(3), torch.arange(64) < 9),
        relight(torch.cat([patches[:9], patches[9:]]), light, torch.Generator().manual_seed(3))[:9],
    )


# training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampler() -> PairSampler:
    return PairSampler(made_up_set(400))


def losses(history: list[dict[str, float]]) -> tuple[float, float]:
    return history[0]["loss"], history[-1]["loss"]


@pytest.mark.slow
def test_a_short_run_teaches_the_descriptor(sampler: PairSampler) -> None:
    torch.manual_seed(0)
    network = HardNet()
    held, error = hold_out(made_up_set(200, seed=7), 90), Warp(25, 0.4, 3, 1.6)
    before = descriptor_figures(network, held, error, Light())
    history = train_descriptor(network, sampler, Schedule(steps=20, batch=48, rate=3e-3, report=5))
    first, last = losses(history.reports)
    after = descriptor_figures(network, held, error, Light())
    assert last < first - 0.1
    assert after["fpr95"] < 0.8 * before["fpr95"]
    assert history.steps == 20
    assert not network.training


@pytest.mark.slow
def test_a_short_run_teaches_the_shape(sampler: PairSampler) -> None:
    torch.manual_seed(0)
    network, descriptor = AffNet(), HardNet()
    held = hold_out(made_up_set(200, seed=7), 90)
    weights = [parameter.clone() for parameter in descriptor.parameters()]
    before = shape_figures(network, descriptor, held)["covariance"]
    train_shape(network, descriptor, sampler, Schedule(steps=70, batch=32, rate=3e-3, report=10), guided=0.7)
    after = shape_figures(network, descriptor, held)["covariance"]
    assert after < 0.9 * before
    assert after < 0.9 * shape_figures(None, descriptor, held)["covariance"]
    assert all(torch.equal(a, b) for a, b in zip(weights, descriptor.parameters(), strict=True))


@pytest.mark.slow
def test_a_short_run_teaches_the_orientation(sampler: PairSampler) -> None:
    torch.manual_seed(0)
    network = OriNet()
    held = hold_out(made_up_set(200, seed=7), 90)
    before = orientation_figures(network, HardNet(), held)["within20"]
    history = train_orientation(network, sampler, Schedule(steps=90, batch=32, rate=3e-3, report=10))
    first, last = losses(history.reports)
    assert last < first - 0.5
    assert orientation_figures(network, HardNet(), held)["within20"] > before + 0.1


def test_the_figures_reward_what_is_right() -> None:
    held = hold_out(made_up_set(200, views=2, seed=3), 90)
    plain = shape_figures(None, RootSIFT(), held)
    assert shape_figures(Baumberg(), RootSIFT(), held)["covariance"] < plain["covariance"]
    turned = orientation_figures(None, RootSIFT(), held)
    oriented = orientation_figures(Dominant(), RootSIFT(), held)
    assert oriented["rank1"] > turned["rank1"] + 0.3
    assert oriented["within20"] > 0.5 > turned["within20"]


def test_training_stops_at_its_time(sampler: PairSampler) -> None:
    history = train_orientation(OriNet(), sampler, Schedule(steps=10**6, seconds=0.5, batch=16, report=1))
    assert 1 <= history.steps < 1000


def test_the_rate_rises_and_falls_to_nothing() -> None:
    schedule = Schedule(rate=1e-2, warm_up=0.1)
    rates = [schedule.at(progress) for progress in np.linspace(0, 1, 51)]
    assert max(rates) == pytest.approx(1e-2, rel=0.02)
    assert int(np.argmax(rates)) == 5
    assert rates[-1] < 1e-4
    assert (np.diff(rates[6:]) < 0).all()


def test_float16_files_lose_nothing_that_matters(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = HardNet()
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.rand(64, 1, 32, 32))
    network.eval()
    save_bundled(network, tmp_path / "made.safetensors", {"licence": "Apache-2.0"})
    again = HardNet()
    load_bundled(again, tmp_path / "made.safetensors")
    patches: Tensor = torch.rand(20, 1, 32, 32)
    cosine = (again.eval()(patches) * network(patches)).sum(1)
    assert cosine.min() > 0.9999
    assert (tmp_path / "made.safetensors").stat().st_size < 2_800_000
    with torch.no_grad():
        network.features[0].weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"features\.0\.weight"):
        save_bundled(network, tmp_path / "bad.safetensors")


def test_a_card_keeps_what_a_person_wrote_and_gets_new_figures(tmp_path: Path) -> None:
    card = tmp_path / "x.md"
    tables = {"a place": {"ours": {"fpr95": 0.0123, "rank1": 0.5}, "theirs": {"fpr95": 0.2, "rank1": 0.25}}}
    write_card(card, "x", "Made by hand.", tables)
    assert "| ours | 1.23 | 50.00 |" in card.read_text()
    card.write_text(card.read_text().replace("Made by hand.", "A person's words.") + "\n## Licence\n\nApache-2.0\n")
    write_card(card, "y", "", {"a place": {"ours": {"covariance": 0.0007}}})
    text = card.read_text()
    assert "A person's words." in text
    assert text.endswith("## Licence\n\nApache-2.0\n")
    assert "| ours | 0.0007 |" in text
    assert "1.23" not in text
    assert text.count("## Figures") == 1


def test_the_bundled_weights_do_what_their_cards_say() -> None:
    """On texture that no photo holds: far from their training, so the margins are wide."""
    folder = Path(weights.__file__).parent
    networks = {"hardnet": HardNet(), "affnet": AffNet(), "orinet": OriNet()}
    for name, network in networks.items():
        load_bundled(network, folder / f"{name}-bundled.safetensors")
        card = (folder / f"{name}-bundled.md").read_text()
        assert all(word in card for word in ("## Data", "## Training", "## Figures", "Apache-2.0"))
    hardnet, affnet, orinet = (network.eval() for network in networks.values())
    held, error = hold_out(made_up_set(300, views=2, seed=3), 140), Warp(15, 0.3, 2, 1.5)
    ours, sift = (descriptor_figures(network, held, error, Light())["fpr95"] for network in (hardnet, RootSIFT()))
    assert ours < 0.5 * sift
    adapted, plain = (shape_figures(shape, hardnet, held) for shape in (affnet, None))
    assert adapted["covariance"] < 0.4 * plain["covariance"]
    assert adapted["rank1"] >= plain["rank1"]
    oriented, turned = (orientation_figures(network, hardnet, held) for network in (orinet, None))
    assert oriented["within20"] > 3 * turned["within20"]
