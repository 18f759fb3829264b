"""`hardnet-match pca`: descriptor weights with a projection to fewer dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match pca run/best.safetensors --data patches.h5 --dim 128 -o h8-128.safetensors
    hardnet-match pca hardnet --data liberty.h5 --data mine.h5 --dim 64 -o small.safetensors
    hardnet-match extract photos/ -o features.h5 --weights small.safetensors
    """
)


@verb
def run(
    weights: Annotated[
        str, typer.Argument(metavar="WEIGHTS", help="Descriptor weights: a file, a registered name, or hardnet.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Weights to write: .safetensors, or .pth.")
    ],
    data: Annotated[
        list[Path],
        typer.Option(metavar="FILE", help="Patch set the directions come from; may be given again.", dir_okay=False),
    ],
    dim: Annotated[int, typer.Option(min=1, metavar="N", help="Dimensions to keep.")] = 128,
    sample: Annotated[int, typer.Option(min=2, metavar="N", help="Patches to use at most, drawn evenly.")] = 200_000,
    seed: Annotated[int, typer.Option(metavar="N", help="Which patches are drawn.")] = 0,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Find the directions in which descriptors vary most, and put the projection to them into the weights.

    The descriptor becomes: unit length, PCA without whitening, unit length; `extract --weights` gives N dimensions.
    """
    common.output_place(output)
    common.set_logging(quiet)
    from ..jobs.pca import add_projection

    summary = add_projection(weights, data, output, dim=dim, sample=sample, seed=seed, device=device, quiet=quiet)
    text = (
        f"{summary.file}: {summary.network}, {summary.dim} of {summary.of} dimensions with {summary.kept:.1%} of the "
        f"variance of {summary.patches} patches, in {summary.seconds:.1f} s"
    )
    return common.finish(summary, text, as_json=json)
