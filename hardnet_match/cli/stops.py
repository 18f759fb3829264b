"""Signals that end a verb: heard wherever they come, and only for as long as it runs."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
import time
from typing import Any

MOMENT = 0.05
"""Seconds after which a signal that was swallowed is sent again: whoever swallowed it is done by then."""
IMPORT_SECONDS = 10.0
"""How long an import is let go on."""


class Stops:
    """Ctrl-C as Python has it, SIGTERM and SIGHUP (a terminal that closes) as Ctrl-C, while this is entered.

    What is ignored stays ignored: a run under `nohup` outlives its terminal. In any thread but the main one nothing is
    changed: whoever runs us there has the signals.
    """

    def __init__(self) -> None:
        self.came: list[int] = []
        """The signals that came, the first of them first."""
        self._over = False
        self._sending = threading.Lock()
        self._before: dict[int, Any] = {}
        self._hook: Any = None
        self._put_off_since: float | None = None
        self._caller = threading.get_ident()
        self._outside: Any = None

    def __enter__(self) -> Stops:
        self._outside = sys._getframe(1)
        if threading.current_thread() is threading.main_thread():
            self._hook, sys.unraisablehook = sys.unraisablehook, self._swallowed
            for name, handler in (("SIGINT", self._interrupt), ("SIGTERM", self._stop), ("SIGHUP", self._stop)):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                # None is a handler in C, of a program that has Python inside: it could not be put back.
                if number is not None and signal.getsignal(number) not in (None, signal.SIG_IGN):
                    self._before[number] = signal.signal(number, handler)
        return self

    def __exit__(self, *error: object) -> None:
        # In this order: handlers that do nothing any more, so that the others are all put back; then nobody who is
        # between looking at `_over` and sending; then a system call, for what was sent to this thread is delivered by
        # the end of one. So none of ours can come to the handlers of whoever called the verb.
        self._over = True
        with self._sending:
            pass
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, ())
        for number, earlier in self._before.items():
            signal.signal(number, earlier)
        if self._hook is not None:
            sys.unraisablehook = self._hook
        self._outside = None

    def _interrupt(self, number: int, frame: Any) -> None:
        if not (self._over or self._put_off(number, frame)):
            self.came.append(number)
            signal.default_int_handler(number, frame)

    def _stop(self, number: int, frame: Any) -> None:
        # Whoever handles Ctrl-C in a way of its own at this moment (training between two steps, a call of COLMAP)
        # shall handle this likewise.
        if not (self._over or self._put_off(number, frame)):
            self.came.append(number)
            handler = signal.getsignal(signal.SIGINT)
            if not callable(handler):
                raise KeyboardInterrupt
            handler(signal.SIGINT, frame)

    def _put_off(self, number: int, frame: Any) -> bool:
        # Modules in C drop what is raised while they are imported (numpy.random does), and others are left half made
        # and fail in strange words when they are next used: an import is let come to its end first.
        now = time.monotonic()
        since = self._put_off_since = self._put_off_since or now
        if now - since > IMPORT_SECONDS or not self._importing(frame):
            self._put_off_since = None
            return False
        _thread.start_new_thread(self._again, (number,))
        return True

    def _importing(self, frame: Any) -> bool:
        """Whether the verb is in the midst of an import, at this frame or one that called it."""
        while frame is not None and frame is not self._outside:
            if frame.f_globals.get("__name__") in ("importlib._bootstrap", "_frozen_importlib"):
                return True
            frame = frame.f_back
        return False

    def _swallowed(self, what: Any) -> None:
        # Python drops what is raised inside a finaliser or a weak reference's callback, and a signal may come there
        # as well as anywhere: it is sent again, from outside, until it is heard.
        if self._over or not issubclass(what.exc_type, KeyboardInterrupt):
            self._hook(what)
            return
        # By no threading.Timer: this may come in the midst of anything, the starting of a thread included, which has
        # the lock that starting another would wait for.
        _thread.start_new_thread(self._again, (self.came[-1] if self.came else signal.SIGINT,))

    def _again(self, number: int) -> None:
        time.sleep(MOMENT)
        with self._sending:
            if self._over:
                return
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(self._caller, number)  # to the thread that may be waiting for something
            else:
                signal.raise_signal(number)
