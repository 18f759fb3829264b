"""One open file to read, and those it may lead to. Base of the readers of features and of matches."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .hdf5 import open_for_reading, told_plainly
from .links import Tree
from .shards import Shard, shard_of


class Reader:
    """One open file to read. Base of the two readers; a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._h5 = open_for_reading(self.path)
        self._tree = Tree(self.path, self._h5, self._open_shard)
        try:
            self._check_shards()
        except BaseException:
            self._h5.close()
            raise

    def _check_shards(self) -> None:
        """Every shard of a view is looked for at once: an hour later is no time to hear that one is missing."""
        missing = [name for name in self.shards if not self._tree.shard(name).is_file()]
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise StoreError(
                f"{self.path}: it joins {len(self.shards)} files, of which {', '.join(missing[:3])}{more} "
                f"are not there; put them back beside it, or join again"
            )

    def _open_shard(self, place: Path) -> Any:
        h5 = open_for_reading(place)
        made = str(h5.attrs.get("settings_hash", ""))
        if self.own and made != self.settings_hash:
            h5.close()
            raise StoreError(
                f"{self.path}: {place.name} was made with other settings (hash {made}) since they were joined "
                f"(hash {self.settings_hash}); join again"
            )
        return h5

    @property
    def tree(self) -> Tree:
        """The file's objects by path, links into files elsewhere refused."""
        return self._tree

    @property
    def kind(self) -> str:
        """`features` or `matches`, as a file of this package says; '' for another program's file."""
        return str(self._h5.attrs.get("format", "")).removeprefix("hardnet-match ") if self.own else ""

    @property
    def shards(self) -> list[str]:
        """Files that a joined view leads to, relative to its folder; none for a file that holds its data itself."""
        with told_plainly(self.path, "read which files it joins"):
            listed = json.loads(self._h5.attrs.get("view", "[]"))
            if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
                raise StoreError(f"{self.path}: its list of joined files is damaged; join again")
            return listed

    @property
    def shard(self) -> Shard | None:
        """Which part of the work the file holds, if it says so."""
        return shard_of(self._h5.attrs.get("shard"))

    @property
    def finished(self) -> dict[str, int] | None:
        """What a shard that came to its end says: `items` it has, `skipped` it left out. None before its end."""
        with told_plainly(self.path, "read whether it is finished"):
            note = self._h5.attrs.get("finished")
            return None if note is None else {key: int(value) for key, value in json.loads(note).items()}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings that made the file; empty for another program's file."""
        with told_plainly(self.path, "read its settings"):
            text = self._h5.attrs.get("settings")
            settings = {} if text is None else json.loads(text)
            if not isinstance(settings, dict):
                raise StoreError(f"{self.path}: its settings are not a JSON object")
            return settings

    @property
    def settings_hash(self) -> str:
        """Hash of the settings, '' for another program's file."""
        return str(self._h5.attrs.get("settings_hash", ""))

    @property
    def own(self) -> bool:
        """Whether this package wrote the file."""
        return str(self._h5.attrs.get("format", "")).startswith("hardnet-match ")

    def close(self) -> None:
        """Close the file."""
        self._tree.close()
        self._h5.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
