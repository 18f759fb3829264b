"""Decoding in processes of their own: a decoder that crashes, hangs or runs out of memory costs one photo, not the run.

The pixels under decoding at any moment are bounded over all workers together; a photo larger than the bound waits until
it is alone.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from ..errors import ImageError
from .files import shown
from .loading import Loaded, load
from .picture import Picture
from .worker import GO, READY

log = logging.getLogger(__name__)

PIXELS_AT_ONCE = 64_000_000
SECONDS = 600.0  # for one photo; a decoder that takes longer hangs
ATTEMPTS = 2  # a worker may be lost for reasons of its own (killed by hand or for want of memory)
_COMMAND = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from hardnet_match.images.worker import main; main()"
)


class DecodeWorkers:
    """Processes that load the photos of a folder; `load` may be called from several threads, each call has a process.

    Args:
        folder: of the photos. masks: folder of masks, if any. max_size: as in `read_image`.
        seconds: a decoder that has not answered by then is ended, and the photo refused.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        masks: str | os.PathLike[str] | None = None,
        max_size: int | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._asked = {
            "folder": os.fspath(folder),
            "masks": None if masks is None else os.fspath(masks),
            "max_size": max_size,
        }
        self._seconds = seconds
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._closed = False
        self._inside = not sys.executable
        self._room = _Room(PIXELS_AT_ONCE)

    def __enter__(self) -> DecodeWorkers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, in the middle of what they do if need be."""
        with self._lock:
            self._closed = True
            ended, self._all = self._all, set()
        for worker in ended:
            worker.end(patience=0)

    def load(self, name: str) -> Loaded:
        """A photo, decoded by a worker.

        Raises:
            ImageError: as `loading.load`, or its decoder crashed or hung, twice.
        """
        path = shown(os.path.join(str(self._asked["folder"]), name))
        how = ""
        for _ in range(ATTEMPTS):
            worker = self._take()
            if worker is None:
                return load(**self._asked, name=name)  # type: ignore[arg-type]
            try:
                loaded = worker.load({**self._asked, "name": name}, self._room, self._seconds)
            except _Lost as lost:
                how = str(lost)
                with self._lock:
                    self._all.discard(worker)
                worker.end()
                if self._closed:
                    raise ImageError(f"{path}: not decoded, the run is over") from None
                log.info("%s: a decoding process was lost (%s)", path, how)
            except ImageError:
                self._give_back(worker)
                raise
            else:
                self._give_back(worker)
                return loaded
        raise ImageError(f"{path}: its decoder {how}, {ATTEMPTS} times; the file is damaged, or hostile")

    def _take(self) -> _Worker | None:
        with self._lock:
            if self._idle:
                return self._idle.pop()
            if self._inside:
                return None
        try:
            worker = _Worker()
        except (OSError, _Lost) as error:
            with self._lock:
                if not self._closed and not self._inside:
                    log.warning("no process for decoding can be started (%s): decoding in this one", error)
                self._inside = True
            return None
        with self._lock:
            if not self._closed:
                self._all.add(worker)
                return worker
        worker.end()
        raise ImageError("not decoded, the run is over")

    def _give_back(self, worker: _Worker) -> None:
        with self._lock:
            self._idle.append(worker)


class _Lost(Exception):
    """A worker ended, or hung and was ended; says how."""


class _Room:
    """So many pixels at once; who wants more than all waits until nobody else is in."""

    def __init__(self, pixels: int) -> None:
        self._most, self._used = pixels, 0
        self._changed = threading.Condition()

    @contextmanager
    def for_pixels(self, pixels: int) -> Iterator[None]:
        wanted = min(pixels, self._most)
        with self._changed:
            self._changed.wait_for(lambda: self._used + wanted <= self._most)
            self._used += wanted
        try:
            yield
        finally:
            with self._changed:
                self._used -= wanted
                self._changed.notify_all()


class _Worker:
    def __init__(self) -> None:
        # In a session of its own, Ctrl-C does not reach it: its end is told by the end of its standard input.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _COMMAND, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._late = False
        with self._watched(SECONDS):
            if self._line() != READY:
                raise _Lost(self.end())

    def load(self, request: dict[str, Any], room: _Room, seconds: float) -> Loaded:
        """Raises ImageError for a photo that cannot be read, `_Lost` for a worker that did not answer."""
        with self._watched(seconds):
            self._send(json.dumps(request).encode() + b"\n")
            told = json.loads(self._line())
        if "pixels" not in told:
            return self._answer(told)
        with room.for_pixels(told["pixels"]), self._watched(seconds):
            self._send(GO)
            return self._answer(json.loads(self._line()))

    def _answer(self, told: dict[str, Any]) -> Loaded:
        if "error" in told:
            raise ImageError(told["error"])
        shape = tuple(told["shape"])
        pixels = np.frombuffer(self._bytes(int(np.prod(shape))), np.uint8).reshape(shape)
        mask = None
        if told["mask"]:
            mask = np.frombuffer(self._bytes(int(np.prod(shape[:2]))), np.bool_).reshape(shape[:2])
        picture = Picture(pixels, (told["size"][0], told["size"][1]), np.array(told["to_file"], np.float64))
        return Loaded(picture, mask, told["stamp"])

    @contextmanager
    def _watched(self, seconds: float) -> Iterator[None]:
        """End the process if the block takes longer: whoever waits for its answer then gets none."""
        timer = threading.Timer(seconds, self._hung)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hung(self) -> None:
        self._late = True
        self._process.kill()

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError):  # gone, or closed by `end` from another thread
            raise _Lost(self.end()) from None

    def _line(self) -> bytes:
        assert self._process.stdout is not None
        try:
            line: bytes = self._process.stdout.readline()
        except (OSError, ValueError):
            line = b""
        if not line.endswith(b"\n"):
            raise _Lost(self.end())
        return line

    def _bytes(self, count: int) -> bytearray:
        assert self._process.stdout is not None
        data = bytearray(count)
        view, done = memoryview(data), 0
        while done < count:
            try:
                got = self._process.stdout.readinto(view[done:])  # type: ignore[attr-defined]
            except (OSError, ValueError):
                got = 0
            if not got:
                raise _Lost(self.end())
            done += got
        return data

    def end(self, patience: float = 0.5) -> str:
        """End the process, unless it ends within `patience` seconds by itself; says how it ended."""
        process = self._process
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError, ValueError):
                assert pipe is not None
                pipe.close()
        if self._late:
            return "did not answer in time"
        if code < 0:
            with suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with code {code}"
