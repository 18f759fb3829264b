"""`hardnet-match train`: a recipe and patch sets to weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match patches liberty -o sets/liberty.h5
    hardnet-match train hardnet-lib-plus -o run/ --data sets/
    hardnet-match train mine.toml -o run/ --data sets/ --set schedule.batch=512 --minutes 60
    hardnet-match train hardnet-lib --show > mine.toml
    hardnet-match train hardnet-lib -o more/ --data sets/ --start hardnet++
    torchrun --nproc-per-node 4 -m hardnet_match train hardnet-lib -o run/ --data sets/
    """
)


@verb
def run(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A TOML file, or the name of a recipe of ours.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder of the run; gone on from if begun.")
    ] = None,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the recipe's patch sets, NAME.h5.")] = Path(
        "."
    ),
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Put over the recipe's; may come again.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.001, metavar="M", help="Be done by then, the learning rate included.")
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Weights to start from, instead of random ones.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Checkpoint of the original code to go on from: its weights, momentum and epoch.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    tensorboard: Annotated[
        bool | None, typer.Option("--tensorboard/--no-tensorboard", help="Its logs. [default: if installed]")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the recipe, every key of it, and do nothing.")] = False,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Train a network by a recipe. The same command goes on where the last was stopped, to the same weights."""
    from ..errors import OptionError
    from ..training import recipe as recipes

    changes = change or []
    if show:
        print(recipes.to_toml(recipes.read(recipes.find(recipe), changes)), end="")
        return common.DONE
    if output is None:
        raise OptionError("--output (-o) is missing: the folder of the run")
    if start is not None and resume is not None:
        raise OptionError("--start takes weights alone, --resume takes all of a checkpoint: give one of them")
    common.output_place(output, folder=True)
    recipes.read(recipes.find(recipe), changes)  # what is wrong with it is told before anything heavy is imported
    from ..training.parallel import is_first

    common.set_logging(quiet or not is_first())
    from ..jobs.train import train

    summary = train(
        recipe,
        output,
        data=data,
        changes=changes,
        device=device,
        minutes=minutes,
        start=start,
        resume=resume,
        tensorboard=tensorboard,
    )
    return common.finish(summary, summary.words(), as_json=json) if is_first() else common.DONE
