"""Fetching a file of weights or data: several sources in turn, checked before it is kept, whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

from ..errors import HardnetMatchError

log = logging.getLogger(__name__)

STALL_SECONDS = 20.0  # without a byte: give the source up
TOTAL_SECONDS = 1800.0
ATTEMPTS = 2  # a source; only after faults that may pass (timeouts, resets, 5xx)
LOCK_SECONDS = 3600.0
MAX_BYTES = 512 * 1024**2
_BLOCK = 1 << 16


class Remote(Protocol):
    """What there is to know about a file before it is fetched; `registry.Entry` is one for weights."""

    @property
    def name(self) -> str: ...
    @property
    def what(self) -> str:
        """What messages call it, and the folder of the cache it goes to."""

    @property
    def urls(self) -> tuple[str, ...]:
        """Tried in turn."""

    @property
    def file(self) -> str:
        """Its name in the cache."""

    @property
    def sha256(self) -> str | None: ...
    @property
    def git_blob(self) -> str | None: ...
    @property
    def md5(self) -> str | None: ...
    @property
    def most_bytes(self) -> int | None:
        """More are refused; None for `MAX_BYTES`."""

    @property
    def seconds(self) -> float | None:
        """When to give up in the end; None for `TOTAL_SECONDS`."""

    @property
    def way_out(self) -> str:
        """What else a user can do, the end of a message."""

    @property
    def error(self) -> type[HardnetMatchError]:
        """What is raised when it cannot be had."""


class _Failed(Exception):
    """One source did not give the file; `again` when a second try may."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


def cache_folder() -> Path:
    """Where downloads are kept: $HARDNET_MATCH_CACHE, or the system's place for caches."""
    chosen = os.environ.get("HARDNET_MATCH_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "hardnet-match"


def file_digest(path: Path, entry: Remote | None = None) -> str:
    """sha256 of a file in hex; for an entry known by its git blob id or md5 alone, that."""
    digest = hashlib.sha256()
    if entry is not None and entry.sha256 is None:
        if entry.git_blob is not None:
            digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        elif entry.md5 is not None:
            digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def fetch(entry: Remote, urls: Sequence[str] | None = None) -> Path:
    """The entry's file in the cache, downloaded if need be, its hash checked every time.

    Only one process downloads a file at a time; the others wait for it. A file put into the cache by hand counts as
    downloaded.

    Args:
        urls: other sources than the entry's own (a mirror of yours).

    Raises:
        WeightsError: (or what `entry.error` is) no source gave the right file; tells the URLs and where to put the
            file by hand.
    """
    from filelock import FileLock, Timeout

    folder = cache_folder() / entry.what
    target = folder / entry.file
    if target.exists() and _wrong(target, entry) is None:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(str(target) + ".lock", timeout=LOCK_SECONDS):
            found = _wrong(target, entry) if target.exists() else "not there"
            if found is None:
                return target  # another process was faster
            if target.exists():
                log.warning("%s in the cache is not the official file (%s): fetching it again", target, found)
            for left_over in folder.glob(f".{entry.file}.*.part"):  # of a killed process; the lock is ours
                left_over.unlink(missing_ok=True)
            _download(entry, tuple(urls or entry.urls), target)
    except Timeout as error:
        raise entry.error(f"another process holds {target}.lock for an hour; if none runs, delete that file") from error
    except OSError as error:
        raise entry.error(
            f"the {entry.what} cache {folder} cannot be written: {error.strerror or error}; "
            "free space there or set HARDNET_MATCH_CACHE to another folder"
        ) from error
    return target


def _record(target: Path) -> Path:
    return target.with_name(target.name + ".sha256")


def _wrong(path: Path, entry: Remote, record: Path | None = None) -> str | None:
    """Why a file is not the entry's, or None. Without a published hash the first file seen sets it."""
    expected = _hash(entry)
    actual = file_digest(path, entry)
    record = record or _record(path)
    if expected is None and record.exists():
        expected = record.read_text().split()[0]
    if expected is None and record == _record(path):
        record.write_text(f"{actual}  {entry.file}\n")
        log.warning("%s: no hash is published for %s; sha256 %s is trusted from now on", path, entry.name, actual)
    if expected is None or actual == expected:
        return None
    return f"hash {actual} instead of {expected}"


def unlike(path: Path, entry: Remote) -> str | None:
    """Why a file of the cache is not the entry's; None where it is, or where nobody knows what it should be.

    Nothing is written, not even the hash that `fetch` would trust from now on.
    """
    record = _record(path)
    if _hash(entry) is None and not record.exists():
        return None
    return _wrong(path, entry)


def _download(entry: Remote, urls: Sequence[str], target: Path) -> None:
    deadline = time.monotonic() + _seconds(entry)
    failures = []
    for url in urls:
        for attempt in range(ATTEMPTS):
            try:
                with _part_file(target) as part:
                    _transfer(url, part, entry, deadline)
                    os.replace(part, target)
                if _hash(entry) is None:
                    _wrong(target, entry)  # records its hash
                return
            except _Failed as failure:
                log.info("%s: %s", url, failure)
                failures.append(f"  {url}: {failure}")
                if not failure.again:
                    break
                if attempt + 1 < ATTEMPTS:
                    time.sleep(0.5)
    tried = "\n".join(dict.fromkeys(failures))
    known = {"sha256": entry.sha256, "git blob": entry.git_blob, "md5": entry.md5}
    check = next((f" ({kind} {value})" for kind, value in known.items() if value), "")
    raise entry.error(
        f"{entry.what} {entry.name!r} could not be downloaded:\n{tried}\n"
        f"Without a network: fetch it elsewhere from one of these addresses and put it at {target}{check}, "
        f"{entry.way_out}"
    )


def _hash(entry: Remote) -> str | None:
    return entry.sha256 or entry.git_blob or entry.md5


def _seconds(entry: Remote) -> float:
    return TOTAL_SECONDS if entry.seconds is None else entry.seconds


@contextmanager
def _part_file(target: Path) -> Iterator[Path]:
    """A fresh file beside the target, gone afterwards unless it was moved, however the block ends."""
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to something unencrypted."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise _Failed(f"leads away from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_source(url: str, entry: Remote) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("https", "http"):
        raise _Failed(f"{parts.scheme or 'no'} scheme: only https and http are used")
    if parts.scheme == "http" and _hash(entry) is None and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise _Failed("unencrypted, and no hash is published to check it by")


def _transfer(url: str, part: Path, entry: Remote, deadline: float) -> None:
    """One attempt: the checked file at `part`, or `_Failed`."""
    from tqdm import tqdm

    most = MAX_BYTES if entry.most_bytes is None else entry.most_bytes
    _check_source(url, entry)
    opener = urllib.request.build_opener(_NoDowngrade)
    request = urllib.request.Request(url, headers={"User-Agent": "hardnet-match"})
    try:
        with opener.open(request, timeout=STALL_SECONDS) as answer, part.open("wb") as file:
            announced = answer.headers.get("Content-Length")
            total = int(announced) if announced and announced.isdigit() else None
            if total is not None and total > most:
                raise _Failed(f"{total} bytes are too many for this file")
            shown = tqdm(total=total, unit="B", unit_scale=True, desc=entry.file, disable=None, file=sys.stderr)
            received = 0
            with shown:
                while block := answer.read1(_BLOCK):  # what is there, so that a drip meets the deadline
                    received += len(block)
                    if received > most:
                        raise _Failed(f"more than {most} bytes are too many for this file")
                    if time.monotonic() > deadline:
                        raise _Failed(f"not done after {_seconds(entry) / 60:.0f} minutes")
                    file.write(block)
                    shown.update(len(block))
            file.flush()
            os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        raise _Failed(f"HTTP {error.code} {error.reason}", again=error.code >= 500 or error.code == 429) from error
    except (TimeoutError, urllib.error.URLError, HTTPException, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        slow = isinstance(error, TimeoutError) or isinstance(reason, TimeoutError)
        text = f"no answer for {STALL_SECONDS:g} seconds" if slow else str(reason) or type(error).__name__
        raise _Failed(text, again=slow or isinstance(error, (HTTPException, ConnectionError))) from error
    if total is not None and received != total:
        raise _Failed(f"broke off after {received} of {total} bytes", again=True)
    if received == 0:
        raise _Failed("an empty file")
    wrong = _wrong(part, entry, _record(part.with_name(entry.file)))
    if wrong:
        raise _Failed(f"{wrong}: not the official file")
