"""The page of a search: the query, the ranked images, and for each the matches that geometry confirmed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import cv2
import numpy as np
from numpy.typing import NDArray

from .page import facts, page, picture, shrunk

__all__ = ["Hit", "search_page", "shrunk", "with_box"]

THUMBNAIL = 320
STYLE = """
.query { display: grid; grid-template-columns: minmax(0, 22rem) 1fr; gap: 1rem 1.5rem; }
.ranked { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(47%, 11rem), 1fr)); gap: .75rem;
  list-style: none; margin: 0; padding: 0; }
.ranked .frame { aspect-ratio: 4 / 3; display: flex; align-items: center; justify-content: center;
  background: var(--ground); border-radius: .25rem; margin-bottom: .4rem; }
.ranked img { max-height: 100%; width: auto; object-fit: contain; }
.ranked .name { font-size: .9rem; line-height: 1.3; }
.pair { margin-bottom: 1rem; }
.none { color: var(--faint); font-size: .9rem; }
@media (max-width: 40rem) { .query { grid-template-columns: 1fr; } }
"""


@dataclass(frozen=True)
class Hit:
    """A ranked image as the page shows it.

    Args:
        name: of the image in the index.
        score: of the ranking.
        inliers: matches that geometry confirmed; None where nobody looked.
        thumbnail: uint8 RGB or grey, any size; None where the photo is not at hand.
        matches: picture of the confirmed matches (`draw_matches`), or None.
    """

    name: str
    score: float
    inliers: int | None
    thumbnail: NDArray[np.uint8] | None = None
    matches: NDArray[np.uint8] | None = None


def search_page(
    query: str, shown: NDArray[np.uint8] | None, hits: Sequence[Hit], about: Mapping[str, str], note: str = ""
) -> str:
    """The page as HTML.

    Args:
        query: name of the query.
        shown: its picture with the box drawn, or None.
        hits: best first.
        about: facts about the search, name to value, plain text.
        note: a sentence for the reader, for example why photos are missing.
    """
    asked = picture(shrunk(shown, 2 * THUMBNAIL), f"the query {query}") if shown is not None else ""
    parts = [
        f"<h1>Search for {escape(query)}</h1>",
        f'<div class="query"><div>{asked or _absent()}</div>{facts(about)}</div>',
        f'<p class="none">{escape(note)}</p>' if note else "",
        f"<h2>{len(hits)} image{'s' if len(hits) != 1 else ''}, best first</h2>" if hits else "<h2>Nothing found</h2>",
        f'<ol class="ranked">{"".join(_card(place, hit) for place, hit in enumerate(hits, 1))}</ol>',
    ]
    pairs = [_pair(place, hit, query) for place, hit in enumerate(hits, 1) if hit.matches is not None]
    if pairs:
        parts += ["<h2>Verified matches</h2>", *pairs]
    return page(f"Search for {query}", "\n".join(part for part in parts if part), STYLE)


def _card(place: int, hit: Hit) -> str:
    seen = _absent()
    if hit.thumbnail is not None:
        seen = picture(shrunk(hit.thumbnail, THUMBNAIL), hit.name, lazy=place > 8)
    frame = f'<div class="frame">{seen}</div>'
    if hit.matches is not None:
        frame = f'<a href="#pair{place}">{frame}</a>'
    return (
        f'<li class="card">{frame}<div class="name">{place}. {escape(hit.name)}</div>'
        f'<div class="numbers">{_numbers(hit)}</div></li>'
    )


def _pair(place: int, hit: Hit, query: str) -> str:
    assert hit.matches is not None
    drawn = picture(hit.matches, f"matches between {query} and {hit.name}", lazy=True)
    return (
        f'<section class="card pair" id="pair{place}"><h3>{place}. {escape(hit.name)} '
        f'<span class="numbers">{_numbers(hit)}</span></h3>{drawn}</section>'
    )


def _numbers(hit: Hit) -> str:
    verified = "" if hit.inliers is None else f", {hit.inliers}\u00a0inlier{'s' if hit.inliers != 1 else ''}"
    return f"score\u00a0{hit.score:.4g}{verified}"


def _absent() -> str:
    return '<span class="none">photo not at hand</span>'


def with_box(pixels: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    """A copy with a box (x0, y0, x1, y1, in pixels of the picture) drawn, the rest dimmed."""
    height, width = pixels.shape[:2]
    x0, y0 = max(0, round(box[0])), max(0, round(box[1]))
    x1, y1 = min(width, round(box[2])), min(height, round(box[3]))
    canvas = (pixels * 0.45).astype(np.uint8)
    canvas[y0:y1, x0:x1] = pixels[y0:y1, x0:x1]
    thick = max(1, round(max(height, width) / 300))
    colour = (255, 200, 0) if pixels.ndim == 3 else 255
    drawn: NDArray[np.uint8] = cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), colour, thick)
    return drawn
