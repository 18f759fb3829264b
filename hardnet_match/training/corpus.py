"""Structure from motion over a folder of photos, only to know which image places show the same thing.

COLMAP's own SIFT and incremental mapper are used as they are. The keypoints carry a detector's true noise in position,
scale and orientation, and that noise is what a descriptor has to live with.
"""

from __future__ import annotations

import logging
import zlib  # noqa: F401  (before pycolmap: its wheel exports a zlib of its own, which breaks PNG writing elsewhere)
from pathlib import Path

import pycolmap

from ..errors import DataError

log = logging.getLogger(__name__)

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")


def _photos(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES)


def detect(
    photos: Path,
    database: Path,
    *,
    max_size: int = 1024,
    max_keypoints: int = 8000,
    first_octave: int = -1,
    threads: int = 2,
) -> list[str]:
    """Write a new COLMAP database with SIFT keypoints of every photo of a folder; returns the photos' names.

    Args:
        photos: the folder; subfolders are searched.
        database: replaced when it exists.
        max_size: longer image side in pixels at which SIFT runs (keypoints stay in full pixels).
        max_keypoints: keypoints a photo, the strongest first.
        first_octave: -1 doubles the photo first and finds about three times as many, smaller keypoints; 0 does not.
        threads: processor threads.

    Raises:
        DataError: the folder holds no photo.
    """
    names = _photos(photos)
    if not names:
        raise DataError(f"{photos} holds no photo ({', '.join(PHOTO_SUFFIXES)})")
    database.unlink(missing_ok=True)
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size = max_size
    extraction.num_threads = threads
    extraction.sift.max_num_features = max_keypoints
    extraction.sift.first_octave = first_octave
    pycolmap.extract_features(database, photos, names, extraction_options=extraction)
    return names


def reconstruct_scene(
    photos: Path,
    out: Path,
    *,
    max_keypoints: int = 8000,
    first_octave: int = -1,
    exhaustive_up_to: int = 60,
    overlap: int = 8,
    threads: int = 2,
) -> list[Path]:
    """Run SIFT, matching and incremental mapping on one folder of photos of one place.

    Args:
        photos: the folder; subfolders are searched.
        out: written to: `database.db` and one COLMAP model a folder `0`, `1`, ...; kept when already complete.
        max_keypoints, first_octave, threads: as in `detect`.
        exhaustive_up_to: match all pairs up to so many images, else each with its `overlap` successors.

    Returns:
        Folders of the models, the largest first; empty when the photos do not hang together.

    Raises:
        DataError: the folder holds no photo.
    """
    done = out / "done"
    if not done.exists():
        out.mkdir(parents=True, exist_ok=True)
        database = out / "database.db"
        names = detect(photos, database, max_keypoints=max_keypoints, first_octave=first_octave, threads=threads)
        matching = pycolmap.FeatureMatchingOptions()
        matching.num_threads = threads
        if len(names) <= exhaustive_up_to:
            pycolmap.match_exhaustive(database, matching_options=matching)
        else:
            pairing = pycolmap.SequentialPairingOptions()
            pairing.overlap = overlap
            pycolmap.match_sequential(database, matching_options=matching, pairing_options=pairing)
        mapping = pycolmap.IncrementalPipelineOptions()
        mapping.num_threads = threads
        mapping.min_model_size = 3
        mapping.max_num_models = 5
        mapping.extract_colors = False
        mapping.ba_global_frames_ratio = mapping.ba_global_points_ratio = 1.3  # a fifth fewer global adjustments
        mapping.random_seed = 0
        models = pycolmap.incremental_mapping(database, photos, out, mapping)
        log.info("%s: %s", photos.name, ", ".join(model.summary() for model in models.values()) or "no model")
        done.touch()
    found = sorted(path.parent for path in out.glob("*/points3D.bin"))
    return sorted(found, key=lambda p: -(p / "points3D.bin").stat().st_size)
