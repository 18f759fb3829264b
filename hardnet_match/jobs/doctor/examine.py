"""All the checks, one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

from ...errors import OptionError
from . import files, machine, selftest, software
from .check import BROKEN, Check, Health, guarded


def examine(folder: str | Path = ".", *, self_test: bool = True) -> Health:
    """Look at everything that may be wrong with an installation.

    Args:
        folder: where results are going to be written; small files are made there and removed.
        self_test: also run the pipeline on two rendered pictures, about ten seconds.

    Raises:
        OptionError: there is no such folder.
    """
    place = Path(folder)
    if not place.is_dir():
        raise OptionError(f"{place}: no such folder")
    started = time.perf_counter()
    looks: dict[str, Callable[[], Check | Iterable[Check]]] = {
        "python": software.python,
        "hardnet-match": software.package,
        "dependencies": software.core,
        "opencv": software.opencv,
        "extras": software.extras,
        "zlib and pycolmap": software.trap,
        "processor": machine.processor,
        "memory": machine.memory,
        "graphics": machine.graphics,
        "threads": machine.threads,
        "auto takes": machine.automatic,
        "weights": files.bundled,
        "weights in the cache": files.cached,
        "cache": files.cache,
        "disk": lambda: files.room(place),
        "HDF5": lambda: files.hdf5(place.resolve()),
    }
    if self_test:
        looks["self-test"] = selftest.self_test
    checks: list[Check] = []
    for name, look in looks.items():
        checks += guarded(name, look)
    broken = sum(check.state == BROKEN for check in checks)
    return Health(checks, broken, round(time.perf_counter() - started, 2))
