"""One writer of one file. Base of the writers of features and of matches."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .hdf5 import VERSION, acquire, canonical, differences, open_for_reading, release, settings_hash, told_plainly
from .journal import journal_path, recover, transaction
from .shards import Shard, finished_note, shard_of


def no_shards(place: Path) -> Any:
    """In place of opening another file, where none may be led to.

    Raises:
        StoreError: always.
    """
    raise StoreError(f"{place.name} is led to by a file that should hold its data itself; name another output file")


class Writer:
    """One writer of one file: locked, settings checked, every flush a whole one. Base of the two writers."""

    kind = ""

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        overwrite: bool = False,
        buffer: int = 1,
        buffer_bytes: int | None = None,
    ) -> None:
        if buffer < 1:
            raise StoreError(f"buffer must be at least 1, got {buffer}")
        self.path = Path(path)
        self.settings: dict[str, Any] = json.loads(canonical(settings))
        self._buffer = buffer
        self._buffer_bytes, self._pending_bytes = buffer_bytes, 0
        self._pending: dict[Any, Any] = {}
        with told_plainly(self.path, "make its folder"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = acquire(self.path)
        try:
            with told_plainly(self.path, "open it for writing"):
                if overwrite:
                    journal_path(self.path).unlink(missing_ok=True)
                    self.path.unlink(missing_ok=True)
                else:
                    recover(self.path)
                if not self.path.exists():
                    self._create()
            with open_for_reading(self.path) as h5, told_plainly(self.path, "read what is already in it"):
                self._check_settings(h5)
                self._done: dict[Any, Any] = self._finished(h5)
        except BaseException:
            release(self._lock)
            raise

    def _create(self) -> None:
        import h5py

        part = self.path.with_name(self.path.name + ".part")
        try:
            with h5py.File(part, "w") as h5:
                h5.attrs["format"] = f"hardnet-match {self.kind}"
                h5.attrs["version"] = VERSION
                h5.attrs["settings"] = canonical(self.settings)
                h5.attrs["settings_hash"] = settings_hash(self.settings)
            os.replace(part, self.path)
        finally:
            part.unlink(missing_ok=True)

    def _check_settings(self, h5: Any) -> None:
        if "view" in h5.attrs:
            raise StoreError(f"{self.path} is a view that joins other files; write to those, or name another file")
        if h5.attrs.get("format") != f"hardnet-match {self.kind}":
            raise StoreError(
                f"{self.path} is not a {self.kind} file of this package; name another output file, or overwrite it"
            )
        if h5.attrs.get("version") != VERSION:
            raise StoreError(f"{self.path} has layout version {h5.attrs.get('version')}, this package writes {VERSION}")
        old = json.loads(h5.attrs["settings"])
        if old != self.settings:
            raise StoreError(
                f"{self.path} was made with other settings ({differences(old, self.settings)}); "
                f"use the old settings, name another output file, or overwrite it"
            )

    def begin(self, shard: Shard | None) -> None:
        """Say which part of the work this file holds, before any of it is written; None for all of it.

        Raises:
            StoreError: the file holds another part, or it cannot be written.
        """
        with open_for_reading(self.path) as h5, told_plainly(self.path, "read which shard it is"):
            there, ended = shard_of(h5.attrs.get("shard")), "finished" in h5.attrs
        if there != shard and (there is not None or self._done):
            named = [f"shard {part}" if part else "all of it" for part in (there, shard)]
            raise StoreError(f"{self.path} holds {named[0]}, not {named[1]}; name another output file, or overwrite it")
        if shard is not None and (there is None or ended):
            with told_plainly(self.path, "write to it"), transaction(self.path) as h5:
                h5.attrs["shard"] = str(shard)
                if ended:  # until it comes to its end again
                    del h5.attrs["finished"]

    def end(self, skipped: int) -> None:
        """Say that a shard has all that it will have; `skipped` of its items were left out.

        Raises:
            StoreError: it cannot be written.
        """
        self.flush()
        with told_plainly(self.path, "write to it"), transaction(self.path) as h5:
            h5.attrs["finished"] = finished_note(len(self._done), skipped)

    def _finished(self, h5: Any) -> dict[Any, Any]:
        """What is complete, and what each was made from."""
        raise NotImplementedError

    def _put(self, h5: Any, key: Any, value: Any, source: Any) -> None:
        raise NotImplementedError

    def _queue(self, key: Any, value: Any, source: Any, size: int) -> None:
        self._pending[key] = value, source
        self._pending_bytes += size
        full = self._buffer_bytes is not None and self._pending_bytes >= self._buffer_bytes
        if full or len(self._pending) >= self._buffer:
            self.flush()

    def flush(self) -> None:
        """Write what is still buffered.

        Raises:
            StoreError: it cannot be written (no space, ...); the file keeps all earlier flushes.
        """
        if not self._pending:
            return
        pending, self._pending, self._pending_bytes = self._pending, {}, 0
        with told_plainly(self.path, "write to it"), transaction(self.path) as h5:
            for key, (value, source) in pending.items():
                self._put(h5, key, value, source)
        self._done.update((key, source) for key, (_, source) in pending.items())

    def close(self) -> None:
        """Flush and give the lock back."""
        if self._lock.is_locked:
            try:
                self.flush()
            finally:
                release(self._lock)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
