"""`hardnet-match weights`: which weights there are by name."""

from __future__ import annotations

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match weights
    hardnet-match weights --json
    hardnet-match extract photos/ -o features.h5 --weights hardnet++
    """
)


@verb
def run(json: options.Json = False, quiet: options.Quiet = False) -> int:
    """List the weights known by name: for which network, under which licence, and where they lie once fetched."""
    common.set_logging(quiet)
    raise NotImplementedError
