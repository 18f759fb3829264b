"""Each verb that may take long, stopped by a signal while it is at its work, and the same command again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_helpers import fill, until
from training_helpers import RECIPE, made_up_set
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.jobs.index import index_features
from hardnet_match.jobs.match import match_features
from hardnet_match.jobs.reconstruct import reconstruct_folder
from hardnet_match.store import Shard

pytestmark = pytest.mark.slow

# The real command; a function deep in it tells that it is at work and does its work again and again for a while, so
# that the signal comes in the middle of it however quick a machine is (what a thread is at is waited for). It has done
# it once before it tells: what it imports is loaded then (Cython drops a KeyboardInterrupt that comes while
# numpy.random is loaded, and nobody hears of it). What does other things the second time works once.
AT_WORK = """
import importlib, sys, time
where, call, again = sys.argv.pop(1), int(sys.argv.pop(1)), sys.argv.pop(1) == "again"
module, _, path = where.partition(":")
owner = importlib.import_module(module)
*outer, last = path.split(".")
for name in outer:
    owner = getattr(owner, name)
real, calls = getattr(owner, last), []
def at_work(*a, **k):
    calls.append(1)
    if len(calls) == call:
        if again:
            real(*a, **k)
        print("at work", flush=True)
        end = time.monotonic() + 3
        while again and time.monotonic() < end:
            real(*a, **k)
    return real(*a, **k)
setattr(owner, last, at_work)
from hardnet_match.cli import main
main()
"""
RUN = f"""{RECIPE}
schedule.epochs = 1
schedule.pairs_an_epoch = 160
optimiser.precision = "float32"
"""


@dataclass(frozen=True)
class Case:
    """A command, the function to stop in, at which of its calls, and whether it may be called over and over."""

    arguments: str
    where: str
    call: int = 2
    again: bool = True
    number: signal.Signals = signal.SIGTERM


SEEN = "scene --preset dog-rootsift --max-keypoints 400 --device cpu --quiet"
STEP = "hardnet_match.training.trainer:Trainer._step"
CASES = {
    "extract": Case(
        "extract photos -o out.h5 --max-keypoints 20 --device cpu --quiet",
        "hardnet_match.extractor:FeatureExtractor.extract_batch",
        number=signal.SIGINT,
    ),
    "match": Case("match f.h5 -o out.h5 --device cpu --quiet", "hardnet_match.jobs.match:match"),
    "pairs": Case(
        "pairs f.h5 -o out.txt --mode retrieval --words 16 --quiet", "hardnet_match.jobs.pair_selection:search"
    ),
    "index, words": Case("index f.h5 -o out --words 16 --quiet", "hardnet_match.jobs.index:train_codebook", 1),
    "index": Case(
        "index f.h5 -o out --words 16 --quiet", "hardnet_match.store:FeatureReader.read", 3, number=signal.SIGINT
    ),
    "search": Case(
        "search index photos/000\0x.png --verify 5 --device cpu --quiet", "hardnet_match.jobs.search:search", 1
    ),
    "join": Case("join shard0.h5 shard1.h5 -o out.h5 --quiet", "hardnet_match.jobs.join:_look"),
    "colmap": Case(
        "colmap f.h5 m.h5 --images photos -o out.db --verify --quiet", "hardnet_match.jobs.database:verify", 1
    ),
    "reconstruct, features": Case(
        f"reconstruct {SEEN} -o out", "hardnet_match.extractor:FeatureExtractor.extract_batch"
    ),
    "reconstruct, verification": Case(f"reconstruct {SEEN} -o out", "hardnet_match.jobs.database:verify", 1),
    "reconstruct, mapping": Case(
        f"reconstruct {SEEN} -o out", "hardnet_match.jobs.reconstruct:reconstruct", 1, False, signal.SIGINT
    ),
    "eval": Case(
        "eval homography planes --preset dog-rootsift --keypoints 100 --device cpu --quiet --work out",
        "hardnet_match.jobs.homography:match",
        1,
    ),
    "patches": Case(
        "patches model --images scene -o out.h5 --quiet", "hardnet_match.training.sources.colmap:ColmapModel.read"
    ),
    "train": Case("train r.toml -o out --device cpu --no-tensorboard --quiet", STEP, 4, False),
    "train, ctrl-c": Case("train r.toml -o out --device cpu --no-tensorboard --quiet", STEP, 4, False, signal.SIGINT),
    "finetune": Case(
        "finetune scene -o out.safetensors --model model/sparse/0 --minutes 0.15 --device cpu --quiet", STEP, 2, False
    ),
    "pca": Case(
        "pca hardnet --data a.h5 --dim 16 -o out.pth --device cpu --quiet", "hardnet_match.jobs.pca:fit_projection", 1
    ),
    "describe": Case("describe a.h5 -o out.h5 --device cpu --quiet", "hardnet_match.jobs.describe:run_tiled", 1),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, rendered: dict[str, Any]) -> Path:
    """What the commands work on, small: each takes a second or so."""
    folder = tmp_path_factory.mktemp("inputs")
    fill(folder / "photos", 6)
    (folder / "scene").mkdir()
    for name in sorted(os.listdir(rendered["folder"]))[:5]:
        shutil.copy(rendered["folder"] / name, folder / "scene" / name)
    extractor = FeatureExtractor.from_preset("dog-rootsift", orientation="upright", max_keypoints=20, device="cpu")
    extract_folder(folder / "photos", folder / "f.h5", extractor, quiet=True)
    for part in range(2):
        extract_folder(folder / "photos", folder / f"shard{part}.h5", extractor, shard=Shard(part, 2), quiet=True)
    match_features(folder / "f.h5", folder / "m.h5", device="cpu", quiet=True)
    index_features(folder / "f.h5", folder / "index", words=16, images=folder / "photos", quiet=True)
    seen = FeatureExtractor.from_preset("dog-rootsift", max_keypoints=400, device="cpu")
    reconstruct_folder(folder / "scene", folder / "model", seen, quiet=True)
    (folder / "planes").mkdir()
    for number in (1, 2):
        shutil.copy(folder / "scene" / sorted(os.listdir(folder / "scene"))[0], folder / "planes" / f"{number}.png")
    np.savetxt(folder / "planes" / "H_1_2", np.eye(3))
    made_up_set(80).save(folder / "a.h5")
    (folder / "r.toml").write_text(RUN)
    return folder


def of_group(group: int) -> list[str]:
    """What still runs of a process group."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == group and fields[0] != "Z":
                found.append((place / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture
def place(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The inputs in a folder of the test's own."""
    for path in inputs.iterdir():
        if path.is_dir():
            (tmp_path / path.name).symlink_to(path)
        else:
            shutil.copy(path, tmp_path / path.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_stopped_at_work(name: str, place: Path) -> None:
    case = CASES[name]
    before = sorted(os.listdir(place))
    arguments = [word.replace("\0", " ") for word in case.arguments.split(" ")]
    hooked = [sys.executable, "-c", AT_WORK, case.where, str(case.call), "again" if case.again else "once"]
    process = subprocess.Popen(
        [*hooked, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n", process.communicate()
        time.sleep(0.02)
        process.send_signal(case.number)
        sent = time.monotonic()
        told, errors = process.communicate(timeout=60)
        took = time.monotonic() - sent
    finally:
        process.kill()
    assert process.returncode == 128 + case.number, (told, errors)
    assert errors.count("\n") == 1, errors
    assert "Traceback" not in errors
    assert "goes on from there" in errors
    assert told == ""
    assert took < 20
    until(lambda: not of_group(process.pid))
    left = sorted(set(os.listdir(place)) - set(before))
    assert not [entry for entry in left if entry.endswith((".lock", ".part", ".new", ".journal"))], left
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert not [path for path in place.rglob("*") if path.suffix in (".part", ".new", ".journal")]
