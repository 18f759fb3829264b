"""Pieces of a patch set on their way into its file: appended one by one, safe from a kill at any moment.

A folder beside the file to be: `patches` and `rows` hold raw records and only ever grow; the lines of `log` are written
after their pieces' records are on the disk. Whoever opens the folder next cuts the records back to what the log says.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import patchfile
from .base import Piece, Source

RECORDS = ("patches", "rows", "collisions")
SYNC_SECONDS = 1.0
"""Most work that a kill may cost: waiting for the disk after every small piece would cost far more."""


class Spool:
    """The pieces read so far.

    Args:
        folder: made if missing; one made from other settings is emptied.
        source: whose pieces these are.
    """

    def __init__(self, folder: Path, source: Source) -> None:
        self.folder, self.side = folder, source.side
        self.dtype = np.dtype(
            [(key, *patchfile.ROWS[key][:2]) for key in ("track", "image", "scene", *source.geometry)]
        )
        self.done: dict[str, str | None] = {}
        """Pieces by key: None, or why a piece was left out."""
        self._counts = dict.fromkeys(RECORDS, 0)
        self._bytes = {"patches": self.side**2, "rows": self.dtype.itemsize, "collisions": 16}
        head = json.dumps({"settings": source.settings(), "rows": str(self.dtype.descr)}, sort_keys=True)
        if not self._resume(head):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            (folder / "log").write_text(head + "\n", encoding="utf-8")
        self._files = {name: (folder / name).open("ab") for name in RECORDS}
        for name, file in self._files.items():
            file.truncate(self._counts[name] * self._bytes[name])
        self._pending: list[str] = []
        self._synced = time.monotonic()

    def _resume(self, head: str) -> bool:
        try:
            text = (self.folder / "log").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False
        lines = text.splitlines(keepends=True)
        if not lines or lines[0] != head + "\n":
            return False
        for number, line in enumerate(lines[1:], 1):
            if not line.endswith("\n"):  # the process was killed within it
                (self.folder / "log").write_text("".join(lines[:number]), encoding="utf-8")
                break
            try:
                entry = json.loads(line)
                self.done[str(entry["key"])] = entry["skipped"]
                self._counts = {name: int(entry[name]) for name in RECORDS}
            except (ValueError, KeyError, TypeError, RecursionError):  # damaged: it is made anew
                self.done.clear()
                self._counts = dict.fromkeys(RECORDS, 0)
                return False
        return True

    def __len__(self) -> int:
        return self._counts["rows"]

    def add(self, key: str, piece: Piece | None, skipped: str | None = None) -> None:
        """Append a piece, or the reason why there is none; safe after the next `sync`."""
        if piece is not None:
            rows = np.zeros(len(piece), self.dtype)
            for column in self.dtype.names or ():
                rows[column] = piece.columns[column]
            collisions = np.zeros((0, 2), np.int64) if piece.collisions is None else piece.collisions
            for name, values in (("patches", piece.patches), ("rows", rows), ("collisions", collisions)):
                self._files[name].write(np.ascontiguousarray(values).tobytes())
                self._counts[name] += len(values)
        self._pending.append(json.dumps({"key": key, "skipped": skipped, **self._counts}) + "\n")
        self.done[key] = skipped
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Make what was added so far safe."""
        pending, self._pending = self._pending, []
        if pending:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
            with (self.folder / "log").open("a", encoding="utf-8") as log:
                log.write("".join(pending))
                log.flush()
                os.fsync(log.fileno())
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync, and let go of the files."""
        try:
            self.sync()
        finally:
            for file in self._files.values():
                file.close()

    def _mapped(self, name: str, dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        count = self._counts[name]
        if not count:
            return np.zeros((0, *shape), dtype)
        return np.memmap(self.folder / name, dtype, "r", shape=(count, *shape)).view(np.ndarray)

    def patches(self) -> NDArray[np.uint8]:
        """All patches in the order of the pieces, mapped."""
        return self._mapped("patches", np.uint8, (self.side, self.side))

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The columns in the same order, in memory."""
        rows = self._mapped("rows", self.dtype, ())
        return {name: np.ascontiguousarray(rows[name]) for name in self.dtype.names or ()}

    def collisions(self) -> NDArray[np.int64] | None:
        """Pairs of tracks, each once, in memory; None if there are none."""
        pairs = self._mapped("collisions", np.int64, (2,))
        return np.unique(pairs, axis=0) if len(pairs) else None

    def remove(self) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)
