"""Files that lead to other files: only below their own folder, whatever a file from elsewhere says."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from store_helpers import ODD_NAMES, SETTINGS, assert_same, make_features, make_matches

from hardnet_match.errors import StoreError
from hardnet_match.jobs.inspect import inspect_file
from hardnet_match.store import FeatureReader, FeatureWriter, MatchReader, MatchWriter, ViewWriter
from hardnet_match.store import links as links_module


def write(path: Path, *names: str, settings: dict[str, Any] = SETTINGS) -> Path:
    with FeatureWriter(path, settings) as writer:
        for name in names:
            writer.write(name, make_features(5 + len(name) % 7, dim=8, seed=len(name)))
    return path


def joined(output: Path, *files: Path, kind: str = "features") -> Path:
    with ViewWriter(output, kind, SETTINGS) as view:
        for file in files:
            with FeatureReader(file) if kind == "features" else MatchReader(file) as reader:
                view.add(reader)
    return output


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A features file where nothing has any business."""
    (tmp_path / "private").mkdir()
    return write(tmp_path / "private" / "secret.h5", "secret.jpg")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A folder for files from elsewhere."""
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


HOSTILE: dict[str, Callable[[Path, Path], Any]] = {
    "absolute": lambda secret, inbox: str(secret),
    "upwards": lambda secret, inbox: "../private/secret.h5",
    "there and back": lambda secret, inbox: f"../{inbox.name}/../private/secret.h5",
    "symbolic link": lambda secret, inbox: [(inbox / "s.h5").symlink_to(secret), "s.h5"][1],
    "linked folder": lambda secret, inbox: [(inbox / "d").symlink_to(secret.parent), "d/secret.h5"][1],
}


@pytest.mark.parametrize("how", HOSTILE)
@pytest.mark.parametrize("depth", ["image", "dataset", "folder", "behind a soft link"])
@pytest.mark.parametrize("own", [True, False], ids=["as ours", "as another program's"])
def test_a_hostile_link_is_refused(how: str, depth: str, own: bool, secret: Path, inbox: Path) -> None:
    target = HOSTILE[how](secret, inbox)
    path = write(inbox / "gift.h5", "a.jpg")
    with h5py.File(path, "r+") as h5:
        if not own:
            del h5.attrs["format"]
        if depth == "image":
            h5["b.jpg"] = h5py.ExternalLink(target, "/secret.jpg")
        elif depth == "folder":
            h5["b.jpg"] = h5py.ExternalLink(target, "/")
        elif depth == "behind a soft link":
            h5["door"] = h5py.ExternalLink(target, "/")
            h5["b.jpg"] = h5py.SoftLink("/door/secret.jpg")
        else:
            group = h5.create_group("b.jpg")
            for key in ("keypoints", "descriptors", "scores", "lafs", "image_size"):
                group[key] = h5py.ExternalLink(target, f"/secret.jpg/{key}")
            group.attrs["complete"] = True
    before = secret.stat()
    for action in (
        lambda reader: reader.read("b.jpg"),
        lambda reader: reader.read("b.jpg/secret.jpg"),
        lambda reader: reader.descriptors("b.jpg"),
        lambda reader: reader.descriptor_shape("b.jpg"),
        lambda reader: reader.image_size("b.jpg"),
        lambda reader: [reader.read(name) for name in reader.names() if name != "a.jpg"] or reader.read("b.jpg"),
    ):
        with FeatureReader(path) as reader:
            with pytest.raises(StoreError) as refused:
                action(reader)
            assert str(refused.value).startswith(str(path))
            assert len(reader.read("a.jpg")) > 0
    assert (secret.stat().st_atime_ns, secret.stat().st_mtime_ns) == (before.st_atime_ns, before.st_mtime_ns)


@pytest.mark.parametrize("what", ["outside", "inside"])
def test_values_that_are_kept_in_another_file_are_not_read(what: str, secret: Path, inbox: Path) -> None:
    """HDF5's external storage and virtual datasets read other files without any link."""
    password = (secret.parent if what == "outside" else inbox) / "password"
    password.write_bytes(np.arange(10, dtype=np.float32).tobytes())
    path = write(inbox / "gift.h5", "a.jpg")
    with h5py.File(path, "r+") as h5:
        del h5["a.jpg/keypoints"]
        h5["a.jpg"].create_dataset("keypoints", (5, 2), np.float32, external=[(str(password), 0, 40)])
        layout = h5py.VirtualLayout((5,), np.float32)
        layout[:] = h5py.VirtualSource(str(secret), "secret.jpg/scores", (5,))
        h5.copy("a.jpg", "b.jpg")
        del h5["b.jpg/keypoints"], h5["b.jpg/scores"]
        h5["b.jpg"].create_dataset("keypoints", data=np.zeros((5, 2), np.float32))
        h5["b.jpg"].create_virtual_dataset("scores", layout)
    with FeatureReader(path) as reader:
        for name in ("a.jpg", "b.jpg"):
            with pytest.raises(StoreError, match="keeps its values in another file"):
                reader.read(name)


def test_hostile_matches_are_refused(secret: Path, inbox: Path) -> None:
    with MatchWriter(secret.parent / "m.h5", SETTINGS) as writer:
        writer.write("a.jpg", "b.jpg", make_matches([(0, 1)]), 3)
    with MatchWriter(inbox / "m.h5", SETTINGS):
        pass
    with h5py.File(inbox / "m.h5", "r+") as h5:
        h5["a.jpg/b.jpg"] = h5py.ExternalLink("../private/m.h5", "/a.jpg/b.jpg")
    with MatchReader(inbox / "m.h5") as reader:
        for action in (reader.pairs, lambda: reader.read("a.jpg", "b.jpg"), lambda: reader.read("b.jpg", "a.jpg")):
            with pytest.raises(StoreError, match="not below the folder"):
                action()


def test_hdf5s_own_search_for_files_plays_no_part(tmp_path: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HDF5 looks for linked files under HDF5_EXT_PREFIX and in the current directory too."""
    (tmp_path / "elsewhere").mkdir()
    write(tmp_path / "elsewhere" / "part.h5", "a.jpg")
    view = inbox / "view.h5"
    with h5py.File(view, "w") as h5:
        h5["a.jpg"] = h5py.ExternalLink("part.h5", "/a.jpg")
    monkeypatch.setenv("HDF5_EXT_PREFIX", str(tmp_path / "elsewhere"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    with FeatureReader(view) as reader, pytest.raises(StoreError, match=r"part\.h5: no such file"):
        reader.names()


def test_links_within_one_file_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    path = write(tmp_path / "f.h5", "dir/a.jpg")
    with h5py.File(path, "r+") as h5:
        h5["b.jpg"] = h5py.SoftLink("/dir/a.jpg")
        h5["dir/c.jpg"] = h5py.SoftLink("a.jpg")
        h5["round"] = h5py.SoftLink("/about")
        h5["about"] = h5py.SoftLink("/round")
        h5["dangling"] = h5py.SoftLink("/nowhere")
        h5["dir/again"] = h5["/"]  # a folder that holds itself
    with FeatureReader(path) as reader:
        first = reader.read("dir/a.jpg")
        assert_same(reader.read("b.jpg"), first)
        assert_same(reader.read("dir/c.jpg"), first)
        with pytest.raises(StoreError, match="has no features"):
            reader.read("dangling")
        with pytest.raises(StoreError, match="too many soft links"):
            reader.read("round")
        with pytest.raises(StoreError, match="too many soft links"):
            reader.names()
    with h5py.File(path, "r+") as h5:
        del h5["round"], h5["about"]
    with FeatureReader(path) as reader:
        assert {"dir/a.jpg", "b.jpg", "dir/c.jpg"} <= set(reader.names())


def test_looking_into_a_hostile_file_goes_nowhere(secret: Path, inbox: Path) -> None:
    with h5py.File(inbox / "gift.h5", "w") as h5:
        h5["door"] = h5py.ExternalLink(str(secret), "/")
    with pytest.raises(StoreError, match="not below the folder"):
        inspect_file(inbox / "gift.h5")
    with h5py.File(inbox / "round.h5", "w") as h5:
        h5["a/b"] = h5["/"]
    with pytest.raises(StoreError, match="neither features nor matches"):
        inspect_file(inbox / "round.h5")


def test_a_view_reads_as_one_file(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    whole = write(tmp_path / "whole.h5", *ODD_NAMES)
    parts = [write(folder / f"{i} of 3.h5", *ODD_NAMES[i::3]) for i in range(3)]
    view = joined(tmp_path / "view.h5", *parts)
    with FeatureReader(whole) as one, FeatureReader(view) as many:
        assert many.names() == one.names() == sorted(ODD_NAMES)
        assert (many.settings, many.settings_hash, many.own) == (one.settings, one.settings_hash, True)
        assert many.shards == [f"shards/{i} of 3.h5" for i in range(3)]
        for name in ODD_NAMES:
            assert_same(many.read(name), one.read(name))
            assert many.digest(name) == one.digest(name) != ""
            assert many.descriptor_shape(name) == one.descriptor_shape(name)
            assert many.image_size(name) == one.image_size(name)
        assert "nothing.jpg" not in many
        with pytest.raises(StoreError, match="has no features"):
            many.read("nothing.jpg")
    assert inspect_file(view).total == inspect_file(whole).total
    assert inspect_file(view).joined == 3
    assert view.stat().st_size < whole.stat().st_size + 1500 * len(ODD_NAMES)


def test_programs_that_read_hlocs_files_read_a_view(tmp_path: Path) -> None:
    """By name, by walking the file as hloc's own listing does, and with every dataset of an image."""
    (tmp_path / "s").mkdir()
    parts = [write(tmp_path / "s" / f"{i}.h5", *names) for i, names in enumerate([["a.jpg", "d/b.jpg"], ["d/c.jpg"]])]
    view = joined(tmp_path / "view.h5", *parts)
    with h5py.File(view, "r") as h5:
        listed = set()

        def visit(_: str, found: Any) -> None:
            if isinstance(found, h5py.Dataset):
                listed.add(found.parent.name.strip("/"))

        h5.visititems(visit)
        assert listed == {"a.jpg", "d/b.jpg", "d/c.jpg"}
        for name in listed:
            with FeatureReader(view) as reader:
                expected = reader.read(name)
            group = {key: value.__array__() for key, value in h5[name].items()}
            assert group.keys() == {"keypoints", "lafs", "scores", "descriptors", "image_size"}
            np.testing.assert_array_equal(group["keypoints"], expected.keypoints)
            np.testing.assert_array_equal(group["descriptors"].T, expected.descriptors)
            np.testing.assert_array_equal(group["image_size"], (640, 480))
            assert h5[name]["keypoints"].attrs["uncertainty"] == 1.0


def test_matches_of_a_view(tmp_path: Path) -> None:
    """Pairs whose groups have one name (`/` became `-`) may come from two files."""
    pairs = {
        ("a/b.jpg", "c.jpg"): make_matches([(0, 1), (2, 0)]),
        ("a-b.jpg", "c.jpg"): make_matches([(1, 1)]),
        ("c.jpg", "d.jpg"): make_matches([(3, 3)]),
    }
    for i, (names, found) in enumerate(pairs.items()):
        with MatchWriter(tmp_path / f"m{i}.h5", SETTINGS) as writer:
            writer.write(*names, found, 5)
    view = joined(tmp_path / "view.h5", *(tmp_path / f"m{i}.h5" for i in range(3)), kind="matches")
    with MatchReader(view) as reader:
        assert reader.pairs() == sorted(pairs)
        for names, found in pairs.items():
            np.testing.assert_array_equal(reader.read(*names).pairs, found.pairs)
            np.testing.assert_array_equal(reader.read(*names[::-1]).pairs, found.pairs[:, ::-1])
            assert names in reader
    with h5py.File(view, "r") as h5:
        np.testing.assert_array_equal(h5["c.jpg"]["d.jpg"]["matches0"][()], [-1, -1, -1, 3, -1])


def test_a_folder_is_moved_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "shards").mkdir(parents=True)
    joined(here / "view.h5", write(here / "shards" / "0.h5", "a.jpg"), write(here / "shards" / "1.h5", "b.jpg"))
    shutil.move(here, tmp_path / "there")
    (tmp_path / "link.h5").symlink_to(tmp_path / "there" / "view.h5")
    monkeypatch.chdir(tmp_path / "there" / "shards")
    for path in (tmp_path / "there" / "view.h5", Path("../view.h5"), tmp_path / "link.h5"):
        with FeatureReader(path) as reader:
            assert [len(reader.read(name)) > 0 for name in reader.names()] == [True, True]
        with h5py.File(path, "r") as h5:
            assert len(h5["b.jpg"]["keypoints"]) > 0


def test_what_changed_since_joining_is_told(tmp_path: Path) -> None:
    parts = [write(tmp_path / f"{i}.h5", f"{i}.jpg") for i in range(6)]
    view = joined(tmp_path / "view.h5", *parts)
    other = {**SETTINGS, "max_keypoints": 7}
    with FeatureWriter(parts[0], other, overwrite=True) as writer:
        writer.write("0.jpg", make_features())
    with FeatureWriter(parts[1], SETTINGS, overwrite=True) as writer:
        writer.write("new.jpg", make_features())
    with FeatureReader(view) as reader:
        with pytest.raises(StoreError, match=r"0\.h5 was made with other settings .* join again"):
            reader.read("0.jpg")
        with pytest.raises(StoreError, match=r"'1\.jpg' is no longer in the file .* join again"):
            reader.read("1.jpg")
        assert len(reader.read("2.jpg")) > 0
    for part in parts[2:]:
        part.unlink()
    with pytest.raises(StoreError, match=r"joins 6 files, of which 2\.h5, 3\.h5, 4\.h5 and 1 more are not there"):
        FeatureReader(view)


def test_a_view_is_not_written_to(tmp_path: Path) -> None:
    view = joined(tmp_path / "view.h5", write(tmp_path / "0.h5", "a.jpg"))
    before = view.read_bytes()
    with pytest.raises(StoreError, match="joins other files"):
        FeatureWriter(view, SETTINGS)
    assert view.read_bytes() == before


def test_many_shards_take_few_handles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "OPEN_SHARDS", 3)
    view = joined(tmp_path / "view.h5", *(write(tmp_path / f"{i:02}.h5", f"{i}.jpg") for i in range(12)))
    with FeatureReader(view) as reader:
        for name in reader.names() * 2:
            assert len(reader.read(name)) > 0
            assert len(list(Path("/proc/self/fd").iterdir())) < 64 if Path("/proc/self/fd").is_dir() else True
            assert len(reader._tree._shards) <= 3
