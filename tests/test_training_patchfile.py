"""The one file of a patch set: mapped, larger than memory, and safe while it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from patchset_helpers import equal, plain
from training_helpers import made_up_set

from hardnet_match.errors import DataError
from hardnet_match.training import patchfile
from hardnet_match.training.patchset import PatchSet


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
