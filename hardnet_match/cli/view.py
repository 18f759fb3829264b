"""`hardnet-match view`: frames drawn on a photo, or the matches between two."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match view features.h5 photos/a.jpg -o frames.png
    hardnet-match view features.h5 a.jpg -o frames.png --images photos/ --max 1000 --scores
    hardnet-match view matches.h5 a.jpg b.jpg -o matches.png --features features.h5 --images photos/
    hardnet-match view out/matches.h5 a.jpg b.jpg -o matches.png --database out/database.db --images photos/
    """
)


@verb
def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Features file, or matches file for two images.", dir_okay=False)
    ],
    image: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Name in the file or path of the photo; two for matches.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Picture to write (.png, .jpg, ...).")],
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of the photos. [default: looked for]", file_okay=False)
    ] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Features the matches are of. [default: features.h5 beside]")
    ] = None,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Database that verified the matches; others are grey.")
    ] = None,
    most: Annotated[
        int, typer.Option("--max", min=1, metavar="N", help="Frames at most, the strongest; or matches at most.")
    ] = 500,
    scores: Annotated[bool, typer.Option("--scores", help="Colour by score, purple (weak) to yellow.")] = False,
    orientation: Annotated[bool, typer.Option(help="A stroke along the frame's up.")] = True,
    max_size: Annotated[
        int, typer.Option(min=0, metavar="PIXELS", help="Longer side of the picture; 0 for the photo's own size.")
    ] = 1600,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Draw an image's frames (ellipses and orientation) on its photo, or the matches between two photos.

    Ellipses span three standard deviations of the blob, half of what the descriptor sees. Photos are turned upright as
    their EXIF tag says. Nothing is opened: the picture is written to a file.
    """
    common.output_place(output)
    common.set_logging(quiet)
    if len(image) > 2:
        raise OptionError(f"one image (its frames) or two (their matches) can be drawn, got {len(image)}")
    from ..jobs.view import view_features, view_matches

    if len(image) == 1:
        seen = view_features(
            file,
            image[0],
            output,
            images=images,
            most=most,
            by_score=scores,
            orientation=orientation,
            max_size=max_size or None,
        )
        what = "keypoints"
    else:
        seen = view_matches(
            file,
            image[0],
            image[1],
            output,
            features=features,
            images=images,
            database=database,
            most=most,
            max_size=max_size or None,
        )
        what = "matches"
    text = f"{seen.picture}: {seen.drawn} of {seen.found} {what} of {' and '.join(seen.images)}"
    return common.finish(seen, text, as_json=json, skipped={})
