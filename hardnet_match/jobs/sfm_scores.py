"""Presets, peers and files of features side by side: what COLMAP makes of a folder of photos with each."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..benchmark.scenes import known_cameras
from ..errors import OptionError, ReconstructionError, StoreError
from ..images import list_images
from ..matching import method_settings
from ..sfm import MAPPERS, ModelSummary, compare_cameras, reconstruct
from ..store import FeatureReader, MatchReader
from .contestants import Contest, Contestant, contestants, measured, state_of
from .database import make_database
from .homography import check_matching, place_for
from .match import match_features
from .stages import Stages, fingerprint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SfmScores:
    """One contestant's largest model.

    Args:
        label: who. images, registered: of the folder, and of the model.
        models: how many the photos fell into; 0 if nothing could be reconstructed, then all else is 0 too.
        keypoints: mean an image. inliers: verified matches of all pairs.
        points, observations: 3-D points and their observations.
        track_length: mean number of images a point is seen in. reprojection_error: mean, pixels.
        runs: registered images and points of each mapping that was made, fewest first; the middle one's model counts.
        cameras: `sfm.compare.CameraErrors.summary()` against known cameras; None without any, or where fewer than two
            of them are in the model.
        seconds: of matching, verification and mapping, of the run that did them.
    """

    label: str
    images: int
    registered: int
    models: int
    keypoints: float
    inliers: int
    points: int
    observations: int
    track_length: float
    reprojection_error: float
    cameras: dict[str, float] | None
    runs: list[list[int]]
    seconds: dict[str, float]


@dataclass(frozen=True)
class SfmSummary:
    """What `evaluate_sfm` measured; `skipped` images could not be read."""

    folder: str
    cameras: str | None
    images: int
    settings: dict[str, Any]
    scores: list[SfmScores]
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)


def evaluate_sfm(
    folder: str | Path,
    options: Contest | None = None,
    *,
    cameras: str | Path | None = None,
    method: str = "smnn",
    ratio: float = 0.9,
    mapper: str = "incremental",
    camera_mode: str = "auto",
    seed: int = 0,
    repeats: int = 1,
    work: str | Path | None = None,
    quiet: bool = False,
) -> SfmSummary:
    """Reconstruct a folder of photos with everyone's features: exhaustive pairs, one matcher, COLMAP's verification and
    mapper.

    Args:
        folder: the photos, in it or in its subfolder `images`.
        options: who takes part.
        cameras: known cameras to compare with, as `benchmark.scenes.read_scene` takes them; found in the folder if
            None, and without them nothing is compared.
        method, ratio: of the matching.
        mapper, camera_mode, seed: as in `sfm.reconstruct` and `sfm.write_database`.
        repeats: mappings made of everyone's matches, with seeds from `seed` on. COLMAP's mapper draws at random, and a
            scene of few photos may come out whole or in pieces: the mapping that is in the middle by registered
            images, then points, counts.
        work: features, matches and models are kept in it and used again; None keeps nothing.
        quiet: no progress on a terminal.

    Raises:
        OptionError: an option that cannot work, or fewer than two photos.
        DataError, ReconstructionError: known cameras that are damaged.
        StoreError, WeightsError: features or weights that cannot be read.
    """
    started, options = time.perf_counter(), options or Contest()
    check_matching(method, ratio)
    if mapper not in MAPPERS:
        raise OptionError(f"mapper {mapper!r} is unknown: choose one of {', '.join(MAPPERS)}")
    if repeats < 1:
        raise OptionError(f"repeats must be 1 or more, got {repeats}")
    scene = known_cameras(folder, cameras)
    photos = scene.photos if scene else _photos(Path(folder))
    names = list_images(photos)
    if len(names) < 2:
        raise OptionError(f"{photos}: a reconstruction needs two images or more, found {len(names)}")
    found, state = contestants(options), state_of(photos, names)
    terms = {
        "method": method,
        **method_settings(method),
        "ratio": ratio,
        "mapper": mapper,
        "camera_mode": camera_mode,
        "seed": seed,
        "repeats": repeats,
    }

    with place_for(work) as kept:

        def measure(one: Contestant, path: Path) -> SfmScores:
            place = kept / "sfm" / one.label
            place.mkdir(parents=True, exist_ok=True)
            record = _modelled(one.label, photos, names, path, place, state, terms, options.device, quiet)
            errors = None
            if scene and record["models"]:
                try:
                    errors = compare_cameras(place / "sparse" / "0", scene.poses).summary()
                except ReconstructionError as error:
                    log.info("%s: %s", one.label, error)
            return SfmScores(label=one.label, images=len(names), cameras=errors, **record)

        scores, skipped = measured(found, photos, names, kept, options, quiet, measure)
    settings = {**terms, "keypoints": options.keypoints, "max_size": options.max_size}
    source = str(scene.source) if scene else None
    seconds = round(time.perf_counter() - started, 3)
    return SfmSummary(str(folder), source, len(names), settings, scores, seconds, skipped)


def _photos(folder: Path) -> Path:
    if not folder.is_dir():
        raise OptionError(f"{folder}: no such folder of photos")
    return folder / "images" if (folder / "images").is_dir() else folder


def _modelled(
    label: str,
    photos: Path,
    names: list[str],
    features: Path,
    place: Path,
    state: str,
    terms: dict[str, Any],
    device: str,
    quiet: bool,
) -> dict[str, Any]:
    """Figures of a contestant's largest model, those of an earlier run if all it depends on is the same."""
    with FeatureReader(features) as reader:
        whole = [name for name in names if name in reader]
        counts = [reader.descriptor_shape(name)[0] for name in whole]
        hashed = reader.settings_hash
    source = fingerprint(state, whole, hashed, terms)
    stages = Stages(place / "stages.json", fresh=False)
    record: dict[str, Any] | None = stages.result("model", source)
    if record is not None and (not record["models"] or (place / "sparse" / "0").is_dir()):
        return record
    log.info("%s: matching and mapping %d images", label, len(whole))
    matches = place / "matches.h5"
    pairs = [(a, b) for k, a in enumerate(whole) for b in whole[k + 1 :]]
    with stages.timed("match"):
        match_features(
            features, matches, pairs, method=terms["method"], ratio=terms["ratio"], device=device,
            overwrite=not _same_features(matches, hashed, terms), quiet=quiet,
        )  # fmt: skip
    with stages.timed("verify"):
        database = place / "database.db"
        made = make_database(
            features, matches, photos, database,
            names=whole, camera_mode=terms["camera_mode"], verified=True, overwrite=True,
        )  # fmt: skip
    with stages.timed("map"):
        models, runs = _mapped(label, database, photos, place / "sparse", terms)
    best = models[0] if models else None
    record = {
        "registered": best.registered if best else 0,
        "models": len(models),
        "keypoints": sum(counts) / max(len(counts), 1),
        "inliers": asdict(made)["inliers"] or 0,
        "points": best.points if best else 0,
        "observations": best.observations if best else 0,
        "track_length": best.track_length if best else 0.0,
        "reprojection_error": best.reprojection_error if best else 0.0,
        "runs": runs,
        "seconds": stages.seconds,
    }
    stages.record("model", source, record)
    return record


def _mapped(
    label: str, database: Path, photos: Path, out: Path, terms: dict[str, Any]
) -> tuple[list[ModelSummary], list[list[int]]]:
    """The models of the mapping in the middle, which are left in `out`; and what each mapping came to."""
    made: list[tuple[list[int], Path, list[ModelSummary]]] = []
    with tempfile.TemporaryDirectory(prefix=f"{out.name}-", dir=out.parent) as scratch:
        for seed in range(terms["seed"], terms["seed"] + terms["repeats"]):
            where, models = Path(scratch) / str(seed), []
            try:
                models = reconstruct(database, photos, where, terms["mapper"], seed=seed, overwrite=True)
            except ReconstructionError as error:
                log.info("%s: nothing could be reconstructed: %s", label, error)
            counts = [models[0].registered, models[0].points] if models else [0, 0]
            made.append((counts, where, models))
        made.sort(key=lambda one: one[0])
        _, chosen, models = made[(len(made) - 1) // 2]
        shutil.rmtree(out, ignore_errors=True)
        if models:
            os.replace(chosen, out)
    return models, [counts for counts, _, _ in made]


def _same_features(matches: Path, hashed: str, terms: dict[str, Any]) -> bool:
    """Whether earlier matches are of these features and this method, and so worth going on with."""
    if not matches.is_file():
        return True
    method, ratio = terms["method"], terms["ratio"]
    wanted = {"method": method, "ratio": ratio, "features": hashed, **method_settings(method)}
    try:
        with MatchReader(matches) as reader:
            return bool(reader.settings == wanted)
    except StoreError:
        return False
