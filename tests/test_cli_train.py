"""`hardnet-match train` as a user runs it: killed, interrupted, resumed, in two processes, and told what is wrong."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_helpers import RECIPE, made_up_set
from typer.testing import CliRunner, Result

from hardnet_match.cli import app
from hardnet_match.orientation import OriNet
from hardnet_match.training.checkpoint import load_checkpoint
from hardnet_match.training.logs import read_rows
from hardnet_match.weights import read_state

RUN = f"""{RECIPE}
data.evaluate = ["b"]
schedule.epochs = 5
schedule.pairs_an_epoch = 80
schedule.warm_up = 0.3
run.report = 7
run.evaluate = 20
run.pairs = 20
run.checkpoint_minutes = 0
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recipe and two patch sets."""
    folder = tmp_path_factory.mktemp("train")
    made_up_set(60).save(folder / "a.h5")
    made_up_set(50, seed=5).save(folder / "b.h5")
    (folder / "r.toml").write_text(RUN)
    return folder


def command(place: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "hardnet_match", "train", str(place / "r.toml"), "--data", str(place), *arguments]


def run(place: Path, *arguments: str) -> Result:
    """In this process: the package is imported once."""
    return CliRunner().invoke(app, command(place, *arguments)[3:])


def stamp(path: Path) -> int:
    """Changes when the file is replaced; 0 without it."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def same_weights(one: Path, other: Path) -> bool:
    first, second = read_state(one), read_state(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """A run that nothing happened to."""
    done = run(place, "-o", str(place / "whole"), "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["steps"], summary["of"], summary["resumed_at"]) == (50, 50, 0)
    assert summary["best_figure"] == "rank1"
    assert set(summary["figures"]) == {"step", "fpr95", "rank1", "within20"}
    assert summary["pairs_a_second"] > 0
    return place / "whole"


def test_a_run_leaves_what_a_user_looks_for(whole: Path) -> None:
    there = {path.name for path in whole.iterdir()}
    assert {"recipe.toml", "last.pt", "last.safetensors", "best.safetensors", "log.csv", "figures.csv"} <= there
    assert [row["step"] for row in read_rows(whole / "log.csv")] == [7, 14, 21, 28, 35, 42, 49, 50]
    assert [row["step"] for row in read_rows(whole / "figures.csv")] == [20, 40, 50]


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_gives_the_same_weights_to_the_bit(place: Path, whole: Path) -> None:
    out, rng, killed = place / "killed", random.Random(), 0
    while True:
        process = subprocess.Popen(command(place, "-o", str(out)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        before = stamp(out / "last.pt")
        while killed < 3 and process.poll() is None:
            if stamp(out / "last.pt") != before:  # it is on its way again
                time.sleep(rng.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                break
            time.sleep(0.01)
        process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        killed += 1
    assert killed >= 1
    assert same_weights(out / "last.safetensors", whole / "last.safetensors")
    assert same_weights(out / "best.safetensors", whole / "best.safetensors")
    for name, keys in (("log.csv", ("step", "rate", "loss")), ("figures.csv", ("step", "rank1", "within20"))):
        one, other = read_rows(out / name), read_rows(whole / name)
        assert [[row[key] for key in keys] for row in one] == [[row[key] for key in keys] for row in other]


@pytest.mark.slow
def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(place: Path, whole: Path) -> None:
    out = place / "interrupted"
    # no checkpoint but the one that Ctrl-C makes
    arguments = ("-o", str(out), "--set", "run.checkpoint_minutes=99")
    process = subprocess.Popen(command(place, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not read_rows(out / "log.csv") and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=300)
    assert process.returncode == 130, told
    assert "Traceback" not in told
    assert "goes on from there" in told
    stopped = load_checkpoint(out / "last.pt")["step"]
    assert 7 <= stopped < 50
    done = run(place, *arguments, "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["resumed_at"] == stopped
    assert same_weights(out / "last.safetensors", whole / "last.safetensors")


@pytest.mark.slow
def test_torchrun_gives_what_one_process_gives(place: Path) -> None:
    """The step count, logs and weights of one process, up to the order of sums; files are written once."""
    changes = ["--set", "schedule.epochs=1", "--set", "network.dropout=0", "--set", "optimiser.name=sgd"]
    changes += ["--set", "optimiser.rate=1e-3", "--set", "optimiser.precision=float32"]
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port)]
    two = command(place, "-o", str(place / "two"), *changes, "--json")
    pair = subprocess.run([*launch, *two[1:]], capture_output=True, text=True, timeout=300, check=False)
    assert pair.returncode == 0, pair.stderr
    assert json.loads(pair.stdout)["steps"] == 10
    done = run(place, "-o", str(place / "one"), *changes)
    assert done.exit_code == 0, done.output
    one, other = (read_rows(place / name / "log.csv") for name in ("one", "two"))
    assert [row["step"] for row in one] == [row["step"] for row in other] == [7, 10]
    assert [row["loss"] for row in other] == pytest.approx([row["loss"] for row in one], rel=1e-3)
    first, second = (read_state(place / name / "last.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-2, atol=1e-3)


def test_another_recipe_in_the_folder_is_refused_with_both_shown(place: Path, whole: Path) -> None:
    done = run(place, "-o", str(whole), "--set", "schedule.batch=10", "--set", "seed=4")
    assert done.exit_code == 1
    assert "schedule.batch = 8 there, 10 now" in done.stderr
    assert "seed = 0 there, 4 now" in done.stderr
    assert "Traceback" not in done.output


def test_a_finished_run_with_more_time_is_done_at_once(place: Path, whole: Path) -> None:
    before = (whole / "last.safetensors").read_bytes()
    done = run(place, "-o", str(whole), "--minutes", "5", "--json")
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["resumed_at"] == 50
    assert (whole / "last.safetensors").read_bytes() == before


def test_minutes_end_a_run(place: Path) -> None:
    done = run(place, "-o", str(place / "short"), "--minutes", "0.01", "--set", "schedule.epochs=100000", "--json")
    assert done.exit_code == 0, done.stderr
    summary = json.loads(done.stdout)
    assert 1 <= summary["steps"] < summary["of"]
    assert 0.6 <= summary["seconds"] < 60
    assert (place / "short" / "last.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, ["--output"]),
        (("-o", "x", "--set", "schedule.bach=3"), 2, ["schedule.bach", "schedule.batch"]),
        (("-o", "x", "--set", "network.name=orient"), 2, ["orinet"]),
        (("-o", "nowhere/x"), 2, ["nowhere", "does not exist"]),
        (("-o", "x", "--device", "abacus"), 2, ["abacus"]),
        (("-o", "x", "--start", "hardnet++", "--resume", "r.toml"), 2, ["--start", "--resume"]),
        (("-o", "x", "--start", "hardnet-bundled"), 1, ["another network"]),
        (("-o", "x", "--start", "none.pth"), 1, ["none.pth"]),
        (("-o", "x", "--resume", "r.toml"), 1, ["r.toml"]),
        (("-o", "x", "--set", 'data.train=["liberty"]'), 1, ["liberty.h5", "hardnet-match patches liberty -o"]),
        (("-o", "x", "--set", 'data.train=["sea"]'), 1, ["sea.h5", "patches --help"]),
        (("-o", "x", "--set", "schedule.batch=61"), 1, ["60 classes", "batch of 61"]),
        (("-o", "x", "--set", 'data.train=["copy"]', "--set", 'data.evaluate=["a"]'), 1, ["copy", "trained on"]),
        (("-o", "x", "--set", "run.best=charm"), 2, ["charm", "rank1"]),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    arguments: tuple[str, ...], code: int, words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    made_up_set(60).save(place / "copy.h5")
    before = {path.name for path in place.iterdir()}
    result = CliRunner().invoke(app, ["train", "r.toml", "--data", ".", "--quiet", *arguments])
    assert result.exit_code == code, result.output
    for word in words:
        assert word in result.stderr
    assert "Traceback" not in result.output
    assert result.stderr.startswith("hardnet-match: error: ") or code == 2
    left = {path.name for path in place.iterdir()} - before
    assert not any((place / name / "recipe.toml").exists() for name in left)


def test_an_empty_set_is_told(place: Path) -> None:
    made_up_set(10).select(torch.zeros(0, dtype=torch.int64).numpy()).save(place / "empty.h5")
    done = run(place, "-o", str(place / "e"), "--set", 'data.train=["empty"]')
    assert done.exit_code == 1
    assert "empty.h5 is empty" in done.stderr
    assert not (place / "e").exists()


def test_two_processes_in_one_folder_refuse_each_other(place: Path) -> None:
    from filelock import FileLock

    (place / "taken").mkdir()
    with FileLock(place / "taken" / ".lock"):
        done = run(place, "-o", str(place / "taken"))
    assert done.exit_code == 1
    assert "another process is training there" in done.stderr


def test_show_prints_a_recipe_that_is_the_same(place: Path) -> None:
    shown = run(place, "--show", "--set", "seed=7")
    assert shown.exit_code == 0
    (place / "shown.toml").write_text(shown.stdout)
    again = CliRunner().invoke(app, ["train", str(place / "shown.toml"), "--show"])
    assert again.stdout == shown.stdout
    assert "seed = 7" in shown.stdout


def test_an_originals_checkpoint_goes_on_at_its_epoch(place: Path) -> None:
    torch.manual_seed(1)
    theirs = OriNet()
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, dampening=0.9)
    theirs.vectors(torch.rand(8, 1, 32, 32)).square().sum().backward()
    sgd.step()
    path = place / "checkpoint_2.pth"
    torch.save({"epoch": 3, "state_dict": theirs.state_dict(), "optimizer": sgd.state_dict()}, path)
    arguments = ["--set", "optimiser.name=sgd", "--set", "schedule.kind=linear", "--resume", str(path), "--json"]
    done = run(place, "-o", str(place / "theirs"), *arguments)
    assert done.exit_code == 0, done.output
    summary = json.loads(done.stdout)
    assert (summary["resumed_at"], summary["steps"]) == (30, 50)
    rows = read_rows(place / "theirs" / "log.csv")
    assert rows[0]["step"] == 35
    assert rows[0]["rate"] == pytest.approx(2e-3 * (1 - 34 / 50))
