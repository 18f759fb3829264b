"""Batches drawn ahead of the training step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .batch import Batch, Sampler


def batches(
    sampler: Sampler,
    count: int,
    seed: int,
    *,
    start: int = 0,
    stop: int,
    epoch: int | None = None,
    columns: slice | None = None,
    ahead: int = 2,
    threads: int = 2,
) -> Iterator[Batch]:
    """The batches of steps `start`, ..., `stop` - 1, drawn in threads while the step before is computed.

    Every step has random numbers of its own, made of the seed and its number: a run that goes on at step 1000 draws
    there what an unbroken run would have drawn, however far ahead either of them was.

    Args:
        sampler: what draws.
        count: labels a batch.
        seed: of the run.
        start, stop: first step and the one behind the last.
        epoch: steps of an epoch, for sets mixed by epoch; the whole run when None.
        columns: read the patches of these columns only.
        ahead: batches kept ready; 0 draws in the caller's thread.
        threads: that draw, each a batch of its own.
    """
    length = stop if epoch is None else epoch

    def draw(step: int) -> Batch:
        progress = (step % length) / length
        return sampler.batch(count, np.random.default_rng([seed, step]), progress=progress, columns=columns)

    if ahead < 1:
        yield from map(draw, range(start, stop))
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting: deque[Future[Batch]] = deque()
        try:
            for step in range(start, stop):
                waiting.append(pool.submit(draw, step))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
