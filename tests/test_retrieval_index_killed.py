"""An index whose writer is killed at any moment, or finds the disk full, is that of the last commit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_helpers import CODEBOOK, IMAGES, built, same_ranking, stored
from retrieval_helpers import SETTINGS, make_images

from hardnet_match.errors import StoreError
from hardnet_match.retrieval import files, segment
from hardnet_match.retrieval.index import Index

pytestmark = pytest.mark.usefixtures("quick_disk")


class Killed(BaseException):
    """Stands in for the end of the process."""


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(step=st.integers(0, 60), half=st.booleans())
def test_stopped_at_any_step_it_is_as_of_the_last_commit(
    tmp_path_factory: pytest.TempPathFactory, step: int, half: bool
) -> None:
    """Every step that reaches the disk is one after which a process may end; a file may be half written."""
    folder = tmp_path_factory.mktemp("index")
    steps = iter(range(step))
    committed = [0]

    def step_or_end(path: Path) -> None:
        if next(steps, None) is None:
            if half and path.exists():
                os.truncate(path, path.stat().st_size // 2)
            raise Killed

    def write(path: Path, arrays: Any, plain: Any = files.write_arrays) -> Any:
        told = plain(path, arrays)
        step_or_end(path)
        return told

    def write_one(path: Path, array: Any, plain: Any = files.write_array) -> Any:
        told = plain(path, array)
        step_or_end(path)
        return told

    def commit(path: Path, text: str, plain: Any = files.write_text) -> None:
        step_or_end(path.with_name(path.name + ".part"))
        plain(path, text)
        committed.append(sum(entry["images"] for entry in json.loads(text)["segments"]))
        step_or_end(path.with_name("nothing"))

    with built(folder / "index", [IMAGES[:2]]) as index, pytest.MonkeyPatch.context() as patch:
        committed.append(2)
        patch.setattr("hardnet_match.retrieval.segment.write_arrays", write)
        patch.setattr("hardnet_match.retrieval.index.write_array", write_one)
        patch.setattr("hardnet_match.retrieval.manifest.write_text", commit)
        try:
            for image in IMAGES[2:6]:
                index.add(*image)
                index.flush()
            index.compact()
        except Killed:
            index._buffer.clear()
            index._lock, lock = None, index._lock
            lock.release()
    survived = Index.open(folder / "index")
    assert survived.names == [name for name, _ in IMAGES[: committed[-1]]]
    assert same_ranking(survived, built(folder / "truth", [IMAGES[: committed[-1]]]))
    with survived:
        survived.add_many(IMAGES[committed[-1] :])
        survived.compact()
    assert stored(folder / "index") == stored(built(folder / "truth", [IMAGES]).folder)


@pytest.mark.parametrize("step", range(5))
def test_stopped_while_images_are_taken_out_it_has_all_of_them_or_none(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter(range(step))

    def step_or_end(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            if next(steps, None) is None:
                raise Killed
            return function(*arguments)

        return call

    names, gone = [name for name, _ in IMAGES[:6]], [IMAGES[0][0], IMAGES[4][0]]
    with built(tmp_path / "index", [IMAGES[:2], IMAGES[2:4], IMAGES[4:6]]) as index:
        with monkeypatch.context() as patch:
            patch.setattr(segment, "write_arrays", step_or_end(segment.write_arrays))
            patch.setattr("hardnet_match.retrieval.manifest.write_text", step_or_end(files.write_text))
            try:
                index.remove(gone)
                ended = False
            except Killed:
                ended = True
        index._lock, lock = None, index._lock
        lock.release()
    assert ended == (step < 3)  # two segments are written anew, then the manifest
    survived = Index.open(tmp_path / "index")
    assert survived.names == (names if ended else [name for name in names if name not in gone])
    with survived:
        survived.remove([name for name in gone if name in survived])
    assert len(list((tmp_path / "index" / "segments").iterdir())) == 3


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from retrieval_helpers import make_codebook, make_images
from hardnet_match.retrieval.index import Index
codebook = make_codebook()
with Index.open(sys.argv[1]) as index:
    for name, features in make_images(codebook, 400):
        if name not in index:
            index.add(name, features)
            index.flush()
            print(name, flush=True)
"""


def test_killed_processes_leave_whole_indexes(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    Index.create(folder, CODEBOOK, settings=SETTINGS).close()
    command = [sys.executable, "-c", WRITER, str(folder), str(Path(__file__).parent)]
    names = [name for name, _ in make_images(CODEBOOK, 400)]
    told: list[str] = []
    for turn in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        told.append(process.stdout.readline().strip())
        time.sleep(0.05 + 0.11 * turn)
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split("\n")[:-1]
        process.wait()
        index = Index.open(folder)
        assert index.names == names[: len(index)]
        assert len(index) - len(told) in (0, 1)  # one may have been committed and not told of
        told = index.names
    images = dict(make_images(CODEBOOK, len(index)))
    last = index.names[-1]
    assert same_ranking(index, built(tmp_path / "whole", [list(images.items())]))
    assert index.rank(images[last], top=1).images.tolist() == [len(index) - 1]


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    index = built(tmp_path / "index", [IMAGES[:4]])
    index.add(*IMAGES[4])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreError, match="No space left"):
            index.flush()
    assert len(Index.open(tmp_path / "index")) == 4
    index.close()  # there is space again
    assert len(Index.open(tmp_path / "index")) == 5
