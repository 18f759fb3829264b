"""A real Ray cluster of several nodes on this machine: nodes and workers are killed, and nothing is lost or twice."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_helpers import Squarer, Unmakeable
from store_helpers import contents
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.errors import ClusterError, OptionError, StoreError
from hardnet_match.jobs.cluster import connected
from hardnet_match.store import FeatureReader

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (the extra ray); no cluster to work on"
)
EXTRACT = ["--preset", "dog-hardnet", "--orientation", "upright", "--max-keypoints", "150", "--max-size", "240"]


def processes() -> dict[int, tuple[int, str]]:
    """Parent and command of every process that runs."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if state != "Z":
            found[int(entry.name)] = int(parent), words
    return found


def descendants(process: int) -> set[int]:
    everyone, found = processes(), {process}
    while more := {child for child, (parent, _) in everyone.items() if parent in found} - found:
        found |= more
    return found - {process}


def wait_until(condition: Any, seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture
def helpers_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of a cluster import what is beside this file."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ["PYTHONPATH"], str(Path(__file__).parent)]))


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head and a node of one core each, every one a set of processes of its own; tests add more."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    room = {"object_store_memory": 80_000_000, "include_dashboard": False}
    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": quick, **room})
    started.add_node(num_cpus=1, object_store_memory=80_000_000)
    yield started
    started.shutdown()


@pytest.fixture(scope="module")
def photos(rendered: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i in range(24):
        shutil.copy(rendered["folder"] / f"view_00{i % 8}.jpg", folder / f"{i:02}.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def plain(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What runs without a cluster leave."""
    folder = tmp_path_factory.mktemp("plain")
    done = CliRunner().invoke(app, ["extract", str(photos), "-o", str(folder / "f.h5"), *EXTRACT, "-q"])
    assert done.exit_code == 3, done.output
    (folder / "pairs.txt").write_text("".join(f"{i:02}.jpg {j:02}.jpg\n" for i in range(24) for j in range(i)))
    arguments = ["--pairs", str(folder / "pairs.txt"), "-q"]
    done = CliRunner().invoke(app, ["match", str(folder / "f.h5"), "-o", str(folder / "m.h5"), *arguments])
    assert done.exit_code == 0, done.output
    return folder


def images_in(path: Path) -> int:
    try:
        with FeatureReader(path) as reader:
            return len(reader.names())
    except StoreError:
        return 0


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hardnet_match", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


@needs_ray
@pytest.mark.slow
def test_a_node_killed_in_the_middle_loses_nothing_and_does_nothing_twice(
    cluster: Any, photos: Path, plain: Path, tmp_path: Path
) -> None:
    """Features to the bit as one process makes them, whichever node made them."""
    output = tmp_path / "f.h5"
    doomed = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    run = start("extract", photos, "-o", output, *EXTRACT, "--ray", cluster.address, "--json")
    [raylet] = doomed.all_processes["raylet"]

    def at_work() -> bool:
        everyone = processes()
        return any("_Remote.work" in everyone.get(each, (0, ""))[1] for each in descendants(raylet.process.pid))

    wait_until(lambda: at_work() or run.poll() is not None, 120, "a worker at work on the node")
    assert images_in(output) < 24
    cluster.remove_node(doomed, allow_graceful=False)
    told, errors = run.communicate(timeout=120)
    assert run.returncode == 3, errors
    summary = json.loads(told)
    assert (summary["images"], summary["extracted"], summary["reused"]) == (25, 24, 0)
    assert list(summary["skipped"]) == ["broken.jpg"]
    assert "was lost" in errors
    assert contents(output) == contents(plain / "f.h5")
    # and the matches that the nodes left make are those of one process too
    matches = tmp_path / "m.h5"
    done = start(
        "match", plain / "f.h5", "-o", matches, "--pairs", plain / "pairs.txt", "--ray", cluster.address, "--json"
    )
    told, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    assert json.loads(told)["matched"] == 276
    assert contents(matches) == contents(plain / "m.h5")


@needs_ray
@pytest.mark.slow
def test_work_comes_back_once_whatever_happens_to_workers(tmp_path: Path, helpers_importable: None) -> None:
    pieces = [[i, i + 1, i + 2] for i in range(0, 60, 3)]  # 13 kills whoever is at it
    with connected("local") as crew:
        given = list(crew.results(Squarer, (str(tmp_path),), pieces))
        done = sorted(pair for each in given if not each.lost for pair in each.result)
        assert done == [(i, i * i) for i in range(60) if i != 13]
        [lost] = [each for each in given if each.lost]
        assert lost.items == [13]
        assert "3 workers were lost while they were at it" in lost.lost
        # Once in its piece, then alone. A result that was on its way when its worker died is lost with it: its piece is
        # then blamed first, at most once for each time that 13 is not alone.
        assert 3 <= crew.lost <= 5
        with pytest.raises(StoreError, match="99 is not to be squared"):
            list(crew.results(Squarer, (str(tmp_path),), [[1], [99]]))
        with pytest.raises(ClusterError, match="failed: a mistake of ours"):
            list(crew.results(Squarer, (str(tmp_path),), [[77]]))
        with pytest.raises(StoreError, match="there is nothing to make it of"):
            list(crew.results(Unmakeable, (), [[1]]))
        assert list(crew.results(Squarer, (str(tmp_path),), [])) == []
        # whoever takes slowly has few results made for them: two a worker
        calls = tmp_path / "calls"
        calls.mkdir()
        slow = crew.results(Squarer, (str(calls),), [[i] for i in range(200, 300)])
        for _ in range(5):
            next(slow)
        time.sleep(1)
        workers = os.cpu_count() or 1
        assert len(list(calls.iterdir())) <= 5 + 2 * workers
        slow.close()
    import ray

    assert not ray.is_initialized()


@needs_ray
@pytest.mark.slow
def test_ctrl_c_ends_at_once_and_leaves_nothing_running(photos: Path, plain: Path, tmp_path: Path) -> None:
    output = tmp_path / "f.h5"
    run = start("extract", photos, "-o", output, *EXTRACT, "--ray", "local", "--ray-workers", 1)
    wait_until(lambda: images_in(output) >= 4 or run.poll() is not None, 120, "the first images")
    family = descendants(run.pid)
    assert any("raylet" in processes()[each][1] for each in family)
    pressed = time.monotonic()
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does
    _, errors = run.communicate(timeout=60)
    assert run.returncode == 130, errors
    assert time.monotonic() - pressed < 15  # a second or two where nothing else runs
    assert "Traceback" not in errors
    wait_until(lambda: not family & processes().keys(), 10, "the end of all that was started")
    there = contents(output)
    whole = contents(plain / "f.h5")
    assert 4 <= images_in(output) <= 24
    assert all(whole[key] == value for key, value in there.items())


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--ray", "somewhere"], 2, "auto, local or HOST:PORT"),
        (["--ray", "ray://somewhere:10001"], 2, "auto, local or HOST:PORT"),
        (["--ray", "127.0.0.1:1"], 1, "nothing answers at 127.0.0.1:1"),
        (["--ray", "local", "--device", "mps"], 2, "auto, cpu or cuda"),
        (["--ray", "local", "--ray-workers", "0"], 2, "--ray-workers"),
        (["--ray-workers", "2"], 2, "give both"),
        (["--ray", "local", "--preset", "nothing"], 2, "nothing"),
        (["--shard", "2/2"], 2, "the last is 1/2"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, words: str, tmp_path: Path) -> None:
    if "--ray" in arguments and importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed (the extra ray)")
    (tmp_path / "p").mkdir()
    result = CliRunner().invoke(app, ["extract", str(tmp_path / "p"), "-o", str(tmp_path / "f.h5"), *arguments])
    assert result.exit_code == code, result.output
    assert words in result.output
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r'pip install "hardnet-match\[ray\]"'), connected("local"):
        pass
