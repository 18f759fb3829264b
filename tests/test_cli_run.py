"""The real command line on the rendered world: every verb, what it leaves, its JSON and its exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hardnet_match.cli import app
from hardnet_match.sfm import compare_cameras
from hardnet_match.store import FeatureReader, MatchReader

# Bundled weights and a budget that keeps a test short; upright as the world's pictures are.
FAST = ["--preset", "dog-rootsift", "--orientation", "upright", "--max-keypoints", "300", "--device", "cpu"]
Invoke = Callable[..., Result]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def photos(there: Path, rendered: dict[str, Any]) -> Path:
    folder = there / "photos"
    folder.mkdir()
    for i in range(3):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", folder / f"view {i}.jpg")
    return folder


def invoke(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def summary_of(*arguments: str, code: int = 0) -> dict[str, Any]:
    """Standard output is one JSON object and nothing else."""
    found = json.loads(invoke(*arguments, "--json", code=code).stdout)
    assert isinstance(found, dict)
    return found


def test_step_by_step(photos: Path) -> None:
    extracted = summary_of("extract", "photos", "-o", "f.h5", *FAST)
    assert (extracted["images"], extracted["extracted"], extracted["skipped"]) == (3, 3, {})
    assert extracted["keypoints"] == 900
    paired = summary_of("pairs", "photos", "-o", "p.txt", "--mode", "sequential", "--overlap", "1")
    assert (paired["pairs"], Path("p.txt").read_text()) == (2, "view 0.jpg\tview 1.jpg\nview 1.jpg\tview 2.jpg\n")
    matched = summary_of("match", "f.h5", "-o", "m.h5", "--pairs", "p.txt", "--device", "cpu")
    assert (matched["pairs"], matched["matched"]) == (2, 2)
    written = summary_of("colmap", "f.h5", "m.h5", "--images", "photos", "-o", "d.db", "--verify")
    assert (written["images"], written["pairs"], written["verified_pairs"]) == (3, 2, 2)
    assert 40 < written["inliers"] <= written["matches"] == matched["matches"]

    features = summary_of("inspect", "f.h5")
    assert (features["kind"], features["total"], len(features["items"])) == ("features", 900, 3)
    assert features["settings"]["max_keypoints"] == 300
    matches = summary_of("inspect", "m.h5")
    assert (matches["kind"], matches["total"]) == ("matches", matched["matches"])
    words = invoke("inspect", "f.h5").stdout
    assert "3 images, 900 keypoints" in words
    assert "view 2.jpg: 300 (480 x 360)" in words

    # Without JSON one reads the same in words; nothing is done twice.
    assert "0 images extracted" in invoke("extract", "photos", "-o", "f.h5", *FAST).stdout
    assert "0 pairs matched" in invoke("match", "f.h5", "-o", "m.h5", "--pairs", "p.txt", "--device", "cpu").stdout
    invoke("colmap", "f.h5", "m.h5", "--images", "photos", "-o", "d.db", code=2)
    invoke("colmap", "f.h5", "m.h5", "--images", "photos", "-o", "d.db", "--overwrite")


def test_unreadable_images_are_3_and_named(photos: Path) -> None:
    whole = (photos / "view 0.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[:5000])
    (photos / "empty.png").touch()
    result = invoke("extract", "photos", "-o", "f.h5", *FAST, code=3)
    for name in ("cut.jpg", "empty.png"):
        assert name in result.stdout
        assert name in result.stderr
    with FeatureReader("f.h5") as reader:
        assert reader.names() == ["view 0.jpg", "view 1.jpg", "view 2.jpg"]
    again = summary_of("extract", "photos", "-o", "f.h5", *FAST, "--quiet", code=3)
    assert again["skipped"].keys() == {"cut.jpg", "empty.png"}


def test_nothing_readable(there: Path) -> None:
    (there / "photos").mkdir()
    assert "no images" in invoke("extract", "photos", "-o", "f.h5", *FAST, code=2).stderr
    assert "two images" in invoke("reconstruct", "photos", "-o", "out", *FAST, code=2).stderr
    assert not (there / "out").exists()


def test_other_settings_and_other_features(photos: Path) -> None:
    invoke("extract", "photos", "-o", "f.h5", *FAST)
    refused = invoke("extract", "photos", "-o", "f.h5", *FAST[:-4], "--max-keypoints", "200", code=1)
    assert "max_keypoints: 300 -> 200" in refused.stderr
    invoke("extract", "photos", "-o", "g.h5", *FAST[:-4], "--max-keypoints", "200", "--device", "cpu")
    invoke("match", "g.h5", "-o", "m.h5", "--device", "cpu")
    assert "other features" in invoke("colmap", "f.h5", "m.h5", "--images", "photos", "-o", "d.db", code=1).stderr
    assert not Path("d.db").exists()
    (photos / "view 1.jpg").unlink()
    gone = invoke("colmap", "g.h5", "m.h5", "--images", "photos", "-o", "d.db", code=1)
    assert "view 1.jpg" in gone.stderr
    assert sorted(path.name for path in Path().iterdir()) == ["f.h5", "g.h5", "m.h5", "photos"]


def test_pairs_files_with_junk(photos: Path) -> None:
    invoke("extract", "photos", "-o", "f.h5", *FAST)
    Path("junk.txt").write_text("view0.jpg view1.jpg and more\n")
    assert "junk.txt, line 1" in invoke("match", "f.h5", "-o", "m.h5", "--pairs", "junk.txt", code=1).stderr
    Path("strangers.txt").write_text("a.jpg b.jpg\n")
    assert "no pair to match" in invoke("match", "f.h5", "-o", "m.h5", "--pairs", "strangers.txt", code=1).stderr
    Path("mixed.txt").write_text("view 0.jpg\tb.jpg\nview 0.jpg\tview 1.jpg\n")
    assert summary_of("match", "f.h5", "-o", "m.h5", "--pairs", "mixed.txt", code=3)["skipped"].keys() == {"b.jpg"}
    assert "neither" in invoke("reconstruct", "photos", "-o", "out", "--pairs", "none.txt", *FAST, code=2).stderr
    assert "GPS" in invoke("pairs", "photos", "-o", "p.txt", "--mode", "spatial", code=2).stderr


def test_weights_that_will_not_do(photos: Path, there: Path) -> None:
    (there / "junk.pth").write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")
    for weights in ("none.safetensors", "junk.pth", "hardnet+++"):
        command = ["extract", "photos", "-o", "f.h5", "--preset", "dog-hardnet", "--weights", weights]
        assert weights in invoke(*command, "--orientation", "upright", code=1).stderr
    assert sorted(path.name for path in there.iterdir()) == ["junk.pth", "photos"]


def test_photos_that_do_not_belong_together(there: Path) -> None:
    (there / "photos").mkdir()
    from PIL import Image

    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (30, 40), np.uint8)
        Image.fromarray(noise).resize((320, 240), Image.Resampling.BICUBIC).save(there / "photos" / f"{i}.png")
    result = invoke("reconstruct", "photos", "-o", "out", *FAST, code=1)
    assert "nothing could be reconstructed" in result.stderr
    report = json.loads((there / "out" / "report.json").read_text())
    assert (report["registered"], report["models"]) == (0, [])


def test_ctrl_c_is_130_and_leaves_whole_files(photos: Path, rendered: dict[str, Any]) -> None:
    for i in range(300):
        os.link(photos / "view 0.jpg", photos / f"more{i:03d}.jpg")
    command = [sys.executable, "-m", "hardnet_match", "extract", "photos", "-o", "f.h5", *FAST]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        waited = time.monotonic()
        while not done_so_far() and process.poll() is None and time.monotonic() - waited < 120:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        pressed = time.monotonic()
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert time.monotonic() - pressed < 20
    assert output == ""
    assert "interrupted" in errors
    assert "Traceback" not in errors
    count = done_so_far()
    assert 0 < count < 303
    assert not list(Path().glob("f.h5.*"))
    # The same command goes on: with few images left, to save time.
    for i in range(count + 3, 300):
        (photos / f"more{i:03d}.jpg").unlink()
    summary = summary_of("extract", "photos", "-o", "f.h5", *FAST)
    assert summary["reused"] == count
    with FeatureReader("f.h5") as reader:
        assert all(len(reader.read(name)) == 300 for name in reader.names()[:: max(1, count // 10)])


@pytest.mark.skipif(os.name == "nt", reason="pseudo-terminals are Unix's")
@pytest.mark.parametrize("flags", [[], ["--quiet"]])
def test_progress_is_for_terminals(photos: Path, flags: list[str]) -> None:
    import fcntl
    import pty
    import struct
    import termios

    def shown(stderr: int) -> None:
        command = [sys.executable, "-m", "hardnet_match", "extract", "photos", "-o", "f.h5", *FAST, *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=120, check=True)
        assert "3 images extracted" in done.stdout
        Path("f.h5").unlink()

    main, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    shown(terminal)
    os.close(terminal)
    text = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while chunk := os.read(main, 4096):
            text += chunk
    os.close(main)
    # Count, remaining time and rate, unless asked to be quiet.
    assert bool(re.search(rb"3/3 \[\d+:\d+<\d+:\d+, +[\d.]+ *(image/s|s/ image)", text)) == (not flags), text
    with open("log.txt", "w") as log:
        shown(log.fileno())
    assert Path("log.txt").read_text() == ""


def done_so_far() -> int:
    if not Path("f.h5").is_file():
        return 0
    with FeatureReader("f.h5") as reader:
        return len(reader.names())


@pytest.mark.slow
def test_reconstruct_reaches_the_known_cameras(there: Path, rendered: dict[str, Any]) -> None:
    preset = ["--max-keypoints", "1000", "--device", "cpu"]
    shutil.copytree(rendered["folder"], there / "photos")
    (there / "photos" / "broken.jpg").write_bytes(b"no picture")
    options = [*preset, "--camera-mode", "single"]
    summary = summary_of("reconstruct", "photos", "-o", "out", *options, code=3)
    assert summary["skipped"].keys() == {"broken.jpg"}
    assert (summary["images"], summary["registered"], summary["unregistered"]) == (9, 8, [])
    assert summary["points"] > 200
    assert summary["reprojection_error"] < 1.0
    left = {"database.db", "features.h5", "matches.h5", "matches.jpg", "pairs.txt", "report.json", "sparse"}
    assert left <= {path.name for path in (there / "out").iterdir()}
    truth = {name: (pose["R"], pose["t"]) for name, pose in rendered["images"].items()}
    errors = compare_cameras(there / "out" / "sparse" / "0", truth).summary()
    assert errors["missing"] == 0
    assert errors["rotation_max_degrees"] < 0.5
    assert errors["position_max"] < 0.02

    again = summary_of("reconstruct", "photos", "-o", "out", *options, code=3)
    assert {"extract", "match", "database", "map"} <= set(again["reused"])
    assert again["points"] == summary["points"]
    # Other cameras: features and matches stay, what follows is done again.
    summary = summary_of("reconstruct", "photos", "-o", "out", *preset, "--mapper", "global", code=3)
    assert set(summary["reused"]) == {"extract", "match"}
    assert summary["registered"] == 8
    with MatchReader(there / "out" / "matches.h5") as reader:
        assert len(reader.pairs()) == 28


@pytest.mark.slow
def test_demo_tells_how_near_it_came(there: Path) -> None:
    small = ["--views", "6", "--size", "400x300", "--max-keypoints", "800", "--device", "cpu"]
    summary = summary_of("demo", *small)
    assert summary["reconstruction"]["registered"] == 6
    assert summary["rotation_error_max"] < 1.0
    assert summary["position_error_max"] < 5.0
    assert (there / "demo" / "matches.jpg").stat().st_size > 10_000
    again = invoke("demo", *small)
    assert "6 of 6" in again.stdout
    assert "reprojection error" in again.stdout
    other = summary_of("demo", *small, "--seed", "5")
    assert "extract" not in other["reconstruction"]["reused"]
