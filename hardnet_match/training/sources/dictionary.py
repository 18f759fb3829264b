"""Patch sets in torch.save files: HardNet's and HardNet8's dictionaries, AMOS's, and torchvision's tuples.

Known forms: a dict of `patches` (M, S, S), `labels` (M,), `matches` (K, 3) and `cam_ids` (M,), the last two optional;
a dict of `patch_sets` (N, V, S, S) with `cam_idxs` (N,), `LAFs` (N, 2, 3), `patches_mask` (N, V) and `collisions`, all
but the first optional; a tuple (patches, labels, matches). Tensors or numpy arrays. Nothing in the file is run.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, WeightsError
from ...frames import laf_scale
from ...weights.inert import Array, inert_pickle
from .base import FAR_APART, Piece, Source

AT_ONCE = 4096
AMOS_MARGIN = 1.5


def read_safely(path: Path) -> Any:
    """The content of a torch.save file, tensors mapped where its form allows, nothing of it run.

    Raises:
        DataError: missing, damaged, or it refers to code.
    """
    import torch

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that other protocols of pickle are read too
                return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            if "weights_only" not in str(error) and "Unsupported" not in str(error):
                raise
            # numpy arrays, which torch does not know: rebuilt from their bytes
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=inert_pickle)
    except WeightsError as error:
        raise DataError(f"{path}: {error}. Nothing of it was run or loaded") from error
    except Exception as error:  # torch raises anything on damaged files
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: not a patch set of torch.save, damaged or cut off ({first})") from error


def _array(value: Any, what: str, path: Path) -> NDArray[Any]:
    import torch

    if isinstance(value, Array):
        value = value.real()
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value):
        value = np.array(value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise DataError(f"{path}: {what} is {type(value).__name__}, where an array of numbers is expected")
    return value


class Dictionary(Source):
    """A torch.save file of patches, in pieces of 4,096 rows.

    Args:
        path: the file.
        margin: side of a stored patch over that of the region a network is shown; None for 1, and 1.5 for AMOS's sets.

    Raises:
        DataError: missing, damaged, refers to code, or of an unknown form.
    """

    kind = "pt"

    def __init__(self, path: Path, margin: float | None = None) -> None:
        self.path, self.name = path, path.stem
        content = read_safely(path)
        if isinstance(content, tuple | list) and len(content) == 3:
            content = dict(zip(("patches", "labels", "matches"), content, strict=True))
        if not isinstance(content, Mapping) or not {"patches", "patch_sets"} & content.keys():
            raise DataError(
                f"{path}: expected a dict with `patches` and `labels`, or with `patch_sets`; "
                f"it holds {sorted(map(str, content)) if isinstance(content, Mapping) else type(content).__name__}"
            )
        self._matches: NDArray[np.int64] | None = None
        self._collisions: NDArray[np.int64] | None = None
        self._columns: dict[str, NDArray[Any]]
        self._rows_used: NDArray[np.intp] | None = None
        amos = "patch_sets" in content
        if amos:
            self._read_sets(content)
        else:
            self._read_patches(content)
        self.side = int(self._patches.shape[1])
        self.margin = margin or (AMOS_MARGIN if amos else 1.0)
        self._columns["scene"] = np.zeros(len(self._patches), np.int32) if not amos else self._columns["scene"]

    def _read_patches(self, content: Mapping[str, Any]) -> None:
        self._patches = self._checked(_array(content["patches"], "patches", self.path))
        labels = self._rows(content, "labels", required=True)
        cameras = self._rows(content, "cam_ids")
        self._columns = {"track": labels.astype(np.int64), "image": cameras.astype(np.int32)}
        if content.get("matches") is not None:
            matches = _array(content["matches"], "matches", self.path)
            if matches.ndim != 2 or matches.shape[1] != 3:
                raise DataError(f"{self.path}: matches are {matches.shape}, not (K, 3)")
            self._matches = matches.astype(np.int64)
            if len(matches) and not 0 <= self._matches[:, :2].min() <= self._matches[:, :2].max() < len(self._patches):
                raise DataError(f"{self.path}: matches point outside its {len(self._patches)} patches")

    def _read_sets(self, content: Mapping[str, Any]) -> None:
        sets = _array(content["patch_sets"], "patch_sets", self.path)
        if sets.ndim != 4:
            raise DataError(f"{self.path}: patch_sets are {sets.shape}, not (N, views, S, S) grey patches")
        count, views = sets.shape[:2]
        self._patches = self._checked(sets.reshape(count * views, *sets.shape[2:]))
        cameras = self._rows(content, "cam_idxs", count=count).astype(np.int32)
        self._columns = {
            "track": np.repeat(np.arange(count), views),
            "image": np.repeat(cameras, views) * np.int32(views) + np.tile(np.arange(views, dtype=np.int32), count),
            "scene": np.repeat(cameras, views),
        }
        if content.get("LAFs") is not None:
            lafs = _array(content["LAFs"], "LAFs", self.path).astype(np.float32)
            if lafs.shape != (count, 2, 3):
                raise DataError(f"{self.path}: LAFs are {lafs.shape}, not {(count, 2, 3)}")
            position = np.c_[lafs[:, :, 2], FAR_APART * cameras].astype(np.float32)
            self._columns["position"] = np.repeat(position, views, axis=0)
            self._columns["size"] = np.repeat(laf_scale(lafs), views)
            self.geometry = ("position", "size")
        self._collisions = self._colliding(content.get("collisions"), count)
        if content.get("patches_mask") is not None:
            mask = _array(content["patches_mask"], "patches_mask", self.path)
            if mask.shape != (count, views):
                raise DataError(f"{self.path}: patches_mask is {mask.shape}, not {(count, views)}")
            self._rows_used = np.flatnonzero(mask.reshape(-1))

    def _colliding(self, lists: Any, count: int) -> NDArray[np.int64] | None:
        """A list, for each set, of the sets that overlap it; as pairs."""
        if lists is None:
            return None
        if not isinstance(lists, list | tuple) or len(lists) != count:
            raise DataError(f"{self.path}: collisions are not a list for each of the {count} patch sets")
        found = [_array(item, "collisions", self.path).reshape(-1).astype(np.int64) for item in lists]
        one = np.repeat(np.arange(count), [len(item) for item in found])
        other = np.concatenate([np.zeros(0, np.int64), *found])
        pairs = np.c_[np.minimum(one, other), np.maximum(one, other)]
        return np.asarray(np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0))

    def _checked(self, patches: NDArray[Any]) -> NDArray[np.uint8]:
        if patches.ndim == 4 and 1 in (patches.shape[1], patches.shape[3]):
            patches = patches.reshape(len(patches), *(side for side in patches.shape[1:] if side != 1))
        if patches.ndim != 3 or patches.shape[1] != patches.shape[2] or patches.dtype != np.uint8:
            raise DataError(f"{self.path}: patches are {patches.shape} {patches.dtype}, not (M, S, S) uint8")
        return patches

    def _rows(
        self, content: Mapping[str, Any], key: str, *, required: bool = False, count: int | None = None
    ) -> NDArray[Any]:
        wanted = len(self._patches) if count is None else count
        if content.get(key) is None:
            if required:
                raise DataError(f"{self.path} has no {key}")
            return np.zeros(wanted, np.int64)
        values = _array(content[key], key, self.path).reshape(-1)
        if len(values) != wanted:
            raise DataError(f"{self.path}: {len(values)} {key} for {wanted} patches")
        return values

    def settings(self) -> dict[str, Any]:
        size = self.path.stat().st_size
        return {"kind": self.kind, "file": self.path.name, "bytes": size, "margin": self.margin}

    def pieces(self) -> list[str]:
        count = len(self._patches) if self._rows_used is None else len(self._rows_used)
        return [f"rows {start}" for start in range(0, count, AT_ONCE)]

    def read(self, key: str) -> Piece:
        start = int(key.split()[1])
        part = slice(start, start + AT_ONCE)
        rows = part if self._rows_used is None else self._rows_used[part]
        columns = {name: values[rows] for name, values in self._columns.items()}
        return Piece(np.asarray(self._patches[rows]), columns, self._collisions if start == 0 else None)

    def matches(self) -> NDArray[np.int64] | None:
        return self._matches
