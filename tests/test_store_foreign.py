"""Other programs' files, and damaged ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from store_helpers import SETTINGS, assert_same, make_features

from hardnet_match.errors import StoreError
from hardnet_match.store import FeatureReader, FeatureWriter, MatchReader


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
        f["x/null/matches0"] = h5py.Empty("i4")
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
        with pytest.raises(StoreError, match="not an array"):
            reader.read("x", "null")
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


def _damage_null(group: h5py.Group) -> None:
    """HDF5 has datasets without any values or shape."""
    del group["descriptors"]
    group["descriptors"] = h5py.Empty("f4")


def _damage_null_frames(group: h5py.Group) -> None:
    del group["lafs"]
    group["lafs"] = h5py.Empty("f4")


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
        _damage_null,
        _damage_null_frames,
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
