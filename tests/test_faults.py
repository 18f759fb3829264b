"""The real commands ended at every file operation, at random moments, by signals, and without space on the disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from fault_runs import content, records
from numpy.typing import NDArray
from PIL import Image

from hardnet_match.store import FeatureReader

HERE = Path(__file__).parent
SMALL = ["--preset", "dog-rootsift", "--orientation", "upright", "--max-keypoints", "20", "--device", "cpu", "--quiet"]
EXTRACT = ["extract", "photos", "-o", "f.h5", *SMALL]
MATCH = ["match", "f.h5", "-o", "m.h5", "--device", "cpu", "--quiet"]


def photo(seed: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """A picture with blobs enough for a few keypoints."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def fill(folder: Path, count: int, width: int = 64) -> Path:
    """A folder of small photos."""
    folder.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(photo(i, width, width * 3 // 4)).save(folder / f"{i:03d} x.png")
    return folder


def start(*arguments: str, place: Path, **more: Any) -> subprocess.Popen[str]:
    """The real command, in a process of its own."""
    command = [sys.executable, "-m", "hardnet_match", *arguments]
    return subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def finished(*arguments: str, place: Path, code: int = 0, **more: Any) -> str:
    """The real command run to its end; its standard error."""
    process = start(*arguments, place=place, **more)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return errors


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
@pytest.mark.parametrize(("mode", "every"), [("kill", 1), ("cut", 3), ("full", 3)])
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
@pytest.mark.parametrize(("mode", "every"), [("kill", 1), ("cut", 3), ("full", 3)])
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
    fill(tmp_path / "template" / "photos", 50)
    told = broken(preloaded, tmp_path, EXTRACT, "f.h5", mode="moments", runs=24)
    assert told["codes"].get("-9", 0) >= 20
