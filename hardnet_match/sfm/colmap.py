"""The one place that imports pycolmap.

The standard library's zlib comes first: pycolmap's wheel brings symbols of its own zlib, and with pycolmap loaded first
zlib.compress, Pillow's and OpenCV's PNG writers and matplotlib abort the process.
"""

from __future__ import annotations

import contextlib
import os
import threading
import zlib  # noqa: F401 (before pycolmap, see above)
from collections.abc import Callable, Iterator
from typing import Any

import pycolmap

from ..errors import ReconstructionError

__all__ = ["interruptibly", "part_of", "pycolmap", "quietly", "told_plainly"]

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

    COLMAP looks at the token but not at signals, which wait until the call is over.
    """
    token = pycolmap.CancellationToken() if token is None else token
    if threading.current_thread() is not threading.main_thread():
        call(token)
        return
    raised: list[BaseException] = []
    finished = threading.Event()  # not Thread.join: interrupted once, it may return before the thread has ended

    def work() -> None:
        try:
            call(token)
        except BaseException as error:
            raised.append(error)
        finally:
            finished.set()

    worker = threading.Thread(target=work, name="colmap")
    try:
        worker.start()
        while not finished.wait(0.1):
            pass
    except KeyboardInterrupt:
        token.cancel()
        if worker.ident is not None:  # it had begun
            finished.wait()
        raise
    if raised:
        raise raised[0]
