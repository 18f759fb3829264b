"""What a user runs over many images; the only place that knows about many images.

Names are fetched on first use: choosing pairs should not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .brown import BrownSummary, evaluate_brown
    from .contestants import Contest
    from .database import ColmapSummary, make_database
    from .demo import DemoSummary, run_demo
    from .evaluate import RetrievalScores, evaluate_retrieval
    from .extract import ExtractSummary, extract_folder
    from .homography import HomographySummary, evaluate_homography
    from .hpatches import HPatchesSummary, evaluate_hpatches
    from .index import IndexSummary, index_features
    from .inspect import FileReport, inspect_file
    from .join import JoinSummary, join_files
    from .match import MatchSummary, match_features
    from .pair_selection import retrieval_pairs
    from .pairs import PairsSummary, choose_pairs
    from .pose import PoseSummary, evaluate_pose
    from .reconstruct import ReconstructSummary, reconstruct_folder
    from .search import SearchSummary, search_index
    from .sfm_scores import SfmSummary, evaluate_sfm

_WHERE = {
    "BrownSummary": "brown",
    "ColmapSummary": "database",
    "Contest": "contestants",
    "DemoSummary": "demo",
    "ExtractSummary": "extract",
    "FileReport": "inspect",
    "HPatchesSummary": "hpatches",
    "HomographySummary": "homography",
    "IndexSummary": "index",
    "JoinSummary": "join",
    "MatchSummary": "match",
    "PairsSummary": "pairs",
    "PoseSummary": "pose",
    "ReconstructSummary": "reconstruct",
    "RetrievalScores": "evaluate",
    "SearchSummary": "search",
    "SfmSummary": "sfm_scores",
    "choose_pairs": "pairs",
    "evaluate_brown": "brown",
    "evaluate_homography": "homography",
    "evaluate_hpatches": "hpatches",
    "evaluate_pose": "pose",
    "evaluate_retrieval": "evaluate",
    "evaluate_sfm": "sfm_scores",
    "extract_folder": "extract",
    "index_features": "index",
    "inspect_file": "inspect",
    "join_files": "join",
    "make_database": "database",
    "match_features": "match",
    "reconstruct_folder": "reconstruct",
    "retrieval_pairs": "pair_selection",
    "run_demo": "demo",
    "search_index": "search",
}
__all__ = [
    "BrownSummary",
    "ColmapSummary",
    "Contest",
    "DemoSummary",
    "ExtractSummary",
    "FileReport",
    "HPatchesSummary",
    "HomographySummary",
    "IndexSummary",
    "JoinSummary",
    "MatchSummary",
    "PairsSummary",
    "PoseSummary",
    "ReconstructSummary",
    "RetrievalScores",
    "SearchSummary",
    "SfmSummary",
    "choose_pairs",
    "evaluate_brown",
    "evaluate_homography",
    "evaluate_hpatches",
    "evaluate_pose",
    "evaluate_retrieval",
    "evaluate_sfm",
    "extract_folder",
    "index_features",
    "inspect_file",
    "join_files",
    "make_database",
    "match_features",
    "reconstruct_folder",
    "retrieval_pairs",
    "run_demo",
    "search_index",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f".{_WHERE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
