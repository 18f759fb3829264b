"""TorchScript: one file that libtorch and torch run without this package."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..inference import PatchNetwork
from ..weights.reading import EXPORTED
from .graph import DescribeFrames, DescribePatches
from .quiet import quiet


def write_torchscript(network: PatchNetwork, path: Path, about: Mapping[str, str], *, with_patches: bool) -> None:
    """Write a network of `graph.for_export` as TorchScript.

    The layers are traced, what depends on shapes (patch extraction, checks) is scripted, so that any number of
    patches and any size of image works. `about` lies in the archive as the extra file `hardnet_match.json`.
    """
    size = network.patch_size
    with quiet():
        traced = torch.jit.trace(network, torch.rand(3, 1, size, size))  # type: ignore[no-untyped-call]
        whole: nn.Module = DescribeFrames(traced, size) if with_patches else DescribePatches(traced, size)
        scripted = torch.jit.script(whole.eval())
        torch.jit.save(scripted, str(path), _extra_files={EXPORTED: json.dumps(dict(about))})


def torchscript_runner(path: Path) -> Callable[..., Tensor]:
    """The exported graph as a function of tensors."""
    with quiet():
        module: Any = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(*inputs: Tensor) -> Tensor:
        with torch.inference_mode():
            out: Tensor = module(*inputs)
        return out

    return run
