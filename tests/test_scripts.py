"""The maintainers' benchmark scripts run, on pictures of the rendered world, and count what is there to count."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hardnet_match.world import World

SCRIPTS = Path(__file__).parents[1] / "scripts"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two views of the world and the homography of its house front, as the Oxford sequences have them."""
    folder = tmp_path_factory.mktemp("front")
    world = World(seed=2)
    first, second = world.render(2, (320, 240))
    for name, view in (("img1", first), ("img2", second)):
        cv2.imwrite(str(folder / f"{name}.png"), cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR))
    np.savetxt(folder / "H1to2p", world.homography(first, second, "house"))
    return folder


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_pairs(sequence: Path) -> None:
    table = run("bench_pairs.py", str(sequence), "--keypoints", "400", "--orientation", "upright")
    [row] = [line for line in table.splitlines() if line.startswith(f"| {sequence.name} 1-2 |")]
    counts = [(int(good), int(every)) for good, every in re.findall(r"(\d+) / (\d+)", row)]
    assert len(counts) == 3
    assert all(good <= every <= 400 for good, every in counts)
    assert counts[2][0] > 20


def test_detectors(sequence: Path) -> None:
    table = run("bench_detectors.py", str(sequence / "img1.png"), "--keypoints", "300")
    rows = {cells[1].strip(): cells for cells in (line.split("|") for line in table.splitlines()[2:])}
    assert {"COLMAP SIFT", "hessian", "dog"} <= rows.keys()
    assert float(rows["hessian"][5]) < 0.6  # median distance of corresponding keypoints, pixels


def test_batches() -> None:
    table = run("bench_batches.py", "--patches", "3000", "--batch", "32", "--repeats", "1")
    shares = {cells[1].strip(): float(cells[3]) for cells in (line.split("|") for line in table.splitlines()[3:])}
    assert shares["training step"] == 100
    assert 0 < shares["draw labels and patches"] <= shares["draw and read"] * 1.5
    assert 0 <= shares["waiting, drawn ahead"] < 100
