"""The command line answers at once, shows examples, and says what is wrong without a traceback."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import hardnet_match
from hardnet_match.cli import VERBS, app

TOP = {getattr(module, "NAME", module.__name__.rpartition(".")[2]): module for module in VERBS}
# Every command by the words that call it; those of a group (`eval retrieval`) have two.
NAMES = [
    (name, *([command.name] if hasattr(module, "group") else []))
    for name, module in TOP.items()
    for command in (module.group.registered_commands if hasattr(module, "group") else [None])
]
HEAVY = ("torch", "cv2", "pycolmap", "kornia", "h5py", "scipy", "PIL", "tqdm")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hardnet_match", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env)


def test_help_names_every_verb() -> None:
    result = CliRunner().invoke(app, ["--help"])
    assert result.exit_code == 0
    assert list(TOP)[:3] == ["demo", "reconstruct", "extract"]
    for name in TOP:
        assert re.search(rf"^  {name} ", result.stdout, re.MULTILINE)
    assert "..." not in result.stdout.partition("Commands:")[2]  # no description is cut short


@pytest.mark.parametrize("name", NAMES, ids=" ".join)
def test_every_verb_shows_examples(name: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*name, "--help"])
    assert result.exit_code == 0
    assert f"hardnet-match {' '.join(name)}" in result.stdout.partition("Examples:")[2]
    assert "--json" in result.stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from hardnet_match.cli import main\n"
        "sys.argv = ['hardnet-match', 'extract', '--help']\n"
        "try:\n    main()\n"
        f"finally:\n    print('HEAVY', *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().splitlines()[-1] == "HEAVY"


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"hardnet-match {hardnet_match.__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Commands:"]),
        (["fly"], ["fly"]),
        (["extract"], ["PHOTOS"]),
        (["extract", "nowhere", "-o", "f.h5"], ["nowhere", "does not exist"]),
        (["extract", "photos"], ["--output"]),
        (["extract", "photos", "-o", "nowhere/f.h5"], ["nowhere", "does not exist"]),
        (["extract", "photos", "-o", "photos"], ["folder"]),
        (["extract", "photos", "-o", "f.h5", "--max-keypoints", "0"], ["--max-keypoints"]),
        (["extract", "photos", "-o", "f.h5", "--max-keypoints", "many"], ["--max-keypoints"]),
        (["extract", "photos", "-o", "f.h5", "--preset", "sift-hardnet"], ["sift-hardnet", "hesaffnet-hardnet"]),
        (["extract", "photos", "-o", "f.h5", "--detector", "eye"], ["eye", "hessian"]),
        (["extract", "photos", "-o", "f.h5", "--masks", "nowhere"], ["nowhere"]),
        (["reconstruct", "photos", "-o", "nowhere/out"], ["nowhere"]),
        (["pairs", "photos", "-o", "p.txt", "--mode", "nearest"], ["nearest", "sequential"]),
        (["demo", "--size", "huge"], ["huge", "640x480"]),
    ],
)
def test_wrong_usage_is_2(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    for word in words:
        assert word in result.output
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "nothing.h5"],
        ["inspect", "text.h5"],
        ["match", "text.h5", "-o", "m.h5"],
        ["match", "nothing.h5", "-o", "m.h5"],
        ["colmap", "text.h5", "text.h5", "--images", ".", "-o", "d.db"],
    ],
)
def test_bad_files_fail_in_one_line(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.h5").write_text("this is no HDF5 file")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("hardnet-match: error: ")
    assert ".h5" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.h5"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    plain, debug = (run("inspect", str(tmp_path / "no.h5"), **extra) for extra in ({}, {"HARDNET_MATCH_DEBUG": "1"}))
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr


def test_weights_are_listed() -> None:
    result = CliRunner().invoke(app, ["weights", "--json"])
    assert result.exit_code == 0
    known = {item["name"]: item for item in json.loads(result.stdout)["weights"]}
    assert known["hardnet++"]["licence"]
    assert known["hardnet++"]["urls"]
    assert known["hardnet-bundled"]["here"] == "bundled"
    assert "hardnet++" in CliRunner().invoke(app, ["weights"]).stdout
