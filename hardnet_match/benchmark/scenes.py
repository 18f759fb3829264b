"""Photos with known cameras, in the forms they are handed around in.

- a COLMAP model, binary or text;
- a Bundler v0.3 `.out` file, with the photos' names in order in `list.txt` or a file like it;
- hloc's two texts: `intrinsics.txt` (rows `name MODEL width height params...`) and `poses.txt` (rows
  `name qw qx qy qz tx ty tz`, world to camera), models and parameters as COLMAP's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, OptionError, ReconstructionError
from ..images import list_images, read_image
from ..sfm.colmap import pycolmap, quietly, told_plainly
from ..sfm.compare import Pose, read_bundler_cameras

INTRINSICS, POSES = "intrinsics.txt", "poses.txt"
_MODELS = ("", "sparse/0", "sparse", "model")


@dataclass(frozen=True, eq=False)
class Scene:
    """Photos whose cameras are known.

    Args:
        photos: their folder. source: where the cameras are from.
        cameras: a `pycolmap.Camera` by image name relative to `photos`.
        poses: (R, t) by image name: a world point X is R X + t in the camera's frame.
        seen: 3-D points each image sees, (N,) int64 by name; empty where the source has none.
    """

    photos: Path
    source: Path
    cameras: Mapping[str, Any]
    poses: Mapping[str, Pose]
    seen: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def rays(self, name: str, xy: NDArray[Any]) -> NDArray[np.float64]:
        """Keypoints (N, 2), pixel centres at integers, without lens distortion and at focal length one."""
        found = self.cameras[name].cam_from_img(np.asarray(xy, dtype=np.float64) + 0.5)
        return np.asarray(found, dtype=np.float64).reshape(-1, 2)

    def focal(self, name: str) -> float:
        """Mean focal length, pixels."""
        return float(self.cameras[name].mean_focal_length())

    def pairs(self, shared: int = 30) -> list[tuple[str, str]]:
        """Pairs of images that see `shared` points or more in common; all pairs where no points are known."""
        names = sorted(self.poses)
        every = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
        if not self.seen:
            return every
        return [
            (a, b) for a, b in every if len(np.intersect1d(self.seen[a], self.seen[b], assume_unique=True)) >= shared
        ]


def read_scene(folder: str | Path, cameras: str | Path | None = None) -> Scene:
    """A folder of photos and its cameras.

    Args:
        folder: the photos, in it or in its subfolder `images`.
        cameras: the folder of a COLMAP model or of the two texts, or a Bundler file; looked for in `folder` if None
            (itself, `sparse/0`, `sparse`, `model`, else any one subfolder, else a `.out` file).

    Raises:
        OptionError: a folder is missing, or there are no cameras to be found.
        DataError, ReconstructionError: the cameras are damaged, or fewer than two photos have one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise OptionError(f"{folder}: no such folder of photos")
    photos = folder / "images" if (folder / "images").is_dir() else folder
    source = _find(folder) if cameras is None else Path(cameras)
    if not source.exists():
        raise OptionError(f"{source}: no such cameras")
    if source.is_file():
        scene = _bundler(photos, source)
    elif (source / POSES).is_file():
        scene = _texts(photos, source)
    else:
        scene = _colmap(photos, source)
    if len(scene.poses) < 2:
        raise DataError(f"{source}: {len(scene.poses)} of the photos in {photos} have a known camera; two are needed")
    return scene


def known_cameras(folder: str | Path, cameras: str | Path | None = None) -> Scene | None:
    """As `read_scene`, but None where no cameras are named and the folder has none.

    Raises:
        OptionError, DataError, ReconstructionError: as `read_scene`.
    """
    if cameras is None and Path(folder).is_dir() and _look(Path(folder)) is None:
        return None
    return read_scene(folder, cameras)


def _is_model(folder: Path) -> bool:
    return any((folder / f"images{end}").is_file() for end in (".bin", ".txt"))


def _look(folder: Path) -> Path | None:
    for place in (*(folder / name for name in _MODELS), *sorted(path for path in folder.iterdir() if path.is_dir())):
        if _is_model(place) or (place / POSES).is_file():
            return place
    return next(iter(sorted(folder.glob("*.out"))), None)


def _find(folder: Path) -> Path:
    found = _look(folder)
    if found is None:
        raise OptionError(
            f"{folder}: no known cameras in it: a COLMAP model (images.bin or images.txt), {INTRINSICS} with {POSES}, "
            "or a Bundler file (*.out); name them with --cameras"
        )
    return found


def _colmap(photos: Path, source: Path) -> Scene:
    if not _is_model(source):
        raise ReconstructionError(f"{source}: no COLMAP model here (images.bin or images.txt)")
    with quietly(), told_plainly(source, "read the model"):
        model = pycolmap.Reconstruction(source)
    there = set(list_images(photos))
    cameras, poses, seen = {}, {}, {}
    for number in model.reg_image_ids():
        image = model.image(number)
        name = str(image.name)
        if name not in there:
            continue
        matrix = np.asarray(image.cam_from_world().matrix(), dtype=np.float64)
        cameras[name] = model.camera(image.camera_id)
        poses[name] = (matrix[:, :3], matrix[:, 3])
        seen[name] = np.unique([point.point3D_id for point in image.get_observation_points2D()]).astype(np.int64)
    return Scene(photos, source, cameras, poses, seen if any(len(points) for points in seen.values()) else {})


def _bundler(photos: Path, source: Path) -> Scene:
    names = _listed(source)
    poses = read_bundler_cameras(source, names)
    tokens = iter(source.read_text(encoding="ascii").split("\n", 1)[1].split())
    try:
        count, points = int(next(tokens)), int(next(tokens))
        intrinsics = np.array([[float(next(tokens)) for _ in range(15)] for _ in range(count)])[:, :3]
        views: dict[str, list[int]] = {name: [] for name in poses}
        for point in range(points):
            for _ in range(6):  # where it is, and its colour
                next(tokens)
            for _ in range(int(next(tokens))):
                view = names[int(next(tokens))]
                for _ in range(3):
                    next(tokens)
                if view in views:
                    views[view].append(point)
    except (StopIteration, ValueError, IndexError) as error:
        raise DataError(f"{source}: the Bundler file is cut off or damaged: {error}") from None
    cameras = {}
    for name, (focal, k1, k2) in zip(names, intrinsics.tolist(), strict=True):
        if name in poses:
            width, height = read_image(photos / name).size
            cameras[name] = _camera(
                "RADIAL", width, height, [focal, width / 2, height / 2, k1, k2], f"{source}: {name}"
            )
    seen = {name: np.unique(np.array(points, dtype=np.int64)) for name, points in views.items()}
    return Scene(photos, source, cameras, poses, seen if any(map(len, seen.values())) else {})


def _listed(source: Path) -> list[str]:
    """Names of the images of a Bundler file: the first word of each line of the list beside it."""
    lists = [source.with_name("list.txt"), *sorted(source.parent.glob("*filenames*.txt"))]
    path = next((path for path in lists if path.is_file()), None)
    if path is None:
        raise DataError(f"{source}: the names of its images are missing: a list.txt beside it, a name a line, in order")
    names = [line.split()[0] for line in _text(path).splitlines() if line.strip()]
    # Some lists begin with how many names follow.
    return names[1:] if names and names[0] == str(len(names) - 1) else names


def _texts(photos: Path, source: Path) -> Scene:
    if not (source / INTRINSICS).is_file():
        raise DataError(f"{source} has {POSES} but no {INTRINSICS} (rows: name MODEL width height params...)")
    cameras = {}
    for where, name, words in _rows(source / INTRINSICS, 4):
        width, height, *params = _floats(words[1:], where)
        cameras[name] = _camera(words[0], int(width), int(height), params, where)
    poses = {}
    for where, name, words in _rows(source / POSES, 8):
        values = np.array(_floats(words[:7], where))
        norm = float(np.linalg.norm(values[:4]))
        if not norm > 0:
            raise DataError(f"{where}: the quaternion qw qx qy qz is zero")
        turn = pycolmap.Rotation3d(np.roll(values[:4] / norm, -1)).matrix()
        poses[name] = (np.asarray(turn, dtype=np.float64), values[4:])
    missing = sorted(set(poses) - set(cameras))
    if missing:
        raise DataError(f"{source / INTRINSICS} has no row of {missing[0]!r}, which {POSES} has")
    there = set(list_images(photos))
    kept = {name: pose for name, pose in poses.items() if name in there}
    return Scene(photos, source, {name: cameras[name] for name in kept}, kept)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as text: {error}") from error


def _rows(path: Path, least: int) -> Iterable[tuple[str, str, list[str]]]:
    """Where, name and the other words of every row that is no comment."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < least:
            raise DataError(f"{path}:{number}: a row has {len(words)} words, {least} or more are needed: {line[:60]!r}")
        yield f"{path}:{number}", words[0], words[1:]


def _floats(words: list[str], where: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    if not np.isfinite(values).all():
        raise DataError(f"{where}: a number is not finite")
    return values


def _camera(model: str, width: int, height: int, params: list[float], where: str) -> Any:
    known = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if model not in known:
        raise DataError(f"{where}: unknown camera model {model!r}; COLMAP has {', '.join(known)}")
    if not (0 < width < 1 << 31 and 0 < height < 1 << 31):
        raise DataError(f"{where}: an image of {width}x{height} pixels cannot be")
    camera = pycolmap.Camera(model=model, width=width, height=height, params=params)
    if not camera.verify_params():
        raise DataError(f"{where}: {model} takes {camera.params_info}, got {len(params)} numbers")
    return camera
