"""What a path is, and the source that reads it."""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError, OptionError, StoreError
from ...images import list_images
from ...store import FeatureReader
from .base import Source
from .brown import SETS

KINDS = ("auto", "colmap", "brown", "pt", "hpatches", "amos", "photos")
SHOWN = 5
PHOTO_SIZE = 1600


def kind_of(source: str | Path) -> str:
    """The kind of a source, told by what is there.

    A folder of webcam views looks like any folder of photos, so `amos` is never guessed.

    Raises:
        OptionError: there is nothing of that name.
        DataError: it looks like none of them.
    """
    path = Path(source)
    if not path.exists():
        if str(source) in SETS:
            return "brown"
        raise OptionError(f"{source}: no such file or folder, and no set of that name (known: {', '.join(SETS)})")
    if path.is_file():
        kinds = {".zip": "brown", ".pt": "pt", ".pth": "pt"}
        if path.suffix.lower() not in kinds:
            raise DataError(f"{path} is no source of patches; files are zips of Brown's sets or .pt dictionaries")
        return kinds[path.suffix.lower()]
    if models_in(path):
        return "colmap"
    if (path / "info.txt").is_file() and next(path.glob("patches*.bmp"), None):
        return "brown"
    if next(path.glob("[iv]_*/ref.png"), None):
        return "hpatches"
    if list_images(path):
        return "photos"
    inside = sorted(entry.name for entry in path.iterdir())
    told = ", ".join(inside[:SHOWN]) + (", ..." if len(inside) > SHOWN else "") if inside else "nothing"
    raise DataError(f"{path} looks like no source of patches (it holds {told}); say --kind if it is one")


def models_in(path: Path) -> list[Path]:
    """Folders of COLMAP models at a path: itself, its subfolders, or those of its `sparse`; in order of their names."""

    def is_model(folder: Path) -> bool:
        return any((folder / f"points3D.{end}").is_file() for end in ("bin", "txt"))

    if is_model(path):
        return [path]
    for folder in (path, path / "sparse"):
        found = [entry for entry in folder.iterdir() if is_model(entry)] if folder.is_dir() else []
        if found:
            return sorted(found, key=lambda entry: (len(entry.name), entry.name))
    return []


def near(path: Path, name: str) -> Path | None:
    """A file or folder of that name at a path or up to two folders above it."""
    return next((place / name for place in (path, *path.absolute().parents[:2]) if (place / name).exists()), None)


def open_source(
    source: str | Path,
    kind: str = "auto",
    *,
    images: Path | None = None,
    database: Path | None = None,
    features: Path | None = None,
    masks: Path | None = None,
    split: str | None = None,
    part: str = "train",
    per_photo: int = 2500,
    max_views: int = 6,
    max_size: int | None = None,
    seed: int = 0,
) -> Source:
    """The source at a path or of a name.

    Args:
        source: a folder or file, or the name of one of Brown's sets.
        kind: one of `KINDS`.
        images: colmap: the folder of the photos; None uses `images` at the model or up to two folders above it.
        database, features: colmap, photos: where frames come from. For models None uses `database.db` or `features.h5`
            at the model or above it; for photos None finds keypoints.
        masks: amos: folder of masks.
        split, part: hpatches: a split of the benchmark, and its `train` or `test` part.
        per_photo: photos: keypoints taken of a photo. amos: frames a camera.
        max_views: colmap: observations kept of a track.
        max_size: colmap, photos: longer side that photos are shrunk to, 0 for none. None is what the features file used
            or beside the model says its photos were shrunk to, so that patches are as sharp as those met in use; else
            models' photos stay as they are, and single ones are shrunk to 1600, where keypoints are quickly found.
        seed: photos, amos: of what is drawn.

    Raises:
        OptionError: an unknown kind, or an option that is needed is missing or of another kind.
        DataError: the source is no such thing.
    """
    if kind not in KINDS:
        raise OptionError(f"kind {kind!r} is unknown: choose one of {', '.join(KINDS)}")
    if database is not None and features is not None:
        raise OptionError("frames come from a database or from a features file, not from both")
    kind = kind_of(source) if kind == "auto" else kind
    asked = {"images": images, "database": database, "features": features, "masks": masks, "split": split}
    takes = {"colmap": {"images", "database", "features"}, "photos": {"database", "features"}}
    takes |= {"amos": {"masks"}, "hpatches": {"split"}}
    wrong = [name for name, value in asked.items() if value is not None and name not in takes.get(kind, set())]
    if wrong:
        raise OptionError(f"--{wrong[0]} is of no use for a source of kind {kind}")
    path = Path(source)
    if kind != "brown" and not path.exists():
        raise OptionError(f"{path}: no such file or folder")
    if kind == "brown":
        from .brown import Brown

        return Brown(source)
    if kind == "pt":
        from .dictionary import Dictionary

        return Dictionary(path)
    if kind == "hpatches":
        from .hpatches import HPatches, split_sequences

        return HPatches(path, None if split is None else split_sequences(path, split, part))
    if kind == "amos":
        from .amos import Amos

        return Amos(path, masks, count=per_photo, seed=seed)
    from .frames import DatabaseFrames, FeatureFrames

    frames: DatabaseFrames | FeatureFrames | None = None
    if kind == "colmap" and database is None and features is None:
        database, features = near(path, "database.db"), near(path, "features.h5")
        features = None if database else features
        if database is None and features is None:
            raise OptionError(
                f"{path}: a model has no scales and orientations of its keypoints; "
                "give the --database or the --features it was made from"
            )
    if database is not None or features is not None:
        frames = DatabaseFrames(database) if database is not None else FeatureFrames(Path(str(features)))
    if kind == "photos":
        from .photos import Photos

        size = shrunk_to(features, PHOTO_SIZE) if max_size is None else max_size
        return Photos(path, frames, per_photo, seed=seed, max_size=size or None)
    size = shrunk_to(features or near(path, "features.h5"), 0) if max_size is None else max_size
    return _colmap(path, images, frames, max_views, size or None)


def shrunk_to(features: Path | None, otherwise: int) -> int:
    """The longer side that extraction shrank photos to, as a features file tells; 0 for none."""
    if features is None:
        return otherwise
    try:
        with FeatureReader(features) as reader:
            found = reader.settings.get("max_size", otherwise)
    except StoreError:
        return otherwise
    return found if isinstance(found, int) else 0


def _colmap(path: Path, images: Path | None, frames: object, max_views: int, max_size: int | None) -> Source:
    from .colmap import ColmapModel
    from .filters import Filters
    from .frames import DatabaseFrames, FeatureFrames

    assert isinstance(frames, DatabaseFrames | FeatureFrames)
    models = models_in(path)
    if not models:
        raise DataError(f"{path} holds no COLMAP model (cameras, images and points3D as .bin or .txt)")
    images = images or near(path, "images")
    if images is None:
        raise OptionError(f"{path}: give the folder of the photos with --images")
    if not images.is_dir():
        raise OptionError(f"{images}: no such folder of photos")
    return ColmapModel(models, images, frames, Filters(max_views=max_views), max_size=max_size)
