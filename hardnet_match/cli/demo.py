"""`hardnet-match demo`: the whole pipeline on a rendered scene whose cameras are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match demo
    hardnet-match demo -o somewhere/ --views 16 --size 960x720
    hardnet-match demo --preset dog-affnet-hardnet --json
    """
)


@verb
@options.grouped
def run(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the results.")] = Path(
        "demo"
    ),
    views: Annotated[int, typer.Option(min=2, metavar="N", help="Pictures to take of the scene.")] = 10,
    size: Annotated[str, typer.Option(metavar="WxH", help="Size of the pictures.")] = "640x480",
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Another seed is another scene.")] = 0,
    parts: options.Parts,
    max_keypoints: options.MaxKeypoints = 2048,
    mapper: options.Mapper = "incremental",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Render a scene from known cameras, reconstruct it, and say how near the result comes. Needs no network."""
    common.output_place(output, folder=True)
    common.set_logging(quiet)
    width, height = _size(size)
    from ..jobs.demo import run_demo

    extractor = common.build_extractor(**vars(parts), max_keypoints=max_keypoints, device=device, precision=precision)
    summary = run_demo(
        output,
        extractor,
        views=views,
        size=(width, height),
        seed=seed,
        mapper=mapper,
        device=device,
        overwrite=overwrite,
        quiet=quiet,
    )
    return common.finish(summary, summary.words(), as_json=json, skipped={})


def _size(text: str) -> tuple[int, int]:
    width, found, height = text.lower().partition("x")
    if not (found and width.isdecimal() and height.isdecimal() and int(width) >= 64 and int(height) >= 64):
        raise OptionError(f"--size {text!r} is not like 640x480, each 64 or more")
    return int(width), int(height)
