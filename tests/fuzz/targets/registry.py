"""The targets by name, and how an input goes through one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardnet_match.errors import HardnetMatchError

SEEDS = Path(__file__).parents[1] / "seeds"
_targets: dict[str, Callable[[bytes, Path], Any]] = {}


def target(function: Callable[[bytes, Path], Any]) -> Callable[[bytes, Path], Any]:
    """Register a parser under its name."""
    assert function.__name__ not in _targets
    _targets[function.__name__] = function
    return function


def names() -> list[str]:
    """Names of all targets."""
    return list(_targets)


def seeds(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    return [path.read_bytes() for path in sorted((SEEDS / name).glob("*"))]


def run(name: str, data: bytes, place: Path) -> str:
    """Run one input through a target; the error's text, '' if it was read.

    Args:
        place: an empty folder for files; emptied again.
    """
    try:
        _targets[name](data, place)
    except HardnetMatchError as error:
        text = str(error)
        assert text.strip()
        return text
    finally:
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return ""


def written(place: Path, data: bytes, name: str = "file") -> Path:
    """The input as a file in the place."""
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
