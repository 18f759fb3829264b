"""`hardnet-match doctor`: is this installation well?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match doctor
    hardnet-match doctor --folder out/ --json
    hardnet-match doctor --no-self-test
    """
)


@verb
def run(
    folder: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where results are to go: can it be written?", file_okay=False)
    ] = Path("."),
    self_test: Annotated[
        bool, typer.Option(help="Match two rendered pictures and compare with the truth, about ten seconds.")
    ] = True,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Look at everything that may be wrong here: versions, devices, weights, threads, disk, files; and a self-test.

    Each finding says what to do where there is something to do. Exit code 1 if something is broken.
    """
    common.set_logging(quiet)
    from ..jobs.doctor import examine

    health = examine(folder, self_test=self_test)
    common.finish(health, health.words(), as_json=json)
    return common.FAILED if health.broken else common.DONE
