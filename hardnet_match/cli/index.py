"""`hardnet-match index`: a features file to a searchable index."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match index features.h5 -o index/
    hardnet-match index more.h5 -o index/                          add to it, nothing is rebuilt
    hardnet-match index features.h5 -o index/ --words 16384 --method bow
    hardnet-match index features.h5 -o index/ --codebook other-index/ --images photos/
    """
)


@verb
def run(
    features: options.FeaturesFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Index to make, or to add to.")],
    codebook: Annotated[
        str | None,
        typer.Option(
            metavar="train|FOLDER", help="Train words on these features, or take those of a codebook or index."
        ),
    ] = None,
    words: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Visual words to train; fewer if the features cannot fill them. [default: 65536]"
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(metavar="NAME", help="asmk, bow or hqe. [default: asmk]")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", metavar="NAME=VALUE", help="Of the method, like alpha=3; may be given several times."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Folder of the photos, remembered for `search --html`.", exists=True, file_okay=False
        ),
    ] = None,
    iterations: Annotated[int, typer.Option(min=1, metavar="N", help="Of k-means.")] = 20,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the sample and of k-means.")] = 0,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Index a features file for search. A second run goes on where the first was stopped, another file is added."""
    common.output_place(output, folder=True)
    common.set_logging(quiet)
    parameters = _parameters(parameter or [])
    from ..jobs.index import index_features

    summary = index_features(
        features,
        output,
        codebook=codebook,
        words=words,
        method=method,
        parameters=parameters,
        images=images,
        iterations=iterations,
        seed=seed,
        overwrite=overwrite,
        quiet=quiet,
    )
    text = (
        f"{summary.index}: {summary.images} images for {summary.method}, {summary.codebook['words']} words; "
        f"{summary.added} added, {summary.reused} there already, in {sum(summary.seconds.values()):.1f} s; "
        f"{summary.bytes_per_image} bytes an image"
    )
    if summary.replaced:
        text += f"\n{summary.replaced} of the added are in place of what the index had of them: their features changed"
    if summary.bare:
        text += f"\n{summary.bare} of the added have no features: no search will find them"
    return common.finish(summary, text, as_json=json)


def _parameters(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE texts as a method's parameters; values as JSON has them."""
    parameters = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            parameters[name.strip()] = json_module.loads(value)
        except ValueError:
            equals = ""
        if not equals:
            raise OptionError(f"--parameter {text!r} is not NAME=VALUE with a number, true or false")
    return parameters
