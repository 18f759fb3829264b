"""Changes to a file that happen as a whole or not at all, whenever the process is killed.

HDF5 updates its tables in place, in many small writes; a process killed between two of them leaves earlier records
unreadable (simulated kill after every single write of an append: about one in four left a broken file). So an append
goes through `JournaledFile`: bytes beyond the old end are written to the file itself, where nobody looks yet, and
changes of old bytes wait in memory until they are safe in a journal beside the file. `recover` finishes or undoes
whatever an earlier process left. Each step is on the disk before the next one counts on it, so that losing the power is
no worse than being killed.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..whole import sync_folder

_PAGE = 4096
_BEGIN = b"hmjrnl-B"  # an append was under way: cut the file back to its old size
_COMMIT = b"hmjrnl-C"  # the append was complete: put these pages in place
_OLD_KINDS = {b"hmjrnl-b": _BEGIN, b"hmjrnl-c": _COMMIT}  # as 0.1 wrote them: the checksum was of the pages alone
_HEAD = struct.Struct("<8sQQI")  # kind, size of the file, number of pages, CRC-32 of these and the pages
_PAGE_HEAD = struct.Struct("<QI")  # offset, length


def journal_path(path: Path) -> Path:
    """Where the journal of a file lies."""
    return path.with_name(path.name + ".journal")


def _checksum(kind: bytes, size: int, pages: int, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(_HEAD.pack(kind, size, pages, 0)))


def recover(path: Path) -> None:
    """Finish or undo an append that another process did not live to finish. Only for the holder of the file's lock.

    Raises:
        OSError: the file or its journal cannot be read or written.
    """
    journal = journal_path(path)
    try:
        blob = journal.read_bytes()
    except FileNotFoundError:
        return
    if path.exists() and len(blob) >= _HEAD.size:
        kind, size, pages, checksum = _HEAD.unpack_from(blob)
        body = blob[_HEAD.size :]
        expected = zlib.crc32(body) if kind in _OLD_KINDS else _checksum(kind, size, pages, body)
        if _OLD_KINDS.get(kind, kind) in (_BEGIN, _COMMIT) and expected == checksum:
            with open(path, "r+b") as file:
                _apply(file, body, pages)
                file.truncate(size)
                file.flush()
                _sync(file)
    journal.unlink()


def _sync(file: Any) -> None:
    """Through to the disk: a machine that loses its power must not have the journal's end without its beginning."""
    with suppress(io.UnsupportedOperation):
        os.fsync(file.fileno())


def _apply(file: Any, body: bytes, pages: int) -> None:
    at = 0
    for _ in range(pages):
        offset, length = _PAGE_HEAD.unpack_from(body, at)
        at += _PAGE_HEAD.size
        file.seek(offset)
        file.write(body[at : at + length])
        at += length


class JournaledFile(io.RawIOBase):
    """A binary file whose old bytes stay as they are until `commit`; h5py opens it like any file object.

    h5py does not recover from an exception inside its calls. So the first failure to write (no space, ...) is kept in
    `error`, later writes go nowhere, and `commit` raises it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open(path, "r+b", buffering=0)  # noqa: SIM115 (closed in close)
        self._old_size = self._size = os.fstat(self._file.fileno()).st_size
        self._position = 0
        self._changed: dict[int, bytearray] = {}
        self.error: OSError | None = None
        self._committed = False
        self._write_journal(_BEGIN, self._old_size, b"", 0)

    def _write_journal(self, kind: bytes, size: int, body: bytes, pages: int) -> None:
        journal = journal_path(self._path)
        part = journal.with_name(journal.name + ".part")
        try:
            with open(part, "wb") as file:
                file.write(_HEAD.pack(kind, size, pages, _checksum(kind, size, pages, body)) + body)
                if kind == _COMMIT:
                    file.flush()
                    _sync(file)
            os.replace(part, journal)
            if kind == _COMMIT:
                sync_folder(journal.parent)
        except OSError:
            part.unlink(missing_ok=True)
            raise

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def _page(self, number: int) -> bytearray:
        if number not in self._changed:
            start = number * _PAGE
            self._file.seek(start)
            self._changed[number] = bytearray(self._file.read(min(_PAGE, self._old_size - start)))
        return self._changed[number]

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        start, count = self._position, max(0, min(len(view), self._size - self._position))
        self._file.seek(start)
        done = 0
        while done < count:
            got = self._file.readinto(view[done:count])
            if not got:  # a hole at the end that was asked for by truncate but not written
                view[done:count] = bytes(count - done)
                break
            done += got
        if start < self._old_size:
            for number in range(start // _PAGE, (min(start + count, self._old_size) - 1) // _PAGE + 1):
                page = self._changed.get(number)
                if page is not None:
                    low, high = max(start, number * _PAGE), min(start + count, number * _PAGE + len(page))
                    view[low - start : high - start] = page[low - number * _PAGE : high - number * _PAGE]
        self._position += count
        return count

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        position, end = self._position, self._position + len(view)
        at = position
        while at < min(end, self._old_size):
            number = at // _PAGE
            page = self._page(number)
            count = min(end, number * _PAGE + len(page)) - at
            page[at - number * _PAGE : at - number * _PAGE + count] = view[at - position : at - position + count]
            at += count
        if at < end and self.error is None:
            try:
                self._file.seek(at)
                while at < end:
                    at += self._file.write(view[at - position :])
            except OSError as error:
                self.error = error
        self._position = end
        self._size = max(self._size, end)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._position if size is None else size
        # HDF5 sets the final size on closing. Old bytes are never cut: a longer file is as good.
        self._size = max(size, self._old_size)
        if self.error is None:
            try:
                self._file.truncate(self._size)
            except OSError as error:
                self.error = error
        return self._size

    def commit(self) -> None:
        """Make the changes, all of them.

        Raises:
            OSError: something could not be written; `roll_back` then.
        """
        if self.error is not None:
            raise self.error
        pages = [(number * _PAGE, bytes(page)) for number, page in sorted(self._changed.items())]
        body = b"".join(_PAGE_HEAD.pack(offset, len(page)) + page for offset, page in pages)
        _sync(self._file)  # what the changed pages will lead to
        self._write_journal(_COMMIT, self._size, body, len(pages))
        self._committed = True
        _apply(self._file, body, len(pages))
        _sync(self._file)
        journal_path(self._path).unlink()

    def roll_back(self) -> None:
        """Leave the file as it was; once the journal is complete, leave both to `recover`."""
        if self._committed:
            return
        self._file.truncate(self._old_size)
        journal_path(self._path).unlink(missing_ok=True)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def transaction(path: Path) -> Iterator[Any]:
    """An `h5py.File` opened for changes that are made as a whole on leaving the block, or not at all if it raises.

    Only for the holder of the file's lock.
    """
    import h5py

    recover(path)  # an earlier one of this very process may have failed half-way
    file = JournaledFile(path)
    try:
        with h5py.File(file, "r+") as h5:
            yield h5
        file.commit()
    except BaseException as error:
        file.roll_back()
        if file.error is not None and error is not file.error:
            raise file.error from error
        raise
    finally:
        file.close()
