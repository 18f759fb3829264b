"""The pieces of the pages: histograms count right, the matrix shows what it is given, frames land where they belong."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_helpers import Seen, ring, small_page, space

from hardnet_match.errors import DataError
from hardnet_match.frames import make_lafs
from hardnet_match.report.bars import histogram, in_words, time_bars
from hardnet_match.report.frames import (
    ELLIPSE_PART,
    PLAIN,
    colours_of_scores,
    colours_of_use,
    draw_frames,
    drawable,
)
from hardnet_match.report.matching import MatchingPage, matching_page
from hardnet_match.report.matrix import MOST_CELLS, match_matrix
from hardnet_match.report.page import data, page, shortened
from hardnet_match.report.parts import MOST_NAMED, Warn, table, warnings_list
from hardnet_match.report.photos import MOST_LINES, Photo, photo_table
from hardnet_match.report.reconstruction import reconstruction_page
from hardnet_match.report.space import FAR, MOST_CAMERAS, MOST_POINTS, Space, space_view

HOSTILE = "<script>alert('x')</script>&\"'.jpg"


def told(html: str) -> dict[str, object]:
    """The data of a view."""
    found = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert found
    value = json.loads(found[1])
    assert isinstance(value, dict)
    return value


def unpacked(text: object, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(str(text)), dtype)


# Pages ----------------------------------------------------------------------------------------------------------------


def test_a_page_runs_its_own_scripts_and_no_others() -> None:
    html = page("t", "<p>b</p>", scripts=["let a = 1;", "let b = 2;"])
    seen = Seen(html)
    [policy] = [str(values["content"]) for tag, values in seen.elements if values.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    assert re.findall(r"'sha256-[\w+/=]{44}'", policy)[1:]
    assert "unsafe" not in policy.partition("script-src")[2]
    assert "script-src" not in page("t", "<p>b</p>")


@settings(max_examples=40)
@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_data_of_any_text_is_one_element(value: object) -> None:
    html = data(value)
    assert html.count("<") == 2
    assert json.loads(html[html.index(">") + 1 : html.rindex("<")]) == value


def test_hostile_names_are_text_everywhere() -> None:
    html = reconstruction_page(small_page([f"{HOSTILE}{i}" for i in range(4)], title=HOSTILE))
    seen = Seen(html)
    assert not seen.open
    # two scripts of the page and two blocks of data: no name became an element
    assert [values.get("type") for tag, values in seen.elements if tag == "script"].count("application/json") == 2
    assert sum(tag == "script" for tag, _ in seen.elements) == 4
    assert HOSTILE in seen.text
    assert "http" not in re.sub(r"base64,[^\"]*|http-equiv|\"counts\":\"[^\"]*|\"\w+\":\"[\w+/=]{40,}", "", html)


def test_shortened_names_keep_both_ends() -> None:
    assert shortened("a" * 80) == "a" * 80
    long = shortened("begin" + "x" * 200 + "end.jpg")
    assert len(long) == 80
    assert long.startswith("begin")
    assert long.endswith("end.jpg")


# Charts ---------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=200)
    | st.lists(st.integers(0, 10_000).map(float), min_size=1, max_size=200),
    st.booleans(),
)
def test_a_histogram_counts_every_value_once(values: list[float], whole: bool) -> None:
    given_values = np.floor(values) if whole else np.array(values)
    html = histogram(given_values, title="t", x_name="x", whole=whole)
    counts = [int(text.replace(",", "")) for text in re.findall(r"<title>[^<]*: ([\d,]+)</title>", html)]
    assert sum(counts) == len(values)
    assert len(counts) <= 30
    assert not Seen(html).open
    assert "nan" not in html


def test_a_histogram_of_whole_numbers_has_a_bar_each() -> None:
    html = histogram(np.array([2, 2, 3, 5]), title="tracks", x_name="length", whole=True)
    assert re.findall(r"<title>(.*?)</title>", html) == ["2: 2", "3: 1", "4: 0", "5: 1"]
    assert "mean 3" in html
    assert "tracks: mean 3, median 2.5, largest 5" in html
    assert "nothing to count" in histogram(np.zeros(0), title="t", x_name="x")
    assert "<svg" in histogram(np.zeros(5), title="t", x_name="x")


def test_a_few_large_values_do_not_flatten_the_rest() -> None:
    values = np.concatenate([np.linspace(0, 1, 1000), [50.0, 70.0]])
    titles = re.findall(r"<title>(.*?)</title>", histogram(values, title="t", x_name="x"))
    assert titles[-1] == "over 1: 2"
    assert len(titles) > 10


def test_times() -> None:
    html = time_bars({"extract": 30.0, "<map>": 60.0}, reused=["match", "extract"])
    assert "width:50.0%" in html
    assert "30.0 s (reused)" in html
    assert "&lt;map&gt;" in html
    assert re.search("match</span><span></span><span>reused", html)
    assert [in_words(value) for value in (0.04, 89, 125, 6000, 36000)] == [
        "0.0 s", "89.0 s", "2 min", "1 h 40 min", "10 h 00 min",
    ]  # fmt: skip


# Matrix ---------------------------------------------------------------------------------------------------------------


def test_the_matrix_has_every_count_both_ways() -> None:
    html = match_matrix(["a", "b", HOSTILE], np.array([[0, 1], [2, 1]]), np.array([70, 30]), "inliers")
    found = told(html)
    counts = unpacked(found["counts"], "<u2").reshape(3, 3)
    np.testing.assert_array_equal(counts, [[0, 70, 0], [70, 0, 30], [0, 30, 0]])
    assert found["labels"] == ["a", "b", HOSTILE]
    assert "2 of 3 pairs have inliers" in html
    coded = re.search(r"image/png;base64,([^\"]*)", html)
    assert coded
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(coded[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    alpha = pixels[..., 3].astype(int)
    assert alpha[0, 1] == alpha[1, 0] == 255  # the most
    assert alpha[0, 2] == 0
    assert 100 < alpha[1, 2] < 255


def test_many_images_share_cells() -> None:
    count = 2 * MOST_CELLS + 1  # three a cell
    names = [f"{i:04d}.jpg" for i in range(count)]
    pairs = np.array([(i, j) for i in range(6) for j in range(i + 1, 6)])
    html = match_matrix(names, pairs, np.full(len(pairs), 12), "matches")
    found = told(html)
    side = int(str(found["side"]))
    assert side == 134
    counts = unpacked(found["counts"], "<u2").reshape(side, side)
    assert counts[0, 0] == counts[0, 1] == counts[1, 1] == 12  # all pairs of the six, and no image with itself
    assert counts.sum() == 4 * 12
    assert str(found["labels"][0]) == "0000.jpg … 0002.jpg"  # type: ignore[index]
    assert str(found["labels"][-1]) == "0399.jpg … 0400.jpg"  # type: ignore[index]
    assert "3 by 3 images" in html


def test_no_pair_at_all() -> None:
    html = match_matrix(["a", "b"], np.zeros((0, 2), int), np.zeros(0, int), "inliers")
    assert "0 of 1 pairs" in html
    assert match_matrix(["a"], np.zeros((0, 2), int), np.zeros(0, int), "inliers")


# 3-D view -------------------------------------------------------------------------------------------------------------


def positions(found: dict[str, object]) -> np.ndarray:
    steps = unpacked(found["points"], "<u2").reshape(-1, 3)
    return np.array(found["low"]) + steps * np.array(found["step"])


def test_points_keep_their_places_up_to_a_similarity() -> None:
    names = [f"{i}.jpg" for i in range(5)]
    given_space = space(300, names)
    # a model may lie in its coordinates as it likes
    turn, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    turn *= np.sign(np.linalg.det(turn))
    moved = Space(
        7 * given_space.points @ turn.T + 100,
        given_space.colours,
        names,
        7 * given_space.centres @ turn.T + 100,
        given_space.rotations @ turn.T,
        given_space.halves,
    )
    views = [told(space_view(one)) for one in (given_space, moved)]
    first, second = (positions(view) for view in views)
    np.testing.assert_allclose(first, second, atol=2e-3)
    rows = [unpacked(view["cameras"], "<f4").reshape(-1, 14) for view in views]
    np.testing.assert_allclose(rows[0], rows[1], atol=2e-3)
    # up is up: the cameras' y axes point down, and they look ahead
    assert (rows[0][:, 8] < -0.9).all()
    assert rows[0][:, 10].mean() > 0.8
    # distances between points and cameras are in proportion
    scale = np.linalg.norm(rows[0][0, :3] - rows[0][4, :3]) / np.linalg.norm(
        given_space.centres[0] - given_space.centres[4]
    )
    there = np.linalg.norm(first[:50, None] - rows[0][None, :, :3], axis=2)
    truth = np.linalg.norm(given_space.points[:50, None] - given_space.centres[None], axis=2)
    np.testing.assert_allclose(there, scale * truth, rtol=0.01)


def test_photos_that_lie_on_their_side_make_no_lying_model() -> None:
    names = [f"{i}.jpg" for i in range(12)]
    standing = space(300, names)
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    centres, rotations = [], []
    for angle in angles:  # all round, the camera turned by a quarter: its x axis points up, to -y of the world
        ahead = np.array([np.sin(angle), 0.0, np.cos(angle)])
        x = np.array([0.0, -1.0, 0.0])
        centres.append(-4 * ahead)
        rotations.append(np.stack([x, np.cross(ahead, x), ahead]))
    lying = Space(standing.points, standing.colours, names, np.array(centres), np.array(rotations), standing.halves)
    rows = unpacked(told(space_view(lying))["cameras"], "<f4").reshape(-1, 14)
    assert np.ptp(rows[:, 2]) < 0.05 * np.ptp(rows[:, 0])  # the ring lies flat
    assert (rows[:, 5] > 0.99).all()


def test_points_and_cameras_are_sampled_and_strays_left_out() -> None:
    names = [f"{i}.jpg" for i in range(MOST_CAMERAS + 500)]
    many = space(MOST_POINTS + 10_000, names)
    many.points[0] = [1e5, 0, 0]
    html = space_view(many)
    found = told(html)
    where = positions(found)
    assert len(where) == MOST_POINTS
    assert np.abs(where).max() < 2 * FAR
    assert len(list(found["names"])) == MOST_CAMERAS  # type: ignore[call-overload]
    assert f"{MOST_POINTS:,} of {MOST_POINTS + 10_000:,} points" in html
    assert len(html) < 1_000_000
    assert space_view(many) == html


@pytest.mark.parametrize("points", [1, 2])
def test_hardly_any_points(points: int) -> None:
    centres, rotations = ring(2)
    tiny = Space(np.ones((points, 3)), np.zeros((points, 3), np.uint8), ["a", "b"], centres, rotations, np.ones((2, 2)))
    assert len(positions(told(space_view(tiny)))) == points
    # cameras all round a thing have no common direction
    opposed = Space(np.ones((1, 3)), np.zeros((1, 3), np.uint8), ["a", "b"], centres,
                    np.stack([np.eye(3), np.diag([-1.0, 1.0, -1.0])]), np.ones((2, 2)))  # fmt: skip
    assert "nan" not in space_view(opposed).lower().split("base64")[0]


# Warnings, photos, tables ---------------------------------------------------------------------------------------------


def test_the_grave_come_first_and_names_are_bounded() -> None:
    many = [(f"{i}.jpg", "why") for i in range(MOST_NAMED + 7)]
    html = warnings_list([Warn("remark", grave=False), Warn("grave", "do this", many)])
    assert html.index("grave") < html.index("remark")
    assert html.count(".jpg") == MOST_NAMED
    assert "and 7 more" in html
    assert "Nothing to warn of" in warnings_list([])
    assert HOSTILE not in warnings_list([Warn(HOSTILE, HOSTILE, [(HOSTILE, HOSTILE)])])


def test_a_table_too_long_keeps_those_that_stand_out() -> None:
    photos = [Photo(f"{i}.jpg", {"points": str(i)}, "", out=i >= MOST_LINES) for i in range(MOST_LINES + 5)]
    html = photo_table(photos)
    assert html.count("<tr") == MOST_LINES + 1
    assert html.count("class=out") == 5
    assert f"{MOST_LINES:,} of {MOST_LINES + 5:,} photos" in html
    assert HOSTILE not in table([HOSTILE], [([HOSTILE], False)], HOSTILE)


def test_the_page_of_a_matching() -> None:
    shown = MatchingPage(
        HOSTILE, "3 of 3", [("pairs", "3", "")], [], [], [], ["a", "b", "c"], np.array([[0, 1]]), np.array([20]),
        [Photo("a", {"keypoints": "9"}, "")], 1.5, {"method": "smnn"},
    )  # fmt: skip
    seen = Seen(matching_page(shown))
    assert not seen.open
    for text in ("3 of 3", "--images FOLDER", "1 of 3 pairs have matches", "smnn", HOSTILE):
        assert text in seen.text


# Frames ---------------------------------------------------------------------------------------------------------------

GREY = np.full((200, 300), 100, np.uint8)


def marked(picture: np.ndarray) -> np.ndarray:
    return (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 60


def test_an_ellipse_is_where_its_frame_is() -> None:
    lafs = np.array([[[60, 0, 150.0], [0, 30, 100.0]]], np.float32)
    drawn = marked(draw_frames(GREY, lafs, orientation=False))
    ys, xs = np.nonzero(drawn)
    assert abs(xs.min() - (150 - 60 * ELLIPSE_PART)) <= 1
    assert abs(xs.max() - (150 + 60 * ELLIPSE_PART)) <= 1
    assert abs(ys.min() - (100 - 30 * ELLIPSE_PART)) <= 1
    assert abs(ys.max() - (100 + 30 * ELLIPSE_PART)) <= 1
    assert not drawn[100, 150]
    assert (GREY == 100).all()


@pytest.mark.parametrize(("angle", "tip"), [(0, (150, 80)), (90, (130, 100)), (180, (150, 120)), (-90, (170, 100))])
def test_the_stroke_shows_what_is_up_in_the_patch(angle: float, tip: tuple[int, int]) -> None:
    lafs = make_lafs([(150, 100)], 40, angle)
    stroke = marked(draw_frames(GREY, lafs)) & ~marked(draw_frames(GREY, lafs, orientation=False))
    middle = (np.array([150, 100]) + np.array(tip)) // 2
    assert stroke[middle[1] - 1 : middle[1] + 2, middle[0] - 1 : middle[0] + 2].any()
    opposite = 2 * np.array([150, 100]) - middle
    assert not stroke[opposite[1] - 2 : opposite[1] + 3, opposite[0] - 2 : opposite[0] + 3].any()
    # and the patch cut out with that frame has that direction at its top: the frame maps (0, -1) there
    up = lafs[0, :, :2] @ np.array([0, -ELLIPSE_PART]) + lafs[0, :, 2]
    np.testing.assert_allclose(up, tip, atol=1e-3)


def test_colours_and_the_strongest_on_top() -> None:
    scores = np.array([5.0, 1.0, 3.0], np.float32)
    colours = colours_of_scores(scores).astype(int)
    assert colours[0, 1] > colours[2, 1] > colours[1, 1]  # yellow has most green in it, purple least
    same = np.repeat(make_lafs([(150, 100)], 40), 2, axis=0)
    drawn = draw_frames(GREY, same, np.array([[255, 0, 0], [0, 0, 255]], np.uint8))
    assert (drawn[..., 0] > 200).any()
    assert not (drawn[..., 2] > 200).any()
    used = colours_of_use(np.array([True, False]))
    assert used[0, 1] > used[0, 0]
    assert len(set(used[1].tolist())) == 1
    plain = draw_frames(GREY, same[:1], orientation=False).astype(int)
    assert np.abs(plain - PLAIN).max(axis=2).min() < 30


def test_what_is_worth_drawing() -> None:
    lafs = make_lafs(np.zeros((6, 2)), [1, 10, 20, 30, 40, 5000])
    assert drawable(lafs, np.arange(6), 10, 900).tolist() == [1, 2, 3, 4]
    some = drawable(lafs, np.arange(6), 2, 900)
    assert len(some) == 2
    np.testing.assert_array_equal(some, drawable(lafs, np.arange(6), 2, 900))
    with pytest.raises(DataError, match="frames"):
        draw_frames(GREY, np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match="colours"):
        draw_frames(GREY, lafs, np.zeros((2, 3), np.uint8))
    # far outside, and none at all
    draw_frames(GREY, make_lafs([(1e7, -1e7)], 1e6))
    np.testing.assert_array_equal(draw_frames(GREY, lafs[:0], dim=1.0)[..., 0], GREY)


def test_scripts_are_part_of_the_package() -> None:
    import hardnet_match.report as report

    folder = Path(report.__file__).parent
    listed = (Path(__file__).parents[1] / "setup.cfg").read_text(encoding="utf-8")
    assert {path.name for path in folder.glob("*.js")} == {"matrix.js", "space.js"}
    assert "report/*.js" in listed
