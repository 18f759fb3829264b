"""Shards: stable, even, each in its own file; joined only when they belong together and are all there."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_helpers import SETTINGS, contents, make_features
from typer.testing import CliRunner, Result

from hardnet_match.cli import app
from hardnet_match.errors import OptionError, StoreError
from hardnet_match.jobs import join_files
from hardnet_match.store import FeatureReader, FeatureWriter, Shard

NAMES = [f"day {i % 7}/photo_{i:05d}.jpg" for i in range(5_000)]
SMALL = ["--preset", "dog-rootsift", "--orientation", "upright", "--max-keypoints", "60", "--max-size", "200", "-q"]


def command(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.mark.parametrize("of", [1, 2, 7, 64])
def test_every_image_is_in_one_shard_and_shards_are_even(of: int) -> None:
    counts = Counter(index for name in NAMES for index in range(of) if Shard(index, of).takes(name))
    assert sum(counts.values()) == len(NAMES)
    mean = len(NAMES) / of
    assert all(abs(counts[index] - mean) < 5 * math.sqrt(mean) for index in range(of))


def test_images_that_are_added_move_no_other() -> None:
    """The split is by name alone, and the same everywhere and for ever: shards of two versions must not overlap."""
    for name in ("a.jpg", "b.jpg", "été/写真.png"):
        number = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16)
        assert [i for i in range(5) if Shard(i, 5).takes(name)] == [number % 5]
    pairs = [("a.jpg", f"{j}.jpg") for j in range(6)]
    assert [next(i for i in range(5) if Shard(i, 5).takes_pair(*pair)) for pair in pairs] == [3, 1, 4, 1, 1, 4]


@given(st.text(min_size=1), st.text(min_size=1), st.integers(1, 50))
def test_a_pair_is_where_one_of_its_images_is_whichever_way_round(name0: str, name1: str, of: int) -> None:
    shards = [Shard(index, of) for index in range(of)]
    [taken] = [shard for shard in shards if shard.takes_pair(name0, name1)]
    assert taken.takes_pair(name1, name0)
    assert taken.takes(name0) or taken.takes(name1)


def test_exhaustive_pairs_are_even_though_one_image_is_first_in_all_of_its_pairs() -> None:
    names, of = NAMES[:300], 6
    shards = [Shard(index, of) for index in range(of)]
    counts = [sum(shard.takes_pair(a, b) for i, a in enumerate(names) for b in names[:i]) for shard in shards]
    assert sum(counts) == 300 * 299 // 2
    assert all(
        abs(count / (sum(counts) / of) - 1) < 0.5 for count in counts
    )  # 50 images a shard, with a deviation of 7
    first = [sum(shard.takes_pair(names[0], other) for other in names[1:]) for shard in shards]
    assert max(first) < 0.65 * 299  # half of one image's pairs are where it is, the rest where the others are


@pytest.mark.parametrize(
    "text", ["", "1", "1/", "/2", "a/b", "2/2", "0/0", "-1/2", "1/2/3", "1.0/2", "0/9999999", "\u0660/\u0662"]
)
def test_what_is_no_shard_is_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"shard"):
        Shard.parse(text)
    assert str(Shard.parse(" 3/8 ")) == "3/8"


ALL = ["a.jpg", "b.jpg", "day 2/für dich.jpg", "d.jpg", "e.jpg", "broken.jpg"]


@pytest.fixture(scope="module")
def photos(rendered: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    (folder / "day 2").mkdir()
    for i, name in enumerate(ALL[:-1]):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", folder / name)
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def test_shards_joined_are_what_one_run_gives(photos: Path, tmp_path: Path) -> None:
    """Through the command line: features, then matches of the joined features, to the bit; then a database of both."""
    (tmp_path / "shards").mkdir()
    command("extract", photos, "-o", tmp_path / "whole.h5", *SMALL, code=3)
    command("match", tmp_path / "whole.h5", "-o", tmp_path / "m.h5", "-q")
    left_out = 0
    for i in range(3):
        broken = Shard(i, 3).takes("broken.jpg")
        arguments = ("extract", photos, "-o", tmp_path / f"shards/{i}.h5", "--shard", f"{i}/3", *SMALL, "--json")
        summary = json.loads(command(*arguments, code=3 if broken else 0).stdout)
        assert summary["shard"] == f"{i}/3"
        left_out += len(summary["skipped"])
    assert left_out == 1
    told = json.loads(
        command("join", *sorted((tmp_path / "shards").iterdir()), "-o", tmp_path / "f.h5", "--json").stdout
    )
    assert (told["kind"], told["files"], told["items"], told["left_out"], told["skipped"]) == ("features", 3, 5, 1, {})
    assert contents(tmp_path / "f.h5") == contents(tmp_path / "whole.h5")

    (tmp_path / "pairs").mkdir()
    for i in range(2):
        command("match", tmp_path / "f.h5", "-o", tmp_path / f"pairs/{i}.h5", "--shard", f"{i}/2", "-q")
    command("join", tmp_path / "pairs/0.h5", tmp_path / "pairs/1.h5", "-o", tmp_path / "joined-m.h5")
    assert contents(tmp_path / "joined-m.h5") == contents(tmp_path / "m.h5")
    # and whatever comes next reads the joined files: each of them knows that they belong together
    command("colmap", tmp_path / "f.h5", tmp_path / "joined-m.h5", "--images", photos, "-o", tmp_path / "d.db")
    told = json.loads(command("inspect", tmp_path / "joined-m.h5", "--json").stdout)
    assert (told["kind"], len(told["items"])) == ("matches", 10)
    command("match", tmp_path / "f.h5", "-o", tmp_path / "m.h5", "-q")  # the same features: goes on, nothing to do


def test_a_shard_without_images_is_a_whole_shard(photos: Path, tmp_path: Path) -> None:
    empty = next(i for i in range(100) if not any(Shard(i, 100).takes(name) for name in ALL))
    command("extract", photos, "-o", tmp_path / "s.h5", "--shard", f"{empty}/100", *SMALL)
    command("match", tmp_path / "s.h5", "-o", tmp_path / "m.h5", "--shard", "0/3", "-q")
    for file in ("s.h5", "m.h5"):
        told = command("join", tmp_path / file, "-o", tmp_path / "f.h5", "--partial", code=3).stdout
        assert ": 0 " in told
        assert "stopped" not in told
        (tmp_path / "f.h5").unlink()


def test_a_shard_file_stays_that_shard(photos: Path, tmp_path: Path) -> None:
    file = tmp_path / "0.h5"
    command("extract", photos, "-o", file, "--shard", "0/2", *SMALL, code=3 if Shard(0, 2).takes("broken.jpg") else 0)
    for other in (["--shard", "1/2"], ["--shard", "0/3"], []):
        told = command("extract", photos, "-o", file, *other, *SMALL, code=1)
        assert "holds shard 0/2, not" in told.output
    whole = tmp_path / "whole.h5"
    command("extract", photos, "-o", whole, *SMALL, code=3)
    told = command("extract", photos, "-o", whole, "--shard", "0/2", *SMALL, code=1)
    assert "holds all of it, not shard 0/2" in told.output


def shard(path: Path, text: str | None, names: list[str], *, end: bool = True, **more: Any) -> Path:
    with FeatureWriter(path, {**SETTINGS, **more}) as writer:
        part = None if text is None else Shard.parse(text)
        writer.begin(part)
        for name in names:
            writer.write(name, make_features(4, dim=8))
        if end and part is not None:
            writer.end(2)
    return path


def test_a_shard_that_was_stopped_or_is_missing_is_named(tmp_path: Path) -> None:
    files = [shard(tmp_path / "0.h5", "0/4", ["a"]), shard(tmp_path / "2.h5", "2/4", ["b"], end=False)]
    with pytest.raises(StoreError) as wrong:
        join_files(files, tmp_path / "f.h5")
    assert "2.h5) was stopped before its end" in str(wrong.value)
    assert "shard 1/4 is missing; shard 3/4 is missing" in str(wrong.value)
    assert not (tmp_path / "f.h5").exists()
    told = command("join", *files, "-o", tmp_path / "f.h5", "--partial", "--json", code=3)
    summary = json.loads(told.stdout)
    assert (summary["items"], len(summary["skipped"])) == (2, 3)
    shard(files[1], "2/4", ["c"])  # it goes on, and comes to its end
    for i in (1, 3):
        files.append(shard(tmp_path / f"{i}.h5", f"{i}/4", []))
    assert join_files(files, tmp_path / "f.h5").left_out == 8
    with FeatureReader(tmp_path / "f.h5") as reader:
        assert reader.names() == ["a", "b", "c"]
    shard(files[1], "2/4", ["d"], end=False)  # images were added, and the run was stopped
    with pytest.raises(StoreError, match=r"shard 2/4 .* was stopped"):
        join_files(files, tmp_path / "f.h5")


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    from store_helpers import make_matches

    from hardnet_match.store import MatchWriter

    plain = shard(tmp_path / "plain.h5", None, ["a", "d/b"])
    twice = shard(tmp_path / "twice.h5", None, ["c", "d/b"])
    other = shard(tmp_path / "other.h5", None, ["e"], max_keypoints=7)
    folder = shard(tmp_path / "folder.h5", None, ["d"])
    below = shard(tmp_path / "below.h5", None, ["a/f"])
    quarter, same, half = (shard(tmp_path / f"{n}.h5", text, [n]) for n, text in
                           [("q", "0/4"), ("s", "0/4"), ("h", "0/2")])  # fmt: skip
    with MatchWriter(tmp_path / "m.h5", SETTINGS) as writer:
        writer.write("a", "b", make_matches([(0, 0)]), 1)
    with h5py.File(tmp_path / "foreign.h5", "w") as h5:
        h5["x.jpg/keypoints"] = np.zeros((1, 2))
    join_files([plain], tmp_path / "view.h5")
    (tmp_path / "deep").mkdir()
    (tmp_path / "text.h5").write_text("no HDF5")
    out = tmp_path / "out.h5"
    wrong: list[tuple[list[Path], Path, str]] = [
        ([plain, twice], out, r"d/b is in .*plain\.h5 and again in .*twice\.h5"),
        ([plain, other], out, r"max_keypoints: 4096 -> 7"),
        ([plain, folder], out, r"an image in one file and a folder in another"),
        ([plain, below], out, r"an image in one file and a folder in another"),
        ([quarter, same], out, r"are both shard 0/4"),
        ([quarter, half], out, r"not of one work"),
        ([plain, tmp_path / "m.h5"], out, r"holds features, .* matches"),
        ([plain, tmp_path / "foreign.h5"], out, r"foreign\.h5 is no features or matches file of this package"),
        ([plain, tmp_path / "view.h5"], out, r"view\.h5 joins other files itself"),
        ([plain, tmp_path / "nothing.h5"], out, r"nothing\.h5: no such file"),
        ([plain, tmp_path / "text.h5"], out, r"text\.h5: not a readable HDF5 file"),
        ([plain], tmp_path / "deep" / "out.h5", r"plain\.h5 is not below .*deep"),
        ([plain], twice, r"twice\.h5 exists and joins no files"),
    ]
    before = twice.read_bytes()
    for files, output, words in wrong:
        with pytest.raises(StoreError, match=words):
            join_files(files, output)
    for files, words in ([], "name the files"), ([plain, tmp_path / "deep/../plain.h5"], "named twice"):
        with pytest.raises(OptionError, match=words):
            join_files(files, out)
    with pytest.raises(OptionError, match="among the files"):
        join_files([plain, out], out)
    assert twice.read_bytes() == before
    assert not out.exists()
    assert not list(tmp_path.glob("*.part")) + list(tmp_path.glob("*.lock"))


def test_joining_again_replaces_the_view(tmp_path: Path) -> None:
    one, two = shard(tmp_path / "1.h5", None, ["a"]), shard(tmp_path / "2.h5", None, ["b"])
    assert join_files([one], tmp_path / "f.h5").items == 1
    with FeatureReader(tmp_path / "f.h5") as old:  # whoever reads the old one goes on
        assert join_files([one, two], tmp_path / "f.h5").items == 2
        assert old.names() == ["a"]
        assert len(old.read("a")) == 4
    with FeatureReader(tmp_path / "f.h5") as reader:
        assert reader.names() == ["a", "b"]
