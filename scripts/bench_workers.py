"""What a second worker costs: processor time of one process, of two shards side by side, of workers of Ray.

    python scripts/bench_workers.py PHOTOS --work WORK --max-keypoints 2048 --max-size 1200

The same photos are extracted four times, each process with one thread. Processor time is that of every process the
command started, the cluster's own included; on a busy machine it is nearly what it is on a quiet one, while the time on
the wall is not. Ideal is a ratio of 1: two workers then do in half the time what one does.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def descendants(roots: set[int]) -> dict[int, float]:
    """Processor seconds of all processes below these, by process."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry.name)] = int(fields[1])
        used[int(entry.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    found = set(roots)
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return {process: used[process] for process in found if process in used}


def run(commands: list[list[str]]) -> tuple[float, float]:
    """Seconds on the wall and of the processor of commands that run at the same time."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, "-m", "hardnet_match", *command], env=environment, stdout=subprocess.DEVNULL)
        for command in commands
    ]
    most: dict[int, float] = {}
    while any(process.poll() is None for process in running):
        for number, seconds in descendants({process.pid for process in running}).items():
            most[number] = max(seconds, most.get(number, 0.0))
        time.sleep(0.1)
    if any(process.returncode not in (0, 3) for process in running):
        raise SystemExit(f"a command failed: {commands}")
    return time.perf_counter() - started, sum(most.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for the files")
    parser.add_argument("--max-keypoints", default="2048")
    parser.add_argument("--max-size", default="1200")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    settings = ["--max-keypoints", given.max_keypoints, "--max-size", given.max_size, "--device", "cpu", "--overwrite"]

    def extract(output: str, *more: str) -> list[str]:
        return ["extract", str(given.photos), "-o", str(given.work / output), "-q", *settings, *more]

    ways = {
        "one process": [extract("whole.h5")],
        "two shards at once": [extract(f"{i}.h5", "--shard", f"{i}/2") for i in range(2)],
        "Ray, one worker": [extract("ray.h5", "--ray", "local", "--ray-workers", "1")],
        "Ray, two workers": [extract("ray.h5", "--ray", "local", "--ray-workers", "2")],
    }
    print("| | processor s | to one process | wall s |\n|---|---|---|---|")
    alone = 0.0
    for name, commands in ways.items():
        wall, used = run(commands)
        alone = alone or used
        print(f"| {name} | {used:.1f} | {used / alone:.2f} | {wall:.1f} |", flush=True)


if __name__ == "__main__":
    main()
