"""`hardnet-match colmap`: features and matches to a COLMAP database, a new one or an existing project's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match colmap features.h5 matches.h5 --images photos/ -o database.db --verify
    hardnet-match colmap features.h5 matches.h5 --images photos/ -o database.db --camera-mode single
    colmap mapper --database_path database.db --image_path photos/ --output_path sparse/
    hardnet-match colmap features.h5 matches.h5 --project theirs.db -o ours.db --verify
    hardnet-match colmap features.h5 matches.h5 --images photos/ -o database.db --text for-colmap/
    """
)


@verb
def run(
    features: options.FeaturesFile,
    matches: options.MatchesFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="COLMAP database to write.")],
    images: Annotated[
        Path | None, typer.Option(metavar="PHOTOS", help="Folder of the images.", exists=True, file_okay=False)
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(
            metavar="DATABASE",
            help="An existing project: its cameras, rigs, frames and priors with these features instead of its own.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    camera_mode: options.CameraMode = "auto",
    camera_model: options.CameraModel = "SIMPLE_RADIAL",
    verify: Annotated[
        bool, typer.Option("--verify", help="Verify the matches geometrically, as COLMAP's mappers need it.")
    ] = False,
    text: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Also COLMAP's text files: FOLDER/features/NAME.txt and FOLDER/matches.txt.",
            file_okay=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Write features and matches into a COLMAP database, ready for COLMAP's matchers and mappers.

    With --project the new database is that of the project but for the features; the project itself is only read.
    """
    common.output_place(output)
    common.set_logging(quiet)
    if (images is None) == (project is None):
        raise OptionError("say either --images, the folder of the photos, or --project, the database to start from")
    summary: Any
    if project is not None:
        from ..plugins.colmap import project_with_features

        summary = project_with_features(project, features, matches, output, verified=verify, overwrite=overwrite)
    else:
        from ..jobs.database import make_database

        summary = make_database(
            features,
            matches,
            str(images),
            output,
            camera_mode=camera_mode,
            camera_model=camera_model,
            verified=verify,
            overwrite=overwrite,
        )
    told = (
        f"{summary.database}: {summary.images} images, {summary.cameras} cameras, {summary.keypoints} keypoints, "
        f"{summary.pairs} pairs with {summary.matches} matches, in {summary.seconds:.1f} s\n"
        f"descriptors for COLMAP's own matchers: {summary.descriptors}"
    )
    if verify:
        told += f"\n{summary.verified_pairs} pairs verified, {summary.inliers} inliers"
    if text is not None:
        from ..plugins.colmap import write_match_list, write_text_features

        written = write_text_features(features, text / "features")
        write_match_list(matches, text / "matches.txt")
        told += f"\n{text}: text features of {written} images, and their match list"
    return common.finish(summary, told, as_json=json)
