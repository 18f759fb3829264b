"""`hardnet-match doctor`: it passes where all is well, and says what is broken where something is."""

from __future__ import annotations

import configparser
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.jobs import doctor
from hardnet_match.jobs.doctor import BROKEN, LOOK, OK, Check, examine, files, machine, selftest, software
from hardnet_match.jobs.doctor.check import Health, guarded

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the command tells of this very machine, its self-test included."""
    folder = tmp_path_factory.mktemp("doctor")
    result = CliRunner().invoke(app, ["doctor", "--json", "--folder", str(folder)])
    assert list(folder.iterdir()) == []  # nothing is left behind
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    assert result.exit_code == (1 if found["broken"] else 0)
    return found


def test_all_that_was_promised_is_looked_at(report: dict[str, Any]) -> None:
    found = {check["name"]: check for check in report["checks"]}
    machines = ("processor", "memory", "threads", "auto takes", "cache", "HDF5", "self-test")
    weights = ("weights hardnet", "weights affnet", "weights orinet")
    for name in ("python", "hardnet-match", *software.CORE, "zlib and pycolmap", *machines, *weights):
        assert found[name]["text"]
        assert found[name]["state"] != BROKEN, found[name]
    assert {check["state"] for check in report["checks"]} <= {OK, LOOK, BROKEN}
    assert "cores" in found["processor"]["text"] or "1 core" in found["processor"]["text"]
    assert "matches of two rendered pictures right" in found["self-test"]["text"]
    assert sum(check["state"] == BROKEN for check in report["checks"]) == report["broken"] == 0


def test_the_extras_are_those_of_the_package() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    offered = set(setup["options.extras_require"]) - {"test"}
    assert offered <= set(software.EXTRAS)


def test_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    health = Health(
        [Check("one", OK, "fine"), Check("two", LOOK, "slow", "do this"), Check("three", BROKEN, "gone " * 40, "mend")],
        1,
        2.0,
    )
    lines = health.words().splitlines()
    assert lines[0].split() == ["one:", "fine"]
    assert lines[1].split() == ["two:", "LOOK:", "slow"]
    assert lines[2].split() == ["->", "do", "this"]
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "1 broken, 1 worth a look (3 checks in 2.0 s)"


def test_what_breaks_inside_a_check_is_its_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> Iterator[Check]:
        yield Check("a", OK, "fine")
        raise ValueError("of all\nthings")

    [found] = guarded("name", breaks)
    assert (found.name, found.state) == ("name", BROKEN)
    assert "ValueError: of all things" in found.text
    monkeypatch.setattr(software, "python", lambda: 1 / 0)
    monkeypatch.setattr(software, "trap", lambda: Check("zlib and pycolmap", OK, ""))
    health = examine(self_test=False)
    assert [check.name for check in health.checks if check.state == BROKEN] == ["python"]


def test_exit_codes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sick = Health([Check("one", BROKEN, "gone", "mend it")], 1, 0.1)
    monkeypatch.setattr(doctor, "examine", lambda *arguments, **options: sick)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "BROKEN: gone" in result.stdout
    assert json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["broken"] == 1
    monkeypatch.undo()
    assert CliRunner().invoke(app, ["doctor", "--folder", str(tmp_path / "nowhere")]).exit_code == 2


# Software -------------------------------------------------------------------------------------------------------------


def test_a_dependency_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "CORE", {"no-such-package": "no_such_module", "numpy": "numpy"})
    missing, numpy = list(software.core())
    assert (missing.state, numpy.state) == (BROKEN, OK)
    assert "pip install" in missing.do
    monkeypatch.setattr(software, "_least", lambda: {"numpy": "99.1"})
    *_, old = list(software.core())
    assert old.state == BROKEN
    assert 'pip install "numpy>=99.1"' in old.do


def test_pythons_too_old_and_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "OLDEST", (9, 0))
    assert software.python().state == BROKEN
    monkeypatch.setattr(software, "OLDEST", (3, 0))
    monkeypatch.setattr(software, "NEWEST", (3, 1))
    assert software.python().state == LOOK


def test_an_extra_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "EXTRAS", {"flying": (("no_such_module",), "wings")})
    [found] = list(software.extras())
    assert found.state == OK
    assert "wings" in found.text
    assert 'pip install "hardnet-match[flying]"' in found.do


def test_two_opencvs(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"opencv-python", "opencv-python-headless"}
    monkeypatch.setattr(software, "_distribution", lambda name: "5.0" if name in there else None)
    [found] = list(software.opencv())
    assert found.state == LOOK
    there.remove("opencv-python")
    assert list(software.opencv()) == []


def test_another_version_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software.importlib.metadata, "version", lambda name: "0.0.1")
    assert software.package().state == LOOK


@pytest.mark.parametrize(("works", "state"), [((True, True), OK), ((True, False), OK), ((False, False), BROKEN)])
def test_the_order_of_zlib_and_pycolmap(monkeypatch: pytest.MonkeyPatch, works: tuple[bool, bool], state: str) -> None:
    answers = iter(works)
    monkeypatch.setattr(software, "_runs", lambda first, second: next(answers))
    found = software.trap()
    assert found.state == state
    assert ("import zlib" in found.do) == (works == (True, False))


# Machine --------------------------------------------------------------------------------------------------------------


def test_threads_against_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(machine, "usable_cores", lambda: 4)
    for taken, state in ((4, OK), (8, LOOK), (1, LOOK)):
        monkeypatch.setattr(torch, "get_num_threads", lambda taken=taken: taken)
        found = machine.threads()
        assert found.state == state
        assert ("OMP_NUM_THREADS=4" in found.do) == (state == LOOK)


@pytest.mark.parametrize(("quota", "cores"), [("200000 100000", 2), ("max 100000", 8), ("", 8), ("50000 100000", 1)])
def test_a_containers_share_of_the_cores(monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "_read", lambda path: quota if path.endswith("cpu.max") else "")
    assert machine.usable_cores() == cores


def test_memory_and_processor_from_what_the_system_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "/proc/meminfo": "MemTotal:       16000000 kB\n",
        "/sys/fs/cgroup/memory.max": "1073741824\n",
        "/proc/cpuinfo": "processor: 0\nmodel name : Some CPU 9000\nflags : sse avx2 avx512_vnni\n\nprocessor: 1\n",
    }
    monkeypatch.setattr(machine, "_read", lambda path: told.get(path, ""))
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    found = machine.memory()
    assert (found.state, found.text) == (LOOK, "1.0 GiB")
    assert "Some CPU 9000" in machine.processor().text
    assert "AVX-512 VNNI" in machine.processor().text
    told["/proc/cpuinfo"] = "model name: Old\nflags: sse\n"
    assert machine.processor().state == LOOK


def test_a_card_that_torch_cannot_use(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert next(machine.graphics()).state == LOOK
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert next(machine.graphics()).state == OK
    assert machine._worked("cpu", "the processor").state == OK
    assert machine._worked("cuda:7", "no such card").state == BROKEN


# Files ----------------------------------------------------------------------------------------------------------------


def test_bundled_weights_cut_off_or_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hardnet_match.weights import HERE, registry  # type: ignore[attr-defined]

    for path in HERE.glob("*.safetensors"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr("hardnet_match.weights.HERE", tmp_path)
    assert tmp_path != registry.HERE
    assert {check.state for check in files.bundled()} == {OK}
    # as the installer wrote it down, or otherwise
    known = {f"weights/{path.name}": files._digest(path) for path in tmp_path.iterdir()}
    monkeypatch.setattr(files, "_recorded", lambda: known)
    assert all("as installed" in check.text for check in files.bundled())
    known["weights/affnet-bundled.safetensors"] = "x"
    assert [check.name for check in files.bundled() if check.state == BROKEN] == ["weights affnet"]
    whole = (tmp_path / "hardnet-bundled.safetensors").read_bytes()
    (tmp_path / "hardnet-bundled.safetensors").write_bytes(whole[:1000])
    (tmp_path / "orinet-bundled.safetensors").unlink()
    assert [check.state for check in files.bundled()] == [BROKEN] * 3


def test_cached_weights_that_are_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARDNET_MATCH_CACHE", str(tmp_path))
    [none] = list(files.cached())
    assert "none in" in none.text
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "AffNet.pth").write_bytes(b"something else")
    (tmp_path / "weights" / "tfeat-yosemite.params").write_bytes(b"of which no hash is published")
    found = {check.name: check for check in files.cached()}
    assert found["weights affnet"].state == BROKEN
    assert "delete it" in found["weights affnet"].do
    assert found["weights tfeat-yosemite"].state == OK
    # looking trusts nothing and writes nothing
    assert sorted(path.name for path in (tmp_path / "weights").iterdir()) == ["AffNet.pth", "tfeat-yosemite.params"]


def test_a_cache_and_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARDNET_MATCH_CACHE", str(tmp_path / "file" / "cache"))
    found = files.cache()
    assert found.state == LOOK
    assert "HARDNET_MATCH_CACHE" in found.do
    assert files.hdf5(tmp_path).state == OK
    broken = files.hdf5(tmp_path / "nowhere")
    assert broken.state == BROKEN
    assert "local disk" in broken.do


def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free, state in ((10 << 30, OK), (1 << 30, LOOK), (1 << 20, BROKEN)):
        monkeypatch.setattr(files.shutil, "disk_usage", lambda place, free=free: usage._replace(free=free))
        assert next(files.room(tmp_path)).state == state


def test_hdf5_that_reads_back_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_same", lambda one, other: False)
    assert files.hdf5(tmp_path).state == BROKEN


def test_the_self_test_notices_wrong_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from hardnet_match.extractor import FeatureExtractor
    from hardnet_match.features import Features

    real = FeatureExtractor.extract_batch

    def shuffled(self: FeatureExtractor, *arguments: Any) -> list[Features]:
        first, second = real(self, *arguments)
        rows = np.random.default_rng(0).permutation(len(second))
        return [first, Features(second.lafs, second.scores, second.descriptors[rows], second.image_size)]

    monkeypatch.setattr(FeatureExtractor, "extract_batch", shuffled)
    found = selftest.self_test()
    assert found.state == BROKEN
    assert found.do
