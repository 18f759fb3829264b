"""What every patch network shares: input normalisation, folding for inference, and running over many patches."""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from .errors import DataError

CPU_TILE = 64
"""Patches at a time on a processor: the activations of HardNet's first layers then stay in the cache."""
GPU_TILE = 4096
_stop: ContextVar[threading.Event | None] = ContextVar("stop", default=None)


@contextmanager
def until(stop: threading.Event) -> Iterator[None]:
    """Within it, in this thread, networks run until the event is set, and at most one tile longer.

    Only the main thread hears of Ctrl-C; so do the others, that it waits for.
    """
    token = _stop.set(stop)
    try:
        yield
    finally:
        _stop.reset(token)


def go_on() -> None:
    """Between two tiles: raise InterruptedError where the work is no longer wanted."""
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise InterruptedError("stopped")


def standardise(patches: Tensor, eps: float = 1e-6) -> Tensor:
    """Give each patch zero mean and unit (unbiased) standard deviation; statistics in float32, without gradient.

    Args:
        patches: (N, 1, P, P), any floating type.
        eps: added to the deviation, so that a flat patch becomes zeros.

    Returns:
        (N, 1, P, P) float32 (float64 stays).
    """
    patches = patches if patches.dtype == torch.float64 else patches.float()
    with torch.no_grad():
        deviation, mean = torch.std_mean(patches, dim=(1, 2, 3), keepdim=True)
    return (patches - mean) / (deviation + eps)


def check_patches(patches: Tensor, size: int) -> None:
    """Raise DataError unless `patches` is (N, 1, size, size)."""
    if patches.ndim != 4 or tuple(patches.shape[1:]) != (1, size, size):
        raise DataError(f"patches must be (N, 1, {size}, {size}), got {tuple(patches.shape)}")


def _folded(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm without running statistics cannot be folded")
    gain = (variance.double() + norm.eps).rsqrt()
    shift = -mean.double() * gain
    if norm.affine:
        shift = shift * norm.weight.double() + norm.bias.double()
        gain = gain * norm.weight.double()
    weight = convolution.weight.double() * gain[:, None, None, None]
    if convolution.bias is not None:
        shift = shift + convolution.bias.double() * gain
    out = nn.Conv2d(
        convolution.in_channels,
        convolution.out_channels,
        cast("tuple[int, int]", convolution.kernel_size),
        cast("tuple[int, int]", convolution.stride),
        cast("tuple[int, int]", convolution.padding),
    ).to(weight.device)
    with torch.no_grad():
        out.weight.copy_(weight)
        if out.bias is not None:
            out.bias.copy_(shift)
    return out


def fold_batchnorm(layers: nn.Sequential) -> nn.Sequential:
    """The same function in evaluation mode: BatchNorm inside the convolutions, no Dropout, ReLU in place.

    Args:
        layers: convolutions, BatchNorm2d right behind a convolution, and layers without weights.

    Returns:
        New layers, in evaluation mode, weights in channels-last order and without gradient; `layers` is not changed.
    """
    out: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.Dropout):
            continue
        previous = out[-1] if out else None
        if isinstance(layer, nn.BatchNorm2d):
            if not isinstance(previous, nn.Conv2d):
                raise ValueError("a BatchNorm that does not follow a convolution cannot be folded")
            out[-1] = _folded(previous, layer)
        elif isinstance(layer, nn.ReLU):
            out.append(nn.ReLU(inplace=previous is not None))
        else:
            out.append(copy.deepcopy(layer))
    folded = nn.Sequential(*out).eval().requires_grad_(False)
    return cast(nn.Sequential, folded.to(memory_format=torch.channels_last))  # type: ignore[call-overload]


Self = TypeVar("Self", bound="PatchNetwork")


class PatchNetwork(nn.Module):
    """A network over grey patches (N, 1, P, P) in [0, 1], P = `patch_size`."""

    patch_size: int = 32
    block: int | None = None
    """Where set, the network cuts its own tiles and wants up to so many patches at once."""

    def fused(self: Self) -> Self:
        """An inference copy: BatchNorm folded into the convolutions, Dropout gone; agrees with this one in eval mode.

        Its state dict no longer has the original's names; load weights first, then call this.
        """
        out = copy.deepcopy(self).eval().requires_grad_(False)
        for name, child in out.named_children():
            if isinstance(child, nn.Sequential):
                setattr(out, name, fold_batchnorm(child))
        return out


def tile_for(device: torch.device, tile: int | None = None) -> int:
    """Patches at a time: `tile` where it is given, else what suits the device."""
    return tile or (CPU_TILE if device.type == "cpu" else GPU_TILE)


def run_tiled(network: nn.Module, patches: Tensor, tile: int | None = None) -> Tensor:
    """Run a network over any number of patches, a fixed number at a time, without gradient.

    The last tile is padded, so every patch is computed by the same kernels and its result does not depend on
    how many patches it comes with.

    Args:
        network: in evaluation mode, on the device of `patches`; has `.patch_size`.
        patches: (N, 1, P, P); N may be 0.
        tile: patches at a time; `CPU_TILE` on a processor and `GPU_TILE` elsewhere if None. A network with a
            `.block` gets that many instead.

    Returns:
        (N, ...) as the network gives them, float32.

    Raises:
        DataError: the patches have another shape.
        InterruptedError: see `until`.
    """
    size = int(getattr(network, "patch_size", 32))
    check_patches(patches, size)
    count = len(patches)
    block: int | None = getattr(network, "block", None)
    tile = block or tile_for(patches.device, tile)
    with torch.inference_mode():
        if count == 0:
            # its output without rows, from as few patches as it takes
            return cast(Tensor, network(patches.new_zeros(CPU_TILE if block else 1, 1, size, size)))[:0].float()
        out: Tensor | None = None
        for start in range(0, count, tile):
            go_on()
            part = patches[start : start + tile]
            if missing := -len(part) % (CPU_TILE if block else tile):
                part = torch.cat([part, part.new_zeros(missing, 1, size, size)])
            result = cast(Tensor, network(part))
            if out is None:
                out = result.new_empty((count, *result.shape[1:]), dtype=torch.float32)
            out[start : start + tile] = result[: min(tile, count - start)]
    assert out is not None
    return out
