"""`hardnet-match patches`: training data of any form to a patch set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match patches out/ --images photos/ -o patches.h5 --sheet sheet.png
    hardnet-match patches liberty -o liberty.h5
    hardnet-match patches hpatches-release/ -o train_a.h5 --split a
    hardnet-match patches webcams/ --kind amos -o amos.h5
    hardnet-match patches patches.h5 --sheet sheet.png
    """
)


@verb
def run(
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="COLMAP model (or the folder of a reconstruction), folder or zip of Brown's patches or their name, "
            ".pt dictionary, HPatches folder, webcam folders, folder of photos; or patch sets (.h5) to join.",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Patch set to write (.h5).")
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="auto, colmap, brown, pt, hpatches, amos (never guessed) or photos.")
    ] = "auto",
    images: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Colmap: the photos. [default: `images` at the model]")
    ] = None,
    database: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Colmap, photos: COLMAP database with the keypoints.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Colmap, photos: features file instead of the database.")
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Amos: masks, CAMERA.png for folder CAMERA; 0 hides.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Hpatches: a, b, c, view, illum or full; all without it.")
    ] = None,
    part: Annotated[str, typer.Option(metavar="PART", help="Hpatches: train or test, of the split.")] = "train",
    per_photo: Annotated[
        int, typer.Option(min=1, metavar="N", help="Photos: keypoints of each at most; amos: of each camera.")
    ] = 2500,
    max_views: Annotated[int, typer.Option(min=2, metavar="N", help="Colmap: patches of a track at most.")] = 6,
    max_size: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            help="Colmap, photos: shrink photos to this longer side; 0: none. [default: as the features file says]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of what is drawn at random.")] = 0,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Picture of some tracks, their patches side by side.")
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Make a patch set to train on, and look at it. A second run goes on where the first was stopped."""
    common.set_logging(quiet)
    for path in (output, sheet):
        if path is not None:
            common.output_place(path)
    if sheet is not None and sheet.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise OptionError(f"{sheet}: the sheet is a picture, name it .png or .jpg")
    from ..jobs.patches import make_patches

    summary = make_patches(
        source,
        output,
        kind=kind,
        sheet=sheet,
        overwrite=overwrite,
        quiet=quiet,
        images=images,
        database=database,
        features=features,
        masks=masks,
        split=split,
        part=part,
        per_photo=per_photo,
        max_views=max_views,
        max_size=max_size,
        seed=seed,
    )
    return common.finish(summary, summary.words(), as_json=json)
