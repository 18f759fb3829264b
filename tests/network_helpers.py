"""Networks that tests can tell apart: random weights, with statistics as training leaves them."""

from __future__ import annotations

import copy
import functools

import torch
from torch import nn

from hardnet_match.architectures import Loaded, build, find
from hardnet_match.descriptors.base import DescriptorNetwork
from hardnet_match.export.check import sample_patches
from hardnet_match.inference import PatchNetwork


def trained(name: str, seed: int = 0) -> PatchNetwork:
    """A network of that name with BatchNorm statistics of real activations, and a projection that is none of axes."""
    return copy.deepcopy(_trained(name, seed))


@functools.cache
def _trained(name: str, seed: int) -> PatchNetwork:
    torch.manual_seed(seed)
    network = build(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
    network.train()
    with torch.no_grad():
        network(sample_patches(40, 32))
    if isinstance(network, DescriptorNetwork) and network.projected:
        directions = torch.linalg.qr(torch.randn(network.width, network.dim))[0]
        network.project(directions, torch.randn(network.width) * 0.02)
    return network.eval()


def loaded(name: str, seed: int = 0) -> Loaded:
    """The same as what opening a file gives."""
    return Loaded(trained(name, seed), find(name), f"{name}.safetensors")
