"""`hardnet-match colmap`: features and matches to a COLMAP database."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match colmap features.h5 matches.h5 --images photos/ -o database.db --verify
    hardnet-match colmap features.h5 matches.h5 --images photos/ -o database.db --camera-mode single
    colmap mapper --database_path database.db --image_path photos/ --output_path sparse/
    """
)


@verb
def run(
    features: options.FeaturesFile,
    matches: options.MatchesFile,
    images: Annotated[Path, typer.Option(metavar="PHOTOS", help="Folder of the images.", exists=True, file_okay=False)],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="COLMAP database to write.")],
    camera_mode: options.CameraMode = "auto",
    camera_model: options.CameraModel = "SIMPLE_RADIAL",
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the matches geometrically, as COLMAP's mappers need it.")
    ] = False,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Write features and matches into a COLMAP database, ready for COLMAP's matchers and mappers."""
    common.output_place(output)
    common.set_logging(quiet)
    from ..jobs.database import make_database

    summary = make_database(
        features,
        matches,
        images,
        output,
        camera_mode=camera_mode,
        camera_model=camera_model,
        verified=verify,
        overwrite=overwrite,
    )
    text = (
        f"{summary.database}: {summary.images} images, {summary.cameras} cameras, {summary.keypoints} keypoints, "
        f"{summary.pairs} pairs with {summary.matches} matches, in {summary.seconds:.1f} s\n"
        f"descriptors for COLMAP's own matchers: {summary.descriptors}"
    )
    if verify:
        text += f"\n{summary.verified_pairs} pairs verified, {summary.inliers} inliers"
    return common.finish(summary, text, as_json=json)
