"""Every parser of the package as a function of bytes: it returns, or raises an error of this package; nothing else.

`tests/test_fuzz.py` runs the kept seeds and mutations of them through each; `scripts/fuzz.py` lets atheris search.
Seeds lie in `seeds/TARGET/`; a file that once broke a parser stays there.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from hardnet_match.errors import HardnetMatchError

SEEDS = Path(__file__).parent / "seeds"
MAX_PIXELS = 200_000
_targets: dict[str, Callable[[bytes, Path], Any]] = {}


def target(function: Callable[[bytes, Path], Any]) -> Callable[[bytes, Path], Any]:
    """Register a parser under its name."""
    _targets[function.__name__] = function
    return function


def names() -> list[str]:
    """Names of all targets."""
    return list(_targets)


def seeds(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    return [path.read_bytes() for path in sorted((SEEDS / name).glob("*"))]


def run(name: str, data: bytes, place: Path) -> str:
    """Run one input through a target; the error's text, '' if it was read.

    Args:
        place: an empty folder for files; emptied again.
    """
    try:
        _targets[name](data, place)
    except HardnetMatchError as error:
        text = str(error)
        assert text.strip()
        return text
    finally:
        for path in place.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return ""


def _file(place: Path, data: bytes, name: str = "file") -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# Text ----------------------------------------------------------------------------------------------------------------


@target
def pairs(data: bytes, place: Path) -> None:
    from hardnet_match.store import read_pairs, write_pairs

    found = read_pairs(_file(place, data))
    assert all(a != b for a, b in found)
    write_pairs(place / "again", found)
    assert read_pairs(place / "again") == found


@target
def oxford_regions(data: bytes, place: Path) -> None:
    from hardnet_match.frames import read_oxford

    lafs = read_oxford(_file(place, data))
    assert lafs.shape[1:] == (2, 3)
    assert np.isfinite(lafs).all()


@target
def bundler(data: bytes, place: Path) -> None:
    from hardnet_match.sfm.compare import read_bundler_cameras

    for rotation, translation in read_bundler_cameras(_file(place, data), ["a", "b"]).values():
        assert np.isfinite(rotation).all()
        assert np.isfinite(translation).all()


@target
def recipe(data: bytes, place: Path) -> None:
    from hardnet_match.training import recipe as recipes

    found = recipes.read(_file(place, data, "r.toml"))
    _file(place, recipes.to_toml(found).encode(), "again.toml")
    assert recipes.read(place / "again.toml") == found


@target
def recipe_change(data: bytes, place: Path) -> None:
    from hardnet_match.training import recipe as recipes

    recipes.read(recipes.find("bundled-hardnet"), [data.decode("utf-8", "replace")])


@target
def brown_info(data: bytes, place: Path) -> None:
    from hardnet_match.training.sources.brown import TEST_PAIRS, Brown

    info, _, rest = data.partition(b"\0")
    interest, _, pairs_text = rest.partition(b"\0")
    _file(place, info, "set/info.txt")
    if interest:
        _file(place, interest, "set/interest.txt")
    if pairs_text:
        _file(place, pairs_text, f"set/{TEST_PAIRS}")
    _file(place, b"BM", "set/patches0000.bmp")
    found = Brown(place / "set")
    found.matches()
    found.read(found.pieces()[0])


@target
def classic_ground_truth(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.ground_truth import read_ground_truth

    for part, text in zip(("query", "good", "ok", "junk"), (data.split(b"\0") + [b""] * 4)[:4], strict=True):
        _file(place, text, f"truth/q_1_{part}.txt")
    read_ground_truth(place / "truth")


@target
def hpatches_tasks(data: bytes, place: Path) -> None:
    from hardnet_match.metrics.hpatches import read_tasks

    table, _, places = data.partition(b"\0")
    for name in ("verif_pos", "verif_neg_intra", "verif_neg_inter"):
        _file(place, table, f"tasks/{name}_split-a.csv")
    for name in ("retr_queries", "retr_distractors"):
        _file(place, places, f"tasks/{name}_split-a.csv")
    read_tasks(place / "tasks", "a")


@target
def hpatches_descriptors(data: bytes, place: Path) -> None:
    from hardnet_match.jobs.hpatches import _read

    _file(place, data, "seq/ref.csv")
    assert np.isfinite(_read(place / "seq", "ref")).all()


@target
def hpatches_npy(data: bytes, place: Path) -> None:
    from hardnet_match.jobs.hpatches import _read

    _file(place, data, "seq/ref.npy")
    assert np.isfinite(_read(place / "seq", "ref")).all()


@target
def logs(data: bytes, place: Path) -> None:
    from hardnet_match.training.logs import REPORTS, RunLog, read_rows

    rows = read_rows(_file(place, data, REPORTS))
    log = RunLog(place, 10**9, tensorboard=False)
    log.close()
    assert len(read_rows(place / REPORTS)) <= len(rows)


@target
def text_features(data: bytes, place: Path) -> None:
    from hardnet_match.plugins.colmap.text import read_text_features

    lafs, descriptors = read_text_features(_file(place, data))
    assert len(lafs) == len(descriptors)
    assert np.isfinite(lafs).all()


@target
def match_list(data: bytes, place: Path) -> None:
    from hardnet_match.plugins.colmap.text import _blocks

    for _, _, rows in _blocks(_file(place, data)):
        assert rows.shape[1] == 2


@target
def homography(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.sequences import _matrix

    assert np.isfinite(_matrix(_file(place, data))).all()


@target
def annotated_points(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.sequences import _fitted

    assert np.isfinite(_fitted(_file(place, data, "a.mat"))).all()


@target
def scene_texts(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.scenes import INTRINSICS, POSES, read_scene

    intrinsics, _, poses = data.partition(b"\0")
    _file(place, intrinsics, f"known/{INTRINSICS}")
    _file(place, poses, f"known/{POSES}")
    for name in ("a.jpg", "b.jpg"):
        _file(place, b"photo", f"photos/{name}")
    read_scene(place / "photos", place / "known")


@target
def scene_bundler(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.scenes import read_scene

    bundle, _, listed = data.partition(b"\0")
    _file(place, bundle, "known/bundle.out")
    _file(place, listed, "known/list.txt")
    for name in ("a.jpg", "b.jpg"):
        _file(place, (SEEDS / "picture" / "jpeg").read_bytes(), f"photos/{name}")
    read_scene(place / "photos", place / "known" / "bundle.out")


@target
def ledger(data: bytes, place: Path) -> None:
    from hardnet_match.jobs.ledger import Ledger

    path = _file(place, data, "l.jsonl")
    book = Ledger(path, 1)
    book.add("key", {"x": 1.0})
    assert Ledger(path, 1).figures["key"] == {"x": 1.0}


@target
def shard(data: bytes, place: Path) -> None:
    from hardnet_match.store import Shard

    found = Shard.parse(data.decode("utf-8", "replace"))
    assert 0 <= found.index < found.of
    assert Shard.parse(str(found)) == found


# JSON ----------------------------------------------------------------------------------------------------------------


@target
def ground_truth(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.ground_truth import read_ground_truth

    read_ground_truth(_file(place, data))


@target
def splits(data: bytes, place: Path) -> None:
    from hardnet_match.training.sources.hpatches import _listed

    _listed(_file(place, data, "splits.json"), "a", "train")


@target
def manifest(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.index import Index

    _file(place, data, "index/manifest.json")
    with Index.open(place / "index"):
        pass


@target
def codebook(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.codebook import Codebook

    _file(place, data, "book/codebook.json")
    Codebook.load(place / "book")


@target
def records(data: bytes, place: Path) -> None:
    """Records of our own that a damaged one must not stop: they then count as absent."""
    from hardnet_match.jobs.demo import _rendered
    from hardnet_match.jobs.index import SOURCES, read_sources
    from hardnet_match.jobs.stages import Stages

    _file(place, data, SOURCES)
    read_sources(place)
    stages = Stages(_file(place, data, "stages.json"), False)
    stages.result("map", "x")
    stages.recorded("map")
    stages.record("map", "x", None)
    _file(place, data, "cameras.json")
    _rendered(place, {"seed": 1, "size": [2, 3], "views": 4})


# Archives and pickles ------------------------------------------------------------------------------------------------


@target
def weights(data: bytes, place: Path) -> None:
    from hardnet_match.weights.reading import read_checkpoint

    found = read_checkpoint(_file(place, data, "w.pth"))
    assert found.epoch >= 0


@target
def checkpoint(data: bytes, place: Path) -> None:
    from hardnet_match.training.checkpoint import load_checkpoint

    load_checkpoint(_file(place, data, "last.pt"))


@target
def dictionary(data: bytes, place: Path) -> None:
    from hardnet_match.training.sources.dictionary import Dictionary

    source = Dictionary(_file(place, data, "set.pt"))
    source.read(source.pieces()[0])


@target
def archive(data: bytes, place: Path) -> None:
    from hardnet_match.training.sources.files import Files

    before = set(place.parent.rglob("*"))
    files = Files(_file(place, data, "set.zip"))
    for name in files.names()[:3]:
        files.size(name)
        files.read(name)
    assert set(place.parent.rglob("*")) - before == {place / "set.zip"}


@target
def journal(data: bytes, place: Path) -> None:
    from hardnet_match.store.journal import journal_path, recover

    path = _file(place, bytes(5000), "f.h5")
    journal_path(path).write_bytes(data)
    recover(path)
    assert not journal_path(path).exists()


# Pictures ------------------------------------------------------------------------------------------------------------


@target
def picture(data: bytes, place: Path) -> None:
    from hardnet_match.images.decode import decode

    for color in (False, True):
        pixels = decode(data, "x", color, MAX_PIXELS)
        assert pixels.dtype == np.uint8
        assert pixels.ndim == 2 + color


@target
def exif(data: bytes, place: Path) -> None:
    from hardnet_match.images.exif import exif_focal, gps, orientation
    from hardnet_match.images.loading import promised_pixels

    path = _file(place, data, "x.jpg")
    assert 1 <= orientation(data) <= 8
    assert promised_pixels(data) >= 0
    focal = exif_focal(path)
    assert focal is None or 0 < focal < float("inf")
    position = gps(path)
    assert position is None or (abs(position.latitude) <= 90 and abs(position.longitude) <= 180)


@target
def stamp(data: bytes, place: Path) -> None:
    from hardnet_match.images.loading import still_same

    _file(place, b"photo", "a.jpg")
    still_same(data.decode("utf-8", "replace"), place, "a.jpg", place)


# HDF5: what is in a file; the library that takes it apart is not ours ------------------------------------------------


def _filled(path: Path, data: bytes) -> None:
    """An HDF5 file out of JSON: {"attrs": ..., "PATH": array or {"shape", "dtype"} or text, "PATH@NAME": attribute}."""
    import h5py

    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        content = {}
    with h5py.File(path, "w") as file:
        for key, value in content.items() if isinstance(content, dict) else ():
            place, at, name = str(key).partition("@")
            try:
                if at:
                    (file[place] if place else file).attrs[name] = value
                elif isinstance(value, dict) and "shape" in value:
                    shape = tuple(min(int(n), 1000) for n in value["shape"])
                    file[place] = np.full(shape, value.get("fill", 0)).astype(value.get("dtype", "f4"))
                elif value is None:
                    file.require_group(place)
                else:
                    file[place] = value
            except Exception:  # not a file that can be; the next key may be
                continue


@target
def features_file(data: bytes, place: Path) -> None:
    from hardnet_match.store import FeatureReader

    _filled(place / "f.h5", data)
    with FeatureReader(place / "f.h5") as reader:
        reader.settings  # noqa: B018
        for name in reader.names():
            for read in (reader.digest, reader.image_size, reader.descriptor_shape, reader.read):
                with suppress(HardnetMatchError):
                    read(name)


@target
def matches_file(data: bytes, place: Path) -> None:
    from hardnet_match.store import MatchReader

    _filled(place / "m.h5", data)
    with MatchReader(place / "m.h5") as reader:
        for pair in reader.pairs():
            with suppress(HardnetMatchError):
                assert pair in reader or pair not in reader
            with suppress(HardnetMatchError):
                reader.read(*pair)


@target
def patch_set(data: bytes, place: Path) -> None:
    from hardnet_match.training.patchfile import settings_of
    from hardnet_match.training.patchset import PatchSet

    _filled(place / "p.h5", data)
    found = PatchSet.load(place / "p.h5")
    len(found)
    settings_of(place / "p.h5")


def make_seeds() -> None:
    """Write the seeds that are made: `python -c 'from targets import make_seeds; make_seeds()'` in this folder."""
    import io

    import torch
    from PIL import Image
    from safetensors.torch import save

    def keep(name: str, label: str, data: bytes | str) -> None:
        path = SEEDS / name / label
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    keep("pairs", "plain", "a.jpg b.jpg\n# note\n\na b.jpg\tc d.jpg\r\nb.jpg a.jpg\n")
    keep("oxford_regions", "plain", "1.0\n2\n10 20 .1 0 .1\n5 6 .02 .01 .03 9 9\n")
    keep("bundler", "plain", "# Bundle file v0.3\n2 1\n" + "500 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n" * 2)
    from hardnet_match.training import recipe as recipes

    keep("recipe", "shipped", recipes.find("bundled-hardnet").read_bytes())
    keep("recipe_change", "plain", "schedule.batch=256")
    keep("recipe_change", "word", "data.train=['a']")
    keep("brown_info", "plain", "0 1\n0 1\n1 2\n\x000 1\n0 2\n1 1\n\x000 0 0 1 0 0\n0 0 0 2 1 0\n")
    keep("classic_ground_truth", "plain", "oxc1_a 1 2 30.5 40\x00b\nc\n\x00d\n\x00e\n")
    keep("hpatches_tasks", "plain", "h\nv_a,1,3,v_b,2,4\n\0h\nv_a,3\n")
    keep("hpatches_descriptors", "plain", "1,2,3\n4,5,6\n")
    array = io.BytesIO()
    np.save(array, np.ones((2, 3), np.float32))
    keep("hpatches_npy", "plain", array.getvalue())
    keep("logs", "plain", "step,loss\n1,2.5\n2,\n3,1e-4\n")
    keep("text_features", "plain", "1 128\n1.5 2.5 3 0.5" + " 7" * 128 + "\n")
    keep("match_list", "plain", "a.jpg b.jpg\n0 1\n2 3\n\nb.jpg c.jpg\n4 5\n")
    keep("homography", "plain", "1 0 5\n0 1 6\n0.001 0 1\n")
    known = "".join(f"{name} PINHOLE 16 12 20 20 8 6\n" for name in ("a.jpg", "b.jpg"))
    poses = "".join(f"{name} 1 0 0 0 .1 .2 .3\n" for name in ("a.jpg", "b.jpg"))
    keep("scene_texts", "plain", f"{known}\0{poses}")
    camera, point = "500 0 0\n1 0 0\n0 1 0\n0 0 1\n0 0 0\n", "0 0 0 9 9 9 2 0 0 1.5 2.5 1 0 3 4\n"
    keep("scene_bundler", "plain", f"# Bundle file v0.3\n2 1\n{2 * camera}{point}\0a.jpg\nb.jpg\n")
    from hardnet_match.jobs.stages import fingerprint

    keep("ledger", "plain", json.dumps({"settings": fingerprint(1)}) + '\n{"key": "a", "x": 2.0}\n')
    keep("shard", "plain", "3/8")
    try:
        from scipy.io import savemat
    except ImportError:
        pass
    else:
        content, packed = io.BytesIO(), io.BytesIO()
        corners = np.array([[0, 0, 1], [9, 0, 1], [0, 9, 1], [9, 9, 1]], float)
        points = {"validation": {"pts": np.hstack([corners, corners + np.array([1, 2, 0])]).T}}
        savemat(content, points)
        savemat(packed, points, do_compression=True)
        keep("annotated_points", "plain", content.getvalue())
        keep("annotated_points", "packed", packed.getvalue())
    truth = {"queries": [{"image": "a", "positives": ["b"], "box": [1, 2, 3, 4]}], "apart": True}
    keep("ground_truth", "json", json.dumps(truth))
    keep(
        "ground_truth",
        "pickle",
        _pickle({"imlist": ["a"], "qimlist": ["b"], "gnd": [{"ok": [0], "bbx": [1, 2, 3, 4]}]}),
    )
    keep("splits", "plain", json.dumps({"a": {"train": ["v_a"], "test": []}}))
    from hardnet_match.retrieval.manifest import Manifest

    Manifest("asmk", {}, {}, "0").write(SEEDS / "manifest")
    (SEEDS / "manifest" / "manifest.json").rename(SEEDS / "manifest" / "plain")
    keep("codebook", "plain", json.dumps({"format": "x", "version": 1, "files": {}, "about": {}, "words": 1, "dim": 2}))
    keep("records", "stages", json.dumps({"map": {"fingerprint": "x", "result": [1]}}))
    keep("records", "sources", json.dumps({"features": ["a"], "images": None, "seed": 1, "size": [2, 3]}))
    keep("weights", "safetensors", save({"a": torch.ones(2)}, {"architecture": "hardnet"}))
    for label, zipped in (("zip", True), ("old", False)):
        content = io.BytesIO()
        torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, content, _use_new_zipfile_serialization=zipped)
        keep("weights", label, content.getvalue())
        keep("checkpoint", label, content.getvalue())
    for label, zipped in (("zip", True), ("old", False)):
        content = io.BytesIO()
        stored = torch.zeros(2, 32, 32, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), torch.zeros(1, 3)
        torch.save(stored, content, _use_new_zipfile_serialization=zipped)
        keep("dictionary", label, content.getvalue())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as out:
        out.writestr("set/info.txt", "0 1\n")
        out.writestr("set/../../evil.txt", "x")
    keep("archive", "plain", packed.getvalue())
    from hardnet_match.store.journal import _COMMIT, _HEAD, _PAGE_HEAD, _checksum
    from hardnet_match.training.checkpoint import FORMAT

    body = _PAGE_HEAD.pack(16, 4) + b"abcd"
    for label, zipped in (("own-zip", True), ("own-old", False)):
        content = io.BytesIO()
        state = {"format": FORMAT, "epoch": 3, "state_dict": {"a": torch.ones(2)}, "optimizer": {}, "step": 4}
        torch.save(state, content, _use_new_zipfile_serialization=zipped)
        keep("checkpoint", label, content.getvalue())
    keep("journal", "plain", _HEAD.pack(_COMMIT, 5000, 1, _checksum(_COMMIT, 5000, 1, body)) + body)
    pixels = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    tags = Image.Exif()
    tags[274] = 6
    tags.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 36.0), 5: b"\x01", 6: 12.5})
    tags.get_ifd(0x8769).update({41989: 28})
    for form in ("jpeg", "png", "tiff", "webp", "bmp"):
        content = io.BytesIO()
        Image.fromarray(pixels).convert("RGB").save(content, form, **({} if form == "bmp" else {"exif": tags}))
        keep("picture", form, content.getvalue())
        keep("exif", form, content.getvalue())
    keep("stamp", "plain", "5 1 " + 32 * "0")
    keep("stamp", "mask", "5 1 " + 32 * "0" + " -")
    image = {"d/a.jpg/keypoints": {"shape": [3, 2]}, "d/a.jpg/descriptors": {"shape": [8, 3]}, "@settings": "{}"}
    keep("features_file", "foreign", json.dumps(image))
    own = {"@format": "hardnet-match features", "@version": 1, "d/a.jpg@complete": True, "d/a.jpg@meta": "{}"}
    more = {"d/a.jpg/lafs": {"shape": [3, 2, 3]}, "d/a.jpg/scores": {"shape": [3]}, "d/a.jpg/image_size": [4, 5]}
    keep("features_file", "own", json.dumps({**image, **more, **own}))
    keep("matches_file", "foreign", json.dumps({"a/b/matches0": [0, -1, 2], "a/b/matching_scores0": [1.0, 0.0, 0.5]}))
    rows = {"track": {"shape": [2], "dtype": "i8"}, "image": {"shape": [2], "dtype": "i4"}}
    rows["scene"] = {"shape": [2], "dtype": "i4"}
    keep("patch_set", "plain", json.dumps({"patches": {"shape": [2, 32, 32], "dtype": "u1"}, **rows, "@margin": 1.5}))


def _pickle(value: Any) -> bytes:
    import pickle

    return pickle.dumps(value, 2)
