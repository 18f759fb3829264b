"""8-bit inference: near float32 on real networks, the same however patches are batched, clear where it cannot be."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from hardnet_match import weights
from hardnet_match.descriptors import HardNet, HardNet8, HardNetPS, TFeat
from hardnet_match.errors import OptionError
from hardnet_match.frames import make_lafs
from hardnet_match.inference import PatchNetwork, run_tiled
from hardnet_match.orientation import OriNet
from hardnet_match.patches import extract_patches
from hardnet_match.pyramid import as_image, patch_pyramid
from hardnet_match.quantised import TILE, quantise
from hardnet_match.shape import AffNet
from hardnet_match.world import World

pytest.importorskip("openvino", reason="precision int8 is an extra")


@pytest.fixture(scope="module")
def patches() -> Tensor:
    """(300, 1, 32, 32) at random places of a rendered picture."""
    rng = np.random.default_rng(0)
    pixels = World(seed=1).render(1, size=(320, 240))[0].image
    xy = rng.uniform((30, 30), (290, 210), (300, 2)).astype(np.float32)
    lafs = make_lafs(xy, rng.uniform(5, 15, 300).astype(np.float32), rng.uniform(0, 360, 300).astype(np.float32))
    return extract_patches(patch_pyramid(as_image(pixels)), torch.from_numpy(lafs), 32)


def bundled(network: PatchNetwork, name: str) -> PatchNetwork:
    weights.load_into(network, weights.load_state_dict(f"{name}-bundled", name), name)
    return network.eval()


def test_descriptors_stay_what_they_are(patches: Tensor) -> None:
    network = bundled(HardNet(), "hardnet")
    expected, found = run_tiled(network, patches), run_tiled(quantise(network), patches)
    cosine = (expected * found).sum(dim=1)
    assert float(cosine.mean()) > 0.999
    assert float(cosine.min()) > 0.98
    assert torch.allclose(found.norm(dim=1), torch.ones(len(found)), atol=1e-5)
    assert not torch.equal(expected, found)  # the integers are really there


def test_a_network_never_seen_needs_no_calibration(patches: Tensor) -> None:
    """Running statistics are all a network needs; one that learned nothing has the least signal to keep."""
    torch.manual_seed(0)
    network = HardNet8()
    with torch.no_grad():
        for _ in range(20):
            network.train()(patches[:128])
    network.eval()
    cosine = (run_tiled(network, patches) * run_tiled(quantise(network), patches)).sum(dim=1)
    assert float(cosine.mean()) > 0.97


def test_shapes_and_orientations(patches: Tensor) -> None:
    affnet, orinet = bundled(AffNet(), "affnet"), bundled(OriNet(), "orinet")
    unlike = (run_tiled(affnet, patches) - run_tiled(quantise(affnet), patches)).abs()
    assert float(unlike.mean()) < 0.01
    turned = run_tiled(orinet, patches) - run_tiled(quantise(orinet), patches)
    assert float(torch.rad2deg(torch.atan2(turned.sin(), turned.cos()).abs()).median()) < 2


@pytest.mark.parametrize("count", [0, 1, TILE - 1, TILE, TILE + 1, 300])
def test_a_patch_does_not_feel_its_neighbours(patches: Tensor, count: int) -> None:
    network = quantise(bundled(OriNet(), "orinet"))
    assert torch.equal(run_tiled(network, patches[:count]), run_tiled(network, patches)[:count])


def test_threads_do_not_matter(patches: Tensor) -> None:
    network = bundled(HardNet(), "hardnet")
    one, two = (run_tiled(quantise(network, threads), patches) for threads in (1, 2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("network", [TFeat(), HardNetPS()], ids=["tfeat", "hardnet-ps"])
def test_networks_without_an_8_bit_form(network: PatchNetwork) -> None:
    with pytest.raises(OptionError, match="8-bit form"):
        quantise(network)


def test_without_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(OptionError, match=r"hardnet-match\[int8\]"):
        quantise(HardNet())
