"""Many small pieces of work on a processor: one thread a piece, several pieces at a time, outcomes in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

from ..inference import until

Key = TypeVar("Key")
Given = TypeVar("Given")
Result = TypeVar("Result")


def side_by_side(
    function: Callable[[Given], Result],
    work: Iterable[tuple[Key, Given]],
    device: torch.device,
    ahead: int | None = None,
) -> Iterator[tuple[Key, Given, Future[Result]]]:
    """Each piece of work with its outcome, in order; on a processor as many at a time as torch has threads.

    One thread a piece leaves no core waiting for another: two pairs on two cores take about half the time of two
    threads on one pair after the other. Work is fetched in the calling thread. Whatever ends it early, Ctrl-C say, ends
    the networks' tiles too, and what is under way is waited for.

    Args:
        function: what is done; called in threads of which each has torch's arithmetic for itself.
        work: what to do it to.
        device: on any but a processor, one piece at a time.
        ahead: pieces fetched beyond those in work; one a core if None.
    """
    threads = torch.get_num_threads()
    at_once = threads if device.type == "cpu" else 1
    waiting: deque[tuple[Key, Given, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="work")
    stop = threading.Event()

    def run(given: Given) -> Result:
        with until(stop):
            return function(given)

    torch.set_num_threads(threads // at_once)
    try:
        for key, given in work:
            waiting.append((key, given, pool.submit(run, given)))
            if len(waiting) >= at_once + (at_once if ahead is None else ahead):
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


class Budget:
    """What may be in use at one time, all threads together: pixels, say, where memory follows them.

    Args:
        total: of any unit. Who asks for more than that gets it while nobody else has any.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = total
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Wait until so much is free, and have it."""
        amount = min(amount, self.total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()
