"""Weights to files: safetensors that say which network they are of, and checkpoints as the originals write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError
from ..whole import replacing

if TYPE_CHECKING:
    from torch import Tensor

PROJECTION = ("components", "mean")
_ORIGINAL_NAMES = {"hardnet": "h7"}


def save_weights(
    path: str | Path,
    state: Mapping[str, Tensor],
    architecture: str,
    about: Mapping[str, str] | None = None,
    *,
    half: bool = False,
) -> None:
    """Write a state dict as safetensors, with the network's name in the metadata.

    `num_batches_tracked` is left out: it says nothing in evaluation, and several of the originals lack it as well.

    Args:
        state: the originals' names to tensors.
        architecture: the network's name as in `architectures`.
        about: more metadata (command, data, figures).
        half: floating tensors as float16.

    Raises:
        DataError: a value is not finite, or does not fit float16.
    """
    import torch
    from safetensors.torch import save

    tensors = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        value = value.detach().to("cpu")
        value = value.to(torch.float16 if half else torch.float32) if value.is_floating_point() else value
        tensors[name] = value.contiguous()
    bad = [name for name, value in tensors.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if bad:
        raise DataError(f"{path}: not finite{' in float16' if half else ''}: {', '.join(bad)}")
    metadata = {**(about or {}), "architecture": architecture, "format": "pt"}
    with replacing(path) as part:
        # save_file of the library makes files that only their owner may read
        part.write_bytes(save(tensors, metadata=metadata))


def save_checkpoint(
    path: str | Path,
    state: Mapping[str, Tensor],
    architecture: str,
    *,
    epoch: int = 0,
    optimizer: Mapping[str, Any] | None = None,
    **more: Any,
) -> None:
    """Write a checkpoint with the layout of the originals, so that their tools read it as one of their own.

    A dict with `epoch`, `state_dict` (theirs: the network alone), `model_arch` (`h7`, `h8`, `h8E512`, ... as in
    pultarmi/HardNet_MultiDataset), `save_name`, `optimizer` where there is one, and `projection` {components, mean}
    where the network has one (the originals keep a pickled scikit-learn PCA there, which cannot be read safely).

    Args:
        state: `network.state_dict()`.
        architecture: the network's name as in `architectures`.
        epoch: epochs done; training goes on with this one.
        optimizer: its state dict.
        more: further plain values; `torch.load(weights_only=True)` must be able to read them.
    """
    import torch

    plain = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    content: dict[str, Any] = {
        "epoch": epoch,
        "state_dict": {name: value for name, value in plain.items() if name not in PROJECTION},
        "model_arch": "pca".join(_ORIGINAL_NAMES.get(part, part) for part in architecture.split("-pca")),
        "save_name": Path(path).stem,
        **more,
    }
    if optimizer is not None:
        content["optimizer"] = dict(optimizer)
    if all(name in plain for name in PROJECTION):
        content["projection"] = {name: plain[name] for name in PROJECTION}
    with replacing(path) as part:
        torch.save(content, part)
