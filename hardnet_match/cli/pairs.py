"""`hardnet-match pairs`: which images to match with which."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match pairs photos/ -o pairs.txt
    hardnet-match pairs video/ -o pairs.txt --mode sequential --overlap 10 --quadratic
    hardnet-match pairs drone/ -o pairs.txt --mode spatial --max-distance 150 --neighbours 30
    """
)


@verb
def run(
    photos: options.ImagesFolder,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Pairs file, one pair a line.")],
    mode: options.PairMode = "exhaustive",
    overlap: options.Overlap = 10,
    quadratic: options.Quadratic = False,
    max_distance: options.MaxDistance = 100.0,
    neighbours: options.Neighbours = 50,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Choose image pairs: all of them, neighbours in a sequence, or neighbours on the map (GPS in EXIF)."""
    common.output_place(output)
    common.set_logging(quiet)
    from ..jobs.pairs import choose_pairs
    from ..store import write_pairs

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
