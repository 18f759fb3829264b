"""Frames drawn on a photo, and matches between two: to see with one's own eyes what a file holds."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from ..errors import OptionError, StoreError
from ..images import read_image
from ..report.draw import save_picture
from ..report.frames import colours_of_scores, draw_frames
from ..sfm.inliers import inlier_matches
from ..store import FeatureReader, MatchReader
from .database import check_belonging
from .photos import photo_folder
from .picture import draw_pair

MOST, MOST_LINES = 500, 120
SIDE = 1600
# Lines one pixel thin are lost on pictures larger than a screen.
THICK_FROM = 2400


@dataclass(frozen=True)
class ViewSummary:
    """What was drawn: `images` by name, `found` keypoints or matches of which `drawn` are in the `picture`."""

    picture: str
    images: list[str]
    found: int
    drawn: int
    size: tuple[int, int]


def view_features(
    features: str | Path,
    image: str | Path,
    output: str | Path,
    *,
    images: str | Path | None = None,
    most: int = MOST,
    by_score: bool = False,
    orientation: bool = True,
    max_size: int | None = SIDE,
) -> ViewSummary:
    """Draw the frames of an image on its photo: ellipses of three standard deviations, a stroke along their "up".

    Args:
        features: features file.
        image: its name in the file, or the path of the photo.
        output: picture to write; the extension chooses the format.
        images: folder that the names are relative to; looked for around the features file if None.
        most: frames at most, the strongest.
        by_score: colour by the rank of the score, purple to yellow.
        orientation: draw the strokes.
        max_size: longer side of the picture at most, pixels; None for the photo's own size.

    The photo is turned upright as its EXIF tag says, its frames with it.

    Raises:
        OptionError: there is no such image in the file, its photo was not found, or a number cannot work.
        StoreError, ImageError: a file cannot be read or written.
    """
    if most < 1:
        raise OptionError(f"at least one frame has to be drawn, got {most}")
    with FeatureReader(features) as reader:
        names = reader.names()
        if not names:
            raise StoreError(f"{features} holds no features; for a matches file name two images")
        name = named(image, names, features)
        photo = _photo(features, image, name, names, images)
        found = reader.read(name)
    picture = read_image(photo, max_size=max_size, color=True, apply_orientation=True)
    if picture.size != found.image_size:
        raise OptionError(
            f"{photo} has {picture.size[0]}x{picture.size[1]} pixels, {name} in {features} "
            f"{found.image_size[0]}x{found.image_size[1]}: is it another photo? --images FOLDER tells the right one"
        )
    rows = np.argsort(-found.scores, kind="stable")[:most]
    lafs, scores = picture.from_original(found.lafs[rows]), found.scores[rows]
    drawn = draw_frames(
        picture.pixels,
        lafs,
        colours_of_scores(scores) if by_score else None,
        orientation=orientation,
        thickness=1 if max(picture.pixels.shape[:2]) < THICK_FROM else 2,
    )
    save_picture(output, drawn)
    return ViewSummary(str(output), [name], len(found), len(rows), (drawn.shape[1], drawn.shape[0]))


def view_matches(
    matches: str | Path,
    first: str | Path,
    second: str | Path,
    output: str | Path,
    *,
    features: str | Path | None = None,
    images: str | Path | None = None,
    database: str | Path | None = None,
    most: int = MOST,
    max_size: int | None = SIDE,
) -> ViewSummary:
    """Draw the matches of a pair between its two photos.

    Args:
        matches: matches file.
        first, second: names of the images, or paths of the photos.
        output: picture to write; the extension chooses the format.
        features: the file the matches are of; `features.h5` beside them if None.
        images: folder that the names are relative to; looked for around the features file if None.
        database: COLMAP database that verified them: what it rejected is grey.
        most: matches whose ellipses are drawn at most; up to `MOST_LINES` of them have a line.
        max_size: height of the picture at most, half of this.

    Raises:
        OptionError: there are no such images, or photos or features were not found.
        StoreError, ImageError, DataError, ReconstructionError: a file cannot be read or written, or they are not of
            one run.
    """
    source = Path(features) if features is not None else Path(matches).with_name("features.h5")
    if not source.is_file():
        raise OptionError(f"{source}: no such features file; --features FILE says which the matches were made from")
    check_belonging(source, matches)
    with FeatureReader(source) as reader:
        names = reader.names()
    pair = named(first, names, source), named(second, names, source)
    folder = photo_folder(source, pair, images)
    if folder is None:
        folder = _folder_of(first, pair[0])
    if folder is None:
        raise OptionError(f"the photos of {source} were not found; --images FOLDER says where they are")
    with MatchReader(matches) as tentative:
        if pair not in tentative:
            raise OptionError(f"{matches} has no matches of {pair[0]} and {pair[1]}")
    kept = inlier_matches(database, *pair) if database is not None else None
    size = max(64, (max_size or 2 * SIDE) // 2)
    drawn = draw_pair(source, matches, folder, pair, kept, height=size, lines=min(most, MOST_LINES), ellipses=most)
    save_picture(output, drawn.pixels)
    height, width = drawn.pixels.shape[:2]
    return ViewSummary(str(output), list(pair), drawn.matches, min(drawn.inliers, most), (width, height))


def named(given: str | Path, names: Sequence[str], where: str | Path) -> str:
    """The name in a file that a user means: the name itself, a photo's path that ends with it, or its end.

    Raises:
        OptionError: there is none, or several.
    """
    text = PurePath(given).as_posix()
    if str(given) in names:
        return str(given)
    inside = [name for name in names if f"/{text}".endswith(f"/{name}")]
    if inside:
        return max(inside, key=len)
    ending = [name for name in names if name.endswith(f"/{text}")]
    if len(ending) == 1:
        return ending[0]
    near = ending[:3] or difflib.get_close_matches(text, names, 3)
    hint = f"; is it {' or '.join(near)}?" if near else f"; it has {len(names)}, {names[0]} the first of them"
    raise OptionError(f"{where} has no image {text!r}{hint}")


def _photo(features: str | Path, given: str | Path, name: str, names: Sequence[str], images: str | Path | None) -> Path:
    if images is None and Path(given).is_file():
        return Path(given)
    folder = photo_folder(features, [name, *names[:4]] if images is None else [name], images)
    if folder is None or not (folder / name).is_file():
        raise OptionError(f"the photo of {name} was not found; --images FOLDER says where it is")
    return folder / name


def _folder_of(given: str | Path, name: str) -> Path | None:
    """The folder that a photo's path is in, less the folders of its name."""
    path = Path(given)
    if not path.is_file():
        return None
    return path.resolve().parents[name.count("/")]
