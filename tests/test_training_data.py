"""Patch sets: what they refuse, their one file, maps larger than memory, joining, places, and the writer's safety."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from training_helpers import made_up_set

from hardnet_match.errors import DataError, ImageError, StoreError
from hardnet_match.training import patchfile
from hardnet_match.training.patchset import PatchSet, save_joined
from hardnet_match.training.sources.base import Piece, Source
from hardnet_match.training.sources.gather import gather, gather_to_file


def equal(one: PatchSet, other: PatchSet) -> bool:
    """The same observations, whatever the name."""
    assert one.columns().keys() == other.columns().keys()
    tables = [(getattr(one, key), getattr(other, key)) for key in patchfile.TABLES]
    return (
        np.array_equal(one.patches, other.patches)
        and all(np.array_equal(values, other.columns()[key]) for key, values in one.columns().items())
        and all((a is None and b is None) or np.array_equal(a, b) for a, b in tables)
        and one.margin == other.margin
    )


def plain(tracks: int = 30, views: int = 3, side: int = 16, seed: int = 0, **more: Any) -> PatchSet:
    """A set of noise without geometry."""
    rng = np.random.default_rng(seed)
    track = np.repeat(np.arange(tracks, dtype=np.int64) * 3, views)
    return PatchSet(
        rng.integers(0, 256, (len(track), side, side), dtype=np.uint8),
        track,
        np.tile(np.arange(views, dtype=np.int32), tracks),
        np.zeros(len(track), np.int32),
        **more,
    )


# the set ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patches": np.zeros((6, 8, 9), np.uint8)}, "uint8"),
        ({"patches": np.zeros((6, 8, 8), np.float32)}, "uint8"),
        ({"patches": np.zeros((5, 8, 8), np.uint8)}, "as many rows"),
        ({"track": np.array([0, 0, 2, 1, 3, 3])}, "sorted"),
        ({"track": np.zeros(6, np.int32)}, "track must be"),
        ({"size": np.zeros(6, np.float64)}, "size must be"),
        ({"position": np.zeros((6, 2), np.float32)}, "position must be"),
        ({"matches": np.array([[0, 6, 1]])}, "rows 0 to 6 of 6"),
        ({"matches": np.array([[0, 1]])}, "matches must be"),
        ({"collisions": np.zeros((1, 2), np.int32)}, "collisions must be"),
        ({"margin": 0.5}, "margin"),
    ],
)
def test_what_is_no_set_is_refused(changes: dict[str, Any], reason: str) -> None:
    base: dict[str, Any] = {
        "patches": np.zeros((6, 8, 8), np.uint8),
        "track": np.arange(6),
        "image": np.zeros(6, np.int32),
        "scene": np.zeros(6, np.int32),
    }
    PatchSet(**base)
    with pytest.raises(DataError, match=reason):
        PatchSet(**{**base, **changes})


def test_a_selection_keeps_the_test_pairs_that_are_still_whole() -> None:
    pairs = np.array([[0, 1, 1], [4, 40, 0], [7, 8, 0]])
    some = plain(matches=pairs).select(np.r_[0, 1, 4:41])
    assert some.matches is not None
    assert some.matches.tolist() == [[0, 1, 1], [2, 38, 0], [5, 6, 0]]
    fewer = some.select(some.track > 3)
    assert fewer.matches is not None
    assert len(fewer.matches) == 1
    assert (fewer.patches[fewer.matches[0, 0]] == some.patches[5]).all()


def test_joined_sets_share_no_number(tmp_path: Path) -> None:
    pairs, hits = np.array([[3, 5, 1]]), np.array([[0, 6]])
    one, other = plain(10, matches=pairs, name="a"), plain(7, seed=1, matches=pairs, collisions=hits, name="b")
    both = PatchSet.joined([one, other])
    assert len(set(both.track.tolist())) == 17
    assert set(both.image[:30].tolist()).isdisjoint(both.image[30:].tolist())
    assert both.name == "a+b"
    assert both.matches is not None
    assert both.matches.tolist() == [[3, 5, 1], [33, 35, 1]]
    assert both.collisions is not None
    assert both.collisions.tolist() == [[28, 34]]  # the tracks of the second start behind 27
    assert (both.track[[30, 36]] == [28, 34]).all()
    save_joined(tmp_path / "both.h5", [one, other])
    assert equal(PatchSet.load(tmp_path / "both.h5"), both)


def test_what_differs_in_kind_is_not_joined() -> None:
    with pytest.raises(DataError, match=r"16 cells, margin 2.*16 cells, margin 1"):
        PatchSet.joined([plain(), plain(margin=1.0)])
    with pytest.raises(DataError, match="8 cells"):
        PatchSet.joined([plain(), plain(side=8)])
    with pytest.raises(DataError, match="no patches"):
        PatchSet.joined([])
    assert PatchSet.joined([made_up_set(5), made_up_set(4)]).size is not None
    mixed = made_up_set(5)
    bare = PatchSet(mixed.patches, mixed.track, mixed.image, mixed.scene)
    assert PatchSet.joined([mixed, bare]).size is None


# places ----------------------------------------------------------------------------------------------


def test_the_same_place_by_distance() -> None:
    found = made_up_set(100)
    assert found.position is not None
    assert found.size is not None
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(found), 40), rng.integers(0, len(found), 50)
    same = found.same_place(first, second)
    assert same is not None
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            near = np.linalg.norm(found.position[a] - found.position[b]) < 0.5 * max(found.size[a], found.size[b])
            assert same[i, j] == (near and found.scene[a] == found.scene[b])
    assert plain().same_place(first[:3], second[:3]) is None


def test_large_batches_are_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    found, rows = made_up_set(80), np.arange(100)
    whole = found.same_place(rows, rows)
    monkeypatch.setattr("hardnet_match.training.patchset._AT_ONCE", 700)
    assert np.array_equal(found.same_place(rows, rows), whole)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=30), st.integers(0, 100))
def test_the_same_place_by_collisions(pairs: list[tuple[int, int]], seed: int) -> None:
    table = np.array([(3 * a, 3 * b) for a, b in pairs], np.int64).reshape(-1, 2)
    found = plain(12, collisions=table)  # pairs with tracks that the set has not are no harm
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, len(found), 9), rng.integers(0, len(found), 7)
    same = found.same_place(first, second)
    assert same is not None
    known = {frozenset((3 * a, 3 * b)) for a, b in pairs}
    for i, a in enumerate(found.track[first]):
        for j, b in enumerate(found.track[second]):
            assert same[i, j] == (a == b or frozenset((int(a), int(b))) in known)


# the file --------------------------------------------------------------------------------------------


def test_a_set_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    found = plain(matches=np.array([[0, 1, 1]]), collisions=np.array([[0, 3]]), margin=1.5, name="mine")
    found.save(path, settings={"from": "noise"})
    again = PatchSet.load(path)
    assert equal(again, found)
    assert again.name == "mine"
    assert patchfile.settings_of(path) == {"from": "noise"}
    assert equal(PatchSet.load(path, mapped=False), found)
    made_up_set(9).save(path)
    assert equal(PatchSet.load(path), made_up_set(9))


def test_a_part_of_a_set_goes_straight_to_a_file(tmp_path: Path) -> None:
    found, rows = made_up_set(30), np.arange(0, 50, 3)
    found.save(tmp_path / "part.h5", rows)
    assert equal(PatchSet.load(tmp_path / "part.h5"), found.select(rows))
    found.save(tmp_path / "none.h5", np.zeros(len(found), bool))
    assert len(PatchSet.load(tmp_path / "none.h5")) == 0


def test_patches_lie_on_pages_and_stay_on_the_disk(tmp_path: Path) -> None:
    made_up_set(20).save(tmp_path / "set.h5")
    with h5py.File(tmp_path / "set.h5") as file:
        assert file["patches"].id.get_offset() % patchfile.PAGE == 0
    found = PatchSet.load(tmp_path / "set.h5")
    assert not found.patches.flags.owndata
    assert not found.patches.flags.writeable
    assert found.patches[[3, 1]].flags.writeable  # what a batch takes is its own


def test_a_set_larger_than_memory_is_read_row_by_row(tmp_path: Path) -> None:
    """A file of 3 GB, a hole but for its end, is opened and drawn from in 120 MB."""
    script = f"""
import resource, sys
from pathlib import Path
import numpy as np
from hardnet_match.training import patchfile
from hardnet_match.training.patchset import PatchSet
count = 750_000
patchfile.MEMORY_SHARE = 0.01
path = Path({str(tmp_path)!r}) / "large.h5"
import h5py
with h5py.File(path, "w") as file:
    file.create_dataset("patches", (count, 64, 64), np.uint8)[-1] = 7
    for key, (dtype, shape, _) in patchfile.ROWS.items():
        file.create_dataset(key, data=np.zeros((count, *shape), dtype))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = PatchSet.load(path)
rows = np.random.default_rng(0).integers(0, count, 2000)
assert not found.patches[rows].any() and (found.patches[-1] == 7).all()
small = found.select(np.array([0, count - 1]))
assert small.patches[1].min() == 7
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 120  # the columns of 750,000 rows, and 2,002 pages
    assert (tmp_path / "large.h5").stat().st_size > 3e9


def test_old_and_foreign_files_are_read(tmp_path: Path) -> None:
    found = made_up_set(12)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file.create_dataset("patches", data=found.patches)
        for key, values in found.columns().items():
            file.create_dataset(key, data=values)
    old = PatchSet.load(tmp_path / "old.h5")
    assert equal(old, found)
    assert (old.margin, old.name) == (2.0, "old")
    assert patchfile.settings_of(tmp_path / "old.h5") == {}
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file.create_dataset("patches", data=found.patches, chunks=(4, 64, 64), compression="gzip")
        for key in ("track", "image", "scene"):
            file.create_dataset(key, data=getattr(found, key).astype(np.int16))
        file.attrs["margin"] = 1.0
    foreign = PatchSet.load(tmp_path / "foreign.h5")
    assert np.array_equal(foreign.patches, found.patches)
    assert (foreign.size, foreign.margin) == (None, 1.0)


def test_what_is_no_patch_set_says_so(tmp_path: Path) -> None:
    path = tmp_path / "no.h5"
    with pytest.raises(DataError, match=r"no\.h5: no such patch set"):
        PatchSet.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a patch set"):
        PatchSet.load(path)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = "hardnet-match features"
    with pytest.raises(DataError, match="hardnet-match features"):
        PatchSet.load(path)
    made_up_set(6).save(path)
    with path.open("r+b") as file:
        file.truncate(patchfile.PAGE * 3)
    with pytest.raises(DataError, match=r"no\.h5"):
        PatchSet.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    made_up_set(6).save(path)
    before = path.read_bytes()

    def broken() -> Any:
        yield np.zeros((4, 64, 64), np.uint8)
        raise KeyboardInterrupt

    columns = {**made_up_set(6).columns()}
    with pytest.raises(KeyboardInterrupt):
        patchfile.write(path, broken(), columns, side=64, margin=2.0)
    for blocks in ([np.zeros((3, 64, 64), np.uint8)], [np.zeros((300, 64, 64), np.uint8)]):
        with pytest.raises(DataError, match="patches came"):
            patchfile.write(path, blocks, columns, side=64, margin=2.0)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["set.h5"]


def test_a_set_may_replace_the_file_it_is_mapped_from(tmp_path: Path) -> None:
    path = tmp_path / "set.h5"
    found = made_up_set(20)
    found.save(path)
    mapped = PatchSet.load(path)
    mapped.save(path, np.arange(5, 15))
    assert equal(mapped, found)
    assert equal(PatchSet.load(path), found.select(np.arange(5, 15)))


# from pieces to a file -------------------------------------------------------------------------------


class Noise(Source):
    """Pieces of noise, their tracks in any order, shared between pieces."""

    kind = "noise"
    geometry = ("size",)
    side, margin = 8, 1.0

    def __init__(self, pieces: int = 6, seed: int = 0, bad: tuple[str, ...] = (), slow: float = 0.0) -> None:
        self.name, self.seed, self.count, self.bad, self.slow = "noise", seed, pieces, bad, slow
        self.asked: list[str] = []

    def settings(self) -> dict[str, Any]:
        return {"seed": self.seed, "pieces": self.count}

    def pieces(self) -> list[str]:
        return [f"piece {number}" for number in range(self.count)]

    def read(self, key: str) -> Piece:
        self.asked.append(key)
        time.sleep(self.slow)
        if key in self.bad:
            raise ImageError(f"{key} is torn")
        number = int(key.split()[1])
        rng = np.random.default_rng([self.seed, number])
        track = rng.permutation(40)[:20].astype(np.int64)
        columns: dict[str, NDArray[Any]] = {
            "track": track,
            "image": np.full(20, number, np.int32),
            "scene": np.zeros(20, np.int32),
            "size": rng.random(20).astype(np.float32),
        }
        patches = rng.integers(0, 256, (20, 8, 8), dtype=np.uint8)
        return Piece(patches, columns, np.array([[number, number + 1]], np.int64))

    def refine(self, columns: Any, read: Any) -> NDArray[np.intp]:
        kept = np.flatnonzero(columns["track"] % 5 > 0)
        assert read(kept[:3]).shape == (3, 8, 8)
        return kept

    def matches(self) -> NDArray[np.int64]:
        rng = np.random.default_rng(9)
        return np.c_[rng.integers(0, 20 * self.count, (50, 2)), rng.integers(0, 2, 50)].astype(np.int64)


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
    class Pressed(Noise):
        def read(self, key: str) -> Piece:
            if key == "piece 3":
                raise KeyboardInterrupt
            return super().read(key)

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
    class Pressed(Noise):
        def read(self, key: str) -> Piece:
            if key == "piece 3":
                raise KeyboardInterrupt
            return super().read(key)

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
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_training_data import *\n"
        "from hardnet_match.training.sources import spool; spool.SYNC_SECONDS = 0.02\n"
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
        "from test_training_data import *\n"
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
