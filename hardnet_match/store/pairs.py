"""Pair lists: a text file, one pair of image names a line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import StoreError
from .hdf5 import acquire, check_name, release, told_plainly

_BREAKS = "\t\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def write_pairs(path: str | os.PathLike[str], pairs: Iterable[tuple[str, str]]) -> None:
    """Write a pair list as hloc and COLMAP read it, 'name0 name1' a line; a tab between where a name holds a space.

    The file appears as a whole or not at all.

    Raises:
        StoreError: a name holds a tab or a line break (no pair list can say it), or the file cannot be written.
    """
    lines = []
    for name0, name1 in pairs:
        for name in (name0, name1):
            if any(mark in check_name(name) for mark in _BREAKS) or name != name.strip() or name.startswith("#"):
                raise StoreError(f"a pair list cannot hold the name {name!r} (tab, line break, '#' or space at an end)")
        between = "\t" if any(mark.isspace() for mark in name0 + name1) else " "
        lines.append(f"{name0}{between}{name1}\n")
    path = Path(path)
    part = path.with_name(path.name + ".part")
    lock = acquire(path)
    try:
        with told_plainly(path, "write the pair list"):
            try:
                part.write_text("".join(lines), encoding="utf-8", newline="\n")
                os.replace(part, path)
            finally:
                part.unlink(missing_ok=True)
    finally:
        release(lock)


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Read a pair list of this package, hloc or COLMAP: two names a line, split at the tab if there is one.

    Empty lines and lines that start with '#' are left out, repeated pairs too (in either order; the first stays).

    Raises:
        StoreError: there is no such file, a line does not hold two names, or pairs a name with itself.
    """
    path = Path(path)
    with told_plainly(path, "read the pair list"):
        text = path.read_text(encoding="utf-8-sig")
    pairs: dict[tuple[str, str], None] = {}
    for number, line in enumerate(text.split("\n"), 1):
        line = line.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        names = line.split("\t") if "\t" in line else line.split()
        if len(names) != 2:
            raise StoreError(
                f"{path}, line {number}: expected two image names, got {len(names)}; "
                f"put a tab between names that hold spaces: {line!r}"
            )
        name0, name1 = (name.strip() for name in names)
        if name0 == name1:
            raise StoreError(f"{path}, line {number}: image {name0!r} is paired with itself")
        if (name1, name0) not in pairs:
            pairs[check_name(name0), check_name(name1)] = None
    return list(pairs)
