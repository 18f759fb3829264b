"""A picture of the verified matches of a database's image pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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
    pictures = [read_image(Path(images) / name, max_size=SHOWN_SIZE, color=True) for name in chosen]
    with FeatureReader(features) as reader:
        frames = [shown.from_original(reader.lafs(name)) for shown, name in zip(pictures, chosen, strict=True)]
    with MatchReader(matches) as tentative:
        pairs = tentative.read(*chosen).pairs
    kept = inlier_matches(database, *chosen)
    if len(kept) and (kept[:, 0].max() >= len(frames[0]) or kept[:, 1].max() >= len(frames[1])):
        raise DataError(f"{database} holds matches of other features than {features}")
    width = len(frames[1]) + 1
    inliers = np.isin(
        pairs[:, 0].astype(np.int64) * width + pairs[:, 1], kept[:, 0].astype(np.int64) * width + kept[:, 1]
    )
    caption = f"{chosen[0]} - {chosen[1]}: {len(pairs)} matches, {int(inliers.sum())} verified"
    drawn = draw_matches(pictures[0].pixels, pictures[1].pixels, frames[0], frames[1], pairs, inliers, caption=caption)
    save_picture(output, drawn)
    return chosen
