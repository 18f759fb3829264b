"""Packages that bring parts, installed into a folder without an installer: a module and its metadata."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

MODULE = re.compile(r"# (\w+)\.py\n")
"""How a page's block begins that is a file of its own."""

EXAMPLE = Path(__file__).parents[1] / "examples" / "plugin"


def install(
    site: Path, name: str, version: str, entries: Mapping[str, Mapping[str, str]], sources: Mapping[str, str]
) -> None:
    """What `pip install` would leave of a package: its modules, and NAME-VERSION.dist-info with its entry points.

    Args:
        site: a folder of sys.path.
        entries: entry points by group and name.
        sources: Python source by module.
    """
    for module, source in sources.items():
        (site / f"{module}.py").write_text(source, encoding="utf-8")
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = [
        "\n".join([f"[{group}]", *(f"{part} = {place}" for part, place in points.items())])
        for group, points in entries.items()
    ]
    (info / "entry_points.txt").write_text("\n\n".join(groups) + "\n", encoding="utf-8")


def install_example(site: Path) -> dict[str, Any]:
    """The package of examples/plugin, from its own pyproject.toml; returns its [project]."""
    project: dict[str, Any] = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    install(site, project["name"], project["version"], project["entry-points"], {})
    for source in EXAMPLE.glob("*.py"):
        shutil.copy(source, site)
    return project


def install_page(site: Path, blocks: list[tuple[str, str]]) -> None:
    """The package that a page shows: its pyproject.toml, and the modules whose first line is `# NAME.py`."""
    project = tomllib.loads(next(text for kind, text in blocks if kind == "toml"))["project"]
    sources = {found[1]: text for kind, text in blocks if kind == "python" and (found := MODULE.match(text))}
    install(site, project["name"], project["version"], project["entry-points"], sources)
