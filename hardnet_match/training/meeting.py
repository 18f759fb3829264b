"""Where processes that were started together find each other, and none that was started before them.

torchrun (PyTorch 2.13, since the sharing of its store) keeps one key-value store for all its restarts, and what the
processes of an earlier start wrote there, their addresses above all, is read by those of the next: whoever comes first
tries to reach the dead, in vain. A prefix of one's own for each start mends it, but torchrun tells no number of the
start that all agree on: `TORCHELASTIC_RESTART_COUNT` is each machine's own count, and stands still when machines join.
"""

from __future__ import annotations

import time
import uuid

from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from ..errors import TrainingError

SECONDS = 1800.0  # as torch waits for a process that does not come


def fresh_store(store: Store, rank: int, world: int, seconds: float = SECONDS) -> Store:
    """A part of the store that only the processes of this start know.

    Each process writes a word that it drew under its rank. The first gathers them into a list and writes that anew for
    as long as a word changes; the others say which list they saw once their own word is in it. A list that all have
    seen has no word of the dead, and names the part.

    Args:
        store: what all processes reach; anything may be left in it.
        rank: this process's, 0 to world - 1.
        world: how many they are.
        seconds: how long to wait for all of them.

    Raises:
        TrainingError: some did not come in time; it says which.
    """
    place = PrefixStore("hardnet-match", store)
    own, end = uuid.uuid4().hex, time.monotonic() + seconds
    place.set(f"word/{rank}", own)
    listed = ""
    while True:
        if rank == 0:
            words = " ".join([own, *(_read(place, f"word/{r}") or "-" for r in range(1, world))])
            if words != listed:
                place.set("list", listed := words)
            if not _unseen(place, world, listed):
                place.set("agreed", listed)
                return PrefixStore(f"hardnet-match/{own}", store)
        else:
            agreed, now = _read(place, "agreed").split(), _read(place, "list")
            if agreed[rank : rank + 1] == [own]:
                return PrefixStore(f"hardnet-match/{agreed[0]}", store)
            if now != listed and now.split()[rank : rank + 1] == [own]:
                place.set(f"seen/{rank}", listed := now)
        if time.monotonic() > end:
            # Who has seen no list with its own word in it has not heard from the first.
            missing = (_unseen(place, world, listed) if listed else []) or [0]
            told = ", ".join(map(str, missing[:16]))
            raise TrainingError(
                f"of the {world} processes that train together, number {told} did not come in {seconds:.0f} s; look at "
                "what it said, and start all of them again"
            )
        time.sleep(0.02)


def _unseen(place: Store, world: int, listed: str) -> list[int]:
    """The ranks that have not said that they saw this list."""
    return [rank for rank in range(1, world) if _read(place, f"seen/{rank}") != listed]


def _read(store: Store, key: str) -> str:
    """The text under a key; empty if there is none yet."""
    return store.get(key).decode() if store.check([key]) else ""
