"""The images and cameras of a COLMAP database."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import HardnetMatchError, OptionError, ReconstructionError
from ..images import exif_focal
from .colmap import pycolmap, quietly

CAMERA_MODES = {
    "auto": pycolmap.CameraMode.AUTO,
    "single": pycolmap.CameraMode.SINGLE,
    "per-folder": pycolmap.CameraMode.PER_FOLDER,
    "per-image": pycolmap.CameraMode.PER_IMAGE,
}
_GUESSED_FOCAL = 1.2  # focal length over the longer side where EXIF says nothing, COLMAP's own guess


def check_camera_options(mode: str, model: str) -> None:
    """OptionError unless both are known."""
    if mode not in CAMERA_MODES:
        raise OptionError(f"unknown camera mode {mode!r}; use one of {', '.join(CAMERA_MODES)}")
    models = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
    if model not in models:
        raise OptionError(f"unknown camera model {model!r}; use one of {', '.join(models)}")


def add_images(
    database: str, image_dir: Path, sizes: Mapping[str, tuple[int, int]], mode: str, model: str
) -> dict[str, int]:
    """Write images, cameras (with EXIF focal lengths), rigs and frames of a new database.

    COLMAP imports what it can decode. It cannot decode all that this package can (WebP): the others are written from
    the size in the features file and the EXIF focal length.

    Args:
        database: path of an existing, empty database.
        sizes: (width, height) by image name.

    Returns:
        The database's image ids by name.

    Raises:
        ReconstructionError: an image is missing, has another size than its features say, or one camera is asked for
            images of different sizes.
    """
    missing = [name for name in sizes if not (image_dir / name).is_file()]
    if missing:
        raise ReconstructionError(
            f"{len(missing)} of {len(sizes)} images are not in {image_dir} (first: {missing[0]!r}); "
            f"give the folder the features were extracted from"
        )
    _check_shared_sizes(sizes, mode)
    options = pycolmap.ImageReaderOptions()
    options.camera_model = model
    with quietly():
        pycolmap.import_images(database, image_dir, CAMERA_MODES[mode], image_names=list(sizes), options=options)
    with pycolmap.Database.open(database) as db:
        images = {image.name: image for image in db.read_all_images()}
        cameras = {camera.camera_id: camera for camera in db.read_all_cameras()}
        for name, image in images.items():
            camera = cameras[image.camera_id]
            if (camera.width, camera.height) != tuple(sizes[name]):
                raise ReconstructionError(
                    f"{name!r} is {camera.width} x {camera.height} pixels, but its features were extracted from "
                    f"{sizes[name][0]} x {sizes[name][1]}: another image folder, or features of the EXIF-rotated image?"
                )
        shared = {_group(name, mode): image.camera_id for name, image in images.items()}
        ids = {name: int(image.image_id) for name, image in images.items()}
        rigs = {rig.ref_sensor_id.id: rig.rig_id for rig in db.read_all_rigs()}
        for name in sizes:
            if name in ids:
                continue
            group = _group(name, mode)
            if group not in shared:
                shared[group] = db.write_camera(_camera(image_dir / name, model, sizes[name]))
                rigs[shared[group]] = _write_rig(db, shared[group])
            ids[name] = _write_image(db, name, shared[group], rigs[shared[group]])
    return ids


def _group(name: str, mode: str) -> str:
    """Images of one group share a camera."""
    if mode == "single":
        return ""
    return str(PurePosixPath(name).parent) if mode == "per-folder" else name


def _check_shared_sizes(sizes: Mapping[str, tuple[int, int]], mode: str) -> None:
    first: dict[str, str] = {}
    for name, size in sizes.items():
        other = first.setdefault(_group(name, mode), name)
        if tuple(sizes[other]) != tuple(size):
            raise ReconstructionError(
                f"camera mode {mode!r} needs images of one size, but {other!r} is {sizes[other][0]} x "
                f"{sizes[other][1]} and {name!r} is {size[0]} x {size[1]}; use camera mode 'auto' or 'per-image'"
            )


def _camera(path: Path, model: str, size: tuple[int, int]) -> Any:
    try:
        focal = exif_focal(path)
    except HardnetMatchError:
        focal = None
    guess = _GUESSED_FOCAL * max(size)
    camera = pycolmap.Camera.create_from_model_name(0, model, focal or guess, size[0], size[1])
    camera.has_prior_focal_length = focal is not None
    return camera


def _write_rig(db: Any, camera_id: int) -> int:
    rig = pycolmap.Rig()
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, camera_id))
    return int(db.write_rig(rig))


def _write_image(db: Any, name: str, camera_id: int, rig_id: int) -> int:
    image = pycolmap.Image()
    image.name, image.camera_id = name, camera_id
    image.image_id = db.write_image(image)
    frame = pycolmap.Frame()
    frame.rig_id = rig_id
    frame.add_data_id(image.data_id)
    db.write_frame(frame)
    return int(image.image_id)
