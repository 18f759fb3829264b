"""The command line: `hardnet-match VERB`, one file a verb.

Nothing heavy is imported here or at the top of a verb's file, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import (
    colmap,
    demo,
    describe,
    doctor,
    evaluate,
    export,
    extract,
    finetune,
    importing,
    index,
    inspect,
    join,
    listing,
    match,
    pairs,
    patches,
    pca,
    reconstruct,
    search,
    train,
    view,
    weights,
)

app = typer.Typer(
    name="hardnet-match",
    help="Image matching with local affine features: detect, describe, match, reconstruct.",
    epilog=(
        "\b\nFirst steps:\n"
        "  hardnet-match demo                          see the whole pipeline at work on a rendered scene\n"
        "  hardnet-match reconstruct photos/ -o out/   a folder of photos to a COLMAP model\n\n"
        "\b\nExit codes: 0 done, 1 failed, 2 wrong usage, 3 done but images were skipped (named), 130 Ctrl-C,\n"
        "143 SIGTERM."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
VERBS = {
    demo: "The whole pipeline on a rendered scene, against the truth.",
    reconstruct: "A folder of photos to a COLMAP model.",
    extract: "A folder of photos to a features file.",
    pairs: "Choose which images to match with which.",
    match: "A features file to a matches file.",
    join: "Files of many jobs, read as one.",
    colmap: "Features and matches to a COLMAP database.",
    importing: "COLMAP's features and matches to ours.",
    index: "A features file to a searchable index.",
    patches: "Training data of any form to a patch set.",
    search: "Which images of an index show what a photo shows.",
    evaluate: "Figures of the literature, measured.",
    train: "A recipe and patch sets to weights.",
    finetune: "Descriptor weights for your own photos.",
    pca: "Descriptor weights with fewer dimensions.",
    export: "A network to ONNX, TorchScript or weights.",
    describe: "Descriptors of patches cut already.",
    view: "Frames drawn on a photo, or matches between two.",
    inspect: "What is in a features file, a matches file or a patch set.",
    weights: "Weights that are known by name.",
    listing: "Detectors and all other parts that are known by name.",
    doctor: "Is this installation well? Versions, devices, files, a self-test.",
}
for module, short in VERBS.items():
    name = getattr(module, "NAME", module.__name__.rpartition(".")[2])
    if hasattr(module, "group"):  # a verb of verbs: `hardnet-match eval retrieval`
        app.add_typer(module.group, name=name, short_help=short)
    else:
        app.command(name=name, short_help=short, epilog=module.EXAMPLES)(module.run)


def _version(asked: bool) -> None:
    if asked:
        from .. import __version__

        print(f"hardnet-match {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the `hardnet-match` command and of `python -m hardnet_match`."""
    try:
        app(prog_name="hardnet-match")
    except KeyboardInterrupt:
        sys.exit(130)
