"""What a user runs over many images; the only place that knows about many images.

Names are fetched on first use: choosing pairs should not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .database import ColmapSummary, make_database
    from .demo import DemoSummary, run_demo
    from .extract import ExtractSummary, extract_folder
    from .inspect import FileReport, inspect_file
    from .match import MatchSummary, match_features
    from .pairs import PairsSummary, choose_pairs
    from .reconstruct import ReconstructSummary, reconstruct_folder

_WHERE = {
    "ColmapSummary": "database",
    "DemoSummary": "demo",
    "ExtractSummary": "extract",
    "FileReport": "inspect",
    "MatchSummary": "match",
    "PairsSummary": "pairs",
    "ReconstructSummary": "reconstruct",
    "choose_pairs": "pairs",
    "extract_folder": "extract",
    "inspect_file": "inspect",
    "make_database": "database",
    "match_features": "match",
    "reconstruct_folder": "reconstruct",
    "run_demo": "demo",
}
__all__ = [
    "ColmapSummary",
    "DemoSummary",
    "ExtractSummary",
    "FileReport",
    "MatchSummary",
    "PairsSummary",
    "ReconstructSummary",
    "choose_pairs",
    "extract_folder",
    "inspect_file",
    "make_database",
    "match_features",
    "reconstruct_folder",
    "run_demo",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
