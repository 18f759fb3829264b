"""Runs the real command line again and again in forked processes, ended or starved at one file operation after another.

    LD_PRELOAD=faults.so python fault_runs.py < request.json

Everything heavy is imported once, before the forks. The request:
`template`: folder that each run begins from a copy of; `command`: arguments of the command line, run in that copy;
`output`: HDF5 file that it makes; `mode`: `kill` (before the operation), `cut` (in the middle of it, where it is a
write) or `full` (no space from it on); `every`: try each n-th operation. Or `mode` `moments`: killed so many times
(`runs`) at random moments, each run going on from where the one before was killed.

After each run what is there must be whole, and the same command must then lead to what a run that nothing happened to
leads to. Answers a JSON object: `operations` of a run, `runs` tried, `codes` they ended with, `wrong`, what was not so.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MODES = {"count": 0, "kill": 1, "cut": 2, "full": 3}


def content(path: Path) -> dict[str, Any]:
    """Every dataset and attribute of an HDF5 file, by name, to the bit."""
    import h5py

    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        found.update({f"{name}@{key}": repr(value) for key, value in item.attrs.items()})
        if isinstance(item, h5py.Dataset):
            found[name] = item.shape, str(item.dtype), item[()].tobytes()

    with h5py.File(path, "r") as file:
        note("", file)
        file.visititems(note)
    return found


def records(path: Path) -> dict[Any, Any]:
    """What the package reads out of a features or a matches file; raises if anything of it cannot be read."""
    from hardnet_match.store import FeatureReader, MatchReader

    if not path.exists():
        return {}
    with FeatureReader(path) as reader:
        names = reader.names()
        if names:
            read = {name: reader.read(name) for name in names}
            return {name: (f.lafs.tobytes(), f.scores.tobytes(), f.descriptors.tobytes()) for name, f in read.items()}
    with MatchReader(path) as reader:
        found = {pair: reader.read(*pair) for pair in reader.pairs()}
        return {pair: (m.pairs.tobytes(), m.scores.tobytes()) for pair, m in found.items()}


def main() -> None:
    """Serve the one request on standard input."""
    request = json.loads(sys.stdin.read())
    os.environ.pop("LD_PRELOAD", None)
    faults = ctypes.CDLL(None)
    from hardnet_match.cli import main as cli

    template, command = Path(request["template"]), request["command"]
    place = template.parent / "run"

    def run(when: int, mode: str, seconds: float | None = None) -> tuple[int, str, int]:
        """Exit code (negative: the signal), standard error and file operations of a forked run, killed after a time."""
        log, counter, modules = (template.parent / name for name in ("log", "counter", "modules"))
        process = os.fork()
        if not process:
            code = 70
            try:
                os.chdir(place)
                sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                os.dup2(sink, 1)
                os.dup2(sink, 2)
                sys.executable = ""  # photos are decoded in this process: starting others takes longer than the run
                sys.argv = ["hardnet-match", *command]
                faults.faults_arm(ctypes.c_long(when), MODES[mode], os.fsencode(place))
                try:
                    cli()
                    code = 0
                except SystemExit as done:
                    code = int(done.code or 0)
                counter.write_text(str(faults.faults_count()))
                modules.write_text(" ".join(sys.modules))
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        if seconds is not None:
            time.sleep(seconds)
            os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        return os.waitstatus_to_exitcode(status), log.read_text(errors="replace"), int(counter.read_text() or 0)

    def fresh() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)

    (template.parent / "counter").write_text("0")
    fresh()
    code, text, operations = run(0, "count")
    if code:
        raise SystemExit(text)
    for name in (template.parent / "modules").read_text().split():
        with contextlib.suppress(Exception):
            importlib.import_module(name)
    output = request["output"]
    reference, whole = content(place / output), records(place / output)
    left = sorted(os.listdir(place))
    codes: collections.Counter[int] = collections.Counter()
    wrong: list[str] = []

    def check(label: str) -> None:
        """What is there is whole, and nothing else than it should be."""
        try:
            there = records(place / output)
        except Exception as error:
            wrong.append(f"{label}: cannot be read afterwards: {error}")
            return
        if any(there[key] != whole.get(key) for key in there):
            wrong.append(f"{label}: what is there is not what it should be")

    def finish(label: str, exact: bool) -> None:
        """The same command leads to the same end."""
        code, text, _ = run(0, "count")
        if code:
            wrong.append(f"{label}: the next run ended with {code}: {text[-500:]}")
        elif sorted(os.listdir(place)) != left or records(place / output) != whole:
            wrong.append(f"{label}: the next run left something else: {sorted(os.listdir(place))}")
        elif exact and content(place / output) != reference:
            wrong.append(f"{label}: the next run left another file")

    if request["mode"] == "moments":
        draw = random.Random(0)
        took = []
        for _ in range(2):
            fresh()
            began = time.monotonic()
            run(0, "count")
            took.append(time.monotonic() - began)
        fresh()
        tried: Sequence[int] = range(3 * request["runs"])
        for number in tried:
            code, _, _ = run(0, "count", draw.uniform(0.02, min(took)))
            codes[code] += 1
            check(f"kill {number}")
            if len(records(place / output)) == len(whole):
                finish(f"kill {number}", exact=False)
                fresh()
            if codes[-signal.SIGKILL] == request["runs"]:
                break
        finish("the last kill", exact=False)
    else:
        tried = range(request.get("first", 1), operations + 1, request["every"])
        for when in tried:
            fresh()
            code, text, _ = run(when, request["mode"])
            codes[code] += 1
            check(f"operation {when}")
            if request["mode"] == "full" and code == 1:
                if "Traceback" in text or not text.startswith("hardnet-match: error:"):
                    wrong.append(f"operation {when}: told so: {text[-500:]}")
                litter = [name for name in os.listdir(place) if name not in left and not name.endswith(".lock")]
                if litter and not any(name.endswith(".journal") for name in litter):
                    wrong.append(f"operation {when}: left behind {litter}")
            finish(f"operation {when}", exact=True)
    print(json.dumps({"operations": operations, "runs": len(tried), "codes": dict(codes), "wrong": wrong}))


if __name__ == "__main__":
    main()
