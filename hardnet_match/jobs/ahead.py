"""Loading ahead of whoever uses what was loaded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from ..images.loading import Loaded


class Ahead:
    """Load values in threads, in order, never more than `ahead` of them before they are asked for."""

    def __init__(self, load: Any, keys: Sequence[str], threads: int, ahead: int) -> None:
        self._load, self._keys, self._ahead = load, iter(keys), ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self._waiting: deque[tuple[str, Future[Loaded]]] = deque()

    def __enter__(self) -> Iterator[tuple[str, Future[Loaded]]]:
        return self._run()

    def __exit__(self, *error: object) -> None:
        # Without waiting: on Ctrl-C nobody wants to see the images decoded that are under way.
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fill(self) -> None:
        for key in self._keys:
            self._waiting.append((key, self._pool.submit(self._load, key)))
            if len(self._waiting) >= self._ahead:
                return

    def _run(self) -> Iterator[tuple[str, Future[Loaded]]]:
        self._fill()
        while self._waiting:
            item = self._waiting.popleft()
            yield item
            self._fill()
