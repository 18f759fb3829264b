"""`hardnet-match describe`: descriptors of patches that are cut already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match describe ref.png -o desc.csv
    hardnet-match describe hpatches-release/ -o descriptors/mine --weights mine.safetensors
    hardnet-match describe liberty/ -o liberty.npy --weights hardnet-liberty-aug
    hardnet-match describe ref.png -o desc.h5 --descriptor rootsift
    """
)


@verb
def run(
    patches: Annotated[
        Path,
        typer.Argument(
            metavar="PATCHES", help="A column of patches (.png, ...), .npy, .h5, a Brown set, or a folder of columns."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="PLACE", help=".csv, .txt, .npy or .h5; a folder for a folder of columns."
        ),
    ],
    descriptor: options.Descriptor = None,
    weights: options.Weights = None,
    form: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Of files in a folder: csv, txt, npy or h5. [csv]")
    ] = None,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Describe patches, a row of numbers each, as the HPatches and Brown benchmarks want them.

    A column is a grey picture w wide and N w high; patches are resized to 32x32. A folder of columns (HPatches
    sequences) gives a file for each, in the same subfolders; what an earlier run wrote is kept.
    """
    common.output_place(output, folder=patches.is_dir() and not (patches / "info.txt").is_file())
    common.set_logging(quiet)
    from ..jobs.describe import describe_patches

    summary = describe_patches(
        patches,
        output,
        descriptor=descriptor,
        weights=weights,
        form=form,
        device=device,
        overwrite=overwrite,
        quiet=quiet,
    )
    text = (
        f"{summary.output}: {summary.patches} patches, {summary.dim} dimensions, {summary.files} files "
        f"({summary.reused} there already), in {summary.seconds:.1f} s"
    )
    return common.finish(summary, text, as_json=json)
