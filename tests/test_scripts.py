"""The maintainers' benchmark scripts run, on pictures of the rendered world, and count what is there to count."""

from __future__ import annotations

import shutil
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


def test_networks(sequence: Path) -> None:
    rows = rows_of(run("bench_networks.py", str(sequence), "--keypoints", "300", "--parts", "descriptor"))
    assert rows.keys() == {"descriptor", "---", "RootSIFT", "hardnet-bundled"}
    correct, matches, counterparts, precision, false = (float(cell) for cell in rows["hardnet-bundled"])
    assert 20 < correct <= matches <= 300
    assert counterparts > 20
    assert 0 < precision <= 100
    assert 0 <= false < 50


def test_results(sequence: Path, tmp_path: Path) -> None:
    shutil.copytree(sequence, tmp_path / "data" / "pairs" / "front")
    page = tmp_path / "results.md"
    arguments = [str(tmp_path / "data"), "--work", str(tmp_path / "work"), "-o", str(page)]
    run("results.py", *arguments, "--presets", "dog-hardnet", "--peers", "sift", "orb", "akaze", "--only", "pairs-90")
    text = page.read_text(encoding="utf-8")
    asked = "hardnet-match eval homography pairs --preset dog-hardnet --peers sift,orb --keypoints 2048"
    assert asked in text  # AKAZE only where OpenCV 4 is given
    assert rows_of(text).keys() >= {"features", "dog-hardnet", "sift", "orb"}
    assert str(tmp_path) not in text
    run("results.py", *arguments, "--page-only")
    assert page.read_text(encoding="utf-8") == text


def test_results_tell_where_ours_is_behind() -> None:
    sys.path.insert(0, str(SCRIPTS))
    try:
        from results import losses
    finally:
        sys.path.remove(str(SCRIPTS))
    table = ["| features | keypoints | good | reproj. px | same |", "|---|---:|---:|---:|---:|"]
    table += ["| dog-hardnet | 9 | 1,050 | 0.3 | **7** |", "| hesaffnet-hardnet | 8 | **2,000** | - | **7** |"]
    table += ["| sift | 10 | 1,100 | **0.2** | **7** |", "| orb | 10 | 1,090 | - | 1 |"]
    assert losses("\n".join(table)) == ["good: sift 1,100, ours 1,050", "reproj. px: sift 0.2, ours 0.3"]
    assert losses("") == []


def test_detectors(sequence: Path) -> None:
    table = run("bench_detectors.py", str(sequence / "img1.png"), "--keypoints", "3000")
    rows = {cells[1].strip(): cells for cells in (line.split("|") for line in table.splitlines()[2:])}
    assert {"COLMAP SIFT", "hessian", "dog"} <= rows.keys()
    assert float(rows["hessian"][5]) < 0.6  # median distance of corresponding keypoints, pixels


def test_batches() -> None:
    table = run("bench_batches.py", "--patches", "3000", "--batch", "32", "--repeats", "1")
    shares = {cells[1].strip(): float(cells[3]) for cells in (line.split("|") for line in table.splitlines()[3:])}
    assert shares["training step"] == 100
    assert 0 < shares["draw labels and patches"] <= shares["draw and read"] * 1.5
    assert 0 <= shares["waiting, drawn ahead"] < 100


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rendered places of three photos each, a folder a place."""
    folder = tmp_path_factory.mktemp("places")
    for seed, name in ((1, "east"), (2, "west")):
        (folder / name).mkdir()
        for number, view in enumerate(World(seed=seed).render(3, (240, 180))):
            cv2.imwrite(str(folder / name / f"{number}.png"), cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR))
    return folder


def rows_of(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {row[0]: row[1:] for row in cells}


def test_originals_table(places: Path, tmp_path: Path) -> None:
    arguments = [str(places), "--ground-truth", str(places), "--work", str(tmp_path / "work"), "--words", "64"]
    arguments += ["--features", "RootSIFT", "AffNet+HardNet", "--max-keypoints", "200", "--verify", "6"]
    table = run("bench_originals_table.py", *arguments)
    rows = rows_of(table)
    assert rows["features"][:6] == ["protocol", "BoW", "BoW+SV", "BoW+SV+QE", "ASMK", "HQE+MA"]
    for label in ("RootSIFT", "AffNet+HardNet"):
        assert rows[label][0] == "groups"
        figures = [float(cell) for cell in rows[label][1:6]]
        assert all(0 < figure <= 100 for figure in figures)
        assert max(figures) == 100
    assert "64 words learnt on the photos themselves; 6 queries" in table


def test_pair_selection(places: Path, tmp_path: Path) -> None:
    arguments = [str(places), "--work", str(tmp_path / "work"), "--words", "64", "--top", "2", "--max-keypoints", "300"]
    rows = rows_of(run("bench_pair_selection.py", *arguments))
    assert rows["exhaustive"][:2] == ["15", "100.0 %"]
    assert rows["scenes known"][:2] == ["6", "40.0 %"]
    assert rows["top 2"][:2] == ["6", "40.0 %"]
    registered = {
        title: int(row[4].partition("/")[0]) for title, row in rows.items() if title in ("exhaustive", "top 2")
    }
    assert registered["top 2"] >= 3


def test_verification() -> None:
    rows = rows_of(
        run("bench_verification.py", "--images", "60", "--features", "300", "--words", "2000", "--repeats", "1")
    )
    _, *speed, inliers = rows["2000"]
    assert all(int(figure) > 0 for figure in speed)
    assert inliers == "60 / 1"
