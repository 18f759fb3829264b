"""The benchmark of retrieval runs, and its checks hold on small sets."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from retrieval_helpers import SETTINGS, make_codebook, make_images

from hardnet_match.store import FeatureWriter

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_retrieval.py"


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_compare(tmp_path: Path) -> None:
    pytest.importorskip("asmk")
    codebook = make_codebook(512)
    with FeatureWriter(tmp_path / "features.h5", SETTINGS, buffer=100) as writer:
        for name, features in make_images(codebook, 30):
            writer.write(name, features)
    told = run(
        "compare", str(tmp_path / "features.h5"), "--words", "256", "--queries", "5", "--repeats", "1",
        "--codebook", str(tmp_path / "words"),
    )  # fmt: skip
    assert "29 images" in told  # one of them has no features
    assert float(re.findall(r"difference of a score to asmk's ([\d.e+-]+)", told)[0]) < 1e-4
    assert (tmp_path / "words" / "codebook.json").exists()
    assert len(re.findall(r"^\| (?:index|query), an image \| [\d.]+", told, re.MULTILINE)) == 2


@pytest.mark.slow
def test_growth(tmp_path: Path) -> None:
    told = run("growth", str(tmp_path / "index"), "--words", "2000", "--keypoints", "30", "--images", "20", "50")
    assert [line.split("|")[1].strip() for line in told.splitlines()[2:]] == ["20", "50"]
