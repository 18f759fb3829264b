"""8-bit integer inference of the patch networks on a CPU, through OpenVINO (an extra).

Nothing is calibrated and no second weights file is needed. In these networks every convolution but the last is followed
by a BatchNorm without gain, so whatever was learned, what enters the next convolution is a rectified variable of unit
variance; and the first convolution sees standardised patches. One range, `RANGE` deviations, therefore fits every
layer of every such network, own and fine-tuned ones included. The last convolution and what is around the layers
(standardising a patch, the unit length of a descriptor) stay in float32.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .errors import OptionError
from .inference import CPU_TILE, PatchNetwork, go_on

RANGE = 8.0
"""Deviations that the 256 levels of an activation span; the next larger values, about one in 10,000, are cut."""
WEIGHT_RANGE = 2.0
"""Weights take up half of their 8 bits: products then cannot overflow on processors without VNNI, at no visible loss
(mean cosine of HardNet's descriptors to float32 .9998 either way), and all processors give the same numbers."""
TILE = CPU_TILE
"""Patches a request, what `run_tiled` fills up to: HardNet's activations in 8 bits then stay in a core's cache."""
BLOCK = 1024
"""Patches handed over at once, to be shared by the cores; standardised, they take 4 MB."""

Network = TypeVar("Network", bound=PatchNetwork)


def quantise(network: Network, threads: int | None = None) -> Network:
    """A copy of a network that computes its convolutions in 8-bit integers, on the processor.

    Args:
        network: a patch network whose convolutions are followed by BatchNorm without gain (HardNet, HardNet8, AffNet,
            OriNet), not fused.
        threads: cores to use; as many as torch uses if None. The result does not depend on it.

    Returns:
        Same calls, same shapes; inference only.

    Raises:
        OptionError: OpenVINO is not installed, or the network has no such convolutions.
    """
    try:
        import openvino
    except ImportError as error:
        raise OptionError(
            'precision int8 needs OpenVINO: pip install "hardnet-match[int8]", or take another precision'
        ) from error
    fused = network.fused()
    suited = [name for name, child in network.named_children() if isinstance(child, nn.Sequential) and _suits(child)]
    if not suited:
        raise OptionError(
            f"{type(network).__name__} has no 8-bit form: its layers lack the BatchNorm that bounds their inputs; "
            "take precision float32 or half"
        )
    for name in suited:
        layers = getattr(fused, name)
        setattr(fused, name, _IntegerLayers(openvino, layers, network.patch_size, threads or torch.get_num_threads()))
    fused.block = BLOCK
    return fused


def can_quantise(network: PatchNetwork) -> bool:
    """Has the network convolutions whose inputs are bounded as 8 bits need it?"""
    return any(isinstance(child, nn.Sequential) and _suits(child) for child in network.children())


def _suits(layers: nn.Sequential) -> bool:
    """Is every convolution but the last followed by a BatchNorm without gain?"""
    modules = [layer for layer in layers if not isinstance(layer, nn.Dropout)]
    convolutions = [place for place, layer in enumerate(modules) if isinstance(layer, nn.Conv2d)]
    after = [modules[place + 1] for place in convolutions[:-1]]
    return len(convolutions) > 1 and all(isinstance(layer, nn.BatchNorm2d) and not layer.affine for layer in after)


class _IntegerLayers(nn.Module):
    """Folded layers as an OpenVINO graph; one request a core is in flight."""

    def __init__(self, openvino: Any, layers: nn.Sequential, side: int, threads: int) -> None:
        super().__init__()
        compiled = openvino.Core().compile_model(
            _graph(openvino, layers, side),
            "CPU",
            {
                "NUM_STREAMS": threads,
                "INFERENCE_NUM_THREADS": threads,
                "INFERENCE_PRECISION_HINT": "f32",  # of what is not in integers; bfloat16 would be taken unasked
            },
        )
        self.shape = tuple(compiled.output(0).shape)[1:]
        self.compiled, self.at_once = compiled, threads
        self._mine = threading.local()

    def _requests(self) -> list[Any]:
        """The calling thread's own requests; those of all threads share the cores."""
        if not hasattr(self._mine, "requests"):
            self._mine.requests = [self.compiled.create_infer_request() for _ in range(self.at_once)]
        return list(self._mine.requests)

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 1, P, P) standardised patches, N a multiple of TILE as `run_tiled` pads it, to (N, ...) float32."""
        given = patches.float().contiguous().numpy()
        out = np.empty((len(given), *self.shape), np.float32)
        # No callbacks: they would want Python's lock in OpenVINO's threads while this one, freeing the graph, has it.
        under_way: deque[tuple[Any, int]] = deque()
        free = self._requests()
        try:
            for start in range(0, len(given), TILE):
                go_on()
                request = free.pop() if free else _finished(under_way, out)
                under_way.append((request, start))
                request.start_async({0: given[start : start + TILE]}, share_inputs=True)
        finally:  # after Ctrl-C too: those under way read the patches
            while under_way:
                _finished(under_way, out)
        return torch.from_numpy(out)

    def __deepcopy__(self, memo: dict[int, Any]) -> _IntegerLayers:
        return self  # compiled, and without state of its own


def _finished(under_way: deque[tuple[Any, int]], out: NDArray[np.float32]) -> Any:
    """The request that began first, done, its output put where it belongs."""
    request, start = under_way.popleft()
    request.wait()
    out[start : start + TILE] = request.get_output_tensor(0).data
    return request


def _graph(openvino: Any, layers: nn.Sequential, side: int) -> Any:
    """The layers, for TILE patches of side P; compiling makes integers of what FakeQuantize nodes enclose."""
    from openvino import opset13 as op

    given = op.parameter([TILE, 1, side, side], np.float32)
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    node, standardised = given, True
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            values = layer.weight.detach().numpy().astype(np.float32)
            weights = op.constant(values)
            if layer is not convolutions[-1]:
                low, high = (-RANGE, RANGE * 127 / 128) if standardised else (0.0, RANGE)
                ends = [np.float32(end) for end in (low, high, low, high)]
                node = op.fake_quantize(node, *ends, 256)
                top = WEIGHT_RANGE * np.abs(values).max(axis=(1, 2, 3), keepdims=True)
                weights = op.fake_quantize(weights, -top, top, -top, top, 255)
            padding = [int(pad) for pad in layer.padding]
            node = op.convolution(node, weights, list(layer.stride), padding, padding, list(layer.dilation))
            if layer.bias is not None:
                node = op.add(node, op.constant(layer.bias.detach().numpy().reshape(1, -1, 1, 1)))
            standardised = False
        elif isinstance(layer, nn.ReLU):
            node = op.relu(node)
        elif isinstance(layer, nn.Tanh):
            node = op.tanh(node)
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            node = op.reduce_mean(node, np.array([2, 3]), keep_dims=True)
        else:
            raise OptionError(f"a layer {type(layer).__name__} has no 8-bit form; take precision float32 or half")
    return openvino.Model([op.result(node)], [given], "layers")
