"""A search in an index: what is asked, what is found, and the page that shows it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, OptionError
from ..images import read_image
from ..retrieval.index import Index
from ..retrieval.search import MINIMUM, UNVERIFIED, Found, Plan, search
from .question import Box, Question, Questions

SHOWN_SIZE = 1000
DRAWN_HEIGHT = 420


@dataclass(frozen=True)
class Result:
    """A ranked image; `inliers` is None where geometry did not look."""

    image: str
    score: float
    inliers: int | None


@dataclass(frozen=True)
class SearchSummary:
    """What `search_index` found, best first."""

    query: str
    results: list[Result]
    index: str
    method: str
    images: int
    features: int
    seconds: dict[str, float]
    skipped: dict[str, str] = field(default_factory=dict)


def search_index(
    folder: str | Path,
    query: str | Path,
    *,
    top: int = 20,
    box: Box | None = None,
    verify: int = 0,
    expand: bool = False,
    upright: bool = False,
    html: str | Path | None = None,
    images: str | Path | None = None,
    features: Sequence[str | Path] = (),
    weights: Sequence[str] = (),
    device: str = "auto",
) -> SearchSummary:
    """Search an index for what a photo shows.

    Args:
        folder: of the index.
        query: a photo, which is described with the very settings of the index; or the name of an image in the index,
            which is then left out of the results.
        top: results at most.
        box: x0, y0, x1, y1 in pixels of the query's file: search only for what is inside.
        verify: so many images from the head of the ranking are verified by geometry.
        expand: ask again with the features of verified images; verifies 100 where `verify` is 0.
        upright: all photos were held upright.
        html: page to write, with the matches drawn.
        images: folder of the photos, for the page.
        features, weights, device: as `Questions` has them.

    Raises:
        OptionError: an option cannot work, or there is no such query.
        ImageError: the query cannot be read or has no features.
        StoreError: the index is missing or damaged, or cannot describe a photo.
    """
    if top < 1:
        raise OptionError(f"top must be at least 1, got {top}")
    plan = planned(verify, expand, upright)
    started = time.perf_counter()
    index = Index.open(folder)
    questions = Questions(index, features=features, images=images, weights=weights, device=device)
    opened = time.perf_counter()
    question = questions.ask(query, box)
    described = time.perf_counter()
    found = search(index, index.query(question.features), plan, top, without=question.member)
    seconds = {
        "open": round(opened - started, 4),
        "describe": round(described - opened, 3),
        "search": round(time.perf_counter() - described, 4),
    }
    names = index.names
    results = [
        Result(names[image], float(score), None if count == UNVERIFIED else int(count))
        for image, score, count in zip(
            found.images.tolist(), found.scores.tolist(), found.inliers.tolist(), strict=True
        )
    ]
    summary = SearchSummary(str(query), results, str(folder), index.method, len(index), len(question.features), seconds)
    if html is not None:
        _write_page(Path(html), summary, question, found, questions)
    return summary


def planned(verify: int, expand: bool, upright: bool) -> Plan:
    """The plan of a search from a user's options."""
    from ..retrieval.verification import Settings

    return Plan(verify or (100 if expand else 0), expand, settings=Settings(upright=upright))


def _write_page(path: Path, summary: SearchSummary, question: Question, found: Found, questions: Questions) -> None:
    from ..report import draw_matches
    from ..report.page import write_page
    from ..report.search import Hit, search_page, with_box

    questions.guess_photos(question.image or path)
    photo = question.image or questions.photo(question.name)
    asked = _shown(photo)
    hits = []
    for place, result in enumerate(summary.results):
        shown = _shown(questions.photo(result.image))
        drawn = None
        rows = found.pairs.get(place)
        if asked is not None and shown is not None and rows is not None and len(rows):
            lafs, _ = questions.index.geometry(int(found.images[place]))
            drawn = draw_matches(
                asked.pixels, shown.pixels,
                asked.from_original(found.lafs), shown.from_original(np.asarray(lafs)), rows, height=DRAWN_HEIGHT,
            )  # fmt: skip
        pixels = shown.pixels if shown is not None else None
        hits.append(Hit(result.image, result.score, result.inliers, pixels, drawn))
    picture: NDArray[np.uint8] | None = asked.pixels if asked is not None else None
    if asked is not None and picture is not None and question.box is not None:
        corners = np.array(question.box, np.float32).reshape(2, 2) - np.float32(0.5)
        # an upright picture may be a turned one: then the box's first corner is another one
        (x0, y0), (x1, y1) = np.sort(asked.from_original(corners) + 0.5, axis=0).tolist()
        picture = with_box(picture, (x0, y0, x1, y1))
    missing = sum(hit.thumbnail is None for hit in hits)
    note = ""
    if missing:
        note = f"{missing} of {len(hits)} photos were not at hand; --images FOLDER says where they are."
    write_page(path, search_page(Path(summary.query).name, picture, hits, _facts(summary, question), note))


def _shown(path: Path | None) -> Any:
    """The photo at the size of the page, upright as its EXIF tag says, None where it cannot be had."""
    if path is None:
        return None
    try:
        return read_image(path, max_size=SHOWN_SIZE, color=True, apply_orientation=True)
    except ImageError:
        return None


def _facts(summary: SearchSummary, question: Question) -> dict[str, str]:
    verified = [result for result in summary.results if result.inliers is not None]
    facts = {
        "index": f"{summary.index}, {summary.images} images",
        "method": summary.method,
        "query features": str(summary.features),
    }
    if question.box is not None:
        facts["box"] = " ".join(f"{edge:g}" for edge in question.box)
    if verified:
        passed = sum((result.inliers or 0) >= MINIMUM for result in verified)
        facts["geometry"] = f"agrees with {passed} of the {len(verified)} it looked at ({MINIMUM} inliers or more)"
    facts["seconds"] = ", ".join(f"{stage} {value:.3g}" for stage, value in summary.seconds.items())
    return facts
