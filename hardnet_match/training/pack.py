"""Patch sets small enough to travel: some of the patches, as JPEG.

Patches stand in mosaics, 32 a row, so that no 8x8 block of a JPEG belongs to two of them; the file is HDF5 with one
dataset of JPEG bytes and the columns compressed. What is lost: patches that were not chosen; the finest grey levels
(`packed_loss` measures it); directions and positions are kept in half precision, positions relative to their scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import h5py
import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, StoreError
from ..whole import replacing
from .patchset import PatchSet

FORMAT = "hardnet-match packed patches 1"
ACROSS = 32
_SAMPLE = ACROSS * ACROSS


def choose(observations: PatchSet, count: int, views: int = 4, singles: float = 0.3, seed: int = 0) -> NDArray[np.intp]:
    """Rows of about `count` patches that teach most: tracks with several views first, each with a few of them.

    Args:
        observations: the set.
        count: patches, at most.
        views: of a track, at most; spread over its rows, which are sorted by image.
        singles: least share of the count for tracks of one observation, where there are as many.
        seed: of the choice.

    Returns:
        sorted rows.
    """
    rng = np.random.default_rng(seed)
    starts = np.flatnonzero(np.r_[True, np.diff(observations.track) > 0])
    counts = np.diff(np.r_[starts, len(observations)])
    kept = np.minimum(counts, views)
    several, alone = (rng.permutation(np.flatnonzero(mask)) for mask in (counts > 1, counts == 1))
    for_alone = min(len(alone), int(singles * count))
    taken = several[np.cumsum(kept[several]) <= count - for_alone]
    left = count - int(kept[taken].sum())
    chosen = np.concatenate([taken, alone[:left]])
    # of n rows, `kept` at equal distances
    number = np.arange(int(kept[chosen].sum())) - np.repeat(np.cumsum(kept[chosen]) - kept[chosen], kept[chosen])
    within = number * np.repeat(counts[chosen], kept[chosen]) // np.repeat(kept[chosen], kept[chosen])
    return np.sort(np.repeat(starts[chosen], kept[chosen]) + within)


def pack(
    sets: Mapping[str, PatchSet], path: Path, megabytes: float, *, quality: int = 80, seed: int = 0, views: int = 4
) -> dict[str, int]:
    """Write patch sets into one file of a size.

    Args:
        sets: by name; each gets its share of the room in proportion to its patches, but none less than a twentieth.
        path: the file, replaced whole.
        megabytes: most size, in 2^20 bytes.
        quality: of JPEG, 1 to 95.
        seed: of the choice of patches.
        views: of a track, at most.

    Returns:
        patches kept, by name.

    Raises:
        DataError: the sets are empty or the size is too small for anything.
    """
    total = sum(len(found) for found in sets.values())
    if not total:
        raise DataError("there are no patches to pack")
    shares = {name: max(len(found) / total, 0.05) for name, found in sets.items()}
    limit = megabytes * 2**20
    room = {name: limit * share / sum(shares.values()) for name, share in shares.items()}
    bytes_each = {name: _bytes_a_patch(found, quality, seed) for name, found in sets.items()}
    kept: dict[str, int] = {}

    def write(target: Path) -> None:
        factor = 1.0
        while True:
            for name, found in sets.items():
                kept[name] = min(int(factor * room[name] / bytes_each[name]), len(found))
            with h5py.File(target, "w") as file:
                file.attrs["format"] = FORMAT
                for name, found in sets.items():
                    rows = choose(found, kept[name], views, seed=seed)
                    if not len(rows):
                        raise DataError(f"{megabytes} MiB is too little for any patch of {name}")
                    _write_set(file.create_group(name), found, rows, quality)
                    kept[name] = len(rows)
            size = target.stat().st_size
            if size <= limit:
                return
            factor *= 0.98 * limit / size  # the sample was easier to compress than the whole

    with replacing(path) as part:
        write(part)
    return kept


def unpack(path: Path) -> dict[str, PatchSet]:
    """The patch sets of such a file, in memory.

    Raises:
        StoreError: it is missing, damaged or no such file.
    """
    try:
        with h5py.File(path) as file:
            if file.attrs.get("format") != FORMAT:
                raise StoreError(f"{path}: no file of packed patches")
            return {name: _read_set(name, group) for name, group in file.items()}
    except (OSError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: cannot be read as packed patches: {error}") from error


def packed_loss(observations: PatchSet, quality: int = 80, seed: int = 0) -> float:
    """Root mean square error in grey levels of 255 that JPEG puts on patches, over a sample of 1,024."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(observations))[:_SAMPLE])
    patches = observations.patches[rows]
    again = _unmosaic(cv2.imdecode(_encode(patches, quality), cv2.IMREAD_GRAYSCALE), len(rows), observations.side)
    mean_square: float = np.square(again.astype(np.float64) - patches).mean()
    return float(mean_square**0.5)


def _bytes_a_patch(observations: PatchSet, quality: int, seed: int) -> float:
    rows = np.sort(np.random.default_rng(seed).permutation(len(observations))[:_SAMPLE])
    columns = sum(values[:1].nbytes for values in observations.columns().values())
    return float(len(_encode(observations.patches[rows], quality)) / len(rows) + 0.5 * columns)


def _encode(patches: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    side = patches.shape[1]
    down = -(-len(patches) // ACROSS)
    mosaic = np.zeros((down * ACROSS, side, side), dtype=np.uint8)
    mosaic[: len(patches)] = patches
    picture = mosaic.reshape(down, ACROSS, side, side).transpose(0, 2, 1, 3).reshape(down * side, ACROSS * side)
    done, jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1])
    assert done
    return np.asarray(jpeg).reshape(-1)


def _unmosaic(picture: NDArray[np.uint8] | None, count: int, side: int) -> NDArray[np.uint8]:
    if picture is None or picture.shape[1] != ACROSS * side or picture.shape[0] * ACROSS < count * side:
        raise ValueError("a mosaic of patches is damaged")
    cells = picture.reshape(-1, side, ACROSS, side).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cells.reshape(-1, side, side)[:count])


def _write_set(group: h5py.Group, found: PatchSet, rows: NDArray[np.intp], quality: int) -> None:
    group.attrs.update(count=len(rows), side=found.side, margin=found.margin)
    parts = [_encode(found.patches[rows[i : i + _SAMPLE]], quality) for i in range(0, len(rows), _SAMPLE)]
    group.create_dataset("jpeg", data=np.concatenate(parts))
    group.create_dataset("ends", data=np.cumsum([len(part) for part in parts]))
    columns = {name: values[rows] for name, values in found.columns().items()}
    # numbers from 0 on are small, and compress well as differences
    columns["track"] = np.diff(np.unique(columns["track"], return_inverse=True)[1], prepend=0).astype(np.uint8)
    scenes, scene = np.unique(columns["scene"], return_inverse=True)
    if "position" in columns:
        centre = np.stack([np.median(columns["position"][scene == i], axis=0) for i in range(len(scenes))])
        group.create_dataset("centre", data=centre.astype(np.float64))
        columns["position"] = (columns["position"] - centre[scene]).astype(np.float32)
    if "direction" in columns:
        columns["direction"] = columns["direction"].astype(np.float16)
    columns["scene"] = scene.astype(np.int32)
    for name, values in columns.items():
        group.create_dataset(name, data=values, compression="gzip", compression_opts=6, shuffle=True)


def _read_set(name: str, group: h5py.Group) -> PatchSet:
    count, side = int(group.attrs["count"]), int(group.attrs["side"])
    jpeg, ends = group["jpeg"][:], group["ends"][:]
    patches = np.empty((count, side, side), dtype=np.uint8)
    for number, (begin, end) in enumerate(zip(np.r_[0, ends[:-1]], ends, strict=True)):
        first = number * _SAMPLE
        part = min(_SAMPLE, count - first)
        patches[first : first + part] = _unmosaic(cv2.imdecode(jpeg[begin:end], cv2.IMREAD_GRAYSCALE), part, side)
    columns = {key: group[key][:] for key in group if key not in ("jpeg", "ends", "centre")}
    columns["track"] = np.cumsum(columns["track"], dtype=np.int64)
    if "position" in columns:
        columns["position"] = (columns["position"] + group["centre"][:][columns["scene"]]).astype(np.float32)
    if "direction" in columns:
        direction = columns["direction"].astype(np.float32)
        columns["direction"] = direction / np.linalg.norm(direction, axis=1, keepdims=True).clip(1e-6)
    return PatchSet(patches, **columns, margin=float(group.attrs["margin"]), name=name)
