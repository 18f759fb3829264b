"""What a thousand workers do to one another: a discrete-event simulation of `extract --ray` and of `extract --shard`.

    python scripts/simulate_cluster.py
    python scripts/simulate_cluster.py --seconds 3.4 --mtbf 6 --workers 100 1000

With `--ray`, workers compute pieces of a few images and one process writes all results; a worker has two pieces in
hand at most, so that it stops when its results are not taken. With `--shard`, each worker writes a file of its own
and takes the next shard when it is done. Workers fail at random (exponentially distributed times between failures) and
come back after a while: with `--ray` their pieces are done again by others, with `--shard` the shard goes on from its
file.

Two tables of Markdown are printed. What goes in is measured (`scripts/measure_scale.py`) or assumed, and said above
the tables. tests/test_simulate_cluster.py holds the simulation against queues and failures whose means are known.
"""

from __future__ import annotations

import argparse
import heapq
import math
from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

DAY = 86_400.0


@dataclass(frozen=True)
class Plan:
    """A run. Times in seconds.

    Args:
        images: in all.
        workers: that compute.
        seconds: of one worker for one image.
        piece: images that travel together.
        writer: the one writer's time for an image.
        mtbf: a worker's mean time between failures, infinite for none.
        away: from a failure until the worker is back and has loaded its networks; also before it first works.
        in_hand: pieces that a worker may have, one in work and the others waiting or not yet taken.
        varied: pieces take exponentially distributed times instead of all the same.
    """

    images: int
    workers: int
    seconds: float
    piece: int = 4
    writer: float = 0.0
    mtbf: float = math.inf
    away: float = 0.0
    in_hand: int = 2
    varied: bool = False


@dataclass
class Outcome:
    """What came of a run: its `makespan`, and of the writer the time it was `writing` and the mean `wait` for it.

    `lost` is computing that was for nothing, `idle` what workers spent waiting for the writer or with nothing left to
    do, `failures` how many there were; both times are summed over the workers.
    """

    makespan: float = 0.0
    writing: float = 0.0
    wait: float = 0.0
    lost: float = 0.0
    idle: float = 0.0
    failures: int = 0
    largest: int = 0


@dataclass
class _Worker:
    life: int = 0  # events of an earlier life are void
    busy_since: float | None = None
    results: int = 0  # made, but not taken yet


@dataclass
class _Run:
    """State of a simulated run with one writer."""

    plan: Plan
    rng: np.random.Generator
    waiting: int
    workers: list[_Worker]
    events: list[tuple[float, int, str, int, int]] = field(default_factory=list)
    queue: deque[tuple[float, int, int]] = field(default_factory=deque)
    writing: tuple[int, int] | None = None
    number: int = 0
    waits: int = 0
    out: Outcome = field(default_factory=Outcome)

    def at(self, time: float, what: str, worker: int) -> None:
        self.number += 1
        heapq.heappush(self.events, (time, self.number, what, worker, self.workers[worker].life))

    def compute(self, now: float, index: int) -> None:
        worker, plan = self.workers[index], self.plan
        if worker.busy_since is None and self.waiting and worker.results < plan.in_hand:
            self.waiting -= 1
            worker.busy_since = now
            takes = plan.piece * plan.seconds
            self.at(now + (float(self.rng.exponential(takes)) if plan.varied else takes), "made", index)

    def write(self, now: float) -> None:
        while self.writing is None and self.queue:
            since, index, life = self.queue.popleft()
            if self.workers[index].life == life:  # else it was lost with its worker, and is made again
                self.writing = index, life
                self.out.wait += now - since
                self.waits += 1
                self.at(now + self.plan.piece * self.plan.writer, "written", index)

    def fail(self, now: float, index: int) -> None:
        worker = self.workers[index]
        taken = self.writing == (index, worker.life)
        self.out.failures += 1
        if worker.busy_since is not None:
            self.out.lost += now - worker.busy_since
            self.waiting += 1
        untaken = worker.results - taken
        self.out.lost += untaken * self.plan.piece * self.plan.seconds
        self.waiting += untaken
        if taken:
            self.writing = index, -1  # it is on its way; its worker is no longer asked
        self.workers[index] = _Worker(worker.life + 1)
        self.at(now + self.plan.away, "back", index)


def one_writer(plan: Plan, seed: int = 0) -> Outcome:
    """A run whose results one process writes (`--ray`)."""
    pieces = math.ceil(plan.images / plan.piece)
    run = _Run(plan, np.random.default_rng(seed), pieces, [_Worker() for _ in range(plan.workers)])
    for index in range(plan.workers):
        run.at(plan.away, "back", index)
    left, now = pieces, 0.0
    while left:
        now, _, what, index, life = heapq.heappop(run.events)
        worker = run.workers[index]
        if what == "written":
            assert run.writing is not None
            if run.writing[1] == worker.life:
                worker.results -= 1
            run.writing = None
            run.out.writing += plan.piece * plan.writer
            left -= 1
        elif life != worker.life:
            continue
        elif what == "back" and math.isfinite(plan.mtbf):
            run.at(now + float(run.rng.exponential(plan.mtbf)), "failed", index)
        elif what == "failed":
            run.fail(now, index)
        elif what == "made":
            worker.busy_since = None
            worker.results += 1
            run.queue.append((now, index, life))
        run.write(now)
        if what == "failed":  # its pieces are waiting again, and others may be idle
            for other in range(plan.workers):
                if run.workers[other].busy_since is None and other != index:
                    run.compute(now, other)
        elif what != "failed":
            run.compute(now, index)
    run.out.makespan = now
    run.out.wait /= max(run.waits, 1)
    used = pieces * plan.piece * plan.seconds + run.out.lost
    run.out.idle = max(now * plan.workers - used - plan.away * (plan.workers + run.out.failures), 0.0)
    return run.out


def shards(plan: Plan, count: int, seed: int = 0) -> Outcome:
    """A run cut into `count` shards, by a hash of the name; each goes on from its own file after a failure."""
    rng = np.random.default_rng(seed)
    sizes = rng.multinomial(plan.images, np.full(count, 1 / count))
    free = [0.0] * plan.workers
    out = Outcome(largest=int(sizes.max()))
    for size in sizes:
        now = heapq.heappop(free) + plan.away
        left = float(size * plan.seconds)
        while True:
            life = float(rng.exponential(plan.mtbf)) if math.isfinite(plan.mtbf) else math.inf
            if life >= left:
                break
            out.failures += 1
            lost = life % plan.seconds  # what was not yet in the file
            out.lost += lost
            left -= life - lost
            now += life + plan.away
        heapq.heappush(free, now + left)
    out.makespan = max(free)
    out.idle = sum(out.makespan - end for end in free)
    return out


def ray_table(plan: Plan, workers: list[int]) -> str:
    rows = ["| workers | images a second | writer busy | workers waiting | lost to failures |", "|---|---|---|---|---|"]
    for count in workers:
        run = replace(plan, workers=count, images=count * 200 * plan.piece)
        out = one_writer(run)
        whole = out.makespan * count
        rows.append(
            f"| {count:,} | {run.images / out.makespan:,.1f} | {100 * out.writing / out.makespan:.0f} % "
            f"| {100 * out.idle / whole:.1f} % | {100 * out.lost / whole:.2f} % |"
        )
    return "\n".join(rows)


def shard_table(plan: Plan, counts: list[int], mtbfs: list[float], bytes_an_image: float) -> str:
    rows = ["| shards | images in the largest | its GB | a failure each | days | of it for nothing |"]
    rows.append("|---|---|---|---|---|---|")
    for count in counts:
        for mtbf in mtbfs:
            out = shards(replace(plan, mtbf=mtbf), count)
            useful = plan.images * plan.seconds / (out.makespan * plan.workers)
            often = "none" if math.isinf(mtbf) else f"{mtbf / DAY:g} days" if mtbf >= DAY else f"{mtbf / 3600:g} h"
            size = f"{out.largest * bytes_an_image / 1e9:,.0f}"
            rows.append(
                f"| {count:,} | {out.largest:,} | {size} | {often} | {out.makespan / DAY:.1f} | {1 - useful:.1%} |"
            )
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=6.72, help="of one core for one image [6.72]")
    parser.add_argument("--writer", type=float, default=0.0097, help="seconds of the one writer for an image [.0097]")
    parser.add_argument("--bytes", type=float, default=1.2e6, help="an image in a features file [1.2e6]")
    parser.add_argument("--images", type=float, default=1e9, help="of the table of shards [1e9]")
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 300, 600, 1000, 3000], help="with one writer")
    parser.add_argument("--cores", type=int, default=2000, help="of the table of shards, a worker each [2000]")
    parser.add_argument("--shards", type=int, nargs="+", default=[2_000, 10_000, 100_000])
    parser.add_argument("--mtbf", type=float, default=6.0, help="hours between failures of a worker, in both [6]")
    parser.add_argument("--away", type=float, default=120.0, help="seconds until a failed worker works again [120]")
    given = parser.parse_args()
    plan = Plan(int(given.images), given.cores, given.seconds, writer=given.writer, away=given.away)
    mtbf = given.mtbf * 3600
    print(
        f"One core: {given.seconds:g} s an image; {given.bytes / 1e6:g} MB an image; the one writer: "
        f"{1000 * given.writer:g} ms an image; a worker fails every {given.mtbf:g} h, and is away for "
        f"{given.away:g} s then and at first.\n"
    )
    print(f"One writer (--ray), 200 pieces of {plan.piece} images a worker:\n")
    print(ray_table(replace(plan, mtbf=mtbf), given.workers))
    print(f"\n{given.images:,.0f} images, {given.cores:,} workers of one core, a file each (--shard):\n")
    print(shard_table(plan, given.shards, [math.inf, 1000 * DAY, mtbf], given.bytes))


if __name__ == "__main__":
    main()
