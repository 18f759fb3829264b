"""Affine shape: grey patches (N, 1, P, P) of upright frames to (N, 2, 2) shapes, up-is-up, unit determinant.

`SHAPES` names them: the class, and the weights it takes when none are asked for (None: it has no weights).
"""

from __future__ import annotations

from ..inference import PatchNetwork
from .affnet import AffNet
from .baumberg import Baumberg

SHAPES: dict[str, tuple[type[PatchNetwork], str | None]] = {
    "affnet": (AffNet, "affnet-bundled"),
    "baumberg": (Baumberg, None),
}

__all__ = ["SHAPES", "AffNet", "Baumberg"]
