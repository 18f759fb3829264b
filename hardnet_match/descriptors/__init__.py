"""Descriptors: grey patches (N, 1, P, P) in [0, 1] to vectors (N, D), P = `.patch_size`, D = `.dim`.

`DESCRIPTORS` names them: the class, and the weights it takes when none are asked for (None: it has no weights).
All but TFeat give unit vectors.
"""

from __future__ import annotations

from ..inference import PatchNetwork
from .hard_tfeat import HardTFeat
from .hardnet import HardNet
from .hardnet8 import HardNet8
from .hardnet_ps import HardNetPS
from .rootsift import RootSIFT
from .tfeat import TFeat

DESCRIPTORS: dict[str, tuple[type[PatchNetwork], str | None]] = {
    "hardnet": (HardNet, "hardnet-bundled"),
    "hardnet8": (HardNet8, "hardnet8"),
    "hardnet-ps": (HardNetPS, "hardnet-ps"),
    "tfeat": (TFeat, "tfeat-liberty"),
    "hardtfeat": (HardTFeat, "hardtfeat"),
    "rootsift": (RootSIFT, None),
}

__all__ = ["DESCRIPTORS", "HardNet", "HardNet8", "HardNetPS", "HardTFeat", "RootSIFT", "TFeat"]
