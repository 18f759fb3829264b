"""`hardnet-match export`: a network as ONNX, TorchScript, safetensors or an original's checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match export hardnet -o hardnet.onnx
    hardnet-match export hardnet -o hardnet.pt --with patches
    hardnet-match export mine.safetensors -o mine-half.safetensors --half
    hardnet-match export affnet -o affnet.onnx --weights AffNet.pth
    """
)


@verb
def run(
    network: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK|FILE",
            help="hardnet, affnet, orinet, ... (bundled weights), registered weights, or a file.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="NAME.onnx, .pt (TorchScript), .safetensors or .pth."),
    ],
    weights: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Weights for the network, instead of its own.")
    ] = None,
    together_with: Annotated[
        str | None,
        typer.Option("--with", metavar="PART", help="patches: the graph takes image and frames, not patches."),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Layers in float16; a graph's inputs stay float32.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Write a network for use elsewhere, and compare what was written with the network.

    Graphs take any number of patches (N, 1, 32, 32) in [0, 1]; with patches inside, an image (1, 1, H, W) in [0, 1] and
    frames (N, 2, 3) in its pixels, as features files have them in `lafs`.
    """
    common.output_place(output)
    common.set_logging(quiet)
    if together_with not in (None, "patches"):
        raise OptionError(f"--with {together_with!r}: a graph can be written with patches, and nothing else")
    from ..architectures import open_network
    from ..export import export_network, form_of

    form_of(output, with_patches=together_with is not None, half=half)
    done = export_network(open_network(network, weights), output, with_patches=together_with is not None, half=half)
    signature = f", {' + '.join(done.inputs)} -> {done.output}" if done.inputs else ""
    compared = (
        f"differs from the network by {done.difference:.1e} at most over {done.patches} patches ({done.checked})"
        if done.difference is not None
        else done.checked
    )
    size = f"{done.bytes / 1e6:.2f} MB{', float16' if done.half else ''}"
    text = f"{done.file}: {done.network} as {done.form}{signature}, {size}; {compared}"
    return common.finish(done, text, as_json=json, skipped={})
