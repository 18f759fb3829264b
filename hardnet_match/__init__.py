"""Image matching with local affine features: detect, describe, match, reconstruct."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import HardnetMatchError
from .features import Features, Matches

if TYPE_CHECKING:
    from .extractor import FeatureExtractor
    from .matching import match

__version__ = "0.1.0"
__all__ = ["FeatureExtractor", "Features", "HardnetMatchError", "Matches", "match"]

# Names whose modules import torch: fetched on first use, so that `import hardnet_match` answers at once.
_LAZY = {"FeatureExtractor": ".extractor", "match": ".matching"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
