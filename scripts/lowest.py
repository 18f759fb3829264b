"""Print the lowest versions that setup.cfg states, as constraints: does the package still work with them?

    python scripts/lowest.py > lowest.txt
    python -m venv old && old/bin/pip install -c lowest.txt -e ".[test]" && old/bin/pytest -m "not slow"

`--pinned torch` takes a package's version from constraints.txt instead, where its lowest is not to be had.
"""

from __future__ import annotations

import argparse
import configparser
import re
import sys
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BOUND = re.compile(r"(?P<name>[A-Za-z0-9._-]+)>=(?P<version>[0-9][0-9.a-z]*)(?P<marker>\s*;.*)?")


def lowest(setup: str, pins: str = "", pinned: Collection[str] = ()) -> list[str]:
    """Constraints, a line each: every `name>=version` of the core and all extras, as `name==version`.

    Args:
        setup: the text of setup.cfg.
        pins: the text of constraints.txt.
        pinned: names whose lines of `pins` are taken instead.

    Raises:
        ValueError: a requirement states no lower bound, or a pinned name has no pin.
    """
    parsed = configparser.ConfigParser()
    parsed.read_string(setup)
    texts = [parsed["options"]["install_requires"], *dict(parsed["options.extras_require"]).values()]
    lines = []
    for line in (line.strip() for text in texts for line in text.splitlines()):
        if not line or "[" in line:  # an extra made of others
            continue
        found = _BOUND.fullmatch(line)
        if found is None:
            raise ValueError(f"{line!r} in setup.cfg states no lowest version (name>=version)")
        if found["name"] not in pinned:
            lines.append(f"{found['name']}=={found['version']}{found['marker'] or ''}")
    for name in pinned:
        found_pins = [line for line in pins.splitlines() if line.startswith(f"{name}==")]
        if not found_pins:
            raise ValueError(f"constraints.txt has no {name}=={{version}}")
        lines += found_pins
    return sorted(set(lines))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pinned", nargs="*", default=[], metavar="NAME", help="take these from constraints.txt")
    asked = parser.parse_args().pinned
    setup, pins = ((ROOT / name).read_text(encoding="utf-8") for name in ("setup.cfg", "constraints.txt"))
    try:
        print("\n".join(lowest(setup, pins, asked)))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
