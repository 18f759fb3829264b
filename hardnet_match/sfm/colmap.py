"""The one place that imports pycolmap.

The standard library's zlib comes first: pycolmap's wheel brings symbols of its own zlib, and with pycolmap loaded first
zlib.compress, Pillow's and OpenCV's PNG writers and matplotlib abort the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import zlib  # noqa: F401 (before pycolmap, see above)
from collections.abc import Callable, Iterator
from typing import Any

import pycolmap

from ..errors import ReconstructionError

__all__ = ["interruptibly", "part_of", "pycolmap", "quietly", "told_plainly"]

# Its logging library takes SIGTERM for itself, to print a stack trace; it is given back to whoever had it.
with contextlib.suppress(ValueError, TypeError):  # not the main thread, or not Python's to give
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))

_lock = threading.Lock()
_quiet_calls = 0
_level_before = 0


@contextlib.contextmanager
def quietly(verbose: bool = False) -> Iterator[None]:
    """Keep COLMAP's own log off stderr inside the block, fatal errors aside; as it was afterwards."""
    global _quiet_calls, _level_before
    if verbose:
        yield
        return
    with _lock:
        if _quiet_calls == 0:
            _level_before = pycolmap.logging.minloglevel
            pycolmap.logging.minloglevel = int(pycolmap.logging.FATAL.value)
        _quiet_calls += 1
    try:
        yield
    finally:
        with _lock:
            _quiet_calls -= 1
            if _quiet_calls == 0:
                pycolmap.logging.minloglevel = _level_before


def part_of(path: os.PathLike[str]) -> str:
    """Where a file is made before it takes its name."""
    return f"{os.fspath(path)}.part"


@contextlib.contextmanager
def told_plainly(path: str | os.PathLike[str], doing: str) -> Iterator[None]:
    """Turn what pycolmap raises into a ReconstructionError; cancellation and KeyboardInterrupt pass."""
    try:
        yield
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ReconstructionError(f"{os.fspath(path)}: COLMAP cannot {doing}: {error}") from error


def interruptibly(call: Callable[[Any], None], token: Any = None) -> None:
    """Run a COLMAP call that takes a cancellation token, so that Ctrl-C ends it within one of its steps.

    COLMAP looks at the token but not at signals, which wait until the call is over. While it runs, Ctrl-C does no more
    than cancel the token: raised wherever the main thread then stood, KeyboardInterrupt could come between the lines
    of a lock's own code. It is raised, by whoever handled Ctrl-C before, once the call has ended.
    """
    token = pycolmap.CancellationToken() if token is None else token
    if threading.current_thread() is not threading.main_thread():
        call(token)
        return
    handle = signal.getsignal(signal.SIGINT)
    if not callable(handle):  # ignored (nohup), or not Python's: it is not ours to take
        call(token)
        return
    pressed: list[int] = []
    raised: list[BaseException] = []
    finished = threading.Event()

    def cancel(number: int, frame: Any) -> None:
        pressed.append(number)
        token.cancel()

    def work() -> None:
        try:
            call(token)
        except BaseException as error:
            raised.append(error)
        finally:
            finished.set()

    signal.signal(signal.SIGINT, cancel)
    try:
        threading.Thread(target=work, name="colmap").start()
        while not finished.wait(0.1):
            pass
    finally:
        signal.signal(signal.SIGINT, handle)
    if pressed:
        handle(pressed[0], None)
    if raised:
        raise raised[0]
