"""Features, matches and pair lists on disk: hloc's layout, resuming, kills, and everything that can be wrong."""

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
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardnet_match.errors import DataError, StoreError
from hardnet_match.features import Features, Matches
from hardnet_match.store import (
    FeatureReader,
    FeatureWriter,
    MatchReader,
    MatchWriter,
    check_name,
    read_pairs,
    write_pairs,
)
from hardnet_match.store import journal as journal_module
from hardnet_match.store.journal import JournaledFile, journal_path, recover

ROOT = Path(__file__).parents[1]
SETTINGS = {"preset": "hesaffnet-hardnet", "max_keypoints": 4096, "weights": {"hardnet": "abc"}}
ODD_NAMES = [
    "plain.jpg",
    "folder/deep/er/photo.JPG",
    "with space/and  two.jpg",
    "été/写真.png",
    "dots.in.name..jpg",
    "new\nline.jpg",
    "x" * 300 + ".jpg",
    "#hash~tilde.jpg",
    "back\\slash.jpg",
]


def make_features(count: int = 20, dim: int = 128, seed: int = 0, dtype: type = np.float32) -> Features:
    rng = np.random.default_rng(seed)
    lafs = rng.normal(size=(count, 2, 3)).astype(np.float32)
    lafs[:, :, 2] = rng.uniform(0, 500, (count, 2))
    descriptors = rng.uniform(0, 255, (count, dim)).astype(dtype)
    return Features(lafs, rng.random(count).astype(np.float32), descriptors, (640, 480), {"preset": "p"})


def make_matches(rows: list[tuple[int, int]]) -> Matches:
    pairs = np.array(rows, dtype=np.int32).reshape(-1, 2)
    return Matches(pairs, np.linspace(0.2, 0.9, len(pairs), dtype=np.float32))


def assert_same(a: Features, b: Features) -> None:
    np.testing.assert_array_equal(a.lafs, b.lafs)
    np.testing.assert_array_equal(a.scores, b.scores)
    np.testing.assert_array_equal(a.descriptors, b.descriptors)
    assert a.descriptors.dtype == b.descriptors.dtype
    assert a.image_size == b.image_size
    assert dict(a.meta) == dict(b.meta)


# ---- round trips


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_features_come_back_as_they_were(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "f.h5"
    wanted = {name: make_features(i * 3, seed=i, dtype=dtype) for i, name in enumerate(ODD_NAMES)}
    with FeatureWriter(path, SETTINGS) as writer:
        for name, features in wanted.items():
            writer.write(name, features)
        assert writer.names_done() == set(wanted)
    with FeatureReader(path) as reader:
        assert reader.names() == sorted(wanted)
        assert reader.settings == SETTINGS
        assert reader.own
        for name, features in wanted.items():
            assert_same(reader.read(name), features)
            np.testing.assert_array_equal(reader.lafs(name), features.lafs)
            np.testing.assert_array_equal(reader.descriptors(name), features.descriptors)
    assert sorted(os.listdir(tmp_path)) == ["f.h5"], "no lock, journal or part file may stay behind"


def test_hloc_reads_our_features(tmp_path: Path) -> None:
    """As hloc 1.5 does in utils/io.py, match_features.py and triangulation.py."""
    features = make_features(7)
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer:
        writer.write("db/a.jpg", features)
    with h5py.File(tmp_path / "f.h5", "r", libver="latest") as f:
        dset = f["db/a.jpg"]["keypoints"]
        keypoints = dset.__array__()
        assert dset.attrs.get("uncertainty") == 1.0
        np.testing.assert_array_equal(keypoints, features.keypoints)
        names = []

        def visit(_: str, obj: object) -> None:
            if isinstance(obj, h5py.Dataset):
                names.append(obj.parent.name.strip("/"))

        f.visititems(visit)
        assert set(names) == {"db/a.jpg"}
        data = {k: v.__array__() for k, v in f["db/a.jpg"].items()}  # its matcher turns every one into a tensor
        assert data["descriptors"].shape == (128, 7)
        assert data["image_size"].dtype == np.int64
        assert data["image_size"].tolist() == [640, 480]
        assert all(array.dtype.kind in "fi" for array in data.values())


def hloc_find_pair(file: h5py.File, name0: str, name1: str) -> tuple[str, bool]:
    def names_to_pair(a: str, b: str, separator: str = "/") -> str:
        return separator.join((a.replace("/", "-"), b.replace("/", "-")))

    for pair, reverse in ((names_to_pair(name0, name1), False), (names_to_pair(name1, name0), True)):
        if pair in file:
            return pair, reverse
    raise ValueError((name0, name1))


def test_hloc_reads_our_matches(tmp_path: Path) -> None:
    matches = make_matches([(0, 3), (2, 40000), (5, 1)])
    with MatchWriter(tmp_path / "m.h5", SETTINGS) as writer:
        writer.write("db/a.jpg", "q/b c.jpg", matches, 6)
    with h5py.File(tmp_path / "m.h5", "r", libver="latest") as f:
        pair, reverse = hloc_find_pair(f, "q/b c.jpg", "db/a.jpg")
        assert reverse
        matches0 = f[pair]["matches0"].__array__()
        scores = f[pair]["matching_scores0"].__array__()
    idx = np.where(matches0 != -1)[0]
    np.testing.assert_array_equal(np.stack([idx, matches0[idx]], -1), matches.pairs)
    np.testing.assert_array_equal(scores[idx], matches.scores)
    assert matches0.shape == (6,)


def test_matches_come_back_in_both_orders(tmp_path: Path) -> None:
    matches, none = make_matches([(0, 3), (2, 0), (5, 1)]), make_matches([])
    with MatchWriter(tmp_path / "m.h5", SETTINGS, buffer=10) as writer:
        for name in ODD_NAMES[1:]:
            writer.write(ODD_NAMES[0], name, matches, 6)
        writer.write("empty1.jpg", "empty2.jpg", none, 0)
        assert writer.pairs_done() == set()
        writer.flush()
        assert len(writer.pairs_done()) == len(ODD_NAMES)
    with MatchReader(tmp_path / "m.h5") as reader:
        assert reader.pairs() == sorted(
            [*((ODD_NAMES[0], name) for name in ODD_NAMES[1:]), ("empty1.jpg", "empty2.jpg")]
        )
        for name in ODD_NAMES[1:]:
            np.testing.assert_array_equal(reader.read(ODD_NAMES[0], name).pairs, matches.pairs)
            np.testing.assert_array_equal(reader.read(name, ODD_NAMES[0]).pairs, matches.pairs[:, ::-1])
            np.testing.assert_array_equal(reader.read(name, ODD_NAMES[0]).scores, matches.scores)
        assert len(reader.read("empty1.jpg", "empty2.jpg")) == 0
        assert (ODD_NAMES[3], ODD_NAMES[0]) in reader
        assert (ODD_NAMES[3], ODD_NAMES[1]) not in reader


def test_slash_and_dash_names_do_not_mix(tmp_path: Path) -> None:
    first, second, third = make_matches([(0, 1)]), make_matches([(1, 2)]), make_matches([(2, 0)])
    for _ in range(2):  # the second time over what is there
        with MatchWriter(tmp_path / "m.h5", SETTINGS) as writer:
            writer.write("a/b.jpg", "c.jpg", first, 3)
            writer.write("a-b.jpg", "c.jpg", second, 3)
            writer.write("a/b.jpg", "a-b.jpg", third, 3)
    with MatchReader(tmp_path / "m.h5") as reader:
        assert reader.pairs() == [("a-b.jpg", "c.jpg"), ("a/b.jpg", "a-b.jpg"), ("a/b.jpg", "c.jpg")]
        assert reader.read("a/b.jpg", "c.jpg").pairs.tolist() == [[0, 1]]
        assert reader.read("a-b.jpg", "c.jpg").pairs.tolist() == [[1, 2]]
        assert reader.read("a-b.jpg", "a/b.jpg").pairs.tolist() == [[0, 2]]
    with h5py.File(tmp_path / "m.h5") as f:
        assert f["a-b.jpg/c.jpg/matches0"][()].tolist() == [1, -1, -1], "hloc finds the first where it looks"


def test_one_feature_cannot_have_two_matches(tmp_path: Path) -> None:
    with MatchWriter(tmp_path / "m.h5", SETTINGS) as writer:
        with pytest.raises(DataError, match="two matches"):
            writer.write("a", "b", make_matches([(0, 1), (0, 2)]), 3)
        with pytest.raises(DataError, match="row 3 of 3"):
            writer.write("a", "b", make_matches([(3, 1)]), 3)
        with pytest.raises(DataError, match="itself"):
            writer.write("a", "a", make_matches([(0, 1)]), 3)


# ---- names


@pytest.mark.parametrize(
    "name", ["", "/abs.jpg", "../up.jpg", "a/../b.jpg", "./a.jpg", "a//b.jpg", "a/", "n\0ul", "\udcff"]
)
def test_names_that_cannot_be_keys(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="image name"):
        check_name(name)
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer, pytest.raises(StoreError, match="image name"):
        writer.write(name, make_features(1))


def test_an_image_cannot_be_a_folder_of_images(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer:
        writer.write("a/b.jpg", make_features(1))
        with pytest.raises(StoreError, match="folder"):
            writer.write("a", make_features(1))
        with pytest.raises(StoreError, match="which is an image"):
            writer.write("a/b.jpg/keypoints", make_features(1))
    with FeatureReader(tmp_path / "f.h5") as reader:
        assert_same(reader.read("a/b.jpg"), make_features(1))


# ---- resuming


def test_resume_adds_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(3))
    with FeatureWriter(path, dict(reversed(SETTINGS.items()))) as writer:  # order is no difference
        assert writer.names_done() == {"a.jpg"}
        writer.write("a.jpg", make_features(5))
        writer.write("b.jpg", make_features(4))
    with FeatureReader(path) as reader:
        assert [len(reader.read(name)) for name in reader.names()] == [5, 4]


def test_other_settings_are_shown_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(3))
    other = {**SETTINGS, "max_keypoints": 100, "weights": {"hardnet": "xyz"}, "new": None}
    with pytest.raises(StoreError) as caught:
        FeatureWriter(path, other)
    assert "max_keypoints: 4096 -> 100" in str(caught.value)
    assert "weights.hardnet: 'abc' -> 'xyz'" in str(caught.value)
    assert "preset" not in str(caught.value).split("(")[1]
    with FeatureWriter(path, other, overwrite=True) as writer:
        assert writer.names_done() == set()
    with pytest.raises(StoreError, match="not a matches file"):
        MatchWriter(path, other)
    with pytest.raises(StoreError, match="plain JSON"):
        FeatureWriter(tmp_path / "g.h5", {"a": object()})


def test_two_writers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS), pytest.raises(StoreError, match="another process"):
        FeatureWriter(path, SETTINGS)
    with FeatureWriter(path, SETTINGS) as writer:  # given back
        code = (
            "import sys\nfrom hardnet_match.errors import StoreError\nfrom hardnet_match.store import FeatureWriter\n"
            "try: FeatureWriter(sys.argv[1], {}, overwrite=True)\nexcept StoreError as e: print(e)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "another process" in done.stdout
        writer.write("a.jpg", make_features(2))
        with FeatureReader(path) as reader:  # reading meanwhile is fine
            assert reader.names() == ["a.jpg"]


def test_missing_folders(tmp_path: Path) -> None:
    with FeatureWriter(tmp_path / "new" / "f.h5", SETTINGS):
        pass
    assert os.listdir(tmp_path / "new") == ["f.h5"]
    with pytest.raises(StoreError, match="make its folder"):
        FeatureWriter(tmp_path / "new" / "f.h5" / "g.h5", SETTINGS)
    with pytest.raises(StoreError, match="no such file"):
        FeatureReader(tmp_path / "f.h5")


# ---- kills

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
        time.sleep(rng.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        told += process.stdout.read().split("\n")
        process.wait()
        told = [name for name in told if name.endswith(".jpg")]
        with FeatureReader(path) as reader:
            assert set(told) <= set(reader.names())
            for name in reader.names():
                assert len(reader.read(name)) == 300
    assert len(told) > 20


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
                    writer._put(h5, "d0/new.jpg", extra)
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
from test_store import SETTINGS, make_features
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


# ---- other programs' files and damage


def test_foreign_features(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "hloc.h5", "w", libver="latest") as f:
        a = f.create_group("db/superpoint.jpg")
        a["keypoints"] = rng.uniform(0, 99, (5, 2)).astype(np.float16)
        a["descriptors"] = rng.random((256, 5)).astype(np.float16)
        a["scores"] = rng.random(5).astype(np.float16)
        a["image_size"] = np.array([640, 480])
        b = f.create_group("dog.jpg")
        b["keypoints"] = np.array([[10.0, 20.0], [30.5, 40.25]])
        b["descriptors"] = rng.random((128, 2))
        b["scales"] = np.array([2.0, 3.0])
        b["oris"] = np.array([0.0, 90.0])
    with FeatureReader(tmp_path / "hloc.h5") as reader:
        assert not reader.own
        assert reader.settings == {}
        assert reader.names() == ["db/superpoint.jpg", "dog.jpg"]
        a_read, b_read = reader.read("db/superpoint.jpg"), reader.read("dog.jpg")
    assert a_read.descriptors.dtype == np.float16
    assert a_read.descriptors.shape == (5, 256)
    np.testing.assert_array_equal(a_read.lafs[:, :, :2], np.broadcast_to(6 * np.eye(2), (5, 2, 2)))
    assert b_read.image_size == (32, 42)
    assert b_read.descriptors.dtype == np.float32
    np.testing.assert_array_equal(b_read.keypoints, [[10, 20], [30.5, 40.25]])
    np.testing.assert_allclose(b_read.lafs[0, :, :2], [[12, 0], [0, 12]], atol=1e-5)
    np.testing.assert_allclose(b_read.lafs[1, :, :2], [[0, -18], [18, 0]], atol=1e-5)
    np.testing.assert_array_equal(b_read.scores, [1, 1])
    with pytest.raises(StoreError, match="not a features file of this package"):
        FeatureWriter(tmp_path / "hloc.h5", SETTINGS)


def test_foreign_matches(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as f:
        f["db-a.jpg/q-b.jpg/matches0"] = np.array([-1, 4, 2], dtype=np.int16)
        f["db-a.jpg/q-b.jpg/matching_scores0"] = np.array([0, 0.5, 0.25], dtype=np.float16)
        f["db-a.jpg_old.jpg/matches0"] = np.array([0], dtype=np.int16)
        f["x/y/matches0"] = np.array([-30000, 0], dtype=np.int16)
        f["x/z/matches0"] = np.array([0.5])
    with MatchReader(tmp_path / "m.h5") as reader:
        matches = reader.read("q/b.jpg", "db/a.jpg")
        assert matches.pairs.tolist() == [[4, 1], [2, 2]]
        assert matches.scores.tolist() == [0.5, 0.25]
        assert ("db-a.jpg", "q-b.jpg") in reader.pairs()
        assert len(reader.read("db/a.jpg", "old.jpg")) == 1
        with pytest.raises(StoreError, match="wrapped int16"):
            reader.read("x", "y")
        with pytest.raises(StoreError, match="integers"):
            reader.read("x", "z")
        with pytest.raises(StoreError, match="no matches"):
            reader.read("a", "b")


def _damage_nan(group: h5py.Group) -> None:
    group["lafs"][0, 0, 0] = np.nan


def _damage_nan_descriptor(group: h5py.Group) -> None:
    group["descriptors"][0, 0] = np.inf


def _damage_rows(group: h5py.Group) -> None:
    del group["scores"]
    group["scores"] = np.zeros(3, np.float32)


def _damage_shape(group: h5py.Group) -> None:
    del group["lafs"]
    group["lafs"] = np.zeros((4, 6), np.float32)


def _damage_keypoints(group: h5py.Group) -> None:
    del group["keypoints"]
    group["keypoints"] = np.zeros((3, 2), np.float32)


def _damage_text(group: h5py.Group) -> None:
    del group["descriptors"]
    group["descriptors"] = "hello"


def _damage_group(group: h5py.Group) -> None:
    del group["descriptors"]
    group.create_group("descriptors")


def _damage_missing(group: h5py.Group) -> None:
    del group["descriptors"]


def _damage_size(group: h5py.Group) -> None:
    group["image_size"][...] = 0


def _damage_meta(group: h5py.Group) -> None:
    group.attrs["meta"] = "{not json"


def _damage_complete(group: h5py.Group) -> None:
    del group.attrs["complete"]


@pytest.mark.parametrize(
    "damage",
    [
        _damage_nan,
        _damage_nan_descriptor,
        _damage_rows,
        _damage_shape,
        _damage_keypoints,
        _damage_text,
        _damage_group,
        _damage_missing,
        _damage_size,
        _damage_meta,
        _damage_complete,
    ],
)
def test_damaged_records_are_named(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(4))
        writer.write("b.jpg", make_features(4))
    with h5py.File(path, "r+") as f:
        damage(f["a.jpg"])  # type: ignore[operator]
    with FeatureReader(path) as reader:
        with pytest.raises(StoreError, match=r"a\.jpg"):
            reader.read("a.jpg")
        assert_same(reader.read("b.jpg"), make_features(4))
    if damage is _damage_complete:
        with FeatureWriter(path, SETTINGS) as writer:
            assert writer.names_done() == {"b.jpg"}
            writer.write("a.jpg", make_features(4))
        with FeatureReader(path) as reader:
            assert reader.names() == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + b"\0" * 100])
def test_files_that_are_not_hdf5(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "f.h5"
    path.write_bytes(content)
    for reader in (FeatureReader, MatchReader):
        with pytest.raises(StoreError, match=r"f\.h5"):
            reader(path)
    with pytest.raises(StoreError, match=r"f\.h5"):
        FeatureWriter(path, SETTINGS)
    assert path.read_bytes() == content


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        writer.write("a.jpg", make_features(400))
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(StoreError, match=r"f\.h5"), FeatureReader(path) as reader:
        reader.read("a.jpg")


def test_a_merged_view_of_external_links_reads_as_one(tmp_path: Path) -> None:
    for shard in range(2):
        with FeatureWriter(tmp_path / f"s{shard}.h5", SETTINGS) as writer:
            writer.write(f"dir/im{shard}.jpg", make_features(shard + 1))
    with h5py.File(tmp_path / "all.h5", "w") as f:
        for shard in range(2):
            f[f"dir/im{shard}.jpg"] = h5py.ExternalLink(f"s{shard}.h5", f"dir/im{shard}.jpg")
    with FeatureReader(tmp_path / "all.h5") as reader:
        assert reader.names() == ["dir/im0.jpg", "dir/im1.jpg"]
        assert len(reader.read("dir/im1.jpg")) == 2


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


# ---- pair lists


def test_pair_lists_survive_spaces(tmp_path: Path) -> None:
    pairs = [("a.jpg", "b.jpg"), ("a b.jpg", "c/d  e.jpg"), ("é.jpg", "x\u00a0y.jpg")]
    write_pairs(tmp_path / "p.txt", pairs)
    assert read_pairs(tmp_path / "p.txt") == pairs
    assert (tmp_path / "p.txt").read_text(encoding="utf-8").startswith("a.jpg b.jpg\na b.jpg\tc/d  e.jpg\n")
    assert os.listdir(tmp_path) == ["p.txt"]


def test_pair_lists_of_others(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xef\xbb\xbf# comment\r\na.jpg b.jpg\r\n\r\nb.jpg a.jpg\na.jpg   c.jpg\n")
    assert read_pairs(tmp_path / "p.txt") == [("a.jpg", "b.jpg"), ("a.jpg", "c.jpg")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg", "line 1.*got 1"),
        ("a.jpg b.jpg\na b c", "line 2.*put a tab"),
        ("a.jpg a.jpg", "itself"),
        ("../a.jpg b.jpg", "image name"),
    ],
)
def test_bad_pair_lists(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.txt").write_text(text)
    with pytest.raises(StoreError, match=message):
        read_pairs(tmp_path / "p.txt")


def test_unwritable_pair_lists(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot hold"):
        write_pairs(tmp_path / "p.txt", [("a\nb.jpg", "c.jpg")])
    with pytest.raises(StoreError, match=r"none\.txt"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StoreError, match=r"b\.txt"):
        read_pairs(tmp_path / "b.txt")
