"""`hardnet-match join`: files of many jobs, read as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match extract photos/ -o shards/0.h5 --shard 0/2
    hardnet-match extract photos/ -o shards/1.h5 --shard 1/2
    hardnet-match join shards/*.h5 -o features.h5
    hardnet-match join match-shards/*.h5 -o matches.h5 --partial
    """
)


@verb
def run(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Features files, or matches files.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="File that reads as all of them.")],
    partial: Annotated[
        bool, typer.Option("--partial", help="Although shards are missing or unfinished; they are named.")
    ] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Join features or matches files into one small file of links; nothing is copied.

    The files lie in the folder of the output or below it, and stay there.
    """
    common.output_place(output)
    common.set_logging(quiet)
    from ..jobs.join import join_files

    summary = join_files(files, output, partial=partial)
    unit = {"features": "images", "matches": "pairs"}[summary.kind]
    text = f"{summary.output}: {summary.items} {unit} in {summary.files} files, in {summary.seconds:.1f} s"
    if summary.left_out:
        text += f" ({summary.left_out} more were left out when they were extracted or matched)"
    return common.finish(summary, text, as_json=json)
