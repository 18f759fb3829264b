"""Writers that are killed or run out of space: what was written before stays."""

from __future__ import annotations

import io
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import SETTINGS, assert_same, make_features

from hardnet_match.errors import StoreError
from hardnet_match.store import (
    FeatureReader,
    FeatureWriter,
)
from hardnet_match.store import journal as journal_module
from hardnet_match.store.journal import JournaledFile, journal_path, recover

ROOT = Path(__file__).parents[1]


_WRITER = """
import sys
import numpy as np
from hardnet_match.features import Features
from hardnet_match.store import FeatureWriter
rng = np.random.default_rng(0)
with FeatureWriter(sys.argv[1], {"a": 1}) as writer:
    at = len(writer.names_done())
    while True:
        lafs = rng.random((300, 2, 3), dtype=np.float32)
        name = f"dir{at % 3}/im {at:05d}.jpg"
        writer.write(name, Features(lafs, lafs[:, 0, 0].copy(), rng.random((300, 128), dtype=np.float32), (9, 9)))
        print(name, flush=True)
        at += 1
"""


def test_killed_writers_leave_all_they_had_written(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    rng = random.Random(0)
    told: list[str] = []
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        told.append(process.stdout.readline().strip())
        time.sleep(rng.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split("\n")
        process.wait()
        told = [name for name in told if name.endswith(".jpg")]
        with FeatureReader(path) as reader:
            assert set(told) <= set(reader.names())
            for name in reader.names():
                assert len(reader.read(name)) == 300
    assert len(told) > 5


class _Killed(Exception):
    pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # h5py on the files left open
def test_a_kill_at_any_write_of_an_append_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every place where the process could die, one after the other: all earlier images, and the new one or not."""
    base = tmp_path / "base.h5"
    wanted = {}
    with FeatureWriter(base, SETTINGS) as writer:
        for i in range(9):  # the next one splits a node of the group's table
            wanted[f"d{i % 2}/im{i}.jpg"] = make_features(40, dim=8, seed=i)
            writer.write(f"d{i % 2}/im{i}.jpg", wanted[f"d{i % 2}/im{i}.jpg"])
    extra = make_features(40, dim=8, seed=99)
    real_open, real_replace, real_unlink = open, os.replace, Path.unlink
    outcomes = {"steps": 0, "with": 0, "without": 0}
    path = tmp_path / "f.h5"
    budget = 0

    def step() -> None:
        nonlocal budget
        budget -= 1
        if budget < 0:
            raise _Killed

    class DyingFile(io.FileIO):
        def write(self, data: object) -> int:
            step()
            return super().write(data)  # type: ignore[arg-type]

        def truncate(self, size: int | None = None) -> int:
            step()
            return super().truncate(size)

    def dying_open(file: object, mode: str = "r", **more: object) -> object:
        return DyingFile(file, mode.replace("b", "")) if Path(str(file)) == path else real_open(file, mode, **more)

    def dying(function: object) -> object:
        def call(*args: object, **named: object) -> object:
            step()
            return function(*args, **named)  # type: ignore[operator]

        return call

    while True:
        path.write_bytes(base.read_bytes())
        journal_path(path).unlink(missing_ok=True)
        budget = outcomes["steps"]
        survived = True
        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "open", dying_open, raising=False)
            patch.setattr(journal_module.os, "replace", dying(real_replace))
            patch.setattr(Path, "unlink", dying(real_unlink))
            patch.setattr(JournaledFile, "roll_back", lambda self: None)  # the dead do not tidy up
            writer = FeatureWriter.__new__(FeatureWriter)
            writer.path = path
            try:
                file = JournaledFile(path)
                try:
                    h5 = h5py.File(file, "r+")
                    writer._put(h5, "d0/new.jpg", extra, "")
                    h5.close()
                    file.commit()
                finally:
                    file._file.close()
            except _Killed:
                survived = False
            except Exception:  # h5py's own word for a write that raised
                assert budget < 0
                survived = False
        if not journal_path(path).exists():
            recover(path)  # nothing to do
        with FeatureReader(path) as reader:
            names = set(reader.names())
            assert set(wanted) <= names
            for name, features in wanted.items():
                assert_same(reader.read(name), features)
            if "d0/new.jpg" in names:
                assert_same(reader.read("d0/new.jpg"), extra)
                outcomes["with"] += 1
            else:
                outcomes["without"] += 1
        with FeatureWriter(path, SETTINGS) as again:  # and it can go on
            again.write("d1/more.jpg", extra)
        outcomes["steps"] += 1
        if survived:
            break
    assert outcomes["steps"] > 15
    assert outcomes["with"] > 1
    assert outcomes["without"] > 10


def test_no_space_left_keeps_the_file(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(30))
    limit = path.stat().st_size + 100_000
    code = f"""
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.path.insert(0, "tests")
from store_helpers import SETTINGS, make_features
from hardnet_match.errors import StoreError
from hardnet_match.store import FeatureWriter
writer = FeatureWriter(sys.argv[1], SETTINGS)
writer.write("b.jpg", make_features(20))
try:
    writer.write("c.jpg", make_features(2000))
except StoreError as error:
    print("refused:", error)
writer.close()
"""
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout
    assert done.stderr == ""
    assert "f.h5: cannot write to it" in done.stdout
    with FeatureReader(path) as reader:
        assert reader.names() == ["a.jpg", "b.jpg"]
        assert_same(reader.read("b.jpg"), make_features(20))
    assert sorted(os.listdir(tmp_path)) == ["f.h5"]


# ---- the journal alone

_operations = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 20000), st.binary(min_size=1, max_size=9000)),
        st.tuples(st.just("read"), st.integers(0, 20000), st.integers(0, 9000)),
    ),
    max_size=12,
)


@given(old=st.binary(max_size=12000), operations=_operations, keep=st.booleans())
def test_journaled_file_is_a_file(
    tmp_path_factory: pytest.TempPathFactory, old: bytes, operations: list[tuple[str, int, object]], keep: bool
) -> None:
    path = tmp_path_factory.mktemp("j") / "x"
    path.write_bytes(old)
    file, model = JournaledFile(path), io.BytesIO(old)
    for kind, at, what in operations:
        file.seek(at)
        model.seek(at)
        if kind == "write":
            file.write(what)
            model.write(what)  # type: ignore[arg-type]
        else:
            buffer = bytearray(what)  # type: ignore[call-overload]
            assert bytes(buffer[: file.readinto(buffer)]) == model.read(what)  # type: ignore[arg-type]
        assert path.read_bytes()[: len(old)] == old
    if keep:
        file.commit()
    else:
        file.roll_back()
    file.close()
    assert path.read_bytes() == (model.getvalue() if keep else old)
    assert not journal_path(path).exists()


@pytest.mark.parametrize("go_on", [False, True])
def test_a_failure_while_changes_are_put_in_place_is_made_good_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, go_on: bool
) -> None:
    path = tmp_path / "f.h5"
    real_apply = journal_module._apply

    def fails(file: object, body: bytes, pages: int) -> None:
        real_apply(file, body, 1)
        raise OSError("the disk went away")

    with FeatureWriter(path, SETTINGS) as writer:
        for i in range(8):
            writer.write(f"{i}.jpg", make_features(3))
        with monkeypatch.context() as patch:
            patch.setattr(journal_module, "_apply", fails)
            with pytest.raises(StoreError, match="went away"):
                writer.write("last.jpg", make_features(5))
        assert journal_path(path).exists()
        if go_on:
            writer.write("more.jpg", make_features(5))
    with FeatureReader(path) as reader:
        assert len(reader.names()) == 9 + go_on
        assert_same(reader.read("last.jpg"), make_features(5))
    assert os.listdir(tmp_path) == ["f.h5"]


def test_a_damaged_journal_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(3))
    before = path.read_bytes()
    for junk in (b"", b"short", b"hmjrnl-c" + bytes(200), random.Random(1).randbytes(300)):
        journal_path(path).write_bytes(junk)
        with FeatureReader(path) as reader:
            assert reader.names() == ["a.jpg"]
        assert path.read_bytes() == before
        assert not journal_path(path).exists()
