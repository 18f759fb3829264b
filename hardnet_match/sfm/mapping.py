"""Cameras and points out of a verified COLMAP database."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OptionError, ReconstructionError
from .colmap import part_of, pycolmap, quietly, told_plainly
from .verification import check_database

MAPPERS = ("incremental", "global")


@dataclass(frozen=True)
class ModelSummary:
    """One reconstructed model.

    Args:
        path: folder of the binary model.
        images: names of the registered images, sorted.
        left_out: names of the database's other images, sorted.
        points, observations: 3-D points and their observations in images.
        track_length: mean number of images a point is seen in.
        reprojection_error: mean, pixels.
    """

    path: str
    images: tuple[str, ...]
    left_out: tuple[str, ...]
    points: int
    observations: int
    track_length: float
    reprojection_error: float

    @property
    def registered(self) -> int:
        """How many images are registered."""
        return len(self.images)


def reconstruct(
    path: str | os.PathLike[str],
    image_dir: str | os.PathLike[str],
    out: str | os.PathLike[str],
    mapper: str = "incremental",
    *,
    min_model_size: int = 3,
    refine_principal_point: bool = False,
    calibrate: bool = True,
    seed: int = 0,
    threads: int = -1,
    overwrite: bool = False,
    token: Any = None,
    verbose: bool = False,
) -> list[ModelSummary]:
    """Map a verified database; models go to `out/0`, `out/1`, ..., the largest first.

    Args:
        path: database after `verify`. The global mapper with `calibrate` writes focal lengths into it.
        image_dir: for the points' colours.
        out: made; the models appear there as a whole.
        mapper: `incremental` or `global`.
        min_model_size: smallest number of images of a model.
        calibrate: global mapper: first find focal lengths from the view graph where EXIF has none.
        seed: of everything random.
        threads: -1 takes all. The same result each time is promised with 1 only.
        overwrite: replace earlier models in `out`.
        token: `CancellationToken` (incremental mapper only): after `cancel()` the models so far are written and
            InterruptedError is raised; where `out` has earlier models, these stay. Ctrl-C works likewise, as
            KeyboardInterrupt.
        verbose: let COLMAP write its log to stderr.

    Returns:
        A summary a model.

    Raises:
        OptionError: unknown mapper, or a value that cannot work.
        ReconstructionError: no usable database, earlier models are in the way, or nothing could be reconstructed.
        InterruptedError: cancelled.
    """
    if mapper not in MAPPERS:
        raise OptionError(f"unknown mapper {mapper!r}; use one of {', '.join(MAPPERS)}")
    if min_model_size < 2:
        raise OptionError(f"min_model_size must be at least 2, got {min_model_size}")
    database, out = check_database(path), Path(out)
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ReconstructionError(f"{out} is not empty; name another folder or overwrite it")
    with pycolmap.Database.open(database) as db:
        names = sorted(image.name for image in db.read_all_images())
        if not db.num_verified_image_pairs():
            raise ReconstructionError(
                f"{database} has no verified image pairs, so nothing can be mapped: "
                f"verify it first, or match more images of the same scene"
            )
    part = Path(part_of(out))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        try:
            with quietly(verbose), told_plainly(database, "map"):
                if mapper == "incremental":
                    options = _incremental(min_model_size, refine_principal_point, seed, threads)
                    pycolmap.incremental_mapping(database, image_dir, part, options, cancellation_token=token)
                else:
                    _map_globally(database, image_dir, part, min_model_size, calibrate, seed, threads)
        except (KeyboardInterrupt, InterruptedError):
            if not out.exists() or not any(out.iterdir()):  # whole models of an earlier run are worth more
                _put_in_place(part, out, names)
            raise
        summaries = _put_in_place(part, out, names)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    if not summaries:
        raise ReconstructionError(
            f"{database}: no model of {min_model_size} images or more; the pairs have too few inliers, "
            f"or the views are too close together or too far apart"
        )
    return summaries


def _incremental(min_model_size: int, refine_principal_point: bool, seed: int, threads: int) -> Any:
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = min_model_size
    options.ba_refine_principal_point = refine_principal_point
    options.random_seed, options.num_threads = seed, threads
    return options


def _map_globally(
    database: str,
    image_dir: str | os.PathLike[str],
    out: Path,
    min_model_size: int,
    calibrate: bool,
    seed: int,
    threads: int,
) -> None:
    if calibrate:
        pycolmap.calibrate_view_graph(database)
    options = pycolmap.GlobalPipelineOptions()
    options.min_model_size = min_model_size
    options.image_path = os.fspath(image_dir)
    options.random_seed, options.num_threads = seed, threads
    pycolmap.global_mapping(database, image_dir, out, options)


def _put_in_place(part: Path, out: Path, names: list[str]) -> list[ModelSummary]:
    """Number the models of `part` by size and make them the content of `out`."""
    found = []
    for folder in part.iterdir():
        if (folder / "images.bin").is_file():
            model = pycolmap.Reconstruction(folder)
            found.append(
                (-model.num_reg_images(), -model.num_points3D(), folder.name, summarise_model(model, "", names))
            )
    if not found:
        return []
    ordered = part / "ordered"
    ordered.mkdir()
    summaries = []
    for number, (_, _, name, summary) in enumerate(sorted(found, key=lambda item: item[:3])):
        (part / name).rename(ordered / str(number))
        summaries.append(ModelSummary(**{**summary.__dict__, "path": str(out / str(number))}))
    if out.exists():
        shutil.rmtree(out)
    ordered.rename(out)
    return summaries


def summarise_model(model: Any, path: str | os.PathLike[str], names: list[str]) -> ModelSummary:
    """What a `pycolmap.Reconstruction` reached of the images `names`."""
    images = sorted(model.image(image_id).name for image_id in model.reg_image_ids())
    return ModelSummary(
        os.fspath(path),
        tuple(images),
        tuple(sorted(set(names) - set(images))),
        int(model.num_points3D()),
        int(model.compute_num_observations()),
        float(model.compute_mean_track_length()),
        float(model.compute_mean_reprojection_error()),
    )
