"""The real commands ended at every file operation and at random moments, and without space on the disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import EXTRACT, MATCH, fill, finished

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that counts file operations."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("needs Linux and a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "faults.c"), "-ldl"], check=True
    )
    return library


def broken(preloaded: Path, tmp_path: Path, command: list[str], output: str, **more: Any) -> dict[str, Any]:
    """What `fault_runs` has to say of a command that is broken again and again."""
    request = {"template": str(tmp_path / "template"), "command": command, "output": output, **more}
    done = subprocess.run(
        [sys.executable, str(HERE / "fault_runs.py")],
        input=json.dumps(request),
        env={**os.environ, "LD_PRELOAD": str(preloaded), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["wrong"] == []
    assert isinstance(told, dict)
    return told


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "every"), [("kill", 1), ("cut", 5), ("full", 5)])
def test_extraction_broken_at_any_file_operation_goes_on(
    preloaded: Path, tmp_path: Path, mode: str, every: int
) -> None:
    fill(tmp_path / "template" / "photos", 3)
    told = broken(preloaded, tmp_path, EXTRACT, "f.h5", mode=mode, every=every)
    assert told["operations"] > 40
    assert told["runs"] >= told["operations"] // every
    if mode == "full":
        assert told["codes"].get("1", 0) > told["runs"] * 0.8
    else:
        assert told["codes"] == {"-9": told["runs"]}


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "every"), [("kill", 2), ("cut", 5), ("full", 5)])
def test_matching_broken_at_any_file_operation_goes_on(preloaded: Path, tmp_path: Path, mode: str, every: int) -> None:
    fill(tmp_path / "template" / "photos", 4)
    finished(*EXTRACT, place=tmp_path / "template")
    told = broken(preloaded, tmp_path, MATCH, "m.h5", mode=mode, every=every)
    assert told["operations"] > 30
    if mode == "full":
        assert told["codes"].get("1", 0) > told["runs"] * 0.8
    else:
        assert told["codes"] == {"-9": told["runs"]}


@pytest.mark.slow
def test_extraction_killed_at_24_random_moments_loses_nothing(preloaded: Path, tmp_path: Path) -> None:
    fill(tmp_path / "template" / "photos", 40)
    told = broken(preloaded, tmp_path, EXTRACT, "f.h5", mode="moments", runs=24)
    assert told["codes"].get("-9", 0) >= 20
