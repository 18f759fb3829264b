"""`hardnet-match finetune`: photos to descriptor weights of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..presets import compose
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match finetune photos/ -o mine.safetensors
    hardnet-match finetune photos/ -o mine.safetensors --from hardnet++ --minutes 10
    hardnet-match finetune photos/ -o mine.safetensors --model out/sparse/0
    hardnet-match extract photos/ -o features.h5 --weights mine.safetensors
    """
)


@verb
def run(
    photos: options.ImagesFolder,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE", help="Weights to write (.safetensors); a page beside them."),
    ],
    start: Annotated[
        str, typer.Option("--from", metavar="NAME|FILE", help="Descriptor, weights by name, or a weights file.")
    ] = "hardnet",
    minutes: Annotated[float, typer.Option(metavar="N", help="Training time at most.")] = 30.0,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="COLMAP model of the photos, its database near it; reconstruct first without it.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="For what is made on the way.  [default: NAME-finetune]")
    ] = None,
    hold_out: Annotated[float, typer.Option(metavar="SHARE", help="Share of the photos to measure on.")] = 0.2,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of everything random.")] = 0,
    preset: options.Preset = "hesaffnet-hardnet",
    detector: options.Detector = None,
    shape: options.Shape = None,
    orientation: options.Orientation = None,
    max_keypoints: options.MaxKeypoints = 4096,
    max_size: options.MaxSize = 1600,
    pairs: Annotated[
        str, typer.Option(metavar="MODE|FILE", help="exhaustive, sequential, spatial (GPS), or a pairs file.")
    ] = "exhaustive",
    overlap: options.Overlap = 10,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Fine-tune a descriptor on your photos, and see on held-out ones whether it helped.

    The photos are reconstructed (or --model is read), patches of the same points are learned from, and matching is
    measured before and after on photos and points that nothing was learned from. If it did not get better, it says so
    and the file holds the weights it started from (exit code 0; `improved` in --json). A second run goes on where the
    first was stopped.
    """
    common.output_place(output)
    if work is not None:
        common.output_place(work, folder=True)
    common.set_logging(quiet)
    from ..jobs.finetune import finetune

    parts = {"detector": detector, "shape": shape, "orientation": orientation}

    compose(preset, **parts)
    summary = finetune(
        photos,
        output,
        {"preset": preset, **parts, "max_keypoints": max_keypoints},
        start=start,
        model=model,
        work=work,
        minutes=minutes,
        hold_out=hold_out,
        max_size=max_size or None,
        pairs=pairs,
        overlap=overlap,
        device=device,
        seed=seed,
        overwrite=overwrite,
        quiet=quiet,
    )
    return common.finish(summary, summary.words(), as_json=json)
