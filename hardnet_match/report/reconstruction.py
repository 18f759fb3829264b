"""The page of a reconstruction: how it went at a glance, what to mend, and all there is to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .bars import STYLE as BARS_STYLE
from .bars import histogram, in_words, time_bars
from .matrix import STYLE as MATRIX_STYLE
from .matrix import match_matrix, matrix_script
from .page import facts, page
from .parts import STYLE as PARTS_STYLE
from .parts import Drawn, Warn, head, pictures, section, tiles, warnings_list
from .photos import STYLE as PHOTOS_STYLE
from .photos import Photo, photo_table, photo_wall
from .space import STYLE as SPACE_STYLE
from .space import Space, space_script, space_view

MOST_BYTES = 6_000_000
"""No page is larger, however many photos there are."""
STYLE = (
    PARTS_STYLE
    + BARS_STYLE
    + MATRIX_STYLE
    + PHOTOS_STYLE
    + SPACE_STYLE
    + """
.top { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 6fr); gap: 1.25rem; align-items: start; }
.top .warnings { margin-top: 1rem; }
@media (max-width: 56rem) { .top { grid-template-columns: minmax(0, 1fr); } }
"""
)


@dataclass(frozen=True, eq=False)
class ReconstructionPage:
    """What the page shows; all text is plain.

    Args:
        title: of the photos. verdict: how it went, a sentence. figures: (name, value, small print).
        warnings: what to look at.
        space: points and cameras, None where there is no model.
        pairs: matches between photos. keypoints: frames on photos.
        names: of the images; `matrix_pairs` (P, 2) rows of them, `inliers` (P,) of each pair.
        lengths, errors: of the points' tracks, and mean reprojection errors in pixels.
        photos: a line an image. seconds, reused: of the stages. about: settings, name to value.
    """

    title: str
    verdict: str
    figures: Sequence[tuple[str, str, str]]
    warnings: Sequence[Warn]
    space: Space | None
    pairs: Sequence[Drawn]
    keypoints: Sequence[Drawn]
    names: Sequence[str]
    matrix_pairs: NDArray[np.int64]
    inliers: NDArray[np.int64]
    lengths: NDArray[np.int64]
    errors: NDArray[np.float64]
    photos: Sequence[Photo]
    seconds: Mapping[str, float]
    reused: Sequence[str] = ()
    about: Mapping[str, str] = field(default_factory=dict)


def reconstruction_page(shown: ReconstructionPage) -> str:
    """The page as HTML, at most `MOST_BYTES` long if its pictures and photos are as many as `jobs` gives it."""
    title = f"Reconstruction of {shown.title}"
    links = [("pairs", "Matches"), ("matrix", "Who matches whom"), ("points", "Points")]
    links += [("keypoints", "Keypoints"), ("photos", "Photos"), ("run", "The run")]
    view = space_view(shown.space) if shown.space is not None else '<p class="card">There is no model to show.</p>'
    parts = [
        head("hardnet-match, reconstruction", shown.title, shown.verdict, links),
        f'<div class="top"><div>{tiles(shown.figures)}{warnings_list(shown.warnings)}</div>{view}</div>',
        section("pairs", "Matches between photos", pictures(shown.pairs, "No pair of photos has verified matches.")),
        section("matrix", "Who matches whom", match_matrix(shown.names, shown.matrix_pairs, shown.inliers, "inliers")),
    ]
    if len(shown.lengths):
        tracks = histogram(
            shown.lengths, title="track length", x_name="track length: keypoints that show a point", whole=True
        )
        errors = histogram(
            shown.errors, title="reprojection error", x_name="mean reprojection error of a point, pixels"
        )
        note = "Long tracks tie the model together; over one pixel of error something is wrong with the cameras."
        parts.append(
            section("points", "Points", f'<div class="two">{tracks}{errors}</div>', f'<p class="numbers">{note}</p>')
        )
    else:
        parts.append(section("points", "Points", '<p class="numbers">There are none.</p>'))
    key = "Green: became a point of the model. Grey: did not. An ellipse spans three standard deviations of its blob."
    parts += [
        section(
            "keypoints", "Keypoints", f'<p class="numbers">{key}</p>' if shown.keypoints else "",
            f'<div class="three">{pictures(shown.keypoints, "The photos were not at hand.")}</div>',
        ),
        section("photos", "Photos", photo_wall(shown.photos), photo_table(shown.photos)),
        section(
            "run", "The run", time_bars(shown.seconds, shown.reused),
            f'<p class="numbers">{in_words(sum(shown.seconds.values()))} in all, this page not counted.</p>',
            f"<details><summary>Settings</summary>{facts(shown.about)}</details>",
        ),
    ]  # fmt: skip
    return page(title, "\n".join(parts), STYLE, [space_script(), matrix_script()])
