"""Trained networks as the package carries them: float16 safetensors with the originals' names."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..architectures import name_of
from ..errors import DataError
from ..inference import PatchNetwork
from ..weights import load_into, read_checkpoint, save_weights


def save_bundled(network: PatchNetwork, path: Path, about: dict[str, str] | None = None) -> None:
    """Write a network's weights and running statistics in float16, with its name in the metadata.

    Raises:
        ValueError: a value does not fit float16.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save_weights(path, network.state_dict(), name_of(network), about, half=True)
    except DataError as error:
        raise ValueError(f"does not fit float16: {error}") from error


def load_bundled(network: nn.Module, path: Path) -> None:
    """Read such a file into a network, as float32."""
    load_into(network, read_checkpoint(path).state, str(path))
