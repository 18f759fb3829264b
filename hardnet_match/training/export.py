"""Trained networks as the package carries them: float16 safetensors with the originals' names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


def save_bundled(network: nn.Module, path: Path, about: dict[str, str] | None = None) -> None:
    """Write a network's weights and running statistics in float16.

    `num_batches_tracked` is left out: it says nothing in evaluation, and several of the originals lack it as well.

    Raises:
        ValueError: a value does not fit float16.
    """
    state = {
        name: value.detach().to("cpu", torch.float16).contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    bad = [name for name, value in state.items() if not value.isfinite().all()]
    if bad:
        raise ValueError(f"does not fit float16: {', '.join(bad)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path, metadata=about)
    path.chmod(0o644)  # the library writes for the owner alone


def load_bundled(network: nn.Module, path: Path) -> None:
    """Read such a file into a network, as float32."""
    state = {name: value.float() for name, value in load_file(path).items()}
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    network.load_state_dict({**counters, **state}, strict=True)
