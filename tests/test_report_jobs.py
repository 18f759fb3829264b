"""The pages that runs leave: what a reconstruction, a failure and a matching show; photos stand upright on them."""

from __future__ import annotations

import base64
import json
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser_helpers import console
from page_helpers import Seen
from PIL import Image
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.errors import ImageError, ReconstructionError
from hardnet_match.images import read_image, read_thumbnail
from hardnet_match.jobs import reconstruct as job
from hardnet_match.jobs.photos import photo_folder
from hardnet_match.jobs.picture import draw_pair
from hardnet_match.sfm.pair_counts import pair_counts
from hardnet_match.sfm.scene import observing_keypoints, read_scene

FAST = ["--preset", "dog-rootsift", "--orientation", "upright", "--max-keypoints", "400", "--device", "cpu"]


def invoke(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, rendered: dict[str, Any]) -> Path:
    """Four photos reconstructed, one that shows nothing they show, one that is cut off; for reading."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "photos").mkdir()
    for i in range(4):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", folder / "photos")
    rng = np.random.default_rng(0)
    other = cv2.resize(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8), (480, 360), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(other).save(folder / "photos" / "a <b>stranger.jpg")
    whole = (folder / "photos" / "view_000.jpg").read_bytes()
    (folder / "photos" / "half.jpg").write_bytes(whole[: len(whole) // 2])
    text = invoke("reconstruct", str(folder / "photos"), "-o", str(folder / "out"), "-q", *FAST, code=3)
    assert f"page to look at: {folder}/out/report.html" in text
    return folder


def shown(page: Path) -> Seen:
    return Seen(page.read_text(encoding="utf-8"))


def test_the_page_tells_what_the_run_reached(run: Path) -> None:
    page = run / "out" / "report.html"
    report = json.loads((run / "out" / "report.json").read_text())
    seen = shown(page)
    assert not seen.open
    text = " ".join(seen.text.split())
    assert "4 of 6 photos are in the model; 2 are not." in text
    assert f"{report['points']:,} points" in text or f"points{report['points']:,}" in text
    assert "1 photo is not in the model." in text
    assert re.search(r"a <b>stranger.jpg: it agrees with no photo", text)
    assert "1 photo could not be used." in text
    assert re.search(r"half.jpg: .*cut off|half.jpg: .*truncated|half.jpg: .*incomplete|half.jpg", text)
    for stage in ("extract", "match", "database", "map"):
        assert stage in text
    alternatives = [str(values.get("alt")) for tag, values in seen.elements if tag == "img"]
    assert sum("side by side" in text for text in alternatives) == 3
    assert sum("ellipses of its keypoints" in text for text in alternatives) == 3
    assert page.stat().st_size < 2_000_000


def test_it_runs_in_a_browser(run: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    shutil.copy(run / "out" / "report.html", page)
    assert console(page) == []


def test_the_page_stays_when_all_is_reused_and_comes_back_when_lost(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(run / "out", out)
    page = out / "report.html"
    page.write_text("as it was")
    invoke("reconstruct", str(run / "photos"), "-o", str(out), "-q", *FAST, code=3)
    assert page.read_text() == "as it was"
    page.unlink()
    invoke("reconstruct", str(run / "photos"), "-o", str(out), "-q", *FAST, code=3)
    assert "reused" in shown(page).text


def test_a_page_that_cannot_be_written_does_not_undo_the_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> None:
        raise ImageError("no room")

    shutil.copytree(run / "out", tmp_path / "out")
    (tmp_path / "out" / "report.html").unlink()
    monkeypatch.setattr(job, "write_reconstruct_page", broken)
    invoke("reconstruct", str(run / "photos"), "-o", str(tmp_path / "out"), "-q", *FAST, code=3)
    assert not (tmp_path / "out" / "report.html").exists()


def test_where_nothing_could_be_reconstructed_the_page_says_why(tmp_path: Path) -> None:
    from hardnet_match.extractor import FeatureExtractor
    from hardnet_match.jobs import reconstruct_folder

    (tmp_path / "photos").mkdir()
    for i in range(3):
        rng = np.random.default_rng(i)
        small = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC)).save(
            tmp_path / "photos" / f"{i}.jpg"
        )
    extractor = FeatureExtractor.from_preset("dog-rootsift", max_keypoints=200, device="cpu")
    with pytest.raises(ReconstructionError):
        reconstruct_folder(tmp_path / "photos", tmp_path / "out", extractor, device="cpu", quiet=True)
    seen = shown(tmp_path / "out" / "report.html")
    for text in ("Nothing could be reconstructed", "There is no model to show.", "1.jpg: it agrees with no photo"):
        assert text in seen.text


# What it is made of ---------------------------------------------------------------------------------------------------


def test_the_scene_is_the_models(run: Path) -> None:
    from hardnet_match.sfm import compare_cameras

    scene = read_scene(run / "out" / "sparse" / "0")
    report = json.loads((run / "out" / "report.json").read_text())
    assert scene.names == [f"view_00{i}.jpg" for i in range(4)]
    assert len(scene.points) == report["points"]
    assert scene.lengths.mean() == pytest.approx(report["track_length"])
    assert scene.errors.mean() == pytest.approx(report["reprojection_error"], rel=0.3)
    assert scene.colours.std() > 10
    assert scene.sizes.tolist() == [[480, 360]] * 4
    poses = {
        name: (turn, -turn @ centre)
        for name, turn, centre in zip(scene.names, scene.rotations, scene.centres, strict=True)
    }
    assert compare_cameras(run / "out" / "sparse" / "0", poses).summary()["rotation_max_degrees"] < 1e-6
    used = observing_keypoints(run / "out" / "sparse" / "0", ["view_001.jpg", "half.jpg"])
    assert list(used) == ["view_001.jpg"]
    assert len(used["view_001.jpg"]) == scene.seen[1]
    with pytest.raises(ReconstructionError):
        read_scene(run / "nothing")


def test_pairs_are_counted_as_they_are(run: Path) -> None:
    from hardnet_match.sfm.inliers import verified_pairs

    counts = pair_counts(run / "out" / "database.db")
    assert counts.names == ["a <b>stranger.jpg", *(f"view_00{i}.jpg" for i in range(4))]
    assert 6 <= len(counts.pairs) <= 10  # those without a single match are not in the database
    found = {
        (counts.names[i], counts.names[j]): int(count)
        for (i, j), count in zip(counts.pairs, counts.inliers, strict=True)
        if count
    }
    assert found == {(first, second): count for first, second, count in verified_pairs(run / "out" / "database.db")}
    assert len(found) == 6  # none with the stranger
    assert sum(counts.kinds.values()) == 6
    # the summary counts only pairs that have inliers, too
    assert json.loads((run / "out" / "report.json").read_text())["verified_pairs"] == 6
    with pytest.raises(ReconstructionError):
        pair_counts(run / "photos")


# Photos that a camera was turned for ----------------------------------------------------------------------------------


def turned(source: Path, target: Path, tag: int) -> None:
    """The same picture as a camera held otherwise stores it, with the tag that tells how to show it."""
    back = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}[tag]
    with Image.open(source) as image:
        exif = image.getexif()
        exif[274] = tag
        image.transpose(back).save(target, exif=exif, quality=97)


@pytest.mark.parametrize("tag", [3, 6, 8])
def test_photos_on_pages_are_upright_and_their_frames_with_them(
    tag: int, tmp_path: Path, rendered: dict[str, Any]
) -> None:
    for name in ("plain", "turned"):
        (tmp_path / name).mkdir()
    for i in range(2):
        source = rendered["folder"] / f"view_00{i}.jpg"
        with Image.open(source) as image:
            image.save(tmp_path / "plain" / f"{i}.jpg", quality=97)
        turned(source, tmp_path / "turned" / f"{i}.jpg", tag)
    small = [read_thumbnail(tmp_path / name / "0.jpg", 120).astype(float) for name in ("plain", "turned")]
    assert small[0].shape == small[1].shape == (90, 120, 3)
    assert np.abs(small[0] - small[1]).mean() < 12
    for name in ("plain", "turned"):
        invoke("extract", str(tmp_path / name), "-o", str(tmp_path / f"{name}.h5"), "-q", *FAST[:2], *FAST[4:])
        invoke("match", str(tmp_path / f"{name}.h5"), "-o", str(tmp_path / f"{name}-m.h5"), "-q", "--device", "cpu")
    pair = ("0.jpg", "1.jpg")
    drawn = [
        draw_pair(tmp_path / f"{name}.h5", tmp_path / f"{name}-m.h5", tmp_path / name, pair).pixels.astype(float)
        for name in ("plain", "turned")
    ]
    assert drawn[0].shape == drawn[1].shape
    # the lines of the matches lie alike: what is coloured in one picture is so, nearly everywhere, in the other
    colour = [cv2.blur(picture.max(axis=2) - picture.min(axis=2), (25, 25)) for picture in drawn]
    assert np.corrcoef(colour[0].ravel(), colour[1].ravel())[0, 1] > 0.8


def test_the_box_of_a_search_is_where_it_was_in_a_turned_photo(tmp_path: Path, rendered: dict[str, Any]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(4):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", photos)
    turned(rendered["folder"] / "view_000.jpg", tmp_path / "query.jpg", 6)
    invoke("extract", str(photos), "-o", str(tmp_path / "f.h5"), "-q", *FAST[:2], *FAST[4:])
    invoke("index", str(tmp_path / "f.h5"), "-o", str(tmp_path / "i"), "--images", str(photos), "--words", "64", "-q")
    # of the file of 360 x 480 pixels: its top left quarter, which is the top right one of the picture
    box = ["--box", "0", "0", "180", "240"]
    invoke("search", str(tmp_path / "i"), str(tmp_path / "query.jpg"), *box, "--html", str(tmp_path / "p.html"), "-q")
    source = next(str(v["src"]) for tag, v in shown(tmp_path / "p.html").elements if tag == "img")
    asked = cv2.imdecode(np.frombuffer(base64.b64decode(source.partition(",")[2]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert asked.shape == (360, 480)
    upright = read_image(tmp_path / "query.jpg", apply_orientation=True).pixels.astype(float)
    lit = np.array(
        [
            [asked[y : y + 160, x : x + 220].mean() / upright[y : y + 160, x : x + 220].mean() for x in (10, 250)]
            for y in (10, 190)
        ]
    )
    kept = np.unravel_index(lit.argmax(), lit.shape)
    stored = read_image(tmp_path / "query.jpg").pixels[10:230, 10:170]
    quarter = upright[kept[0] * 180 + 10 : kept[0] * 180 + 170, kept[1] * 240 + 10 : kept[1] * 240 + 230]
    assert abs(float(stored.mean()) - float(quarter.mean())) < 2
    assert sorted(lit.ravel())[-1] > 0.9
    assert sorted(lit.ravel())[-2] < 0.6


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "1", "LA"])
def test_thumbnails_of_every_kind(mode: str, tmp_path: Path) -> None:
    picture = Image.fromarray(np.tile(np.linspace(0, 255, 300).astype(np.uint8), (200, 1)))
    if mode == "I;16":
        picture = Image.fromarray(np.tile(np.linspace(0, 65535, 300).astype(np.uint16), (200, 1)))
    else:
        picture = picture.convert("RGB").convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    small = read_thumbnail(path, 60)
    assert small.shape == (40, 60, 3)
    assert small.dtype == np.uint8
    assert small[:, 50:].mean() > small[:, :10].mean() + 100
    assert read_thumbnail(path, 5000).shape == (200, 300, 3)


def test_thumbnails_of_what_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    for name in ("a.jpg", "b.jpg"):
        with pytest.raises(ImageError, match=name):
            read_thumbnail(tmp_path / name, 60)


# Matching -------------------------------------------------------------------------------------------------------------


def test_match_leaves_a_page(run: Path, tmp_path: Path) -> None:
    features = str(run / "out" / "features.h5")
    page = tmp_path / "m.html"
    options = ["--html", str(page), "--images", str(run / "photos"), "--device", "cpu", "-q"]
    text = invoke("match", features, "-o", str(tmp_path / "m.h5"), *options)
    assert f"page to look at: {page}" in text
    seen = shown(page)
    alternatives = [str(values.get("alt")) for tag, values in seen.elements if tag == "img"]
    assert sum("side by side" in text for text in alternatives) == 3
    told = re.search(r"(\d+) of 10 pairs have matches", seen.text)
    assert told is not None
    assert int(told[1]) >= 6  # the four photos of one place, by twos
    assert "a <b>stranger.jpg" in seen.text
    assert console(page) == []
    # a second run matches nothing and shows the same pairs
    invoke("match", features, "-o", str(tmp_path / "m.h5"), *options)
    assert told[0] in shown(page).text


def test_match_without_photos_and_with_wrong_ones(run: Path, tmp_path: Path) -> None:
    shutil.copy(run / "out" / "features.h5", tmp_path / "f.h5")
    command = ["match", str(tmp_path / "f.h5"), "-o", str(tmp_path / "m.h5"), "--device", "cpu", "-q"]
    invoke(*command, "--html", str(tmp_path / "m.html"))
    assert "The photos were not at hand" in shown(tmp_path / "m.html").text
    (tmp_path / "empty").mkdir()
    assert "no photo" in invoke(
        *command, "--html", str(tmp_path / "m.html"), "--images", str(tmp_path / "empty"), code=2
    )
    assert "give both" in invoke(*command, "--images", str(run / "photos"), code=2)
    assert "does not exist" in invoke(*command, "--html", str(tmp_path / "no" / "m.html"), code=2)


def test_photos_are_found_around_the_features_file(run: Path, tmp_path: Path) -> None:
    names = ["view_000.jpg", "view_001.jpg"]
    assert photo_folder(run / "f.h5", names) == run / "photos"
    assert photo_folder(run / "photos" / "f.h5", names) == run / "photos"
    assert photo_folder(run / "out" / "features.h5", names) == run / "photos"  # side by side
    assert photo_folder(run / "photos" / "out" / "f.h5", names, run / "photos") == run / "photos"
    # a folder deeper, since what lies beside the folder is looked through too, and other tests' photos lie there
    (tmp_path / "alone").mkdir()
    assert photo_folder(tmp_path / "alone" / "f.h5", names) is None
    assert photo_folder(run / "f.h5", []) is None
