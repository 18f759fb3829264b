"""Workers for the tests of a crew; importable on the nodes of the tests' cluster."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hardnet_match.errors import StoreError


class Squarer:
    """Squares numbers; some of them are fatal.

    Args:
        folder: a file is made in it for each call, named by what it was called with.
    """

    def __init__(self, folder: str, seconds: float = 0.0) -> None:
        self.folder, self.seconds = Path(folder), seconds

    def work(self, items: list[int]) -> list[tuple[int, int]]:
        (self.folder / f"{items[0]}-{time.time_ns()}").touch()
        time.sleep(self.seconds)
        if 13 in items:
            os._exit(1)
        if 99 in items:
            raise StoreError("99 is not to be squared")
        if 77 in items:
            raise ZeroDivisionError("a mistake of ours")
        return [(item, item * item) for item in items]


class Unmakeable:
    """Cannot be made on a node."""

    def __init__(self) -> None:
        raise StoreError("there is nothing to make it of")
