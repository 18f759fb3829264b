"""Where the photos of a features file are: it keeps their names, not their folder."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from ..errors import OptionError

FOLDERS_LOOKED_AT = 200


def photo_folder(features: str | Path, names: Sequence[str], images: str | Path | None = None) -> Path | None:
    """The folder that the names are relative to.

    Args:
        features: the features file; without `images` its folder, the one above, and the folders in both are looked
            into.
        names: of its images.
        images: the folder, if it is known.

    Returns:
        None where nobody said, and it was not found.

    Raises:
        OptionError: `images` is no folder, or has none of the photos.
    """
    some = list(names)[:5]
    if images is not None:
        folder = Path(images)
        if not folder.is_dir():
            raise OptionError(f"{folder}: no such folder of photos")
        if some and not any((folder / name).is_file() for name in names):
            raise OptionError(f"{folder} has no photo {some[0]!r}; the names are relative to the folder of --images")
        return folder
    here = Path(features).resolve().parent
    for place in (here, *_folders(here), here.parent, *_folders(here.parent)):
        if some and all((place / name).is_file() for name in some):
            return place
    return None


def _folders(place: Path) -> list[Path]:
    try:
        return [path for path in sorted(itertools.islice(place.iterdir(), FOLDERS_LOOKED_AT)) if path.is_dir()]
    except OSError:  # a folder one may not look into has nothing to show
        return []
