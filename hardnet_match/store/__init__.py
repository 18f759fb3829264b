"""Features, matches and pair lists on disk. An unmodified hloc reads and writes the same files."""

from __future__ import annotations

from .arrays import PRECISIONS, kept_as
from .features import FeatureReader, FeatureWriter
from .hdf5 import check_name
from .matches import MatchReader, MatchWriter
from .pairs import read_pairs, write_pairs
from .shards import Shard
from .view import ViewWriter

__all__ = [
    "PRECISIONS",
    "FeatureReader",
    "FeatureWriter",
    "MatchReader",
    "MatchWriter",
    "Shard",
    "ViewWriter",
    "check_name",
    "kept_as",
    "read_pairs",
    "write_pairs",
]
