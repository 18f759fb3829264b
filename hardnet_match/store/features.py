"""Features of many images in one HDF5 file, in hloc's layout plus the affine frames."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError
from ..features import DESCRIPTOR_DTYPES, Features
from ..frames import MR_SIZE, make_lafs
from .arrays import finite, turned
from .hdf5 import check_name, told_plainly
from .links import Tree
from .reader import Reader
from .writer import Writer, no_shards

_DETECTION_NOISE = 1.0  # pixels; hloc's localisation reads it from the keypoints' attribute `uncertainty`


class FeatureWriter(Writer):
    """Writes features image by image; a process killed at any moment leaves all images written before it.

    Args:
        path: the HDF5 file; made if there is none, continued if it was made with the same settings.
        settings: all that the features depend on, plain JSON values.
        overwrite: start over instead of continuing.
        buffer: images gathered before the file is touched; 1 writes each at once (a few milliseconds each).
        buffer_bytes: fewer are gathered once they are so large together.

    Raises:
        StoreError: another writer holds the file, it was made with other settings (both are shown), it is
            another program's, or it cannot be written.
    """

    kind = "features"

    def __enter__(self) -> FeatureWriter:
        return self

    def names_done(self) -> set[str]:
        """Names of the images that are complete, those still buffered not among them."""
        return set(self._done)

    def sources(self) -> dict[str, str]:
        """The complete images, each with the `source` it was written with ('' if none)."""
        return dict(self._done)

    def write(self, name: str, features: Features, source: str = "") -> None:
        """File the features of one image, in place of earlier ones of that name.

        Args:
            name: the image's path relative to the image folder, with '/' and extension.
            source: what tells later whether the photo is still the same; any text.

        Raises:
            StoreError: the name cannot be a key, or the file cannot be written.
        """
        self._queue(check_name(name), features, source, value_bytes(features))

    def _finished(self, h5: Any) -> dict[str, str]:
        images = _images(Tree(self.path, h5, no_shards), own=True)
        return {name: str(group.attrs.get("source", "")) for name, group in images}

    def _put(self, h5: Any, key: str, value: Features, source: str) -> None:
        parts = key.split("/")
        for depth in range(1, len(parts)):
            above = "/".join(parts[:depth])
            if above in h5 and _is_image(h5[above]):
                raise StoreError(f"{self.path}: {key!r} cannot be filed under {above!r}, which is an image")
        if key in h5:
            if "keypoints" not in h5[key] and len(h5[key]):
                raise StoreError(f"{self.path}: {key!r} is a folder of images in this file")
            del h5[key]
        group = h5.create_group(key)
        keypoints = group.create_dataset("keypoints", data=value.keypoints)
        keypoints.attrs["uncertainty"] = _DETECTION_NOISE
        group.create_dataset("lafs", data=value.lafs)
        group.create_dataset("scores", data=value.scores)
        group.create_dataset("descriptors", data=turned(value.descriptors))
        group.create_dataset("image_size", data=np.array(value.image_size, dtype=np.int64))
        if value.meta:
            group.attrs["meta"] = json.dumps(dict(value.meta), sort_keys=True)
        if source:
            group.attrs["source"] = source
        group.attrs["digest"] = _digest(value)
        group.attrs["complete"] = True


def value_bytes(features: Features) -> int:
    """Bytes of the arrays of one image."""
    return int(features.lafs.nbytes + features.scores.nbytes + features.descriptors.nbytes)


def _digest(features: Features) -> str:
    """Hash of all that another program's use of the features may depend on."""
    about = features.image_size, features.descriptors.shape, str(features.descriptors.dtype)
    digest = hashlib.sha256(str(about).encode())
    for array in (features.lafs, features.scores, features.descriptors):
        digest.update(np.ascontiguousarray(array))
    return digest.hexdigest()[:32]


def _is_image(group: Any) -> bool:
    """Whether a group holds an image itself: a folder of photos may be called 'keypoints' too."""
    import h5py

    return isinstance(group, h5py.Group) and group.get("keypoints", getclass=True) not in (None, h5py.Group)


def _images(tree: Tree, *, own: bool) -> Iterator[tuple[str, Any]]:
    """(name, group) of the images, in no order; of a file of ours (`own`) the complete ones.

    Files that a view joins stay closed: its own groups are given. One group is open at a time, of millions.
    """
    waiting, seen = [("", tree.root)], set()
    while waiting:
        prefix, group = waiting.pop()
        if group.id in seen:  # a damaged or hostile file may hold a folder that holds itself
            continue
        seen.add(group.id)
        for key in group:
            child = tree.member(group, key)
            if not hasattr(child, "keys"):
                continue
            kind = tree.kind(child, "keypoints")
            if not kind or (kind == "hard" and not _is_image(child)):
                waiting.append((f"{prefix}{key}/", child))
            elif not own or kind == "external" or bool(child.attrs.get("complete")):
                yield prefix + key, child


class FeatureReader(Reader):
    """Reads features of this package, of hloc, and of anything else in hloc's layout.

    A file without `lafs` gives frames around its keypoints: of its `scales` (standard deviation in pixels) and `shapes`
    ((N, 2, 2) of determinant 1, as this package's extractor in hloc leaves them), or round ones of its `scales` and
    `oris` (degrees, clockwise on the screen, as hloc writes them) where it has them, else upright of standard
    deviation 1 pixel. Without `scores` all are 1; without `image_size` it is the smallest that holds the keypoints.
    Keypoints and scores come as float32 whatever they were stored as.

    Raises:
        StoreError: there is no such file, or it is not readable HDF5.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._names: list[str] | None = None
        self._mine = threading.local()

    def __enter__(self) -> FeatureReader:
        return self

    def names(self) -> list[str]:
        """Names of the complete images, sorted."""
        if self._names is None:
            with told_plainly(self.path, "list its images"):
                self._names = sorted(name for name, _ in _images(self._tree, own=self.own))
        return list(self._names)

    def groups(self) -> Iterator[tuple[str, Any]]:
        """(name, group) of the complete images, as the file has them."""
        with told_plainly(self.path, "list its images"):
            yield from _images(self._tree, own=self.own)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _group(self, name: str) -> Any:
        check_name(name)
        with told_plainly(self.path, f"read image {name!r}"):
            group = self._tree.at(name)
            if not hasattr(group, "keys") or not self._tree.kind(group, "keypoints"):
                raise StoreError(f"{self.path} has no features of image {name!r}")
            if self._tree.kind(group, "keypoints") == "external":  # a view: all of the image is where this leads
                keypoints = self._tree.member(group, "keypoints")
                if keypoints is None:
                    raise StoreError(
                        f"{self.path}: {name!r} is no longer in the file that it was joined from; join again"
                    )
                group = keypoints.parent
            if self.own and not bool(group.attrs.get("complete", False)):
                raise StoreError(f"{self.path}: the features of {name!r} are not complete; extract it again")
            return group

    def digest(self, name: str) -> str:
        """A hash of an image's arrays as they were written; '' in a file that has none (of another program, ...)."""
        group = self._group(name)
        with told_plainly(self.path, f"read the digest of {name!r}"):
            return str(group.attrs.get("digest", ""))

    def _has(self, group: Any, key: str) -> bool:
        return bool(self._tree.kind(group, key))

    def _room(self, dataset: Any) -> NDArray[Any]:
        """An array to read a dataset into, this thread's until it asks again: to be copied from. Memory that is new
        every time takes longer to get than the file to read."""
        if not hasattr(self._mine, "room") or self._mine.room.nbytes < dataset.nbytes:
            self._mine.room = np.empty(dataset.nbytes, np.uint8)
        room: NDArray[Any] = self._mine.room[: dataset.nbytes].view(dataset.dtype).reshape(dataset.shape)
        return room

    def _array(
        self, group: Any, name: str, key: str, shape: tuple[int | None, ...], *, borrow: bool = False
    ) -> NDArray[Any]:
        with told_plainly(self.path, f"read {key} of {name!r}"):
            dataset = self._tree.dataset(group, key)
            if dataset is None or dataset.dtype.kind not in "fiu":
                raise StoreError(f"{self.path}: {key} of {name!r} is not an array of numbers")
            if borrow and dataset.size:
                array = self._room(dataset)
                dataset.read_direct(array)
            else:
                array = dataset[()]
        if array.ndim != len(shape) or any(
            want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
        ):
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise StoreError(f"{self.path}: {key} of {name!r} has shape {array.shape}, not ({wanted})")
        if array.dtype.kind == "f" and not finite(array):
            raise StoreError(f"{self.path}: {key} of {name!r} hold NaN or infinity; extract it again")
        return array

    def keypoints(self, name: str) -> NDArray[np.float32]:
        """(N, 2) float32 x, y in pixels of the image file, pixel centres at integers."""
        return self._keypoints(self._group(name), name)

    def _keypoints(self, group: Any, name: str) -> NDArray[np.float32]:
        return self._array(group, name, "keypoints", (None, 2)).astype(np.float32, copy=False)

    def lafs(self, name: str) -> NDArray[np.float32]:
        """Local affine frames, (N, 2, 3) float32."""
        return self._lafs(self._group(name), name)

    def _lafs(self, group: Any, name: str) -> NDArray[np.float32]:
        if self._has(group, "lafs"):
            return self._array(group, name, "lafs", (None, 2, 3)).astype(np.float32, copy=False)
        xy = self._keypoints(group, name)
        count = len(xy)
        scales = self._array(group, name, "scales", (count,)) if self._has(group, "scales") else np.ones(count)
        if self._has(group, "shapes"):
            axes = self._array(group, name, "shapes", (count, 2, 2)) * (np.asarray(scales) * MR_SIZE)[:, None, None]
            return np.concatenate([axes, xy[:, :, None]], axis=2).astype(np.float32)
        clockwise = self._array(group, name, "oris", (count,)) if self._has(group, "oris") else np.zeros(count)
        return make_lafs(xy, scales * MR_SIZE, -clockwise)

    def descriptors(self, name: str) -> NDArray[Any]:
        """(N, D) float32, float16 or uint8, as stored; contiguous."""
        return self._descriptors(self._group(name), name, None)

    def _descriptors(self, group: Any, name: str, count: int | None) -> NDArray[Any]:
        stored = self._array(group, name, "descriptors", (None, count), borrow=True)
        if stored.dtype not in DESCRIPTOR_DTYPES:
            stored = stored.astype(np.float32)
        return turned(stored)

    def descriptor_shape(self, name: str) -> tuple[int, int, str]:
        """(N, D, dtype) of an image's descriptors, without reading them."""
        group = self._group(name)
        with told_plainly(self.path, f"read the shape of the descriptors of {name!r}"):
            dataset = self._tree.dataset(group, "descriptors")
            if dataset is None:
                raise StoreError(f"{self.path} has no descriptors of {name!r}")
            dim, count = dataset.shape
            return int(count), int(dim), str(dataset.dtype)

    def image_size(self, name: str) -> tuple[int, int]:
        """(width, height) of the image file in pixels."""
        return self._image_size(self._group(name), name)

    def _image_size(self, group: Any, name: str) -> tuple[int, int]:
        if not self._has(group, "image_size"):
            corner = self._keypoints(group, name).max(axis=0, initial=0)
            return int(np.ceil(corner[0])) + 1, int(np.ceil(corner[1])) + 1
        width, height = self._array(group, name, "image_size", (2,))
        if width <= 0 or height <= 0:
            raise StoreError(f"{self.path}: image_size of {name!r} is {width} x {height}")
        return int(width), int(height)

    def read(self, name: str) -> Features:
        """All of one image.

        Raises:
            StoreError: there is no such image, or its record is damaged or inconsistent.
        """
        group = self._group(name)
        lafs = self._lafs(group, name)
        count = len(lafs)
        has_scores = self._has(group, "scores")
        scores = self._array(group, name, "scores", (count,)) if has_scores else np.ones(count)
        descriptors = self._descriptors(group, name, count)
        with told_plainly(self.path, f"read image {name!r}"):
            if self._tree.dataset(group, "keypoints").shape != (count, 2):
                raise StoreError(f"{self.path}: keypoints and lafs of {name!r} differ in number; extract it again")
            meta = json.loads(group.attrs.get("meta", "{}"))
            return Features(
                lafs, scores.astype(np.float32, copy=False), descriptors, self._image_size(group, name), meta
            )
