"""The picture of matches: frames land where they belong, at both images' scales; bad input is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from hardnet_match.errors import DataError, ImageError
from hardnet_match.report import draw_matches, save_picture
from hardnet_match.report.draw import BACKGROUND, CAPTION, GAP

GREY = np.full((300, 400), 100, np.uint8)


def frames(*centres: tuple[float, float], size: float = 20.0) -> np.ndarray:
    return np.array([[[size, 0, x], [0, size, y]] for x, y in centres], np.float32)


def coloured(picture: np.ndarray) -> np.ndarray:
    """Pixels with a strong colour: what was drawn on grey images."""
    return (picture.max(axis=2).astype(int) - picture.min(axis=2)) > 60


def test_ellipses_are_where_the_frames_are() -> None:
    tall = np.full((600, 300), 100, np.uint8)
    picture = draw_matches(GREY, tall, frames((100, 60)), frames((200, 400), size=40), np.array([[0, 0]]), height=300)
    assert picture.shape == (300, 400 + GAP + 150, 3)
    marked = coloured(picture)
    # Half-length circles of radius 10 in both: the second image is shrunk by two.
    ys, xs = np.nonzero(marked[:, 85:101])
    assert abs(xs.min() + 85 - 90) <= 1
    assert abs(ys.min() - 50) <= 1
    assert abs(ys.max() - 70) <= 1
    ys, xs = np.nonzero(marked[:, 408 + 60 :])
    # (200, 400) is (99.75, 199.75) after shrinking, whatever else is drawn up to its left edge.
    assert abs(ys.max() - 209.75) <= 1.5
    assert abs(xs.max() + 60 - 109.75) <= 1.5


def test_both_ends_have_the_colour_of_the_place() -> None:
    picture = draw_matches(
        GREY, GREY, frames((60, 40), (330, 250)), frames((60, 250), (330, 40)), np.array([[0, 0], [1, 1]])
    )
    scale, right = 720 / 300, 960 + GAP
    colours = []
    for x, y in ((60, 40), (right / scale + 60, 250), (330, 250), (right / scale + 330, 40)):
        rim = picture[int(y * scale) - 24 : int(y * scale) - 22, int(x * scale) - 1 : int(x * scale) + 2].reshape(-1, 3)
        colours.append(rim[rim.astype(int).sum(axis=1).argmax()].astype(int))
    assert np.abs(colours[0] - colours[1]).max() < 40
    assert np.abs(colours[2] - colours[3]).max() < 40
    assert np.abs(colours[0] - colours[2]).max() > 100


def test_rejected_matches_have_no_colour() -> None:
    pairs = np.array([[0, 0]])
    picture = draw_matches(GREY, GREY, frames((100, 60)), frames((100, 60)), pairs, np.array([False]))
    assert not coloured(picture).any()
    assert (picture != draw_matches(GREY, GREY, frames((100, 60)), frames((100, 60)), pairs[:0])).any()


def test_the_sample_is_bounded_and_repeats() -> None:
    rng = np.random.default_rng(0)
    many = frames(*rng.uniform(20, 280, (3000, 2)))
    pairs = np.column_stack([np.arange(3000)] * 2)
    few = draw_matches(GREY, GREY, many, many, pairs, max_lines=2, max_ellipses=3)
    np.testing.assert_array_equal(few, draw_matches(GREY, GREY, many, many, pairs, max_lines=2, max_ellipses=3))
    assert coloured(few).sum() < coloured(draw_matches(GREY, GREY, many, many, pairs)).sum() / 5


def test_caption_and_colour_images(tmp_path: Path) -> None:
    colour = np.dstack([GREY, GREY // 2, GREY // 3])
    picture = draw_matches(
        colour, GREY, frames((9, 9)), frames((9, 9)), np.array([[0, 0]]), height=200, caption="für A"
    )
    assert picture.shape[0] == 200 + CAPTION
    assert (picture[200:] > 150).any()
    assert (picture[200:, -100:] == BACKGROUND).all()
    save_picture(tmp_path / "m.png", picture)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "m.png"))[:, :, ::-1], picture)


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    one = frames((9, 9))
    with pytest.raises(DataError, match="outside"):
        draw_matches(GREY, GREY, one, one, np.array([[0, 1]]))
    with pytest.raises(DataError, match="inliers"):
        draw_matches(GREY, GREY, one, one, np.array([[0, 0]]), np.array([True, False]))
    with pytest.raises(ImageError, match="extension"):
        save_picture(tmp_path / "m.picture", GREY)
    with pytest.raises(ImageError, match="cannot be written"):
        save_picture(tmp_path / "nowhere" / "m.png", GREY)
