"""The page of a search: one file that loads nothing, shows what was found in order, and survives hostile names."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_helpers import Seen, search_example, small_photo

from hardnet_match.errors import ImageError
from hardnet_match.report.page import page, picture, write_page
from hardnet_match.report.search import search_page, shrunk, with_box


def test_it_is_whole_and_tells_everything_in_order() -> None:
    seen = Seen(search_example())
    assert not seen.open
    order = [seen.text.index(name) for name in ("1. castle/a.jpg", "2. <script>", "3. gone.jpg", "Verified matches")]
    assert order == sorted(order)
    for text in (
        "query & co.jpg",
        "41\u00a0inliers",
        "1\u00a0inlier",
        "score\u00a00.25",
        "<1 2>",
        "1 photo is missing",
        "not at hand",
    ):
        assert text in seen.text
    # Only the first has matches to show; its thumbnail leads there.
    assert [attributes["href"] for tag, attributes in seen.elements if tag == "a"] == ["#pair1"]
    assert [attributes["id"] for tag, attributes in seen.elements if tag == "section"] == ["pair1"]


def test_it_loads_and_runs_nothing() -> None:
    html = search_example()
    seen = Seen(html)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in seen.elements}
    assert all(str(attributes.get("src", "data:")).startswith("data:") for _, attributes in seen.elements)
    assert "http" not in re.sub(r"base64,[^\"]*|http-equiv", "", html)
    policies = [attributes["content"] for _, attributes in seen.elements if attributes.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    assert not any(name.startswith("on") for _, attributes in seen.elements for name in attributes)


def test_it_is_for_phones_and_for_dark_rooms() -> None:
    html = search_example()
    assert 'name="viewport" content="width=device-width' in html
    assert "prefers-color-scheme: dark" in html
    assert "color-scheme: light dark" in html


def test_the_pictures_are_the_pictures() -> None:
    pixels = small_photo(5)
    [(_, attributes)] = Seen(picture(pixels, 'a "quoted" name', lazy=True)).elements
    assert (attributes["width"], attributes["height"], attributes["alt"]) == ("60", "40", 'a "quoted" name')
    data = np.frombuffer(base64.b64decode(str(attributes["src"]).partition(",")[2]), np.uint8)
    shown = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(shown.astype(int) - pixels).mean() < 6  # JPEG, and red is still red
    assert Seen(picture(pixels[..., 0], "grey")).elements[0][1]["width"] == "60"


def test_nothing_found() -> None:
    seen = Seen(search_page("q.jpg", None, [], {}))
    assert "Nothing found" in seen.text
    assert not seen.open


def test_boxes_and_thumbnails() -> None:
    pixels = np.full((100, 200, 3), 200, np.uint8)
    drawn = with_box(pixels, (20.2, -5, 80, 50))
    assert tuple(drawn[25, 50]) == (200, 200, 200)  # inside as it is
    assert drawn[75, 50].max() < 100  # outside dimmed
    assert tuple(drawn[25, 20]) == (255, 200, 0)  # the edge
    assert (pixels == 200).all()
    assert with_box(pixels[..., 0], (0, 0, 10, 10)).shape == (100, 200)
    assert shrunk(pixels, 50).shape == (25, 50, 3)
    assert shrunk(pixels, 500) is pixels


def test_writing_replaces_in_one_step(tmp_path: Path) -> None:
    place = tmp_path / "found.html"
    for text in ("one", "two & three"):
        write_page(place, page("title <", text))
    assert "two & three" in place.read_text(encoding="utf-8")
    assert "<title>title &lt;</title>" in place.read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["found.html"]
    with pytest.raises(ImageError, match="cannot be written"):
        write_page(tmp_path / "nowhere" / "found.html", "text")
