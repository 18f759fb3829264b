"""What README.md and the pages of docs/ show works as it is printed, one after the other in one folder."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmark_helpers import brown_set, planar_sequence
from PIL import Image
from plugin_helpers import MODULE, install_page
from typer.testing import CliRunner

from hardnet_match.cli import VERBS, app
from hardnet_match.presets import PRESETS

ROOT = Path(__file__).parents[1]
PAGES = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        "README.md",
        "docs/reconstruction.md",
        "docs/python.md",
        "docs/conventions.md",
        "docs/migration.md",
        "docs/retrieval.md",
        "docs/training.md",
        "docs/benchmarks.md",
        "docs/results.md",
        "docs/plugins.md",
        "docs/scale.md",
        "docs/reliability.md",
    )
}
README = PAGES["README.md"]
BLOCKS = {name: re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL) for name, text in PAGES.items()}
# Pages whose blocks need nothing that another page's made: a test of their own.
BY_THEMSELVES = ("docs/reliability.md", "docs/python.md", "docs/conventions.md", "docs/migration.md")
# What makes a run short; everything else is as printed.
SHORT = {
    "doctor": ["--no-self-test"],
    "finetune": ["--minutes", "0.05"],
    "train": ["--set", "schedule.batch=8", "--set", "schedule.pairs_an_epoch=16", "--set", "schedule.epochs=1"],
}


def commands(page: str) -> list[list[str]]:
    lines = [line for kind, text in BLOCKS[page] if kind == "sh" for line in text.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("hardnet-match ")]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory, rendered: dict[str, Any]) -> Path:
    """A folder with what the pages take for granted: photos with GPS, masks, frames of a video, patches, patch sets."""
    from hardnet_match.training.patchset import PatchSet

    folder = tmp_path_factory.mktemp("readme")
    (folder / "photos").mkdir()
    for i, name in enumerate("abcdefgh"):
        with Image.open(rendered["folder"] / f"view_00{i}.jpg") as image:
            exif = image.getexif()
            exif.get_ifd(0x8825).update({1: "N", 2: (55.0, 40.0, i / 10), 3: "E", 4: (13.0, 10.0, 0.0)})
            image.resize((320, 240)).save(folder / "photos" / f"{name}.jpg", exif=exif, quality=95)
    shutil.copy(folder / "photos" / "a.jpg", folder / "first.jpg")
    (folder / "truth.json").write_text(next(text for kind, text in BLOCKS["docs/retrieval.md"] if kind == "json"))
    (folder / "new-photos").mkdir()
    (folder / "photos" / "h.jpg").rename(folder / "new-photos" / "h.jpg")
    (folder / "masks").mkdir()
    hidden = np.full((240, 320), 255, np.uint8)
    hidden[:, :160] = 0
    Image.fromarray(hidden).save(folder / "masks" / "a.jpg.png")
    (folder / "video").mkdir()
    for number, name in enumerate("bcd"):
        shutil.copy(folder / "photos" / f"{name}.jpg", folder / "video" / f"{number:05d}.jpg")
    (folder / "sets").mkdir()
    for view, name in enumerate(("liberty", "notredame", "yosemite")):
        pixels = np.asarray(Image.open(rendered["folder"] / f"view_00{view}.jpg").convert("L"))
        patches = np.stack([pixels[y : y + 64, x : x + 64] for y in range(0, 280, 40) for x in range(0, 400, 40)])
        count = len(patches)
        track, zeros = np.repeat(np.arange(count), 2), np.zeros(2 * count, np.int32)
        seen_in = np.tile(np.array([0, 1], np.int32), count)
        PatchSet(np.repeat(patches, 2, axis=0), track, seen_in, zeros, margin=1.0).save(folder / "sets" / f"{name}.h5")
    Image.fromarray(patches[:5].reshape(-1, 64)).save(folder / "column.png")
    planar_sequence(folder / "sequences")
    brown_set(folder / "liberty")
    return folder


def test_every_verb_is_shown() -> None:
    shown = {command[0] for page in PAGES for command in commands(page)}
    verbs = {getattr(module, "NAME", module.__name__.rpartition(".")[2]) for module in VERBS}
    assert shown >= verbs - {"demo", "weights"}
    assert [kind for kind, _ in BLOCKS["README.md"]].count("python") == 2


def test_the_set_up_commands_are_the_ones_that_are_tested() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
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


def run_page(page: str) -> None:
    """A page's commands, then its Python, of which each block goes on from the one before."""
    for command in commands(page):
        result = CliRunner().invoke(app, [*command, *SHORT.get(command[0], [])])
        assert result.exit_code == 0, f"{page}: {shlex.join(command)}\n{result.output}\n{result.exception!r}"
    names: dict[str, Any] = {}
    for kind, text in BLOCKS[page]:
        needs_hloc = "from hloc import" in text and importlib.util.find_spec("hloc") is None
        if kind == "python" and not needs_hloc and not MODULE.match(text):
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(text, page, "exec"), names)
            assert printed.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("page", BY_THEMSELVES)
def test_page_by_itself(page: str, there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)
    run_page(page)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # all pages but those, one after the other
def test_commands_and_python(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)
    (there / "site").mkdir()
    monkeypatch.syspath_prepend(there / "site")
    install_page(there / "site", BLOCKS["docs/plugins.md"])
    for page in [name for name in PAGES if name not in BY_THEMSELVES]:
        run_page(page)
    assert (there / "out" / "sparse" / "0" / "images.bin").is_file()
    assert (there / "found.html").is_file()
    assert (there / "mine.html").is_file()
