"""Processes that were started together find each other, whatever an earlier start left in the store."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from hardnet_match.errors import TrainingError
from hardnet_match.training.meeting import fresh_store


def clients(store: TCPStore, count: int) -> list[TCPStore]:
    """Connections of their own, as processes have them."""
    return [TCPStore("127.0.0.1", store.port, is_master=False) for _ in range(count)]


def served() -> TCPStore:
    return TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=20))


def start(store: TCPStore, world: int, late: int) -> None:
    """One start of all processes, each a thread: they tell their ranks, as gloo does with addresses."""
    told = f"{time.monotonic_ns()}"

    def process(rank: int, own: TCPStore) -> list[str]:
        if rank == late:
            time.sleep(0.1)
        part = fresh_store(own, rank, world, seconds=20)
        part.set(f"{rank}", f"{told} {rank}")
        return [part.get(f"{r}").decode() for r in range(world)]

    with ThreadPoolExecutor(world) as pool:
        found = list(pool.map(process, range(world), clients(store, world)))
    assert found == [[f"{told} {r}" for r in range(world)]] * world


@pytest.mark.parametrize("world", [1, 2, 5])
def test_each_start_sees_its_own_words_alone_whoever_comes_first(world: int) -> None:
    store = served()
    for _ in range(3):
        for late in range(world):
            start(store, world, late)


@pytest.mark.parametrize("dead", [{0}, {1}, {0, 2}, {1, 2}])
def test_starts_that_were_killed_before_all_had_come_leave_nothing(dead: set[int]) -> None:
    """The others of that start are ended too, in the middle of the meeting."""
    store, world = served(), 3
    start(store, world, 0)

    def process(rank: int, own: TCPStore) -> None:
        if rank not in dead:
            with pytest.raises(TrainingError, match="of the 3 processes that train together, number"):
                fresh_store(own, rank, world, seconds=0.1)

    for _ in range(2):
        with ThreadPoolExecutor(world) as pool:
            list(pool.map(process, range(world), clients(store, world)))
    start(store, world, 1)


def test_who_did_not_come_is_named() -> None:
    store = served()
    with pytest.raises(TrainingError, match="number 1, 2 did not come in 0 s"):
        fresh_store(store, 0, 3, seconds=0.05)


def test_who_did_not_come_is_named_by_all_who_came() -> None:
    """Each process writes to a log of its own, and the first one's may be on another machine."""
    store = served()
    first, second = clients(store, 2)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(fresh_store, own, rank, 3, 1.0) for rank, own in enumerate((first, second))]
        for future in waiting:
            with pytest.raises(TrainingError, match="number 2 did not come"):
                future.result()
    with pytest.raises(TrainingError, match="number 0 did not come"):
        fresh_store(served(), 1, 3, seconds=0.05)
