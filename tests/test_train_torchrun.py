"""Training under the real torchrun: a process that is killed costs the steps since the last checkpoint, no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_helpers import RECIPE, made_up_set

from hardnet_match.training.logs import read_rows
from hardnet_match.weights import read_state

pytestmark = pytest.mark.slow

RUN = f"""{RECIPE}
schedule.epochs = 1
schedule.pairs_an_epoch = 480
optimiser.precision = "float32"
run.report = 5
run.checkpoint_minutes = 0
"""
LAUNCH = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    made_up_set(40).save(folder / "a.h5")
    (folder / "r.toml").write_text(RUN)
    return folder


def start(place: Path, output: str) -> subprocess.Popen[str]:
    train = ["-m", "hardnet_match", "train", "r.toml", "--data", ".", "-o", output, "--no-tensorboard", "--json"]
    return subprocess.Popen(
        [sys.executable, *LAUNCH, *train], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def process_of_rank(rank: int, output: str) -> int | None:
    """The training process with that rank, found by its environment."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if output.encode() in words and f"RANK={rank}".encode() in variables:
            return int(entry.name)
    return None


@pytest.mark.parametrize("rank", [0, 1], ids=["the one that writes", "another"])
def test_a_killed_process_is_started_again_and_the_run_goes_on(rank: int, place: Path) -> None:
    output = f"killed-{rank}"
    if not (place / "whole").exists():
        told, errors = start(place, "whole").communicate(timeout=200)
        assert json.loads(told)["resumed_at"] == 0, errors
    run = start(place, output)
    end = time.monotonic() + 100
    victim = None
    while victim is None or not (place / output / "last.pt").exists():
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < end
        victim = victim or process_of_rank(rank, output)  # looked for before: it takes long where many processes are
        time.sleep(0.01)
    os.kill(victim, signal.SIGKILL)
    told, errors = run.communicate(timeout=200)
    assert run.returncode == 0, errors
    summary = json.loads(told)
    assert (summary["steps"], summary["of"]) == (60, 60)
    assert 1 <= summary["resumed_at"] < 60
    one, other = (read_state(place / name / "last.safetensors") for name in ("whole", output))
    assert all(torch.equal(one[name], other[name]) for name in one)
    logs = [[row["step"] for row in read_rows(place / name / "log.csv")] for name in ("whole", output)]
    assert logs == [list(range(5, 61, 5))] * 2
