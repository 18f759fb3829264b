"""What README.md shows works as it is printed: shell commands through the real entry point, Python blocks in order."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from hardnet_match.cli import VERBS, app
from hardnet_match.presets import PRESETS

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if line.startswith("hardnet-match ")
]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, rendered: dict[str, Any]) -> Path:
    """A folder with `photos/` as the README's commands expect them: small, overlapping, with GPS."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for i, name in enumerate(["a.jpg", "b.jpg", "c.jpg"]):
        with Image.open(rendered["folder"] / f"view_00{i}.jpg") as image:
            exif = image.getexif()
            exif.get_ifd(0x8825).update({1: "N", 2: (55.0, 40.0, i / 10), 3: "E", 4: (13.0, 10.0, 0.0)})
            image.resize((320, 240)).save(folder / "photos" / name, exif=exif, quality=95)
    shutil.copy(folder / "photos" / "a.jpg", folder / "first.jpg")
    return folder


def test_there_is_something_to_run() -> None:
    assert {shlex.split(command)[1] for command in COMMANDS} >= {
        module.__name__.rpartition(".")[2] for module in VERBS
    } - {
        "demo",
        "weights",
    }
    assert [kind for kind, _ in BLOCKS].count("python") == 2


def test_the_set_up_commands_are_the_ones_that_are_tested() -> None:
    ci = (Path(__file__).parents[1] / ".ci" / "run").read_text(encoding="utf-8")
    assert 'pip install -c constraints.txt ".[test]" && pytest' in README
    assert "pip install -c constraints.txt . && hardnet-match demo" in README
    assert '-c constraints.txt ".[test]"' in ci
    assert re.search(r"^pytest\b", ci, re.MULTILINE)


def test_presets_of_the_table_exist() -> None:
    table = README.partition("## Presets")[2].partition("Each also")[0]
    named = re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)
    assert len(named) == 4
    assert {
        f"{name.removesuffix('hardnet')}{end}" for name in named for end in ("hardnet", "hardnet8", "rootsift", "tfeat")
    } == set(PRESETS)


@pytest.mark.slow
def test_commands_and_python(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)
    for command in COMMANDS:
        result = CliRunner().invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, f"{command}\n{result.output}"
    for kind, text in BLOCKS:
        if kind == "python":
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, "README.md", "exec"), {})
            assert printed.getvalue()
    assert (there / "out" / "sparse" / "0" / "images.bin").is_file()
