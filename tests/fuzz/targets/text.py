"""Files of lines, numbers and words."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .registry import SEEDS, target, written


@target
def pairs(data: bytes, place: Path) -> None:
    from hardnet_match.store import read_pairs, write_pairs

    found = read_pairs(written(place, data))
    assert all(a != b for a, b in found)
    write_pairs(place / "again", found)
    assert read_pairs(place / "again") == found


@target
def oxford_regions(data: bytes, place: Path) -> None:
    from hardnet_match.frames import read_oxford

    lafs = read_oxford(written(place, data))
    assert lafs.shape[1:] == (2, 3)
    assert np.isfinite(lafs).all()


@target
def bundler(data: bytes, place: Path) -> None:
    from hardnet_match.sfm.compare import read_bundler_cameras

    for rotation, translation in read_bundler_cameras(written(place, data), ["a", "b"]).values():
        assert np.isfinite(rotation).all()
        assert np.isfinite(translation).all()


@target
def recipe(data: bytes, place: Path) -> None:
    from hardnet_match.training import recipe as recipes

    found = recipes.read(written(place, data, "r.toml"))
    written(place, recipes.to_toml(found).encode(), "again.toml")
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
    written(place, info, "set/info.txt")
    if interest:
        written(place, interest, "set/interest.txt")
    if pairs_text:
        written(place, pairs_text, f"set/{TEST_PAIRS}")
    written(place, b"BM", "set/patches0000.bmp")
    found = Brown(place / "set")
    found.matches()
    found.read(found.pieces()[0])


@target
def classic_ground_truth(data: bytes, place: Path) -> None:
    from hardnet_match.retrieval.ground_truth import read_ground_truth

    for part, text in zip(("query", "good", "ok", "junk"), (data.split(b"\0") + [b""] * 4)[:4], strict=True):
        written(place, text, f"truth/q_1_{part}.txt")
    read_ground_truth(place / "truth")


@target
def hpatches_tasks(data: bytes, place: Path) -> None:
    from hardnet_match.metrics.hpatches import read_tasks

    table, _, places = data.partition(b"\0")
    for name in ("verif_pos", "verif_neg_intra", "verif_neg_inter"):
        written(place, table, f"tasks/{name}_split-a.csv")
    for name in ("retr_queries", "retr_distractors"):
        written(place, places, f"tasks/{name}_split-a.csv")
    read_tasks(place / "tasks", "a")


@target
def hpatches_descriptors(data: bytes, place: Path) -> None:
    from hardnet_match.jobs.hpatches import _read

    written(place, data, "seq/ref.csv")
    assert np.isfinite(_read(place / "seq", "ref")).all()


@target
def hpatches_npy(data: bytes, place: Path) -> None:
    from hardnet_match.jobs.hpatches import _read

    written(place, data, "seq/ref.npy")
    assert np.isfinite(_read(place / "seq", "ref")).all()


@target
def logs(data: bytes, place: Path) -> None:
    from hardnet_match.training.logs import REPORTS, RunLog, read_rows

    rows = read_rows(written(place, data, REPORTS))
    log = RunLog(place, 10**9, tensorboard=False)
    log.close()
    assert len(read_rows(place / REPORTS)) <= len(rows)


@target
def text_features(data: bytes, place: Path) -> None:
    from hardnet_match.plugins.colmap.text import read_text_features

    lafs, descriptors = read_text_features(written(place, data))
    assert len(lafs) == len(descriptors)
    assert np.isfinite(lafs).all()


@target
def match_list(data: bytes, place: Path) -> None:
    from hardnet_match.plugins.colmap.text import _blocks

    for _, _, rows in _blocks(written(place, data)):
        assert rows.shape[1] == 2


@target
def homography(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.sequences import _matrix

    assert np.isfinite(_matrix(written(place, data))).all()


@target
def scene_texts(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.scenes import INTRINSICS, POSES, read_scene

    intrinsics, _, poses = data.partition(b"\0")
    written(place, intrinsics, f"known/{INTRINSICS}")
    written(place, poses, f"known/{POSES}")
    for name in ("a.jpg", "b.jpg"):
        written(place, b"photo", f"photos/{name}")
    read_scene(place / "photos", place / "known")


@target
def scene_bundler(data: bytes, place: Path) -> None:
    from hardnet_match.benchmark.scenes import read_scene

    bundle, _, listed = data.partition(b"\0")
    written(place, bundle, "known/bundle.out")
    written(place, listed, "known/list.txt")
    for name in ("a.jpg", "b.jpg"):
        written(place, (SEEDS / "picture" / "jpeg").read_bytes(), f"photos/{name}")
    read_scene(place / "photos", place / "known" / "bundle.out")


@target
def ledger(data: bytes, place: Path) -> None:
    from hardnet_match.jobs.ledger import Ledger

    path = written(place, data, "l.jsonl")
    book = Ledger(path, 1)
    book.add("key", {"x": 1.0})
    assert Ledger(path, 1).figures["key"] == {"x": 1.0}


@target
def shard(data: bytes, place: Path) -> None:
    from hardnet_match.store import Shard

    found = Shard.parse(data.decode("utf-8", "replace"))
    assert 0 <= found.index < found.of
    assert Shard.parse(str(found)) == found
