"""The files of a run: checkpoints to go on from, and weights to use; every one replaced in a single step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import weights
from ..architectures import name_of
from ..errors import StoreError, WeightsError
from ..inference import PatchNetwork
from ..whole import replacing
from .kept import Kept

FORMAT = "hardnet-match training 1"
LAST, LAST_WEIGHTS, BEST_WEIGHTS = "last.pt", "last.safetensors", "best.safetensors"


def save_checkpoint(
    path: Path, network: nn.Module, optimiser: torch.optim.Optimizer, epoch: int, state: Mapping[str, Any]
) -> None:
    """Write all that a run needs to go on as if it had never stopped.

    The keys `epoch`, `state_dict` and `optimizer` are those of the originals' checkpoints, so the file is also one of
    weights.
    """
    content = {
        "format": FORMAT,
        "epoch": epoch,
        "state_dict": network.state_dict(),
        "optimizer": optimiser.state_dict(),
        **state,
    }
    with replacing(path) as part:
        torch.save(content, part)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote, on the processor; running nothing that is in the file.

    Raises:
        StoreError: it cannot be read, or another program wrote it.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything on damaged files
        raise StoreError(f"{path}: cannot be read as a checkpoint ({error}); remove it to start anew") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise StoreError(f"{path}: not a checkpoint of this program's train; use another folder")
    return content


def save_weights(path: Path, network: nn.Module, about: Mapping[str, str] | None = None) -> None:
    """Write a network's weights as float32 safetensors with the originals' names, and its own in the metadata."""
    network = network.module if isinstance(network, Kept) else network
    name = name_of(network) if isinstance(network, PatchNetwork) else type(network).__name__
    if find_spec("safetensors") is not None:
        weights.save_weights(path, network.state_dict(), name, about)
        return
    # a machine lent for training has torch, and little else; the format is a header and the bytes
    state = {key: value.detach().to("cpu", torch.float32) for key, value in network.state_dict().items()}
    state = {key: value.contiguous() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    header: dict[str, Any] = {"__metadata__": {**(about or {}), "architecture": name, "format": "pt"}}
    end = 0
    for key, value in state.items():
        begin, end = end, end + 4 * value.numel()
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [begin, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    parts = [len(head).to_bytes(8, "little"), head, *(value.numpy().tobytes() for value in state.values())]
    with replacing(path) as part:
        part.write_bytes(b"".join(parts))


def resume_original(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Go on from a checkpoint of the originals, or any {'epoch', 'state_dict', 'optimizer'}: weights and momentum.

    Args:
        path: the checkpoint; nothing in it is run.
        network: takes its weights.
        optimiser: takes its momentum buffers, where the file has them for every parameter, in its parameters' order.

    Returns:
        epochs done.

    Raises:
        WeightsError: it is no such checkpoint, or one of another network or kind of optimiser.
    """
    content = weights.read_checkpoint(path)
    if "epoch" not in content.about:
        raise WeightsError(f"{path}: says no 'epoch' to go on from; start from its weights with --start")
    weights.load_into(network, content.state, str(path))
    _take_momentum(path, content.optimizer, optimiser)
    return content.epoch


def _take_momentum(path: Path, theirs: Mapping[str, Any] | None, optimiser: torch.optim.Optimizer) -> None:
    """Copy the other optimiser's tensors by the parameters' order; its rates and groups are not ours."""
    if theirs is None:
        return
    if not isinstance(theirs.get("state"), Mapping):
        raise WeightsError(f"{path}: its 'optimizer' is no optimiser's state; start from its weights with --start")
    order = [number for group in theirs.get("param_groups", []) for number in group["params"]]
    ours = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if not theirs["state"]:
        return
    if len(order) != len(ours):
        raise WeightsError(f"{path}: its optimiser has {len(order)} parameters, this one {len(ours)}")
    for number, parameter in zip(order, ours, strict=True):
        buffers = theirs["state"].get(number, {})
        fits = {key: value for key, value in buffers.items() if isinstance(value, Tensor)}
        wrong = [key for key, value in fits.items() if value.ndim and value.shape != parameter.shape]
        known = {"momentum_buffer"} if isinstance(optimiser, torch.optim.SGD) else {"exp_avg", "exp_avg_sq", "step"}
        if wrong or not fits.keys() <= known:
            raise WeightsError(
                f"{path}: its optimiser is another one than {type(optimiser).__name__}; "
                "start from its weights with --start"
            )
        optimiser.state[parameter].update(
            {key: value.to(parameter.device).clone() if value.ndim else value for key, value in fits.items()}
        )
