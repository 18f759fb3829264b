"""Orientation: grey patches (N, 1, P, P) to angles (N,) in radians, to be added to the frame's orientation.

`ORIENTATIONS` names them: the class, and the weights it takes when none are asked for (None: it has no weights).
"""

from __future__ import annotations

from ..inference import PatchNetwork
from .dominant import Dominant
from .orinet import OriNet
from .upright import Upright

ORIENTATIONS: dict[str, tuple[type[PatchNetwork], str | None]] = {
    "orinet": (OriNet, "orinet-bundled"),
    "dominant": (Dominant, None),
    "upright": (Upright, None),
}

__all__ = ["ORIENTATIONS", "Dominant", "OriNet", "Upright"]
