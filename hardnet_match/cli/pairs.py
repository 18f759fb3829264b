"""`hardnet-match pairs`: which images to match with which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match pairs photos/ -o pairs.txt
    hardnet-match pairs video/ -o pairs.txt --mode sequential --overlap 10 --quadratic
    hardnet-match pairs drone/ -o pairs.txt --mode spatial --max-distance 150 --neighbours 30
    hardnet-match pairs features.h5 -o pairs.txt --mode retrieval --top 20
    """
)


@verb
def run(
    photos: Annotated[
        Path,
        typer.Argument(
            metavar="PHOTOS|FEATURES",
            help="Folder of images; for retrieval a features file, or an index.",
            exists=True,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Pairs file, one pair a line.")],
    mode: Annotated[
        str, typer.Option(metavar="MODE", help="exhaustive, sequential, spatial or retrieval.")
    ] = "exhaustive",
    overlap: options.Overlap = 10,
    quadratic: options.Quadratic = False,
    max_distance: options.MaxDistance = 100.0,
    neighbours: options.Neighbours = 50,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Retrieval: each image with the N most like it.")] = 20,
    words: Annotated[
        int, typer.Option(min=1, metavar="N", help="Retrieval: visual words to train on these features.")
    ] = 4096,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Choose image pairs: all, neighbours in a sequence or on the map (GPS in EXIF), or those that look alike.

    Retrieval needs the features first: `hardnet-match extract`, then `pairs --mode retrieval`, then `match --pairs`.
    """
    common.output_place(output)
    common.set_logging(quiet)
    from ..store import write_pairs

    if mode == "retrieval":
        from ..jobs.pair_selection import retrieval_pairs

        summary = retrieval_pairs(photos, top, words=words, quiet=quiet)
    else:
        from ..jobs.pairs import choose_pairs

        if not photos.is_dir():
            raise OptionError(f"{photos} is a file; pairs of mode {mode} are chosen in a folder of images")
        summary = choose_pairs(
            photos,
            mode,
            overlap=overlap,
            quadratic=quadratic,
            max_distance=max_distance,
            neighbours=neighbours,
        )
    write_pairs(output, summary.pairs)
    told = {
        "pairs_file": str(output),
        "mode": summary.mode,
        "images": summary.images,
        "pairs": len(summary.pairs),
        "skipped": summary.skipped,
    }
    text = f"{output}: {len(summary.pairs)} pairs of {summary.images} images ({summary.mode})"
    return common.finish(told, text, as_json=json, skipped=summary.skipped)
