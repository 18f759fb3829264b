"""ONNX: one file that onnxruntime and other engines run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import OptionError
from ..inference import PatchNetwork
from .graph import DescribeFrames
from .quiet import quiet

OPSET = 18


def check_installed() -> None:
    """Raise OptionError unless what writing ONNX needs is there."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise OptionError(f'ONNX files need {" and ".join(missing)}: pip install "hardnet-match[export]"')


def write_onnx(network: PatchNetwork, path: Path, about: Mapping[str, str], output: str, *, with_patches: bool) -> None:
    """Write a network of `graph.for_export` as ONNX, weights inside.

    Inputs are `patches` (N, 1, P, P), or `image` (1, 1, height, width) and `lafs` (N, 2, 3), float32, with N, height
    and width free; the output is named `output`. `about` becomes the model's metadata.

    Raises:
        OptionError: onnx or onnxscript is not installed.
    """
    check_installed()
    size = network.patch_size
    whole: nn.Module
    inputs: dict[str, Tensor]
    free: dict[str, dict[int, str]]
    if with_patches:
        whole = DescribeFrames(network, size)
        frames = torch.tensor([[8.0, 0.0, 40.0], [0.0, 8.0, 50.0]]).repeat(3, 1, 1)
        inputs = {"image": torch.rand(1, 1, 200, 301), "lafs": frames}
        free = {"image": {2: "height", 3: "width"}, "lafs": {0: "N"}}
    else:
        whole, inputs, free = network, {"patches": torch.rand(3, 1, size, size)}, {"patches": {0: "N"}}
    with quiet():
        program: Any = torch.onnx.export(
            whole.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=free,
        )
        # The exporter notes for every node which line of which file it came from: no one's business elsewhere.
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()
            node.doc_string = None
        program.model.metadata_props.update(about)
        program.model.producer_name = "hardnet-match"
        program.save(str(path), external_data=False)


def onnx_runner(path: Path) -> Callable[..., Tensor] | None:
    """The exported graph as a function of tensors, run by onnxruntime; None where that is not installed."""
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [item.name for item in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        feeds = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run
