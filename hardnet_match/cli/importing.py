"""`hardnet-match import`: features and matches of COLMAP projects and text files to this package's files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

NAME = "import"
EXAMPLES = common.examples(
    """
    hardnet-match import project.db -o features.h5
    hardnet-match import project.db -o features.h5 --matches matches.h5 --inliers
    hardnet-match import text-features/ -o features.h5 --images photos/
    hardnet-match import matches.txt -o matches.h5 --features features.h5
    """
)


@verb
def run(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="A COLMAP database, a folder of COLMAP's text features, or a COLMAP match list.",
            exists=True,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Features file to write; of a match list, matches file."),
    ],
    matches: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a database: matches file to write as well.")
    ] = None,
    inliers: Annotated[
        bool, typer.Option("--inliers", help="Of a database: its verified matches, not its tentative ones.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="PHOTOS", help="Of text features: the images, for their sizes.", exists=True, file_okay=False
        ),
    ] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a match list: the features it is of.", dir_okay=False)
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Bring features and matches made by COLMAP, or written for it, into files of this package."""
    common.output_place(output)
    if matches is not None:
        common.output_place(matches)
    common.set_logging(quiet)
    kind = _kind(source)
    given = {"--matches": matches, "--inliers": inliers or None, "--images": images, "--features": features}
    fitting = {"database": ("--matches", "--inliers"), "text features": ("--images",), "match list": ("--features",)}
    for option, value in given.items():
        if value is not None and option not in fitting[kind]:
            raise OptionError(f"{option} is not for {source}, which is a {kind}")
    from ..plugins import colmap

    if kind == "text features":
        summary = colmap.features_of_text(source, output, images, overwrite=overwrite)
    elif kind == "match list":
        if features is None:
            raise OptionError(f"{source} is a match list: say which features it is of, --features FILE")
        summary = colmap.matches_of_list(source, features, output, overwrite=overwrite)
    else:
        summary = colmap.features_of_project(source, output, matches, inliers=inliers, overwrite=overwrite)
    lines = []
    if summary.features is not None:
        lines.append(f"{summary.features}: {summary.images} images, {summary.keypoints} keypoints")
    if summary.matches_file is not None:
        lines.append(f"{summary.matches_file}: {summary.pairs} pairs, {summary.matches} matches")
    return common.finish(summary, "\n".join(lines), as_json=json)


def _kind(source: Path) -> str:
    if source.is_dir():
        return "text features"
    with source.open("rb") as file:
        beginning = file.read(16)
    if beginning.startswith(b"\x89HDF"):
        raise OptionError(f"{source} is an HDF5 file: this package and hloc read it as it is")
    return "database" if beginning == b"SQLite format 3\0" else "match list"
