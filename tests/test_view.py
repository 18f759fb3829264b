"""`hardnet-match view`: frames and matches drawn on photos, the image meant found by name or path."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.errors import OptionError
from hardnet_match.features import Features, Matches
from hardnet_match.frames import make_lafs
from hardnet_match.jobs.view import named
from hardnet_match.report.frames import PLAIN
from hardnet_match.store import FeatureWriter, MatchWriter

SIZE = (300, 200)


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["view", *map(str, arguments)])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    assert code == 0 or result.output.count("\n") == 1
    return result.output


def features(count: int = 6) -> Features:
    """Circles along the middle, the weakest first."""
    lafs = make_lafs(np.column_stack([np.linspace(40, 260, count), np.full(count, 100)]), 30)
    return Features(lafs, np.arange(1, count + 1, dtype=np.float32), np.eye(count, 128, dtype=np.float32), SIZE)


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Grey photos `photos/a.jpg`, `photos/in/b.jpg`, their features and matches; the working folder."""
    (tmp_path / "photos" / "in").mkdir(parents=True)
    for name in ("a.jpg", "in/b.jpg"):
        Image.new("RGB", SIZE, (120, 120, 120)).save(tmp_path / "photos" / name)
    with FeatureWriter(tmp_path / "features.h5", {"made": "here"}) as writer:
        writer.write("a.jpg", features())
        writer.write("in/b.jpg", features())
        made = writer_hash(tmp_path / "features.h5")
    pairs = np.column_stack([np.arange(6), np.arange(6)]).astype(np.int32)
    with MatchWriter(tmp_path / "matches.h5", {"features": made}) as matches:
        matches.write("a.jpg", "in/b.jpg", Matches(pairs, np.ones(6, np.float32)), 6)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def writer_hash(path: Path) -> str:
    from hardnet_match.store import FeatureReader

    with FeatureReader(path) as reader:
        return reader.settings_hash


def marks(picture: Path | str) -> np.ndarray:
    pixels = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB).astype(int)
    return np.asarray(pixels.max(axis=2) - pixels.min(axis=2) > 80)


def test_all_frames_where_they_are(there: Path) -> None:
    text = invoke("features.h5", "a.jpg", "-o", "out.png")
    assert text == "out.png: 6 of 6 keypoints of a.jpg\n"
    marked = marks("out.png")
    assert marked.shape == (200, 300)
    columns = np.flatnonzero(marked.any(axis=0))
    assert (columns.min(), columns.max()) == (pytest.approx(25, abs=1), pytest.approx(275, abs=1))
    rows = np.flatnonzero(marked.any(axis=1))
    assert (rows.min(), rows.max()) == (pytest.approx(85, abs=1), pytest.approx(115, abs=1))
    # upright frames: strokes go up from the centre, not down
    assert marked[86:100, 40].all()
    assert not marked[102:113, 40].any()


def test_the_strongest_and_by_score(there: Path) -> None:
    found = json.loads(invoke("features.h5", "a.jpg", "-o", "out.png", "--max", "2", "--no-orientation", "--json"))
    assert (found["found"], found["drawn"], found["images"], found["size"]) == (6, 2, ["a.jpg"], [300, 200])
    columns = np.flatnonzero(marks("out.png").any(axis=0))
    assert columns.min() > 190  # the two on the right are the strongest
    plain = cv2.cvtColor(cv2.imread("out.png"), cv2.COLOR_BGR2RGB).astype(int)
    assert np.abs(plain - PLAIN).max(axis=2).min() < 40
    invoke("features.h5", "a.jpg", "-o", "out.png", "--scores")
    coloured = cv2.cvtColor(cv2.imread("out.png"), cv2.COLOR_BGR2RGB).astype(int)
    weak, strong = (coloured[80:120, x - 16 : x + 17].reshape(-1, 3) for x in (40, 260))
    warmth = [part[(part.max(axis=1) - part.min(axis=1)).argmax()] for part in (weak, strong)]
    assert warmth[0][2] > warmth[0][1]  # purple
    assert warmth[1][1] > warmth[1][2]  # yellow


def test_a_small_picture_has_the_frames_at_its_scale(there: Path) -> None:
    invoke("features.h5", "a.jpg", "-o", "out.png", "--max-size", "150")
    marked = marks("out.png")
    assert marked.shape == (100, 150)
    rows = np.flatnonzero(marked.any(axis=1))
    assert (rows.min(), rows.max()) == (pytest.approx(42.5, abs=1.2), pytest.approx(57, abs=1.2))
    invoke("features.h5", "a.jpg", "-o", "out.jpg", "--max-size", "0")
    assert marks("out.jpg").shape == (200, 300)


@pytest.mark.parametrize(
    "image", ["in/b.jpg", "b.jpg", "photos/in/b.jpg", "./photos/in/b.jpg", os.path.join("photos", "in", "b.jpg")]
)
def test_an_image_by_its_name_or_its_path(there: Path, image: str) -> None:
    assert "of in/b.jpg" in invoke("features.h5", image, "-o", "out.png")


def test_the_photo_is_found_or_told(there: Path) -> None:
    (there / "else").mkdir()
    shutil.move("photos", "else/where")
    assert "--images FOLDER" in invoke("features.h5", "a.jpg", "-o", "out.png", code=2)
    invoke("features.h5", "a.jpg", "-o", "out.png", "--images", "else/where")
    invoke("features.h5", "else/where/a.jpg", "-o", "out.png")
    Image.new("RGB", (30, 20)).save("else/where/a.jpg")
    assert "30x20" in invoke("features.h5", "else/where/a.jpg", "-o", "out.png", code=2)


def test_a_turned_photo_is_shown_upright_with_its_frames(there: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # shown turned by 90 degrees clockwise
    Image.new("RGB", SIZE, (120, 120, 120)).save("photos/a.jpg", exif=exif)
    invoke("features.h5", "a.jpg", "-o", "out.png")
    marked = marks("out.png")
    assert marked.shape == (300, 200)
    rows = np.flatnonzero(marked.any(axis=1))
    assert (rows.min(), rows.max()) == (pytest.approx(25, abs=1), pytest.approx(275, abs=1))
    # what was up in the file is right in the picture
    assert marked[40, 101:114].all()
    assert not marked[40, 87:98].any()


def test_matches_of_two(there: Path) -> None:
    text = invoke("matches.h5", "a.jpg", "b.jpg", "-o", "out.png")
    assert text == "out.png: 6 of 6 matches of a.jpg and in/b.jpg\n"
    marked = marks("out.png")
    assert marked.shape[0] == 800
    assert marked[:, 1180:1230].any()  # lines cross from one photo to the other
    shutil.move("features.h5", "f.h5")
    assert "--features FILE" in invoke("matches.h5", "a.jpg", "b.jpg", "-o", "out.png", code=2)
    invoke("matches.h5", "a.jpg", "b.jpg", "-o", "out.png", "--features", "f.h5")
    with FeatureWriter("g.h5", {"made": "elsewhere"}) as writer:
        writer.write("a.jpg", features())
        writer.write("in/b.jpg", features())
    assert "other features" in invoke("matches.h5", "a.jpg", "b.jpg", "-o", "out.png", "--features", "g.h5", code=1)


def test_matches_that_a_database_verified(
    tmp_path: Path, rendered: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hardnet_match.sfm.inliers import inlier_matches

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i in range(2):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", tmp_path / "photos")
    for command in (
        "extract photos -o features.h5 --preset dog-rootsift --orientation upright --max-keypoints 300 --device cpu",
        "match features.h5 -o matches.h5 --method mnn --device cpu",
        "colmap features.h5 matches.h5 --images photos -o database.db --verify",
    ):
        result = CliRunner().invoke(app, [*command.split(), "-q"])
        assert result.exit_code == 0, result.output
    kept = len(inlier_matches("database.db", "view_000.jpg", "view_001.jpg"))
    found = json.loads(invoke("matches.h5", "view_000.jpg", "view_001.jpg", "-o", "all.png", "--json"))
    assert found["drawn"] == found["found"] > kept > 30
    pair = ("matches.h5", "view_000.jpg", "view_001.jpg", "--database", "database.db", "--json")
    assert json.loads(invoke(*pair, "-o", "kept.png"))["drawn"] == kept
    assert json.loads(invoke(*pair, "-o", "few.png", "--max", "9"))["drawn"] == 9
    assert marks("few.png").sum() < marks("kept.png").sum() < marks("all.png").sum()
    assert "cannot read" in invoke("matches.h5", *pair[1:3], "--database", "no.db", "-o", "x.png", code=1)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["features.h5", "z.jpg", "-o", "o.png"], 2, "has no image 'z.jpg'"),
        (["features.h5", "a.jpg", "-o", "o.picture"], 1, "extension"),
        (["features.h5", "a.jpg", "-o", "no/o.png"], 2, "does not exist"),
        (["matches.h5", "a.jpg", "-o", "o.png"], 1, "name two images"),
        (["nothing.h5", "a.jpg", "-o", "o.png"], 1, "no such file"),
        (["matches.h5", "a.jpg", "a.jpg", "-o", "o.png"], 2, "no matches of"),
        (["features.h5", "a.jpg", "b.jpg", "a.jpg", "-o", "o.png"], 2, "got 3"),
        (["features.h5", "a.jpg", "-o", "o.png", "--images", "photos/in"], 2, "no photo 'a.jpg'"),
    ],
)
def test_what_cannot_be_drawn(there: Path, arguments: list[str], code: int, words: str) -> None:
    assert words in invoke(*arguments, code=code)


names = st.lists(st.sampled_from(["a", "b", "c", "dir"]), min_size=1, max_size=3).map("/".join)


@given(st.lists(names, min_size=1, max_size=6, unique=True), names)
def test_a_name_found_fits_what_was_given(known: list[str], given_name: str) -> None:
    try:
        found = named(given_name, known, "f.h5")
    except OptionError:
        ends = [name for name in known if f"/{name}".endswith(f"/{given_name}")]
        assert given_name not in known
        assert len(ends) != 1
        return
    assert found in known
    assert f"/{found}".endswith(f"/{given_name}") or f"/{given_name}".endswith(f"/{found}")
    assert given_name not in known or found == given_name


def test_one_of_many_real_files(there: Path, rendered: dict[str, Any]) -> None:
    runner = CliRunner()
    command = ["extract", str(rendered["folder"]), "-o", "r.h5", "--preset", "dog-rootsift", "--max-keypoints", "50"]
    assert runner.invoke(app, [*command, "-q", "--device", "cpu"]).exit_code == 0
    text = invoke("r.h5", rendered["folder"] / "view_003.jpg", "-o", "out.png", "--max", "20")
    assert text == "out.png: 20 of 50 keypoints of view_003.jpg\n"
    assert marks("out.png").any()
