"""docs/reference.md and docs/cli.md say what the docstrings and the help texts say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference_script", ROOT / "scripts" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its named tuples look for their module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["docs/reference.md", "docs/cli.md"])
def test_page_is_up_to_date(script: ModuleType, page: str) -> None:
    made = script.PAGES[page]()
    assert (ROOT / page).read_text(encoding="utf-8") == made, f"run `python scripts/reference.py`: {page} is old"


def test_every_package_with_public_names_is_listed(script: ModuleType) -> None:
    listed = {part.module for part in script.PARTS}
    for path in (ROOT / "hardnet_match").rglob("__init__.py"):
        if re.search(r"^__all__ = ", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert ".".join(path.parent.relative_to(ROOT).parts) in listed


def test_every_verb_and_option_is_told(script: ModuleType) -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    commands: list[tuple[str, Any]] = [(n, c) for n, c in script._commands() if not hasattr(c, "commands")]
    assert {"extract", "eval retrieval", "import"} <= {name for name, _ in commands}
    for name, command in commands:
        for option in command.params:
            assert option.param_type_name == "argument" or f"`{max(option.opts, key=len)}`" in sections[name]


def test_docstrings_become_markdown(script: ModuleType) -> None:
    text = script.markdown_of(
        """Do it.

        Args:
            a, b: two numbers,
                on two lines.
            *more: others.

        Returns:
            Their sum.

        Raises:
            ValueError: no numbers.

        Example:
            >>> do(1, 2)
        """
    )
    assert text == (
        "Do it.\n\nArgs:\n\n- `a`, `b`: two numbers,\n  on two lines.\n- `*more`: others.\n\nReturns: Their sum.\n\n"
        "Raises:\n\n- `ValueError`: no numbers.\n\n```text\n>>> do(1, 2)\n```"
    )


def test_signatures(script: ModuleType) -> None:
    def short(a: int, *rest: str, b: bool = True) -> None: ...
    def keywords(a: int, *, b: object = object(), **more: int) -> int: ...

    assert script.signature("f", short) == "f(a: int, *rest: str, b: bool = True) -> None"
    assert script.signature("g", keywords) == "g(a: int, *, b: object = ..., **more: int) -> int"
    assert script.signature("h", keywords).count("\n") == 0
    assert script.signature("n" * 90, keywords).count("\n") == 5
