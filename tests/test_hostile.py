"""Hostile and odd input through the real verbs: an error in one line or a named skip; nothing run, nothing outside."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from cli_helpers import SMALL, fill, photo
from PIL import Image
from typer.testing import CliRunner, Result

from hardnet_match.cli import app
from hardnet_match.store import FeatureReader, MatchReader

EXTRACT = ["extract", "photos", "-o", "f.h5", *SMALL]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, in another one that nobody may write to."""
    place = tmp_path / "outer" / "place"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    return place


def run(*arguments: str, code: int | tuple[int, ...] = 0) -> Result:
    """A verb in this process."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code in (code if isinstance(code, tuple) else (code,)), result.output
    assert "Traceback" not in result.output
    assert "should not happen" not in result.output
    if result.exit_code in (1, 2) and "hardnet-match: error" in result.stderr:
        assert len([line for line in result.stderr.splitlines() if line.startswith("hardnet-match: error")]) == 1
    return result


def summary(*arguments: str, code: int = 0) -> Any:
    """A verb's JSON."""
    return json.loads(run(*arguments, "--json", code=code).stdout)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more than is in it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


LONG = "/".join(["d" * 100] * 3) + "/" + "n" * 200 + ".png"


def test_a_folder_of_everything_odd(there: Path) -> None:
    """Read or refused, each by name; one run over all, then what comes after it."""
    folder = fill(there / "photos", 1)
    whole = (folder / "000 x.png").read_bytes()
    grey = Image.fromarray(photo(1))
    rgb = grey.convert("RGB")
    good = {
        "16bit.png": lambda path: Image.fromarray(photo(1).astype(np.uint16) * 257).save(path),
        "cmyk.jpg": lambda path: rgb.convert("CMYK").save(path),
        "palette.png": lambda path: rgb.quantize(16).save(path),
        "animated.webp": lambda path: rgb.save(path, save_all=True, append_images=[rgb.rotate(90)], duration=9),
        "pages.tif": lambda path: grey.save(path, save_all=True, append_images=[grey.rotate(90)]),
        "alpha.png": lambda path: Image.merge("LA", [grey, Image.new("L", grey.size, 0)]).save(path),
        "alpha-only.png": lambda path: Image.new("LA", (40, 30), (0, 128)).save(path),
        "one.png": lambda path: Image.new("L", (1, 1), 9).save(path),
        "sliver.png": lambda path: Image.fromarray(photo(2, 30000, 4)[:3]).save(path),
        "tower.png": lambda path: Image.fromarray(photo(2, 30000, 4)[:3].T.copy()).save(path),
        "renamed.jpg": lambda path: path.write_bytes(whole),
        "same.png": grey.save,
        "same.jpg": grey.save,
        "UPPER.JPEG": grey.save,
        "new\nline.png": grey.save,
        "dots..in.name...png": grey.save,
        "für 写真 \u202e.png": grey.save,
        "#hash~tilde'quote\".png": grey.save,
        "-rf.png": grey.save,
        "keypoints/lafs/a.png": grey.save,
        "day/keypoints/a.png": grey.save,
        LONG: grey.save,
    }
    bad = {
        "cut.png": (whole[: len(whole) // 2], "cut off"),
        "zero.png": (b"", "empty"),
        "text.jpg": (b"this is no picture", "looks like text"),
        "bomb.png": (bomb(60000, 60000), "decompression bomb"),
        "lie.png": (bomb(15000, 11000), "cut off"),
        "page.jpg": (b"<html>404</html>", "web page"),
        "pickle.png": (pickle.dumps(Evil("pickle.png")), "damaged"),
    }
    for name, make in good.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make(folder / name)
    for name, (data, _) in bad.items():
        (folder / name).write_bytes(data)
    for label, value in (("nan", np.nan), ("inf", np.inf)):
        pixels = photo(1).astype(np.float32) / 255
        pixels[3, 4] = value
        Image.fromarray(pixels).save(folder / f"{label}.tif")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "loop").symlink_to(folder)
    (folder / "dead.png").symlink_to("nowhere.png")
    (folder / "self.png").symlink_to("self.png")

    told = summary(*EXTRACT, code=3)
    assert set(told["skipped"]) == {*bad, "nan.tif", "inf.tif"}
    for name, (_, reason) in bad.items():
        assert reason in told["skipped"][name]
    assert "NaN" in told["skipped"]["nan.tif"]
    with FeatureReader("f.h5") as reader:
        assert set(reader.names()) == {*good, "000 x.png"}
        sizes = {name: reader.image_size(name) for name in ("one.png", "sliver.png", "tower.png")}
        found = {name: reader.read(name) for name in reader.names()}
    assert sizes == {"one.png": (1, 1), "sliver.png": (30000, 3), "tower.png": (3, 30000)}
    assert all(np.isfinite(features.lafs).all() for features in found.values())
    assert not len(found["alpha-only.png"])
    for name in ("palette.png", "pages.tif", "alpha.png", LONG, "day/keypoints/a.png", "new\nline.png"):
        assert len(found[name]) > 5, name
    np.testing.assert_array_equal(found["alpha.png"].lafs, found["same.png"].lafs)  # the picture, not its alpha

    assert summary(*EXTRACT, code=3)["reused"] == len(good) + 1
    few = [
        "same.png",
        "same.jpg",
        LONG,
        "für 写真 \u202e.png",
        "keypoints/lafs/a.png",
        "one.png",
        "dots..in.name...png",
    ]
    Path("p.txt").write_text("".join(f"{a}\t{b}\n" for i, a in enumerate(few) for b in few[:i]))
    assert summary("match", "f.h5", "-o", "m.h5", "--pairs", "p.txt", "--device", "cpu")["matched"] == 21
    with MatchReader("m.h5") as matches:
        assert len(matches.read("same.png", LONG)) > 5
    run("inspect", "f.h5")
    run("inspect", "m.h5")
    assert sorted(os.listdir()) == ["f.h5", "m.h5", "p.txt", "photos"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="POSIX")
def test_folders_that_cannot_be_written_or_read(there: Path) -> None:
    fill(there / "photos", 1)
    errors = run("extract", "photos", "-o", "/proc/f.h5", *SMALL, code=1).stderr
    assert "/proc/f.h5" in errors
    if os.geteuid() == 0:
        pytest.skip("nothing is closed to root")
    (there / "closed").mkdir(mode=0o500)
    errors = run("extract", "photos", "-o", "closed/f.h5", *SMALL, code=1).stderr
    assert "closed" in errors
    (there / "photos").chmod(0)
    try:
        assert "permissions" in run("extract", "photos", "-o", "f.h5", *SMALL, code=1).stderr
    finally:
        (there / "photos").chmod(0o700)


# HDF5 -----------------------------------------------------------------------------------------------------------------

TRAVERSAL = ["../evil.jpg", "../../evil.jpg", "a/../../evil.jpg", "/evil.jpg", "./evil.jpg", "a//evil.jpg"]


def features_file(path: Path, names: list[str], **replaced: Any) -> None:
    """A features file of hloc's form; datasets of the last image replaced."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number, name in enumerate(names):
            group = file
            for part in name.split("/"):  # h5py would take '..' and '/' as parts of a path
                raw = part.encode() or b"empty"
                group = group[raw] if raw in group else group.create_group(raw)
            content = {
                "keypoints": rng.random((30, 2), np.float32) * 40,
                "descriptors": rng.random((128, 30), np.float32),
                "scores": rng.random(30, np.float32),
                "image_size": np.array([64, 48]),
                **(replaced if number == len(names) - 1 else {}),
            }
            for key, value in content.items():
                if value is not None:
                    group[key] = value


def outside(place: Path) -> list[str]:
    """All there is beside the folder we work in."""
    return sorted(str(path) for path in place.parent.rglob("*") if place not in path.parents and path != place)


@pytest.mark.parametrize(
    "verb",
    [
        ["match", "f.h5", "-o", "m.h5", "--device", "cpu"],
        ["index", "f.h5", "-o", "index", "--words", "4", "--images", "photos"],
        ["colmap", "f.h5", "matches.h5", "--images", "photos", "-o", "d.db", "--verify"],
        ["pairs", "f.h5", "-o", "p.txt", "--mode", "retrieval", "--top", "2", "--words", "4"],
        ["inspect", "f.h5"],
        ["inspect", "matches.h5"],
    ],
    ids=lambda verb: " ".join(verb[:2]),
)
@pytest.mark.parametrize("name", ["../evil.jpg", "a/../../evil.jpg"])
def test_names_in_a_file_never_lead_outside(there: Path, verb: list[str], name: str) -> None:
    folder = fill(there / "photos", 3)
    names = sorted(os.listdir(folder))
    features_file(there / "f.h5", [*names, name])
    with h5py.File("matches.h5", "w") as file:
        for first, second in ((names[0], names[1]), (names[0], name), (name, names[2])):
            group = file.create_group(f"{first.replace('/', '-')}/{second.replace('/', '-')}")
            group["matches0"] = np.arange(30, dtype=np.int32)
            group["matching_scores0"] = np.ones(30, np.float32)
            group.attrs["name0"], group.attrs["name1"] = first, second
    (there.parent / "evil.jpg").write_bytes(b"mine")
    before = outside(there)
    result = run(*verb, code=(0, 1, 3))
    assert outside(there) == before
    assert (there.parent / "evil.jpg").read_bytes() == b"mine"
    if result.exit_code:
        assert "evil.jpg" in result.output


@pytest.mark.parametrize("name", TRAVERSAL)
def test_names_in_a_pair_list_are_plain(there: Path, name: str) -> None:
    features_file(there / "f.h5", ["a.jpg", "b.jpg"])
    Path("p.txt").write_text(f"a.jpg {name}\n")
    errors = run("match", "f.h5", "-o", "m.h5", "--pairs", "p.txt", "--device", "cpu", code=1).stderr
    assert repr(name) in errors
    assert sorted(os.listdir()) == ["f.h5", "p.txt"]


BROKEN: dict[str, dict[str, Any]] = {
    "keypoints of three columns": {"keypoints": np.zeros((30, 3), np.float32)},
    "keypoints of text": {"keypoints": np.array([[b"a", b"b"]] * 30)},
    "keypoints that are NaN": {"keypoints": np.full((30, 2), np.nan, np.float32)},
    "keypoints that are infinite": {"keypoints": np.full((30, 2), np.inf, np.float32)},
    "keypoints that are complex": {"keypoints": np.zeros((30, 2), np.complex64)},
    "descriptors turned": {"descriptors": np.zeros((30, 128), np.float32)},
    "descriptors missing": {"descriptors": None},
    "descriptors of one dimension": {"descriptors": np.zeros(30, np.float32)},
    "descriptors that are NaN": {"descriptors": np.full((128, 30), np.nan, np.float32)},
    "scores too few": {"scores": np.zeros(3, np.float32)},
    "an image size below zero": {"image_size": np.array([-5, 3])},
    "an image size of three": {"image_size": np.array([5, 3, 3])},
    "lafs of another form": {"lafs": np.zeros((30, 3, 2), np.float32)},
    "lafs too many": {"lafs": np.zeros((31, 2, 3), np.float32)},
}


@pytest.mark.parametrize("what", BROKEN)
def test_features_that_are_wrong_are_refused_by_name(there: Path, what: str) -> None:
    features_file(there / "f.h5", ["a.jpg", "b.jpg", "bad image.jpg"], **BROKEN[what])
    errors = run("match", "f.h5", "-o", "m.h5", "--device", "cpu", code=1).stderr
    assert "bad image.jpg" in errors
    result = run("index", "f.h5", "-o", "index", "--words", "4", "--json", code=(1, 3))
    if result.exit_code == 3:
        assert set(json.loads(result.stdout)["skipped"]) == {"bad image.jpg"}
    else:
        assert "f.h5" in result.stderr
        assert not Path("index", "manifest.json").exists()


@pytest.mark.parametrize("content", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(500), b"\x89HDF\r\n\x1a\n\xff" * 99])
def test_files_that_are_no_hdf5(there: Path, content: bytes) -> None:
    Path("f.h5").write_bytes(content)
    fill(there / "photos", 2)
    for verb in (
        ["match", "f.h5", "-o", "m.h5", "--device", "cpu"],
        ["index", "f.h5", "-o", "index"],
        ["inspect", "f.h5"],
        ["colmap", "f.h5", "f.h5", "--images", "photos", "-o", "d.db"],
        EXTRACT,
    ):
        assert "f.h5" in run(*verb, code=1).stderr
    assert Path("f.h5").read_bytes() == content


# Pickles --------------------------------------------------------------------------------------------------------------


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, label: str) -> None:
        self.label = label

    def __reduce__(self) -> Any:
        return exec, (f"open({str(Path.cwd() / ('ran-' + self.label))!r}, 'w').close()",)


def _saved(label: str, **more: Any) -> None:
    torch.save({"state_dict": {"a": Evil(label)}, **more}, label, _use_new_zipfile_serialization=label.endswith("zip"))


def _weights(verb: Callable[[str], list[str]]) -> Any:
    def make(there: Path, label: str) -> list[str]:
        fill(there / "photos", 2)
        _saved(label, epoch=3, optimizer={})
        return verb(label)

    return make


def _ground_truth(there: Path, label: str) -> list[str]:
    features_file(there / "f.h5", ["a.jpg", "b.jpg"])
    run("index", "f.h5", "-o", "index", "--words", "4")
    Path(label).write_bytes(pickle.dumps({"imlist": ["a"], "gnd": Evil(label)}))
    return ["eval", "retrieval", "index", "--ground-truth", label]


def _patches(there: Path, label: str) -> list[str]:
    os.rename(_saved_as(label), "set.pt")
    return ["patches", "set.pt", "-o", "p.h5"]


def _saved_as(label: str) -> str:
    _saved(label)
    return label


def _training(there: Path, label: str) -> list[str]:
    from training_helpers import made_up_set

    made_up_set(40).save(there / "set.h5")
    (there / "run").mkdir()
    _saved(label, format="hardnet-match training 1")
    os.rename(label, there / "run" / "last.pt")
    changes = ["data.train=['set']", "data.evaluate=[]", "run.best=''"]
    return ["train", "bundled-hardnet", "-o", "run", "--device", "cpu", *[w for c in changes for w in ("--set", c)]]


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize(
    "make",
    [
        _weights(lambda label: ["extract", "photos", "-o", "f.h5", "--weights", label]),
        _weights(lambda label: ["export", label, "-o", "x.onnx"]),
        _weights(lambda label: ["finetune", "photos", "-o", "x.safetensors", "--from", label]),
        _ground_truth,
        _patches,
        _training,
    ],
    ids=["weights", "export", "finetune", "ground-truth", "patches", "checkpoint"],
)
def test_pickles_are_never_run(there: Path, make: Any, form: str) -> None:
    result = run(*make(there, f"evil-{form}"), code=(1, 2))
    assert "error" in result.stderr
    assert not list(there.rglob("ran-*"))
    pickle.loads(pickle.dumps(Evil("it-would")))
    assert (there / "ran-it-would").exists()  # the pickle works where it is run


# Texts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a.jpg\n",
        "a.jpg b.jpg c.jpg\n",
        "a.jpg a.jpg\n",
        "a.jpg \0\n",
        "\xff\xfe",
        "a.jpg\tb.jpg\tc.jpg\n",
        "{}",
        "x " * 9,
    ],
)
def test_pair_lists_with_junk(there: Path, text: str) -> None:
    features_file(there / "f.h5", ["a.jpg", "b.jpg"])
    Path("p.txt").write_bytes(text.encode("latin-1"))
    errors = run("match", "f.h5", "-o", "m.h5", "--pairs", "p.txt", "--device", "cpu", code=1).stderr
    assert "p.txt" in errors or "image name" in errors or "no pair to match" in errors
    assert not Path("m.h5").exists()


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 5000, "task = 3", "x = nan\n", "\x00", "[data]\ntrain = 'x'", "seed = 1e400"]
)
def test_recipes_with_junk(there: Path, text: str) -> None:
    Path("r.toml").write_text(text)
    assert "r.toml" in run("train", "r.toml", "-o", "run", code=2).stderr
    assert not Path("run").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 5000, '{"queries": 3}', '{"queries": [{}]}', "\x00"])
def test_ground_truths_with_junk(there: Path, text: str) -> None:
    features_file(there / "f.h5", ["a.jpg", "b.jpg"])
    run("index", "f.h5", "-o", "index", "--words", "4")
    Path("truth.json").write_text(text)
    assert "truth.json" in run("eval", "retrieval", "index", "--ground-truth", "truth.json", code=1).stderr
    for junk in ("manifest.json", "codebook/codebook.json"):
        kept = Path("index", junk).read_text()
        Path("index", junk).write_text(text)
        assert junk.split("/")[-1] in run("search", "index", "a.jpg", code=1).stderr
        Path("index", junk).write_text(kept)
