"""Structure from motion through pycolmap: database, verification, mapping, comparison with known cameras."""

from __future__ import annotations

from .cameras import CAMERA_MODES
from .compare import CameraErrors, compare_cameras, read_bundler_cameras, read_colmap_cameras
from .database import DatabaseSummary, write_database
from .descriptors import colmap_descriptors
from .mapping import MAPPERS, ModelSummary, reconstruct, summarise_model
from .verification import CancellationToken, VerificationSummary, summarise, verify

__all__ = [
    "CAMERA_MODES",
    "MAPPERS",
    "CameraErrors",
    "CancellationToken",
    "DatabaseSummary",
    "ModelSummary",
    "VerificationSummary",
    "colmap_descriptors",
    "compare_cameras",
    "read_bundler_cameras",
    "read_colmap_cameras",
    "reconstruct",
    "summarise",
    "summarise_model",
    "verify",
    "write_database",
]
