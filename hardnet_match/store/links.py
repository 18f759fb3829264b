"""Objects of an HDF5 file by path, where links lead into other files: only below the file's own folder.

HDF5 follows external links wherever they point, through environment variables and the current directory too. A file
that came from elsewhere could so make its reader open any other file. Links are therefore resolved here, and HDF5
never sees one.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import StoreError

OPEN_SHARDS = 256
"""Shards kept open at once: opening one costs milliseconds, and a process has some thousand handles."""
_SOFT_LINKS = 8


class Tree:
    """The objects of an open file, and of the files below its folder that its external links name.

    Args:
        path: where the file lies.
        h5: the open `h5py.File`.
        open_shard: opens another file to read, as an `h5py.File`; raises StoreError.
    """

    def __init__(self, path: Path, h5: Any, open_shard: Callable[[Path], Any]) -> None:
        self._path, self._root, self._open = path, h5["/"], open_shard
        self._folder = Path(os.path.realpath(path)).parent
        self._shards: OrderedDict[Path, Any] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def root(self) -> Any:
        """The file's root group."""
        return self._root

    def kind(self, group: Any, key: str) -> str:
        """`hard`, `soft` or `external`: what a link of a group is, not followed; '' if there is none."""
        from h5py import h5l

        if key in ("", ".") or "/" in key:  # HDF5 would take it for a path
            return ""
        name = key.encode("utf-8", "surrogateescape")
        if not group.id.links.exists(name):
            return ""
        found = group.id.links.get_info(name).type
        return {h5l.TYPE_HARD: "hard", h5l.TYPE_SOFT: "soft", h5l.TYPE_EXTERNAL: "external"}.get(found, "")

    def at(self, path: str) -> Any:
        """The object at an absolute or relative path; None if there is none.

        Raises:
            StoreError: a link on the way leads where none may lead, or to a file that is missing or damaged.
        """
        return self._walk(self.root, path, _SOFT_LINKS, external=True)

    def member(self, group: Any, key: str) -> Any:
        """What a link of a group leads to; None if there is none.

        Raises:
            StoreError: as `at`.
        """
        return self._step(group, key, _SOFT_LINKS, external=True)[0]

    def dataset(self, group: Any, key: str) -> Any:
        """A dataset of a group whose values lie in the group's own file; None if there is none.

        Raises:
            StoreError: it is no dataset, or its values are kept in another file.
        """
        import h5py

        found, _ = self._step(group, key, _SOFT_LINKS, external=False)
        if found is None:
            return None
        if not isinstance(found, h5py.Dataset) or found.shape is None:  # which HDF5 calls null
            raise StoreError(f"{self._path}: {key} of {group.name} is not an array")
        if found.is_virtual or found.external:
            raise StoreError(f"{self._path}: {key} of {group.name} keeps its values in another file, which is not read")
        return found

    def shard(self, filename: str) -> Path:
        """Where the file of an external link lies.

        Raises:
            StoreError: it is not below this file's folder.
        """
        place = Path(os.path.realpath(self._folder / filename))
        if "\0" in filename or os.path.isabs(filename) or not place.is_relative_to(self._folder):
            raise StoreError(
                f"{self._path}: a link in it leads to {filename}, which is not below the folder of this file; "
                "links are followed only there"
            )
        return place

    def close(self) -> None:
        """Close the shards."""
        with self._lock:
            for h5 in self._shards.values():
                h5.close()
            self._shards.clear()

    def _walk(self, start: Any, path: str, soft: int, *, external: bool) -> Any:
        found = start
        for part in path.split("/"):
            if not part:
                continue
            if not hasattr(found, "keys"):
                return None
            found, left = self._step(found, part, soft, external=external)
            external = external and not left
        return found

    def _step(self, group: Any, key: str, soft: int, *, external: bool) -> tuple[Any, bool]:
        """What a link leads to, and whether that is in another file."""
        kind = self.kind(group, key)
        if kind == "":
            return None, False
        if kind == "hard":
            return group[key], False
        link = group.get(key, getlink=True)
        if kind == "soft":
            if not soft:
                raise StoreError(f"{self._path}: too many soft links behind one another at {key!r}")
            start = group.file["/"] if link.path.startswith("/") else group
            return self._walk(start, link.path, soft - 1, external=False), False
        if not external:
            raise StoreError(f"{self._path}: {key} of {group.name} is a link into yet another file; it is not followed")
        shard = self._opened(self.shard(link.filename))
        return self._walk(shard["/"], link.path, _SOFT_LINKS, external=False), True

    def _opened(self, place: Path) -> Any:
        with self._lock:
            if place in self._shards:
                self._shards.move_to_end(place)
                return self._shards[place]
            h5 = self._shards[place] = self._open(place)
            if len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)[1].close()
            return h5
