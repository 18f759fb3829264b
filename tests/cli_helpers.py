"""The real command in processes of its own, on photos that take milliseconds."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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


def until(done: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)
