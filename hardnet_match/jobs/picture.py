"""A picture of the verified matches of a database's image pair."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..images import read_image
from ..report import draw_matches, save_picture
from ..sfm.inliers import inlier_matches, verified_pairs
from ..store import FeatureReader, MatchReader

# Larger than a screen shows no more.
SHOWN_SIZE = 1600


def telling_pair(database: str | Path) -> tuple[str, str] | None:
    """The pair to show: a third down the ranking by inliers, neither the easiest nor by chance; None if none is."""
    pairs = verified_pairs(database)
    return pairs[len(pairs) // 3][:2] if pairs else None


@dataclass(frozen=True, eq=False)
class DrawnPair:
    """The picture of a pair, how many matches it has and how many of them were verified."""

    pixels: NDArray[np.uint8]
    matches: int
    inliers: int


def picture_of_matches(
    database: str | Path,
    features: str | Path,
    matches: str | Path,
    images: str | Path,
    output: str | Path,
    pair: tuple[str, str] | None = None,
) -> tuple[str, str] | None:
    """Draw the matches of a pair, inliers over rejected ones, into an image file.

    Args:
        database: verified COLMAP database made from `features` and `matches`.
        images: folder of the images.
        output: image file to write; the extension chooses the format.
        pair: of image names; `telling_pair` if None.

    Returns:
        The pair drawn, None if no pair is verified.

    Raises:
        StoreError, ImageError, ReconstructionError: a file is missing or damaged.
    """
    chosen = pair or telling_pair(database)
    if chosen is None:
        return None
    drawn = draw_pair(features, matches, images, chosen, inlier_matches(database, *chosen), caption=True)
    save_picture(output, drawn.pixels)
    return chosen


def draw_pair(
    features: str | Path,
    matches: str | Path,
    images: str | Path,
    pair: tuple[str, str],
    inliers: NDArray[np.int32] | None = None,
    *,
    height: int = 720,
    lines: int = 120,
    ellipses: int = 500,
    caption: bool = False,
) -> DrawnPair:
    """Draw the matches of a pair between its photos, these upright as their EXIF tags say.

    Args:
        features, matches: files that hold them. images: folder of the photos.
        inliers: (M, 2) rows of the keypoints that were verified; without them nobody looked, and all count.
        height: of the photos in the picture, pixels.
        lines, ellipses: how many inliers have a line, and how many their ellipses, at most.
        caption: write the names and counts below.

    Raises:
        StoreError, ImageError: a file is missing or damaged.
        DataError: the inliers are of other features.
    """
    pictures = [
        read_image(Path(images) / name, max_size=SHOWN_SIZE, color=True, apply_orientation=True) for name in pair
    ]
    with FeatureReader(features) as reader:
        frames = [shown.from_original(reader.lafs(name)) for shown, name in zip(pictures, pair, strict=True)]
    with MatchReader(matches) as tentative:
        pairs = tentative.read(*pair).pairs
    kept = pairs if inliers is None else inliers
    if len(kept) and (kept[:, 0].max() >= len(frames[0]) or kept[:, 1].max() >= len(frames[1])):
        raise DataError(f"the inliers of {pair[0]} and {pair[1]} are of other features than {features}")
    width = len(frames[1]) + 1
    good = np.isin(pairs[:, 0].astype(np.int64) * width + pairs[:, 1], kept[:, 0].astype(np.int64) * width + kept[:, 1])
    text = f"{pair[0]} - {pair[1]}: {len(pairs)} matches, {int(good.sum())} verified" if caption else ""
    drawn = draw_matches(
        pictures[0].pixels,
        pictures[1].pixels,
        frames[0],
        frames[1],
        pairs,
        good,
        height=height,
        max_lines=lines,
        max_ellipses=ellipses,
        caption=text,
    )
    return DrawnPair(drawn, len(pairs), int(good.sum()))
