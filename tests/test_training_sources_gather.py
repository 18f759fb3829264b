"""Pieces of a source become one sorted file, whatever happens on the way."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from patchset_helpers import Noise, equal
from training_helpers import made_up_set

from hardnet_match.errors import DataError, StoreError
from hardnet_match.training.sources.base import Piece
from hardnet_match.training.sources.gather import gather, gather_to_file


def test_pieces_in_any_order_become_a_sorted_set() -> None:
    source = Noise()
    found = gather(source)
    read = [source.read(key) for key in source.pieces()]
    rows = {
        (int(t), k): (piece.patches[i], piece.columns["size"][i])
        for k, piece in enumerate(read)
        for i, t in enumerate(piece.columns["track"])
        if t % 5
    }
    assert len(found) == len(rows)
    assert found.size is not None
    for i in range(len(found)):
        patch, size = rows[int(found.track[i]), int(found.image[i])]
        assert (found.patches[i] == patch).all()
        assert found.size[i] == size
    assert (np.diff(found.image)[np.diff(found.track) == 0] > 0).all()
    # test pairs still show the same two patches
    every = np.concatenate([piece.patches for piece in read])
    tracks = np.concatenate([piece.columns["track"] for piece in read])
    kept = [pair for pair in source.matches() if tracks[pair[0]] % 5 and tracks[pair[1]] % 5]
    assert found.matches is not None
    assert len(found.matches) == len(kept) > 10
    for new, old in zip(found.matches, kept, strict=True):
        assert (found.patches[new[:2]] == every[old[:2]]).all()
        assert new[2] == old[2]


def test_the_file_holds_what_memory_would(tmp_path: Path) -> None:
    found, skipped, reused = gather_to_file(Noise(), tmp_path / "set.h5")
    assert equal(found, gather(Noise()))
    assert (skipped, reused) == ({}, False)
    assert os.listdir(tmp_path) == ["set.h5"]
    source = Noise()
    again, _, reused = gather_to_file(source, tmp_path / "set.h5")
    assert reused
    assert not source.asked
    assert equal(again, found)
    with pytest.raises(StoreError, match="seed: 0 -> 1"):
        gather_to_file(Noise(seed=1), tmp_path / "set.h5")
    replaced, _, reused = gather_to_file(Noise(seed=1), tmp_path / "set.h5", overwrite=True)
    assert not reused
    assert equal(replaced, gather(Noise(seed=1)))
    (tmp_path / "other.h5").write_text("a diary")
    with pytest.raises(StoreError, match="overwrite"):
        gather_to_file(Noise(), tmp_path / "other.h5")
    assert (tmp_path / "other.h5").read_text() == "a diary"


class Pressed(Noise):
    """Ctrl-C comes while the fourth piece is read."""

    def read(self, key: str) -> Piece:
        if key == "piece 3":
            raise KeyboardInterrupt
        return super().read(key)


def test_bad_pieces_are_named_and_the_rest_is_used(tmp_path: Path) -> None:
    source = Noise(bad=("piece 2", "piece 4"))
    source.matches = lambda: None  # type: ignore[method-assign, assignment, return-value]
    found, skipped, _ = gather_to_file(source, tmp_path / "set.h5")
    assert skipped == {"piece 2": "piece 2 is torn", "piece 4": "piece 4 is torn"}
    assert set(found.image.tolist()) == {0, 1, 3, 5}
    with pytest.raises(DataError, match=r"nothing to learn from \(6 unreadable, the first: piece 0 is torn"):
        gather_to_file(Noise(bad=tuple(Noise().pieces())), tmp_path / "none.h5")
    assert os.listdir(tmp_path) == ["set.h5"]


def test_ctrl_c_keeps_the_pieces_that_were_read(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        gather_to_file(Pressed(), tmp_path / "set.h5")
    assert not (tmp_path / "set.h5").exists()
    shutil.copytree(tmp_path / "set.h5.pieces", tmp_path / "other.h5.pieces")
    anew = Noise()
    gather_to_file(anew, tmp_path / "other.h5", overwrite=True)
    assert len(anew.asked) == 6
    source = Noise()
    counts: list[tuple[int, int]] = []
    found, _, _ = gather_to_file(source, tmp_path / "set.h5", began=lambda *numbers: counts.append(numbers))
    assert source.asked == ["piece 3", "piece 4", "piece 5"]
    assert counts == [(6, 3)]
    assert equal(found, gather(Noise()))


def test_pieces_of_other_settings_are_not_mixed_in(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        gather_to_file(Pressed(seed=5), tmp_path / "set.h5")
    found, _, _ = gather_to_file(Noise(), tmp_path / "set.h5")
    assert equal(found, gather(Noise()))


@pytest.mark.parametrize("name", ["patches", "rows", "log"])
def test_records_cut_off_by_a_kill_are_read_again(tmp_path: Path, name: str) -> None:
    class Killed(Noise):
        def read(self, key: str) -> Piece:
            if key == "piece 3":
                raise KeyboardInterrupt
            return super().read(key)

    with pytest.raises(KeyboardInterrupt):
        gather_to_file(Killed(), tmp_path / "set.h5")
    with (tmp_path / "set.h5.pieces" / name).open("ab") as file:
        file.write(b'{"key": "piece 3", "ski')  # half of what the next piece would have written
    found, _, _ = gather_to_file(Noise(), tmp_path / "set.h5")
    assert equal(found, gather(Noise()))


@pytest.mark.slow
def test_killed_at_any_moment_the_next_run_ends_with_the_same_set(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from patchset_helpers import Noise\n"
        "from hardnet_match.training.sources import spool; spool.SYNC_SECONDS = 0.02\n"
        "from hardnet_match.training.sources.gather import gather_to_file\n"
        "gather_to_file(Noise(30, slow=0.01), Path(sys.argv[2]))"
    )
    path, expected = tmp_path / "set.h5", gather(Noise(30))
    kills = 0
    for delay in (0.02, 0.1, 0.17, 0.05):
        process = subprocess.Popen([sys.executable, "-c", script, str(Path(__file__).parent), str(path)])
        deadline = time.monotonic() + 60
        while not (tmp_path / "set.h5.pieces").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if path.exists():
            break
    found, _, _ = gather_to_file(Noise(30), path)
    assert kills
    assert equal(found, expected)
    assert not (tmp_path / "set.h5.pieces").exists()


def test_two_writers_of_one_file_refuse_each_other(tmp_path: Path) -> None:
    class Nosy(Noise):
        def read(self, key: str) -> Piece:
            with pytest.raises(StoreError, match="another process"):
                gather_to_file(Noise(), tmp_path / "set.h5")
            return super().read(key)

    found, _, _ = gather_to_file(Nosy(), tmp_path / "set.h5")
    assert equal(found, gather(Noise()))


@pytest.mark.skipif(sys.platform == "win32", reason="limits on the size of files are POSIX's")
def test_a_full_disk_is_told_and_costs_nothing_but_the_last_piece(tmp_path: Path) -> None:
    script = (
        "import resource, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1])\n"
        "from patchset_helpers import Noise\n"
        "from hardnet_match.errors import StoreError\n"
        "from hardnet_match.training.sources.gather import gather_to_file\n"
        "from hardnet_match.training.sources import spool; spool.SYNC_SECONDS = 0\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), -1))\n"
        "try:\n    gather_to_file(Noise(40), Path(sys.argv[2]))\n"
        "except StoreError as error:\n    print(error)\n"
    )
    path = tmp_path / "set.h5"
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(path), "30000"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "cannot write what is read: File too large; the same command goes on" in done.stdout
    assert os.listdir(tmp_path) == ["set.h5.pieces"]
    source = Noise(40)
    found, _, _ = gather_to_file(source, path)
    assert 0 < len(source.asked) < 40
    assert equal(found, gather(Noise(40)))


def test_a_set_that_will_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    made_up_set(6).save(tmp_path / "small.h5")
    with pytest.raises(StoreError, match="more than is free"):
        made_up_set(100).save(tmp_path / "large.h5")
    source = Noise(100)
    with pytest.raises(StoreError, match="more than is free"):
        gather_to_file(source, tmp_path / "set.h5")
    monkeypatch.undo()
    again = Noise(100)
    gather_to_file(again, tmp_path / "set.h5")
    assert not again.asked  # what was read is still there
    assert sorted(os.listdir(tmp_path)) == ["set.h5", "small.h5"]
