"""Groups of options: shown one by one in the group's place, handed over together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from hardnet_match.cli import app, options
from hardnet_match.cli.common import verb
from hardnet_match.errors import OptionError


@dataclass(frozen=True)
class Size:
    """What a shelf measures."""

    width: options.MaxKeypoints = 3
    height: options.MaxSize = 5


@dataclass(frozen=True)
class Tall(Size):
    """Higher than it is wide."""

    height: options.MaxSize = 50


@pytest.fixture
def shelves() -> tuple[typer.Typer, list[Any]]:
    """A command with two groups, and what it was called with."""
    calls: list[Any] = []
    command = typer.Typer(add_completion=False, rich_markup_mode=None)

    @command.command()
    @verb
    @options.grouped
    def run(*, first: options.Ratio = 0.5, shelf: Tall, quiet: options.Quiet = False, parts: options.Parts) -> int:
        """Build a shelf."""
        calls.append((first, shelf, quiet, parts))
        return 3

    return command, calls


def test_a_groups_options_are_shown_in_its_place(shelves: tuple[typer.Typer, list[Any]]) -> None:
    command: Any = typer.main.get_command(shelves[0])
    names = [parameter.name for parameter in command.params]
    assert names[:5] == ["first", "width", "height", "quiet", "preset"]
    assert names[-1] == "orientation_weights"
    assert command.help == "Build a shelf."
    assert {parameter.name: parameter.default for parameter in command.params[:4]} == {
        "first": 0.5, "width": 3, "height": 50, "quiet": False,
    }  # fmt: skip


def test_a_group_comes_filled(shelves: tuple[typer.Typer, list[Any]]) -> None:
    command, calls = shelves
    result = CliRunner().invoke(command, ["--width", "7", "-q", "--detector", "dog"])
    assert result.exit_code == 3, result.output
    assert calls == [(0.5, Tall(7, 50), True, options.Parts(detector="dog"))]
    result = CliRunner().invoke(command, ["--width", "0"])
    assert result.exit_code == 2
    assert "--width" in result.output
    assert len(calls) == 1


def test_parts_are_checked_and_tell_their_weights() -> None:
    options.Parts(detector="dog", descriptor="rootsift").check()
    with pytest.raises(OptionError, match="no detector 'eye'"):
        options.Parts(detector="eye").check()
    with pytest.raises(OptionError, match="no preset 'eye'"):
        options.Parts(preset="eye").check()
    given = options.Parts(weights="hardnet++", orientation_weights="o.pth")
    assert given.weights_given() == ["hardnet++", "o.pth"]
    assert options.Parts().weights_given() == []


@pytest.mark.parametrize("name", ["extract", "reconstruct", "demo"])
def test_the_verbs_that_extract_have_all_parts(name: str) -> None:
    verbs: Any = typer.main.get_command(app)
    names = [parameter.name for parameter in verbs.commands[name].params]
    fields = list(options.Parts.__dataclass_fields__)
    at = names.index("preset")
    assert names[at : at + len(fields)] == fields
