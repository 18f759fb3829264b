"""Workers on the machines of a Ray cluster, and pieces of work that each come back once, whoever is lost on the way.

The process that asked for the work keeps the list of what is to be done and takes the results one by one; workers
hold nothing that counts. A worker has at most two pieces: one in work, one waiting. Results stay in the memory of
the machine that made them until they are asked for, so that a slow taker slows the workers down and fills no memory.
Pieces of a lost worker are given to another. They may be computed twice, but come back once. Items that a worker may
have died of go to workers that have nothing else, so that no other item is ever blamed for what they do.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from .. import __version__
from ..errors import ClusterError, HardnetMatchError

log = logging.getLogger(__name__)
Item = TypeVar("Item")

IN_HAND = 2
TRIES = 3
"""Workers that a single item may lose before it is left out: it is then taken to be what kills them."""
LOOK_AGAIN = 2.0
PATIENCE = 30.0
FAILED_STARTS = 10
"""Workers in a row that do not start, or results of one piece that do not arrive, before the run is given up."""


class Worker(Protocol):
    """What a worker does; it is made on its machine."""

    def work(self, items: list[Any]) -> Any:
        """The result of a piece of work."""


@dataclass(frozen=True)
class Given(Generic[Item]):
    """A piece of work that came back: its items, and the result, or why there is none (`lost`)."""

    items: list[Item]
    result: Any
    lost: str = ""


@dataclass
class _Piece:
    items: list[Any]
    lost: int = 0
    gone: int = 0


@dataclass
class _Hand:
    """A worker as the taker sees it: `greeting` until it is ready, and what it has in hand, oldest first."""

    actor: Any
    greeting: Any
    where: str = "?"
    pieces: OrderedDict[Any, _Piece] = field(default_factory=OrderedDict)


class Crew:
    """Workers of a Ray cluster this process is connected to; see `cluster.connected`.

    Args:
        device: `cuda` (a GPU a worker) or `cpu` (a core a worker).
        most: workers at most; None for as many as the cluster has room for, machines that join later included.
        weights: files of weights that workers may need, at paths that they see.
    """

    def __init__(self, device: str, most: int | None = None, weights: Sequence[str] = ()) -> None:
        self.device, self.most, self.weights = device, most, tuple(weights)
        self.lost = 0
        self._hands: list[_Hand] = []
        self._failed = 0

    def results(
        self, make: Callable[..., Worker], arguments: Sequence[Any], pieces: Iterable[list[Item]]
    ) -> Generator[Given[Item], None, None]:
        """Do pieces of work, in any order; each item comes back once.

        Args:
            make: makes a `Worker` on its machine, from `arguments`; what can be pickled.
            pieces: lists of items, what can be pickled.

        Raises:
            ClusterError: workers cannot start, or the cluster is gone.
            HardnetMatchError: what a worker raised on purpose.
        """
        waiting = deque(_Piece(list(items)) for items in pieces)
        counted, told = 0.0, time.monotonic()
        try:
            while waiting or any(hand.pieces for hand in self._hands):
                if time.monotonic() - counted > LOOK_AGAIN:
                    counted = time.monotonic()
                    self._fill(make, arguments, len(waiting))
                self._hand_out(waiting)
                if any(hand.pieces for hand in self._hands):
                    told = counted
                elif counted - told > PATIENCE:
                    told = counted
                    log.warning("waiting for a %s on the cluster", "GPU" if self.device == "cuda" else "core")
                for ref in self._arrived():
                    yield from self._take(ref, waiting)
        finally:
            self.dismiss()

    def dismiss(self) -> None:
        """End all workers at once."""
        import ray

        for hand in self._hands:
            with suppress(Exception):  # the cluster may be gone
                ray.kill(hand.actor)
        self._hands.clear()

    def _room(self) -> int:
        import ray

        try:
            total = ray.cluster_resources()
        except Exception as error:
            raise ClusterError(
                f"the Ray cluster is gone ({short(error)}); the same command goes on from here"
            ) from None
        room = int(total.get("GPU" if self.device == "cuda" else "CPU", 0))
        return room if self.most is None else min(room, self.most)

    def _fill(self, make: Callable[..., Worker], arguments: Sequence[Any], waiting: int) -> None:
        """As many workers as there is room for, and no more than there is work."""
        wanted = min(self._room(), waiting + sum(bool(hand.pieces) for hand in self._hands))
        while len(self._hands) < wanted:
            actor = _actor(self.device).remote(make, tuple(arguments), __version__)
            self._hands.append(_Hand(actor, actor.greet.remote()))

    def _hand_out(self, waiting: deque[_Piece]) -> None:
        # One each first: at the end of the work nobody should hold two pieces while another has none.
        for depth in range(1, IN_HAND + 1):
            for hand in self._hands:
                if not waiting or hand.greeting is not None or len(hand.pieces) >= depth:
                    continue
                suspect = waiting[0].lost or any(piece.lost for piece in hand.pieces.values())
                if not (suspect and hand.pieces):
                    piece = waiting.popleft()
                    hand.pieces[hand.actor.work.remote(piece.items)] = piece

    def _arrived(self) -> list[Any]:
        import ray

        refs = [hand.greeting for hand in self._hands if hand.greeting is not None]
        refs += [ref for hand in self._hands for ref in hand.pieces]
        if not refs:
            time.sleep(LOOK_AGAIN / 4)
            return []
        done, _ = ray.wait(refs, num_returns=1, timeout=LOOK_AGAIN, fetch_local=False)
        return list(done)

    def _take(self, ref: Any, waiting: deque[_Piece]) -> Iterator[Given[Any]]:
        import ray

        hand = next(hand for hand in self._hands if ref == hand.greeting or ref in hand.pieces)
        try:
            value = ray.get(ref, timeout=10 * PATIENCE)
        except ray.exceptions.RayTaskError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, HardnetMatchError):
                raise cause from None
            if not isinstance(cause, MemoryError):
                raise ClusterError(f"a worker on {hand.where} failed: {short(cause or error)}") from error
            yield from self._lose(hand, waiting, "ran out of memory")
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError) as error:
            yield from self._lose(hand, waiting, short(error))
        else:
            self._failed = 0
            if ref == hand.greeting:
                hand.where, hand.greeting = value, None
            else:
                yield Given(hand.pieces.pop(ref).items, value)

    def _lose(self, hand: _Hand, waiting: deque[_Piece], reason: str) -> Iterator[Given[Any]]:
        """Give a lost worker's pieces to others; the one it was at may be what it died of, and goes item by item."""
        import ray

        self._hands.remove(hand)
        with suppress(Exception):  # it may live, out of reach: nobody waits for it any more
            ray.kill(hand.actor)
        if hand.greeting is not None:
            self._failed += 1
            if "creation task" in reason or self._failed >= FAILED_STARTS:
                raise ClusterError(f"workers do not start on the cluster: {reason}")
            return
        self.lost += 1
        log.warning("a worker on %s was lost (%s); its work is done again", hand.where, reason)
        unfinished: list[_Piece] = []
        again: list[_Piece] = []
        for ref, piece in hand.pieces.items():
            try:
                yield Given(piece.items, ray.get(ref, timeout=PATIENCE))  # it was done before the worker was lost
            except (ray.exceptions.RayActorError, ray.exceptions.RayTaskError):
                unfinished.append(piece)
            except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
                piece.gone += 1  # it was done, but its result was lost with the machine, or does not get through
                if piece.gone >= FAILED_STARTS:
                    raise ClusterError(f"results do not come back from the cluster: {reason}") from None
                again.append(piece)
        waiting.extendleft(reversed(again + unfinished[1:]))
        if not unfinished:
            return
        first = unfinished[0]
        if len(first.items) == 1 and first.lost + 1 >= TRIES:
            yield Given(first.items, None, f"{TRIES} workers were lost while they were at it ({reason})")
            return
        waiting.extendleft(_Piece([item], first.lost + 1) for item in reversed(first.items))


def _actor(device: str) -> Any:
    import ray

    actor = ray.remote(_Remote)
    kind = {"num_gpus": 1, "num_cpus": 1} if device == "cuda" else {"num_cpus": 1}
    # Lost workers are replaced by us: Ray's own restarts would hold work for a machine that may never come back.
    return actor.options(max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **kind)


class _Remote:
    """What lives on the other machine."""

    def __init__(self, make: Callable[..., Worker], arguments: tuple[Any, ...], version: str) -> None:
        self._make, self._arguments, self._version = make, arguments, version
        self._worker: Worker | None = None

    def greet(self) -> str:
        """Make the worker; the machine's name.

        Raises:
            HardnetMatchError: another version of this package is installed there; what making a worker raised.
        """
        where = socket.gethostname()
        if self._version != __version__:
            raise ClusterError(f"{where} has hardnet-match {__version__}, not {self._version}; install the same")
        self._worker = self._make(*self._arguments)
        return where

    def work(self, items: list[Any]) -> Any:
        """The result of a piece of work."""
        assert self._worker is not None
        return self._worker.work(items)


def short(error: BaseException) -> str:
    """The line of an error that says most: of a traceback from another machine the last, else the first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if "creation task" in lines[0]:
        return f"the creation task said {lines[-1][:200]}"
    return lines[0][:200]
