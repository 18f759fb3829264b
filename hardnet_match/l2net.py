"""The convolutional trunk that HardNet, HardNet8, AffNet and OriNet share (L2-Net; Tian et al., CVPR 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn

_WANTED = ContextVar("initialisation", default=True)


@contextmanager
def without_initialisation() -> Iterator[None]:
    """Networks made inside are not initialised as the originals' are: for weights that are loaded at once. The
    orthogonal start of a HardNet8 takes longer than reading its file."""
    token = _WANTED.set(False)
    try:
        yield
    finally:
        _WANTED.reset(token)


def convolution_block(channels_in: int, channels_out: int, stride: int = 1, *, plain: bool = True) -> list[nn.Module]:
    """3x3 convolution, BatchNorm, ReLU; `plain` is without bias and without BatchNorm's own gain and shift."""
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=not plain),
        nn.BatchNorm2d(channels_out, affine=not plain),
        nn.ReLU(),
    ]


def trunk(widths: Sequence[int] = (32, 64, 128), *, plain: bool = True) -> list[nn.Module]:
    """Six blocks, two a width, halving the resolution when the width grows: 1x32x32 to widths[2]x8x8."""
    first, second, third = widths
    return [
        *convolution_block(1, first, plain=plain),
        *convolution_block(first, first, plain=plain),
        *convolution_block(first, second, stride=2, plain=plain),
        *convolution_block(second, second, plain=plain),
        *convolution_block(second, third, stride=2, plain=plain),
        *convolution_block(third, third, plain=plain),
    ]


def orthogonal_(layers: nn.Module, gain: float) -> None:
    """The originals' initialisation: orthogonal convolutions with the given gain, biases 0.01."""
    if not _WANTED.get():
        return
    for module in layers.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.orthogonal_(module.weight, gain=gain)
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.01)
