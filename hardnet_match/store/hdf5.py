"""What the features and the matches files share: names, settings, the lock, and h5py's errors in our words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import StoreError
from .journal import journal_path, recover, transaction
from .links import Tree
from .shards import Shard, finished_note, shard_of

VERSION = 1


def check_name(name: str) -> str:
    """The name if an image may be filed under it: a relative POSIX path without '.' or '..' parts, valid UTF-8.

    Raises:
        StoreError: it is not.
    """
    reason = None
    if not name or "\0" in name:
        reason = "is empty or holds a NUL"
    elif name.startswith("/"):
        reason = "is absolute; names are relative to the image folder"
    elif any(part in ("", ".", "..") for part in name.split("/")):
        reason = "has an empty, '.' or '..' part; names are plain relative paths like 'folder/photo.jpg'"
    else:
        try:
            name.encode("utf-8")
        except UnicodeEncodeError:
            reason = "is not valid UTF-8; rename the file"
    if reason:
        raise StoreError(f"image name {name!r} {reason}")
    return name


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Short SHA-256 of the settings as canonical JSON."""
    return hashlib.sha256(canonical(settings).encode()).hexdigest()[:16]


def canonical(settings: Mapping[str, Any]) -> str:
    """The settings as JSON with sorted keys.

    Raises:
        StoreError: they hold something that JSON does not.
    """
    try:
        return json.dumps(settings, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"settings must be plain JSON values: {error}") from None


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """'key: old value -> new value' of every setting that differs, on one line."""
    parts = []
    for key in sorted({*old, *new}):
        was, now = old.get(key, "(not set)"), new.get(key, "(not set)")
        if isinstance(was, Mapping) and isinstance(now, Mapping):
            parts += [f"{key}.{inner}" for inner in differences(was, now).split("; ") if inner]
        elif was != now:
            parts.append(f"{key}: {was!r} -> {now!r}")
    return "; ".join(parts)


@contextmanager
def told_plainly(path: Path, doing: str) -> Iterator[None]:
    """Turn what h5py and the system raise into one StoreError that says what was being done to which file."""
    try:
        yield
    except StoreError:
        raise
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, UnicodeError) as error:
        reason = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        raise StoreError(f"{path}: cannot {doing}: {reason}") from error


def acquire(path: Path) -> Any:
    """The lock of the one writer of a file; `release` it.

    Raises:
        StoreError: another process, or another writer in this one, holds it, or the folder cannot be written.
    """
    import filelock

    lock = filelock.FileLock(path.with_name(path.name + ".lock"), timeout=0, is_singleton=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(f"{path} is being written by another process; wait for it, or write to another file") from None
    except (OSError, NotImplementedError) as error:
        raise StoreError(f"{path}: cannot lock it for writing: {error}") from error
    return lock


def release(lock: Any) -> None:
    """Give the lock back and leave no lock file behind."""
    with suppress(OSError):  # removed while held: whoever locks the removed file next sees that it has no name
        os.unlink(lock.lock_file)
    lock.release()


def open_for_reading(path: Path) -> Any:
    """An `h5py.File` to read, after finishing or undoing what a killed writer left.

    Raises:
        StoreError: there is no such file, or it is damaged or not HDF5.
    """
    import h5py

    if not path.is_file():
        raise StoreError(f"{path}: no such file")
    if journal_path(path).exists():
        try:
            lock = acquire(path)
        except StoreError:
            pass  # its writer is alive, or this folder is read-only
        else:
            try:
                with told_plainly(path, "finish what a killed process left in it"):
                    recover(path)
            finally:
                release(lock)
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise StoreError(f"{path}: not a readable HDF5 file: {error}") from error


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
