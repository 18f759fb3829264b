"""What the page of a matching run shows, gathered from its files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError
from ..images import read_image
from ..report.frames import colours_of_use, draw_frames, drawable
from ..report.matching import MatchingPage, matching_page
from ..report.page import shrunk, write_page
from ..report.parts import Drawn, Warn
from ..report.photos import Photo
from ..store import FeatureReader, MatchReader
from .photos import photo_folder
from .picture import draw_pair
from .reconstruct_page import FRAMES_SIDE, MOST_FRAMES, PAIR_HEIGHT, WIDEST

if TYPE_CHECKING:
    from .match import MatchSummary

PAIRS = {"best": "The pair with the most matches", "typical": "A typical pair", "worst": "The pair with the fewest"}
FEW = 15
"""Fewer matches than this verify no pair: COLMAP asks for as many inliers."""


def write_match_page(
    path: Path,
    features: str | Path,
    matches: str | Path,
    summary: MatchSummary,
    images: str | Path | None = None,
) -> None:
    """Write the page of all pairs of a matches file.

    Args:
        images: folder of the photos; guessed around the features file if None. Without photos the page has none.

    Raises:
        OptionError: `images` does not hold the photos.
        StoreError: a file is missing or damaged.
        ImageError: the page cannot be written.
    """
    with FeatureReader(features) as reader:
        names = reader.names()
        keypoints = np.array([reader.descriptor_shape(name)[0] for name in names], np.int64)
        settings = reader.settings
    row = {name: place for place, name in enumerate(names)}
    used = [np.zeros(count, bool) for count in keypoints]
    pairs, counts = [], []
    with MatchReader(matches) as tentative:
        for first, second in tentative.pairs():
            if first in row and second in row:
                found = tentative.read(first, second).pairs
                pairs.append((row[first], row[second]))
                counts.append(len(found))
                for place, rows in ((row[first], found[:, 0]), (row[second], found[:, 1])):
                    used[place][rows[rows < len(used[place])]] = True
    ends, many = np.array(pairs, np.int64).reshape(-1, 2), np.array(counts, np.int64)
    folder = photo_folder(features, names, images)
    enough = int((many >= FEW).sum())
    about = {**settings, **summary.settings}
    about.pop("weights", None)
    shown = MatchingPage(
        title=Path(matches).name,
        verdict=f"{enough:,} of {len(many):,} pairs have {FEW} matches or more.",
        figures=[
            ("photos", f"{len(names):,}", ""),
            ("pairs", f"{len(many):,}", ""),
            ("matches", f"{int(many.sum()):,}", ""),
            ("matches a pair, median", f"{int(np.median(many)) if len(many) else 0:,}", ""),
            ("keypoints a photo", f"{int(keypoints.mean()) if len(names) else 0:,}", ""),
            ("matched this time", f"{summary.matched:,}", f"of {summary.pairs:,}"),
        ],
        warnings=_warnings(summary, names, keypoints, ends, many),
        pairs=_pairs(features, matches, folder, names, ends, many) if folder is not None else [],
        keypoints=_keypoints(features, folder, names, used) if folder is not None else [],
        names=names,
        matched=ends,
        counts=many,
        photos=_photos(names, keypoints, ends, many, used),
        seconds=summary.seconds,
        about={key.replace("_", " "): str(value) for key, value in about.items()},
    )
    write_page(path, matching_page(shown))


def _warnings(
    summary: MatchSummary,
    names: Sequence[str],
    keypoints: NDArray[np.int64],
    ends: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> list[Warn]:
    found = []
    if summary.skipped:
        found.append(
            Warn(
                f"{len(summary.skipped)} images of the pairs are not in the features file.",
                "Extract them, or leave them out of the pairs file.",
                list(summary.skipped.items()),
            )
        )
    best = np.zeros(len(names), np.int64)
    for side in (0, 1):
        np.maximum.at(best, ends[:, side], counts)
    paired = np.bincount(ends.ravel(), minlength=len(names)) > 0
    lonely = np.flatnonzero(paired & (best < FEW)).tolist()
    if len(lonely):
        found.append(
            Warn(
                f"{'1 photo has' if len(lonely) == 1 else f'{len(lonely)} photos have'} no pair with {FEW} matches.",
                "Photos in between would help, or more keypoints, or larger images when extracting.",
                [(names[place], f"{best[place]} matches at best, {keypoints[place]} keypoints") for place in lonely],
            )
        )
    alone = np.flatnonzero(~paired).tolist()
    if len(alone):
        found.append(
            Warn(
                f"{len(alone)} photo{' is' if len(alone) == 1 else 's are'} in no pair.",
                "Choose more pairs (`hardnet-match pairs`).",
                [(names[place], "") for place in alone],
                grave=False,
            )
        )
    return found


def _pairs(
    features: str | Path,
    matches: str | Path,
    folder: Path,
    names: Sequence[str],
    ends: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> list[Drawn]:
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    wanted = {"best": 0, "typical": len(order) // 2, "worst": len(order) - 1} if len(order) else {}
    drawn, done = [], set()
    for kind, place in wanted.items():
        if place in done:
            continue
        done.add(place)
        first, second = (names[row] for row in ends[order[place]])
        try:
            one = draw_pair(features, matches, folder, (first, second), height=PAIR_HEIGHT)
        except (ImageError, DataError):
            continue
        text = f"{first} and {second}: {one.matches:,} matches, not verified by geometry."
        label = f"{first} and {second} side by side, lines between {one.matches} matches"
        drawn.append(Drawn(shrunk(one.pixels, WIDEST), f"{PAIRS[kind]}.", text, label))
    return drawn


def _keypoints(
    features: str | Path, folder: Path, names: Sequence[str], used: Sequence[NDArray[np.bool_]]
) -> list[Drawn]:
    """Frames on the photos with the largest, a typical and the smallest share of matched keypoints."""
    order = np.argsort([-float(mask.mean()) if len(mask) else 0.0 for mask in used], kind="stable")
    drawn = []
    for place in dict.fromkeys(int(order[at]) for at in (0, len(order) // 2, len(order) - 1)):
        try:
            photo = read_image(folder / names[place], max_size=FRAMES_SIDE, color=True, apply_orientation=True)
        except ImageError:
            continue
        with FeatureReader(features) as reader:
            lafs = photo.from_original(reader.lafs(names[place]))
        mask = used[place]
        chosen = np.concatenate(
            [drawable(lafs, np.flatnonzero(kind), MOST_FRAMES, FRAMES_SIDE) for kind in (mask, ~mask)]
        )
        pixels = draw_frames(photo.pixels, lafs[chosen], colours_of_use(mask[chosen]))
        text = f"{int(mask.sum()):,} of {len(lafs):,} keypoints are matched; {len(chosen):,} are drawn."
        drawn.append(Drawn(pixels, f"{names[place]}.", text, f"{names[place]} with the ellipses of its keypoints"))
    return drawn


def _photos(
    names: Sequence[str],
    keypoints: NDArray[np.int64],
    ends: NDArray[np.int64],
    counts: NDArray[np.int64],
    used: Sequence[NDArray[np.bool_]],
) -> list[Photo]:
    pairs = np.bincount(ends.ravel(), minlength=len(names))
    good = np.bincount(ends[counts >= FEW].ravel(), minlength=len(names))
    return [
        Photo(
            name,
            {
                "keypoints": f"{keypoints[place]:,}",
                "matched": f"{int(used[place].sum()):,}",
                "pairs": f"{pairs[place]:,}",
                f"pairs with {FEW} or more": f"{good[place]:,}",
            },
            "",
            out=not good[place],
        )
        for place, name in enumerate(names)
    ]
