"""Several files read as one: a small file of links to them, in which nothing is copied but the sizes of images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .features import FeatureReader
from .hdf5 import VERSION, acquire, canonical, release, settings_hash, told_plainly
from .matches import MatchReader, pair_key, spare_key

# Groups of HDF5's newer format take half the room; any HDF5 since 1.10 (2016) reads them.
_FORMAT = ("v110", "v110")


class ViewWriter:
    """Writes a view, which appears as a whole on leaving the block, or not at all if that raises.

    A features view has a group an image, with links to the arrays in the file that holds them and a copy of
    `image_size`: programs that walk a file without following links (hloc's listing does) see each image all the same.
    A matches view has a group a pair, with its names and links to the arrays.

    Args:
        output: the file; an earlier view there is replaced.
        kind: `features` or `matches`.
        settings: those of every file that is joined.

    Raises:
        StoreError: the output holds data itself, is being written, or cannot be written.
    """

    def __init__(self, output: Path, kind: str, settings: dict[str, Any]) -> None:
        self.output, self.kind, self.settings = output, kind, settings
        self._folder = Path(os.path.realpath(output.parent))
        self._part = output.with_name(output.name + ".part")
        self._links: list[str] = []
        self._from: dict[Any, Path] = {}
        self._lock = acquire(output)
        try:
            if output.exists() and not _is_view(output):
                raise StoreError(f"{output} exists and joins no files; name another output")
            self._h5 = self._created()
        except BaseException:
            release(self._lock)
            raise

    def _created(self) -> Any:
        import h5py

        with told_plainly(self.output, "write it"):
            return h5py.File(self._part, "w", libver=_FORMAT)

    def add(self, reader: FeatureReader | MatchReader) -> int:
        """Link to all complete images or pairs of a file; how many they are.

        Raises:
            StoreError: the file is not below the output's folder; another one has the same image or pair; an image
                is named like a folder of another file; the output cannot be written.
        """
        link = self.link_to(reader.path)
        count = 0
        for name, group in reader.groups():
            self._claim(name, reader.path)
            with told_plainly(self.output, f"write {name}"):
                if isinstance(name, str):
                    self._link_image(link, name, group)
                else:
                    self._link_pair(link, name, group)
            count += 1
        self._links.append(link)
        return count

    def link_to(self, path: Path) -> str:
        """How the view names a file: relative to its own folder, so that the folder can be moved.

        Raises:
            StoreError: the file is not below that folder.
        """
        place = Path(os.path.realpath(path))
        if not place.is_relative_to(self._folder):
            raise StoreError(
                f"{path} is not below {self._folder}, where {self.output.name} is to lie: it leads only to files below "
                "its own folder, so that it can be moved with them and leads nowhere else; write it beside or above"
            )
        return place.relative_to(self._folder).as_posix()

    def _claim(self, name: Any, path: Path) -> None:
        key = name if isinstance(name, str) else frozenset(name)
        told = name if isinstance(name, str) else " and ".join(name)
        if key in self._from:
            raise StoreError(f"{told} is in {self._from[key]} and again in {path}; leave one of the files out")
        if isinstance(name, str):
            above = next((folder for folder in _folders(name) if folder in self._from), None)
            if above is not None or name in self._h5:
                raise StoreError(f"{path}: {above or name!r} is an image in one file and a folder in another")
        self._from[key] = path

    def _link_image(self, link: str, name: str, group: Any) -> None:
        import h5py

        own = self._h5.create_group(name)
        for key in group:
            if key == "image_size":
                own.create_dataset(key, data=group[key][()])
            else:
                own[key] = h5py.ExternalLink(link, f"{group.name}/{key}")

    def _link_pair(self, link: str, names: tuple[str, str], group: Any) -> None:
        import h5py

        place = pair_key(*names)
        if place in self._h5:  # of a pair that differs in '/' and '-' alone
            place = spare_key(*names)
        own = self._h5.create_group(place)
        for key in group:
            own[key] = h5py.ExternalLink(link, f"{group.name}/{key}")
        # what lists the pairs does not have to open the files
        own.attrs["name0"], own.attrs["name1"] = names
        own.attrs["complete"] = True

    def __enter__(self) -> ViewWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        try:
            with told_plainly(self.output, "write it"):
                if kind is None:
                    self._h5.attrs["format"] = f"hardnet-match {self.kind}"
                    self._h5.attrs["version"] = VERSION
                    self._h5.attrs["settings"] = canonical(self.settings)
                    self._h5.attrs["settings_hash"] = settings_hash(self.settings)
                    self._h5.attrs["view"] = json.dumps(self._links)
                self._h5.close()
                if kind is None:
                    os.replace(self._part, self.output)
        finally:
            self._part.unlink(missing_ok=True)
            release(self._lock)


def _folders(name: str) -> Iterator[str]:
    """Every folder that a name lies in."""
    parts = name.split("/")
    return ("/".join(parts[:depth]) for depth in range(1, len(parts)))


def _is_view(path: Path) -> bool:
    import h5py

    try:
        with h5py.File(path, "r") as h5:
            return "view" in h5.attrs
    except OSError:
        return False
