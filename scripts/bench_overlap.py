"""How busy extraction keeps the cores, and the memory it takes, decoding processes included.

    python scripts/bench_overlap.py PHOTOS... [--count 4 40] [--keypoints 2048 4096 8000] [--precision float32 int8]

Every row is a process of its own; loading the networks is not in it. `busy` is the processor's seconds of all processes
over the seconds on the wall times the cores: what is missing to 1 is waiting, or others at work on the machine, which
`idle` tells apart (the machine's own, all processes'). Memory is the highest resident at any moment, of the process and
of its largest decoder; `--count` takes the photos over and over under other names.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def peak_of(process: str) -> float:
    """MB, the most a process had resident so far; 0 once it is gone."""
    try:
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024
    except (OSError, IndexError):
        return 0.0


def idle_seconds() -> float:
    """Of all cores, since the machine started; waiting for a disk counts as idle."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def row(photos: list[Path], count: int, keypoints: int, max_size: int, precision: str) -> dict[str, float]:
    """One extraction, measured from inside its process."""
    from hardnet_match.extractor import FeatureExtractor
    from hardnet_match.jobs import extract_folder

    extractor = FeatureExtractor.from_preset(
        max_keypoints=keypoints, precision=precision, orientation="orinet", device="cpu"
    )
    over = threading.Event()
    decoders: list[float] = [0.0]

    def watch() -> None:
        while not over.wait(0.2):
            children = Path("/proc/self/task").glob("*/children")
            found = [child for path in children for child in path.read_text().split()]
            decoders.extend(peak_of(child) for child in found)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        folder.mkdir()
        for number in range(count):
            photo = photos[number % len(photos)]
            shutil.copyfile(photo, folder / f"{number:05}{photo.suffix}")
        watcher = threading.Thread(target=watch)
        watcher.start()
        idle, cpu, start = idle_seconds(), time.process_time(), time.perf_counter()
        extract_folder(folder, Path(scratch) / "f.h5", extractor, max_size=max_size, quiet=True)
        wall, own = time.perf_counter() - start, time.process_time() - cpu
        idle = idle_seconds() - idle
        over.set()
        watcher.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    decoding, cores = used.ru_utime + used.ru_stime, os.cpu_count() or 1
    return {
        "seconds a photo": wall / count,
        "of cores": own / count,
        "decoding": decoding / count,
        "busy": (own + decoding) / (wall * cores),
        "idle": idle / (wall * cores),
        "peak MB": peak_of("self"),
        "a decoder's": max(decoders),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--count", type=int, nargs="+", default=[8])
    parser.add_argument("--keypoints", type=int, nargs="+", default=[4096])
    parser.add_argument("--max-size", type=int, default=1152, help="1152 makes a 4:3 photo one megapixel")
    parser.add_argument("--precision", nargs="+", default=["float32", "half", "int8"])
    parser.add_argument("--row", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.row:
        print(json.dumps(row(given.photos, given.count[0], given.keypoints[0], given.max_size, given.precision[0])))
        return
    titles = None
    for precision in given.precision:
        for keypoints in given.keypoints:
            for count in given.count:
                options = ["--count", count, "--keypoints", keypoints, "--precision", precision]
                command = [sys.executable, __file__, "--row", *given.photos, "--max-size", given.max_size, *options]
                done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
                found = json.loads(done.stdout)
                if titles is None:
                    titles = list(found)
                    print(f"| precision | keypoints | photos | {' | '.join(titles)} |\n|{'---|' * (len(titles) + 3)}")
                cells = [f"{value:.0f}" if value > 50 else f"{value:.2f}" for value in found.values()]
                print(f"| {precision} | {keypoints} | {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
