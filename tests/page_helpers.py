"""Pages of runs that never were, as small and as large as a test wants them, and what a page is made of."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser

import cv2
import numpy as np

from hardnet_match.report.parts import Drawn, Warn
from hardnet_match.report.photos import Photo
from hardnet_match.report.reconstruction import ReconstructionPage
from hardnet_match.report.search import Hit, search_page
from hardnet_match.report.space import Space


class Seen(HTMLParser):
    """Elements with their attributes, text, and whether every element is closed."""

    VOID = frozenset({"meta", "img", "br", "!doctype"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1:] != ["style"] else ""

    @property
    def loads(self) -> list[str]:
        """Everything that elements would load or lead to."""
        return [told[key] or "" for _, told in self.elements for key in ("src", "href") if key in told]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A picture that no JPEG makes much smaller."""
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def ring(count: int, radius: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Centres and rotations of cameras on a half circle that look at the origin, y down."""
    angles = np.linspace(-0.8, 0.8, count)
    centres = np.stack([radius * np.sin(angles), np.full(count, -0.3), -radius * np.cos(angles)], axis=1)
    ahead = -centres / np.linalg.norm(centres, axis=1, keepdims=True)
    right = np.cross(np.array([0.0, 1.0, 0.0]), ahead)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return centres, np.stack([right, np.cross(ahead, right), ahead], axis=1)


def space(points: int, names: Sequence[str]) -> Space:
    """A ball of coloured points with cameras around it."""
    rng = np.random.default_rng(1)
    centres, rotations = ring(len(names))
    colours = rng.integers(0, 255, (points, 3), dtype=np.uint8)
    return Space(
        rng.normal(0, 0.5, (points, 3)), colours, names, centres, rotations, np.tile([0.6, 0.45], (len(names), 1))
    )


def small_page(names: Sequence[str], title: str = "castle") -> ReconstructionPage:
    """Six images or so, one of them not in the model, with two warnings."""
    count = len(names)
    pairs = np.array([(i, j) for i in range(count) for j in range(i + 1, count)], np.int64)
    rng = np.random.default_rng(0)
    photos = [
        Photo(name, {"keypoints": "1,000", "points seen": "300"}, "300 points", i == count - 1, noise(60, 80, i))
        for i, name in enumerate(names)
    ]
    return ReconstructionPage(
        title=title,
        verdict=f"{count - 1} of {count} photos are in the model; 1 is not.",
        figures=[("photos in the model", str(count - 1), f"of {count}"), ("points", "500", ""), ("error", "0.4", "px")],
        warnings=[
            Warn("1 photo is not in the model.", "Take more.", [(names[-1], "it is alone")]),
            Warn("Note.", "", (), False),
        ],
        space=space(500, names),
        pairs=[Drawn(noise(200, 600), "The best pair.", f"{names[0]} and {names[1]}", names[0])],
        keypoints=[Drawn(noise(200, 300), names[0], "500 are drawn", names[0])],
        names=names,
        matrix_pairs=pairs,
        inliers=100 + 10 * np.arange(1, len(pairs) + 1),
        lengths=rng.integers(2, 7, 500),
        errors=rng.gamma(2, 0.2, 500),
        photos=photos,
        seconds={"extract": 3.5, "match": 0.2},
        reused=["map"],
        about={"preset": title},
    )


def large_page(images: int, points: int) -> ReconstructionPage:
    """As many pictures as the job gives a page, of its sizes and hard to compress; long names, many pairs."""
    names = [f"{'folder with a long name/' * 8}{i:05d} {'x' * 60}.jpg" for i in range(images)]
    first = np.arange(images)
    pairs = np.concatenate([np.stack([first[:-k], first[k:]], axis=1) for k in range(1, 60)])
    rng = np.random.default_rng(0)
    photos = [
        Photo(
            name,
            {
                "keypoints": "4,096",
                "pairs with matches": "118",
                "pairs verified": "110",
                "points seen": "not in the model",
            },
            "not in the model",
            i % 2 == 0,
            noise(165, 220, i) if i < 36 else None,
        )
        for i, name in enumerate(names)
    ]
    return ReconstructionPage(
        title="a city",
        verdict="Half of it.",
        figures=[("photos in the model", f"{images // 2}", f"of {images:,}")] * 8,
        warnings=[Warn("Many are not in the model.", "Take more.", [(name, "a reason " * 8) for name in names])] * 3,
        space=space(points, names),
        pairs=[Drawn(noise(440, 1180, i), "A pair.", names[i], names[i]) for i in range(3)],
        keypoints=[Drawn(noise(600, 900, i), names[i], "drawn", names[i]) for i in range(3)],
        names=names,
        matrix_pairs=pairs,
        inliers=rng.integers(0, 900, len(pairs)),
        lengths=rng.geometric(0.2, points) + 1,
        errors=rng.gamma(2, 0.2, points),
        photos=photos,
        seconds={"extract": 5000.0, "match": 9000.0, "map": 12000.0},
        about={f"setting {i}": "value" for i in range(30)},
    )


def small_photo(seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A smooth picture."""
    small = np.random.default_rng(seed).integers(0, 255, (4, 6, 3), dtype=np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def search_example() -> str:
    """Three hits, one without a photo, one of a hostile name."""
    hits = [
        Hit("castle/a.jpg", 0.25, 41, small_photo(1), small_photo(2, (30, 90))),
        Hit('<script>alert("x")</script>&.jpg', 0.125, 1, small_photo(3)),
        Hit("gone.jpg", 0.0625, None),
    ]
    return search_page("query & co.jpg", small_photo(0), hits, {"method": "asmk", "box": "<1 2>"}, "1 photo is missing")
