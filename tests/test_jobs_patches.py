"""The verb `patches` from end to end: sources in, one set out, its sheet, its resuming and its complaints."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from training_helpers import made_up_model, made_up_set
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.errors import DataError, OptionError
from hardnet_match.jobs.patches import make_patches
from hardnet_match.report.sheet import BACKGROUND, draw_sheet
from hardnet_match.training.patchset import PatchSet


def patches(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["patches", *map(str, arguments)])


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reconstruction leaves it: `sparse/0`, `database.db`; and the `photos`."""
    folder = tmp_path_factory.mktemp("scene")
    (folder / "out" / "sparse").mkdir(parents=True)
    made_up_model(folder / "out" / "sparse" / "0", folder / "photos")
    (folder / "out" / "sparse" / "0" / "database.db").rename(folder / "out" / "database.db")
    return folder


def test_a_reconstruction_becomes_a_set_and_a_sheet(scene: Path, tmp_path: Path) -> None:
    output, sheet = tmp_path / "set.h5", tmp_path / "sheet.png"
    result = patches(scene / "out", "--images", scene / "photos", "-o", output, "--sheet", sheet, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    found = PatchSet.load(output)
    assert told["kind"] == "colmap"
    assert (told["patches"], told["tracks"]) == (len(found), len(set(found.track.tolist())))
    assert (told["images"], told["scenes"], told["side"], told["margin"]) == (3, 1, 64, 2.0)
    assert not told["reused"]
    picture = cv2.imread(str(sheet))
    assert picture.shape[0] > 900
    assert picture[60:900].std() > 30
    before = output.stat().st_mtime_ns
    again = patches(scene / "out", "--images", scene / "photos", "-o", output)
    assert again.exit_code == 0
    assert "was there already" in again.stdout
    assert output.stat().st_mtime_ns == before
    other = patches(scene / "out", "--images", scene / "photos", "-o", output, "--max-views", "2")
    assert other.exit_code == 1
    assert "max_views: 6 -> 2" in other.stderr
    assert other.stderr.count("\n") == 1
    replaced = patches(scene / "out", "--images", scene / "photos", "-o", output, "--max-views", "2", "--overwrite")
    assert replaced.exit_code == 0
    assert len(PatchSet.load(output)) < len(found)
    assert sorted(os.listdir(tmp_path)) == ["set.h5", "sheet.png"]


def test_unreadable_photos_are_named_and_the_code_is_3(scene: Path, tmp_path: Path) -> None:
    for photo in (scene / "photos").iterdir():
        (tmp_path / photo.name).write_bytes(photo.read_bytes())
    (tmp_path / "torn.jpg").write_bytes(b"\xff\xd8\xff")
    result = patches(tmp_path, "-o", tmp_path / "set.h5", "--per-photo", "30", "-q")
    assert result.exit_code == 3, result.output
    assert "torn.jpg" in result.stdout
    assert 30 < len(PatchSet.load(tmp_path / "set.h5")) <= 90


def test_sets_are_joined_and_looked_at(tmp_path: Path) -> None:
    one, other = made_up_set(20), made_up_set(10, seed=1)
    one.save(tmp_path / "a.h5")
    other.save(tmp_path / "b.h5")
    result = patches(tmp_path / "a.h5", tmp_path / "b.h5", "-o", tmp_path / "both.h5")
    assert result.exit_code == 0, result.output
    assert (PatchSet.load(tmp_path / "both.h5").patches == PatchSet.joined([one, other]).patches).all()
    assert patches(tmp_path / "a.h5", tmp_path / "b.h5", "-o", tmp_path / "both.h5").exit_code == 1
    look = patches(tmp_path / "both.h5", "--sheet", tmp_path / "sheet.jpg", "--json")
    assert look.exit_code == 0, look.output
    assert json.loads(look.stdout)["tracks"] == 30
    assert not json.loads(look.stdout)["reused"]
    inside = CliRunner().invoke(app, ["inspect", str(tmp_path / "both.h5"), "--json"])
    assert inside.exit_code == 0, inside.output
    told = json.loads(inside.stdout)
    assert (told["kind"], told["total"], told["settings"]["margin"]) == ("patches", len(one) + len(other), 2.0)
    assert [item["tracks"] for item in told["items"]] == [10, 10, 5, 5]
    assert "scene 3: 5 (5 tracks in 5 images)" in CliRunner().invoke(app, ["inspect", str(tmp_path / "both.h5")]).stdout
    assert cv2.imread(str(tmp_path / "sheet.jpg")) is not None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nowhere", "-o", "s.h5"], 2, ["nowhere", "liberty"]),
        (["photos"], 2, ["--output"]),
        (["photos", "photos", "-o", "s.h5"], 2, ["only patch sets"]),
        (["photos", "-o", "s.h5", "--kind", "jpeg"], 2, ["jpeg", "hpatches"]),
        (["photos", "-o", "s.h5", "--split", "a"], 2, ["--split"]),
        (["photos", "-o", "nowhere/s.h5"], 2, ["nowhere"]),
        (["photos", "-o", "s.h5", "--sheet", "s.txt"], 2, ["s.txt", ".png"]),
        (["photos", "-o", "s.h5", "--kind", "brown"], 1, ["info.txt"]),
        (["photos", "-o", "s.h5", "--kind", "hpatches"], 1, ["no HPatches"]),
        (["photos", "-o", "s.h5", "--kind", "amos"], 1, ["no camera"]),
        (["photos", "-o", "s.h5", "--kind", "pt"], 1, ["no such file"]),
        (["photos", "-o", "s.h5", "--kind", "colmap", "--database", "text.h5"], 1, ["not a COLMAP database"]),
        (["photos", "-o", "text.h5"], 1, ["text.h5", "overwrite"]),
        (["text.h5", "--sheet", "s.png"], 1, ["not a patch set"]),
        (["empty", "-o", "s.h5"], 1, ["it holds nothing"]),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    arguments: list[str], code: int, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARDNET_MATCH_CACHE", str(tmp_path / "cache"))
    Path("photos").mkdir()
    cv2.imwrite("photos/a.png", np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8))
    Path("empty").mkdir()
    Path("text.h5").write_text("hello")
    result = patches(*arguments)
    assert result.exit_code == code, result.output
    for word in words:
        assert word in result.stderr
    assert result.stderr.count("\n") == 1
    assert sorted(os.listdir()) == ["empty", "photos", "text.h5"]
    assert Path("text.h5").read_text() == "hello"


@pytest.mark.slow
def test_ctrl_c_ends_it_and_the_next_run_goes_on(scene: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    source = (scene / "photos" / "v 0.png").read_bytes()
    for index in range(30):
        (photos / f"{index:02d}.png").write_bytes(source)
    command = [sys.executable, "-m", "hardnet_match", "patches", str(photos), "-o", str(tmp_path / "set.h5")]
    process = subprocess.Popen([*command, "--per-photo", "40"], stderr=subprocess.PIPE, text=True)
    record, deadline = tmp_path / "set.h5.pieces" / "log", time.monotonic() + 90
    while time.monotonic() < deadline and (not record.exists() or record.read_text().count("\n") < 4):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "set.h5").exists()
    done = record.read_text().splitlines()
    assert 3 <= len(done) - 1 < 30
    for extra in photos.glob("[1-5]*.png"):
        extra.unlink()  # another folder now: nothing of the first run may be used
    summary = make_patches(photos, tmp_path / "set.h5", per_photo=40, quiet=True)
    assert summary.images == 10
    assert not record.exists()


# the sheet -------------------------------------------------------------------------------------------


def test_a_row_of_the_sheet_is_a_track() -> None:
    track = np.repeat(np.arange(4), 3).astype(np.int64)
    grey = (40 + 60 * track).astype(np.uint8)
    shown = np.broadcast_to(grey[:, None, None], (12, 64, 64))
    sheet = draw_sheet(shown, track, np.zeros(12, np.int32), rows=4, views=3, columns=1, cell=32)
    seen = []
    for row in range(40, sheet.shape[0] - 40):
        line = sheet[row, 18 : 18 + 3 * 32 + 6, 0]
        values = set(line.tolist()) - {BACKGROUND[0]}
        assert len(values) <= 1, "one row of cells shows one track"
        seen += [value for value in values if value not in seen]
    assert sorted(seen) == [40, 100, 160, 220]


def test_single_observations_fill_a_grid_and_regions_are_outlined() -> None:
    found = made_up_set(200)
    single = found.select(found.scene == 1)
    sheet = draw_sheet(single.patches, single.track, single.scene, rows=3, views=4, columns=2, cell=40, margin=2.0)
    assert sheet.shape[1] == 2 * 18 + 8 * 40 + 7 * 6
    blue = (sheet == (120, 205, 255)).all(axis=2)
    assert blue.sum() > 24 * 8
    plain = draw_sheet(single.patches, single.track, single.scene, rows=3, views=4, columns=2, cell=40)
    assert not (plain == (120, 205, 255)).all(axis=2).any()
    again = draw_sheet(single.patches, single.track, single.scene, rows=3, views=4, columns=2, cell=40)
    assert (plain == again).all()
    other = draw_sheet(single.patches, single.track, single.scene, rows=3, views=4, columns=2, cell=40, seed=1)
    assert (plain != other).any()


def test_scenes_share_the_sheet() -> None:
    scene = np.repeat([0, 1, 2], [200, 4, 2]).astype(np.int32)
    track = np.arange(len(scene), dtype=np.int64)
    shown = np.broadcast_to((50 + 80 * scene).astype(np.uint8)[:, None, None], (len(scene), 32, 32))
    sheet = draw_sheet(shown, track, scene, rows=3, views=4, columns=1, cell=32)
    counts = [int((sheet == 50 + 80 * k).all(axis=2).sum()) // 32**2 for k in range(3)]
    assert counts == [6, 4, 2]


def test_an_impossible_sheet_is_refused() -> None:
    found = made_up_set(5)
    with pytest.raises(OptionError, match="at least one row"):
        draw_sheet(found.patches, found.track, found.scene, rows=0)
    empty = found.select(np.zeros(len(found), bool))
    with pytest.raises(DataError, match="no patch"):
        draw_sheet(empty.patches, empty.track, empty.scene)
