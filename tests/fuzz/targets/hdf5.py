"""What is in an HDF5 file; the library that takes it apart is not ours."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np

from hardnet_match.errors import HardnetMatchError

from .registry import target


def _filled(path: Path, data: bytes) -> None:
    """An HDF5 file out of JSON: {"PATH": array, text, {"shape", "dtype", "fill"} or null, "PATH@NAME": attribute}."""
    import h5py

    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = {}
    with h5py.File(path, "w") as file:
        for key, value in content.items() if isinstance(content, dict) else ():
            place, at, name = str(key).partition("@")
            try:
                if at:
                    (file[place] if place else file).attrs[name] = value
                elif isinstance(value, dict) and "shape" in value:
                    shape = tuple(min(int(n), 1000) for n in value["shape"])
                    file[place] = np.full(shape, value.get("fill", 0)).astype(value.get("dtype", "f4"))
                elif value is None:
                    file.require_group(place)
                else:
                    file[place] = value
            except Exception:  # not a file that can be; the next key may be
                continue


@target
def features_file(data: bytes, place: Path) -> None:
    from hardnet_match.store import FeatureReader

    _filled(place / "f.h5", data)
    with FeatureReader(place / "f.h5") as reader:
        reader.settings  # noqa: B018
        for name in reader.names():
            for read in (reader.digest, reader.image_size, reader.descriptor_shape, reader.read):
                with suppress(HardnetMatchError):
                    read(name)


@target
def matches_file(data: bytes, place: Path) -> None:
    from hardnet_match.store import MatchReader

    _filled(place / "m.h5", data)
    with MatchReader(place / "m.h5") as reader:
        for pair in reader.pairs():
            with suppress(HardnetMatchError):
                assert pair in reader or pair not in reader
            with suppress(HardnetMatchError):
                reader.read(*pair)


@target
def patch_set(data: bytes, place: Path) -> None:
    from hardnet_match.training.patchfile import settings_of
    from hardnet_match.training.patchset import PatchSet

    _filled(place / "p.h5", data)
    found = PatchSet.load(place / "p.h5")
    len(found)
    settings_of(place / "p.h5")
