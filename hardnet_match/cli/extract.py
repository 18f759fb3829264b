"""`hardnet-match extract`: a folder of images to a features file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match extract photos/ -o features.h5
    hardnet-match extract photos/ -o features.h5 --max-keypoints 4096 --max-size 1600
    hardnet-match extract photos/ -o features.h5 --preset dog-affnet-hardnet --orientation upright
    hardnet-match extract photos/ -o features.h5 --detector dog --shape affnet --descriptor rootsift
    hardnet-match extract photos/ -o features.h5 --weights hardnet++ --device cuda
    hardnet-match extract photos/ -o shards/3.h5 --shard 3/8
    hardnet-match extract photos/ -o features.h5 --ray auto
    """
)


@verb
@options.grouped
def run(
    *,
    photos: options.ImagesFolder,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Features file to write.")],
    parts: options.Parts,
    max_keypoints: options.MaxKeypoints = 4096,
    max_size: options.MaxSize = 1600,
    masks: options.Masks = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    store: options.Store = None,
    workers: options.Workers = None,
    shard: options.ShardOf = None,
    ray: options.Ray = None,
    ray_workers: options.RayWorkers = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Extract local affine features of every image of a folder into one HDF5 file.

    A second run goes on where the first was stopped. Images that cannot be read are skipped and named (exit code 3).
    """
    common.output_place(output)
    common.set_logging(quiet)
    only = common.shard_of(shard)
    parts.check()  # before a cluster is asked
    from ..jobs.extract import extract_folder

    with common.crew_at(ray, ray_workers, device, parts.weights_given()) as crew:
        if crew is not None:
            # Here it only says what the settings are; a GPU of the cluster means what one of this machine would.
            precision = "half" if precision == "auto" and crew.device == "cuda" else precision
            device = "cpu"
        extractor = common.build_extractor(
            **vars(parts), max_keypoints=max_keypoints, device=device, precision=precision
        )
        summary = extract_folder(
            photos,
            output,
            extractor,
            masks=masks,
            max_size=max_size or None,
            store=store,
            workers=workers,
            shard=only,
            crew=crew,
            overwrite=overwrite,
            quiet=quiet,
        )
    text = (
        f"{summary.features}: {summary.extracted} images extracted, {summary.keypoints} keypoints, "
        f"{summary.reused} there already, in {summary.seconds:.1f} s"
    )
    return common.finish(summary, text, as_json=json)
