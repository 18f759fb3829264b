"""The page of a matching run: how many matches the pairs have, and what they look like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .bars import STYLE as BARS_STYLE
from .bars import histogram, in_words
from .matrix import STYLE as MATRIX_STYLE
from .matrix import match_matrix, matrix_script
from .page import facts, page
from .parts import STYLE as PARTS_STYLE
from .parts import Drawn, Warn, head, pictures, section, tiles, warnings_list
from .photos import STYLE as PHOTOS_STYLE
from .photos import Photo, photo_table

STYLE = PARTS_STYLE + BARS_STYLE + MATRIX_STYLE + PHOTOS_STYLE
ABSENT = "The photos were not at hand; --images FOLDER says where they are."


@dataclass(frozen=True, eq=False)
class MatchingPage:
    """What the page shows; all text is plain.

    Args:
        title: of the matches. verdict: a sentence. figures: (name, value, small print). warnings: what to look at.
        pairs, keypoints: pictures.
        names: of the images; `matched` (P, 2) rows of them, `counts` (P,) matches of each pair.
        photos: a line an image.
        seconds: of the run. about: settings, name to value.
    """

    title: str
    verdict: str
    figures: Sequence[tuple[str, str, str]]
    warnings: Sequence[Warn]
    pairs: Sequence[Drawn]
    keypoints: Sequence[Drawn]
    names: Sequence[str]
    matched: NDArray[np.int64]
    counts: NDArray[np.int64]
    photos: Sequence[Photo]
    seconds: float
    about: Mapping[str, str] = field(default_factory=dict)


def matching_page(shown: MatchingPage) -> str:
    """The page as HTML; it is at most `reconstruction.MOST_BYTES` long, with room."""
    links = [("pairs", "Matches"), ("matrix", "Who matches whom"), ("counts", "Counts"), ("keypoints", "Keypoints")]
    links += [("photos", "Photos"), ("run", "The run")]
    each = histogram(shown.counts, title="matches of a pair", x_name="matches of a pair")
    key = "Green: matched in some pair. Grey: in none. An ellipse spans three standard deviations of its blob."
    parts = [
        head("hardnet-match, matching", shown.title, shown.verdict, links),
        tiles(shown.figures),
        f'<div class="below">{warnings_list(shown.warnings)}</div>',
        section("pairs", "Matches between photos", pictures(shown.pairs, ABSENT)),
        section("matrix", "Who matches whom", match_matrix(shown.names, shown.matched, shown.counts, "matches")),
        section("counts", "Counts", f'<div class="two">{each}</div>'),
        section(
            "keypoints", "Keypoints", f'<p class="numbers">{key}</p>' if shown.keypoints else "",
            f'<div class="three">{pictures(shown.keypoints, ABSENT)}</div>',
        ),
        section("photos", "Photos", photo_table(shown.photos)),
        section("run", "The run", f'<p class="numbers">{in_words(shown.seconds)}.</p>', facts(shown.about)),
    ]  # fmt: skip
    style = STYLE + ".below { margin-top: 1rem; }"
    return page(f"Matches of {shown.title}", "\n".join(parts), style, [matrix_script()])
