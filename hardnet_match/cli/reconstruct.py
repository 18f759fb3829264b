"""`hardnet-match reconstruct`: a folder of photos to a COLMAP model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match reconstruct photos/ -o out/
    hardnet-match reconstruct photos/ -o out/ --preset dog-affnet-hardnet --max-keypoints 8000
    hardnet-match reconstruct video/ -o out/ --pairs sequential --camera-mode single
    hardnet-match reconstruct photos/ -o out/ --pairs pairs.txt --mapper global
    """
)


@verb
@options.grouped
def run(
    *,
    photos: options.ImagesFolder,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")],
    parts: options.Parts,
    max_keypoints: options.MaxKeypoints = 4096,
    max_size: options.MaxSize = 1600,
    masks: options.Masks = None,
    pairs: Annotated[
        str,
        typer.Option(
            metavar="MODE|FILE",
            help="exhaustive, sequential, spatial (GPS), retrieval (those that look alike), or a pairs file.",
        ),
    ] = "exhaustive",
    overlap: options.Overlap = 10,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    camera_mode: options.CameraMode = "auto",
    camera_model: options.CameraModel = "SIMPLE_RADIAL",
    mapper: options.Mapper = "incremental",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Reconstruct cameras and points of a folder of photos: features, matches, database, COLMAP model, report.

    A second run reuses every stage whose input is the same, and goes on where the first was stopped.
    """
    common.output_place(output, folder=True)
    common.set_logging(quiet)
    from ..jobs.reconstruct import reconstruct_folder

    extractor = common.build_extractor(**vars(parts), max_keypoints=max_keypoints, device=device, precision=precision)
    summary = reconstruct_folder(
        photos,
        output,
        extractor,
        masks=masks,
        max_size=max_size or None,
        pairs=pairs,
        overlap=overlap,
        method=method,
        ratio=ratio,
        camera_mode=camera_mode,
        camera_model=camera_model,
        mapper=mapper,
        device=device,
        workers=workers,
        overwrite=overwrite,
        quiet=quiet,
    )
    return common.finish(summary, summary.words(), as_json=json)
