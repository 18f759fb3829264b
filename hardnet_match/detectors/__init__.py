"""Detectors of local affine frames: a grey image (1, 1, H, W) to frames (N, 2, 3) and responses (N,), strongest first.

`DETECTORS` names them: what makes one, and the weights it needs by default (None: it has no weights). The entry of a
learned detector imports its file only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from .corners import GFTT, Harris
from .dog import DoG
from .hessian import Hessian
from .opencv import OpenCVDoG
from .scale_space import ScaleSpaceDetector


def _keynet() -> nn.Module:
    from .keynet import KeyNet

    return KeyNet()


DETECTORS: dict[str, tuple[Callable[[], nn.Module], str | None]] = {
    "hessian": (Hessian, None),
    "dog": (DoG, None),
    "dog-opencv": (OpenCVDoG, None),
    "harris": (Harris, None),
    "gftt": (GFTT, None),
    "keynet": (_keynet, "keynet"),
}

__all__ = ["DETECTORS", "GFTT", "DoG", "Harris", "Hessian", "OpenCVDoG", "ScaleSpaceDetector"]
