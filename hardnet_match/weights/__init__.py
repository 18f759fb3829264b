"""Weights by name or file: bundled with the package, official ones downloaded and checked, or your own.

    state = load_state_dict("hardnet++", "hardnet")
    load_into(network, state, "hardnet++")

Reading a file never runs what is in it (see `reading` and `inert`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import WeightsError
from .download import cache_folder, fetch, file_digest
from .reading import Checkpoint, load_into, read_checkpoint, read_state
from .registry import ENTRIES, HERE, Entry, find
from .writing import save_checkpoint, save_weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ENTRIES",
    "Checkpoint",
    "Entry",
    "cache_folder",
    "file_hash",
    "load_into",
    "load_state_dict",
    "names",
    "read_checkpoint",
    "resolve",
    "save_checkpoint",
    "save_weights",
]


def names(architecture: str | None = None) -> list[str]:
    """Names of all known weights, or of those for one network."""
    return [name for name, entry in ENTRIES.items() if architecture in (None, entry.architecture)]


def resolve(name_or_path: str | Path) -> Path:
    """The file behind a registry name (downloaded on first use) or a path.

    A name of the registry wins over a file of the same name in the working folder; write ./NAME for the file.

    Raises:
        WeightsError: unknown name and no such file; or the download failed.
    """
    if isinstance(name_or_path, str) and name_or_path in ENTRIES:
        entry = ENTRIES[name_or_path]
        if not entry.bundled:
            return fetch(entry)
        path = HERE / entry.file
        if not path.is_file():
            raise WeightsError(f"bundled weights {entry.file} are missing from the package; install it again")
        return path
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    if path.suffix or len(path.parts) > 1:
        raise WeightsError(f"{path}: no such weights file (and no weights of that name; known: {', '.join(ENTRIES)})")
    find(str(name_or_path))
    raise WeightsError(f"{path}: no such weights file")


def file_hash(name_or_path: str | Path) -> str:
    """First 16 hex digits of the sha256 of the weights file, to tell which weights made a result.

    Raises:
        WeightsError: as `resolve`.
    """
    return file_digest(resolve(name_or_path))[:16]


def load_state_dict(name_or_path: str | Path, architecture: str) -> dict[str, Tensor]:
    """State dict of bundled, official or own weights.

    Args:
        name_or_path: a name of the registry, or a file: .safetensors, .pth / .pt / .params, TorchScript.
        architecture: the network it is for ("hardnet", "hardnet8", "hardnet-ps", "tfeat", "hardtfeat", "affnet",
            "orinet", "keynet"). A name made for another one is refused here, a file by `load_into`.

    Returns:
        The originals' names to tensors, floating ones float32, on the processor.

    Raises:
        WeightsError: unknown, not to be had, damaged, hostile, or made for another network.
    """
    entry = ENTRIES.get(name_or_path) if isinstance(name_or_path, str) else None
    if entry is not None and entry.architecture != architecture:
        fitting = ", ".join(names(architecture)) or "none"
        raise WeightsError(
            f"weights {entry.name!r} are for {entry.architecture}, not for {architecture}; weights for it: {fitting}"
        )
    return read_state(resolve(name_or_path))
