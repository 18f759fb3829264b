"""Progress for people: a bar with rate and remaining time on a terminal, nothing in a pipe or a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(what: str, total: int, unit: str, *, done: int = 0, quiet: bool = False) -> Any:
    """A tqdm bar on stderr, already silent where stderr is no terminal or `quiet` is set.

    Args:
        what: what is being done, a word or two.
        total: how many steps there are in all, those done before included.
        unit: what one step is called (`image`, `pair`).
        done: steps that an earlier run did; they count as done but not in the rate.
    """
    hidden = quiet or not sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=what,
        unit=f" {unit}",
        disable=hidden,
        file=sys.stderr,
        dynamic_ncols=True,
        smoothing=0.1,
        leave=True,
    )
