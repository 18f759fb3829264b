"""Index, search, eval and pairs by retrieval through the real command line, on pictures of three rendered places."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.retrieval.index import Index
from hardnet_match.store import FeatureReader, FeatureWriter, read_pairs
from hardnet_match.world import World

PLACES, VIEWS = ("east", "north", "west"), 3
NAMES = [f"{place}/{view}.png" for place in PLACES for view in range(VIEWS)]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, list(map(str, arguments)))


def good(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def told(*arguments: str | Path) -> Any:
    return json.loads(good(*arguments, "--json", "--quiet"))


def refused(code: int, *arguments: str | Path) -> str:
    """The one line on stderr of a command that fails with this code."""
    result = run(*arguments, "--quiet")
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("hardnet-match: error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos/` of three rendered places, `features.h5` and `index/` made of them by the command line."""
    folder = tmp_path_factory.mktemp("places")
    for seed, name in enumerate(PLACES, 1):
        (folder / "photos" / name).mkdir(parents=True)
        for number, view in enumerate(World(seed=seed).render(VIEWS, (240, 180))):
            pixels = cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(folder / "photos" / name / f"{number}.png"), pixels)
    photos, features = folder / "photos", folder / "features.h5"
    good("extract", photos, "-o", features, "--max-keypoints", "250", "--precision", "float32", "--quiet")
    summary = told("index", features, "-o", folder / "index", "--images", photos, "--words", "400")
    assert (summary["images"], summary["added"], summary["method"]) == (9, 9, "asmk")
    assert summary["codebook"]["words"] == 400
    assert summary["bytes"] > summary["bytes_per_image"] * 9 > 0
    return folder


def same_place(results: Sequence[dict[str, Any]], place: str, count: int) -> bool:
    return all(result["image"].startswith(f"{place}/") for result in results[:count])


def test_every_photo_finds_its_place(place: Path) -> None:
    for name in NAMES:
        answer = told("search", place / "index", name, "--verify", "9")
        assert answer.keys() == {"query", "results"}
        assert answer["query"] == name
        assert name not in [result["image"] for result in answer["results"]]
        assert same_place(answer["results"], name.partition("/")[0], VIEWS - 1)
        assert all(result.keys() == {"image", "score", "inliers"} for result in answer["results"])
        inliers = [result["inliers"] for result in answer["results"]]
        assert inliers[:2] == sorted(inliers[:2], reverse=True)
        assert inliers[1] >= 5


def test_a_photo_is_described_as_the_index_was(place: Path) -> None:
    """The file itself comes first, with the score of its stored features: the very same features were made."""
    path = place / "photos" / "north" / "1.png"
    answer = told("search", place / "index", path, "--top", "3")
    assert answer["results"][0]["image"] == "north/1.png"
    assert same_place(answer["results"], "north", 3)
    assert all(result["inliers"] is None for result in answer["results"])
    index = Index.open(place / "index")
    with FeatureReader(place / "features.h5") as reader:
        ranking = index.rank(reader.read("north/1.png"), 3)
    np.testing.assert_allclose([result["score"] for result in answer["results"]], ranking.scores, rtol=1e-6)


def test_a_box_asks_for_what_is_inside(place: Path, tmp_path: Path) -> None:
    """Two places in one picture: the box decides which is found."""
    east, west = (cv2.imread(str(place / "photos" / name / "1.png")) for name in ("east", "west"))
    cv2.imwrite(str(tmp_path / "both.png"), np.hstack([east, west]))
    for box, name in ((("0", "0", "240", "180"), "east"), (("240", "0", "480", "180"), "west")):
        answer = told("search", place / "index", tmp_path / "both.png", "--box", *box, "--verify", "9")
        assert same_place(answer["results"], name, VIEWS)
    stored = told("search", place / "index", "west/1.png", "--box", "60", "0", "240", "180", "--verify", "9")
    assert same_place(stored["results"], "west", VIEWS - 1)


def test_the_page(place: Path, tmp_path: Path) -> None:
    page = tmp_path / "found.html"
    out = good("search", place / "index", "east/0.png", "--top", "4", "--html", page)
    assert str(page) in out
    html = page.read_text(encoding="utf-8")
    assert html.count("<li ") == 4
    assert html.count("<section ") >= 2  # the two other views were verified, and are drawn
    assert html.count("data:image/jpeg") == 1 + 4 + html.count("<section ")
    assert "east/1.png" in html
    # Nobody says where the photos are: they lie around the query.
    sources = place / "index" / "sources.json"
    before = sources.read_text()
    try:
        sources.unlink()
        good("search", place / "index", place / "photos" / "east" / "0.png", "--top", "4", "--html", page)
        assert "not at hand" not in page.read_text(encoding="utf-8")
        copied = tmp_path / "alone.png"
        shutil.copy(place / "photos" / "east" / "0.png", copied)
        good("search", place / "index", copied, "--top", "4", "--html", page)
        assert "4 of 4 photos were not at hand; --images" in page.read_text(encoding="utf-8")
    finally:
        sources.write_text(before)


def test_eval_of_groups(place: Path) -> None:
    scores = told("eval", "retrieval", place / "index", "--ground-truth", place / "photos")
    assert scores["kind"] == "groups"
    assert scores["protocols"]["groups"] == {"map": 1.0, "precision": {"1": 1.0, "5": 1.0, "10": 1.0}, "queries": 9}
    assert len(scores["queries"]) == 9
    without = told(
        "eval",
        "retrieval",
        place / "index",
        "--ground-truth",
        place / "photos",
        "--distractors",
        "west",
        "--verify",
        "5",
    )
    assert without["protocols"]["groups"]["queries"] == 6
    words = good("eval", "retrieval", place / "index", "--ground-truth", place / "photos", "--quiet")
    assert "mAP 100.00  mP@1 100.00" in words


def test_eval_of_the_benchmarks_forms(place: Path, tmp_path: Path) -> None:
    """A folder of lists and a pickle that say something false score as what they are."""
    truth = tmp_path / "gt"
    truth.mkdir()
    (truth / "q_query.txt").write_text("oxc1_east/0 10 10 230 170\n")
    # east/1 and west/0 are sought; east/2 is junk. Found: east/1 first, west/0 somewhere behind.
    for part, names in (("good", ["east/1"]), ("ok", ["west/0"]), ("junk", ["east/2"])):
        (truth / f"q_{part}.txt").write_text("\n".join(names))
    scores = told("eval", "retrieval", place / "index", "--ground-truth", truth)
    assert scores["kind"] == "classic"
    [row] = scores["queries"]
    answer = told("search", place / "index", place / "photos" / "east" / "0.png", "--box", "10", "10", "230", "170")
    ranking = [result["image"] for result in answer["results"] if result["image"] not in ("east/0.png", "east/2.png")]
    assert ranking[0] == "east/1.png"
    rank = ranking.index("west/0.png")  # 0-based
    expected = (1 + (1 / rank + 2 / (rank + 1)) / 2) / 2
    assert row["average_precision"]["classic"] == pytest.approx(expected)
    assert row["precision"]["classic"]["1"] == 1

    pickled = tmp_path / "gnd.pkl"
    content = {
        "imlist": [name[:-4] for name in NAMES[1:]],
        "qimlist": ["east/0"],
        "gnd": [{"bbx": [0, 0, 240, 180], "easy": [0], "hard": [1], "junk": [2]}],
    }
    pickled.write_bytes(pickle.dumps(content, protocol=2))
    scores = told("eval", "retrieval", place / "index", "--ground-truth", pickled)
    assert {name: found["map"] for name, found in scores["protocols"].items()} == {"easy": 1, "medium": 1, "hard": 1}


def test_eval_counts_what_is_missing(place: Path, tmp_path: Path) -> None:
    rows = [
        {"image": "east/0", "positives": ["east/1", "east/9"]},
        {"image": "south/0", "positives": ["east/1"]},
    ]
    (tmp_path / "truth.json").write_text(json.dumps({"queries": rows}))
    result = run(
        "eval", "retrieval", place / "index", "--ground-truth", tmp_path / "truth.json", "--verify", "9", "--json"
    )
    assert result.exit_code == 3
    scores = json.loads(result.stdout)
    assert scores["missing"] == ["east/9"]
    assert list(scores["skipped"]) == ["south/0"]
    assert scores["protocols"]["json"]["map"] == pytest.approx((0.5 + 0) / 2)
    assert "1 images of the ground truth are not in the index" in result.stderr


def test_eval_without_positives_is_no_figure(place: Path, tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text(json.dumps({"queries": [{"image": "east/0", "easy": [], "hard": ["east/1"]}]}))
    scores = told("eval", "retrieval", place / "index", "--ground-truth", tmp_path / "truth.json", "--verify", "9")
    assert scores["protocols"]["easy"] == {"map": None, "precision": {"1": None, "5": None, "10": None}, "queries": 0}
    assert scores["protocols"]["hard"]["map"] == 1
    words = good("eval", "retrieval", place / "index", "--ground-truth", tmp_path / "truth.json", "--quiet")
    assert "easy     mAP -  mP@1 -" in words


def test_pairs_by_retrieval(place: Path, tmp_path: Path) -> None:
    """From the features file, words trained on the fly; from the index, its own."""
    expected = {frozenset((a, b)) for a in NAMES for b in NAMES if a < b and a[0] == b[0]}
    for source in ("features.h5", "index"):
        out = tmp_path / f"{source}.txt"
        summary = told("pairs", place / source, "-o", out, "--mode", "retrieval", "--top", "2", "--words", "300")
        assert summary == {"pairs_file": str(out), "mode": "retrieval", "images": 9, "pairs": 9, "skipped": {}}
        assert {frozenset(pair) for pair in read_pairs(out)} == expected
    assert "folder of images" in refused(2, "pairs", place / "features.h5", "-o", tmp_path / "p.txt")


def test_other_methods(place: Path, tmp_path: Path) -> None:
    for method, parameter in (("bow", None), ("hqe", "expand=false")):
        extra = ["--parameter", parameter] if parameter else []
        index = tmp_path / method
        told("index", place / "features.h5", "-o", index, "--codebook", place / "index", "--method", method, *extra)
        scores = told("eval", "retrieval", index, "--ground-truth", place / "photos", "--verify", "9")
        assert scores["method"] == method
        assert scores["protocols"]["groups"]["map"] == 1


# What an index cannot do, and what is not lost
# --------------------------------------------------------------------------------------------------------------------


def random_features(rng: np.random.Generator, count: int) -> Features:
    xy = rng.uniform(0, 100, (count, 2))
    descriptors = rng.normal(size=(count, 128)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    lafs = make_lafs(xy, rng.uniform(5, 20, count), np.zeros(count))
    return Features(lafs, np.ones(count, np.float32), descriptors, (100, 100))


def write_features(path: Path, counts: Sequence[int], seed: int = 0, **settings: Any) -> Path:
    rng = np.random.default_rng(seed)
    with FeatureWriter(path, {"descriptor": "any", **settings}, buffer=len(counts) or 1) as writer:
        for number, count in enumerate(counts):
            writer.write(f"{path.stem}/{number:03d}.jpg", random_features(rng, count))
    return path


def test_adding_leaves_what_is_there(tmp_path: Path) -> None:
    first, second = (write_features(tmp_path / f"{name}.h5", [60] * 4, seed) for seed, name in enumerate("ab"))
    index = tmp_path / "index"
    told("index", first, "-o", index, "--words", "16")
    before = told("search", index, "a/000.jpg")
    summary = told("index", second, "-o", index)
    assert (summary["images"], summary["added"], summary["reused"]) == (8, 4, 0)
    assert told("index", second, "-o", index)["reused"] == 4
    assert Index.open(index).names == [f"{name}/{number:03d}.jpg" for name in "ab" for number in range(4)]
    assert {result["image"] for result in before["results"]} <= {
        result["image"] for result in told("search", index, "a/000.jpg")["results"]
    }
    assert "b/001.jpg" not in [result["image"] for result in told("search", index, "b/001.jpg")["results"]]
    fresh = told("index", second, "-o", index, "--overwrite", "--words", "8")
    assert (fresh["images"], fresh["codebook"]["words"]) == (4, 8)


def test_fewer_words_than_asked_for_are_said(tmp_path: Path) -> None:
    features = write_features(tmp_path / "a.h5", [50, 0, 50])
    result = run("index", features, "-o", tmp_path / "index", "--json")
    assert result.exit_code == 0
    assert "65536 words need 262144 descriptors or more, there are 100: training 16 words" in result.stderr
    summary = json.loads(result.stdout)
    assert (summary["codebook"]["words"], summary["images"], summary["bare"]) == (16, 3, 1)


def test_options_that_contradict_an_index(tmp_path: Path) -> None:
    features = write_features(tmp_path / "a.h5", [50] * 3)
    index = tmp_path / "index"
    told("index", features, "-o", index, "--words", "8", "--parameter", "alpha=2.5")
    assert "asmk, not for bow" in refused(2, "index", features, "-o", index, "--method", "bow")
    assert "alpha = 2.5, not 3" in refused(2, "index", features, "-o", index, "--parameter", "alpha=3")
    assert "no parameter beta" in refused(2, "index", features, "-o", tmp_path / "i", "--parameter", "beta=3")
    assert "NAME=VALUE" in refused(2, "index", features, "-o", tmp_path / "i", "--parameter", "alpha")
    assert "'vlad' is unknown" in refused(2, "index", features, "-o", tmp_path / "i", "--method", "vlad")
    assert "no codebook" in refused(1, "index", features, "-o", tmp_path / "i", "--codebook", tmp_path)
    told("index", features, "-o", tmp_path / "other", "--words", "7")
    assert "another codebook" in refused(2, "index", features, "-o", index, "--codebook", tmp_path / "other")
    assert not (tmp_path / "i").exists()


def test_empty_and_foreign_features(tmp_path: Path) -> None:
    index = tmp_path / "index"
    assert "no images in it" in refused(1, "index", write_features(tmp_path / "none.h5", []), "-o", index)
    assert "not one feature" in refused(1, "index", write_features(tmp_path / "bare.h5", [0, 0]), "-o", index)
    assert not index.exists()
    told("index", write_features(tmp_path / "a.h5", [50] * 3, weights="aaa"), "-o", index, "--words", "8")
    foreign = write_features(tmp_path / "b.h5", [50] * 3, weights="bbb")
    assert "'aaa' -> 'bbb'" in refused(1, "index", foreign, "-o", index)
    assert "'aaa' -> 'bbb'" in refused(1, "index", foreign, "-o", tmp_path / "other", "--codebook", index)
    assert len(Index.open(index)) == 3
    assert not (tmp_path / "other").exists()


def test_queries_that_cannot_be_asked(place: Path, tmp_path: Path) -> None:
    index = place / "index"
    message = refused(2, "search", index, "east/7.png")
    assert "neither a photo nor an image" in message
    assert "east/" in message.partition("like it")[2]
    (tmp_path / "text.png").write_text("no picture")
    assert "text.png" in refused(1, "search", index, tmp_path / "text.png")
    cv2.imwrite(str(tmp_path / "plain.png"), np.full((90, 120), 128, np.uint8))
    assert "no features found" in refused(1, "search", index, tmp_path / "plain.png")
    query = place / "photos" / NAMES[0]
    assert "240x180" in refused(2, "search", index, query, "--box", "300", "0", "400", "50")
    assert "no index there" in refused(1, "search", tmp_path, query)
    assert "folder" in refused(2, "search", index, query, "--html", tmp_path)


def test_an_index_of_unknown_making_asks_by_name_only(tmp_path: Path) -> None:
    """Features of another program cannot be made of a photo; those of foreign weights need the weights."""
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8))
    index = tmp_path / "index"
    told("index", write_features(tmp_path / "a.h5", [50] * 3), "-o", index, "--words", "8")
    assert "does not say how" in refused(1, "search", index, photo)
    assert told("search", index, "a/000.jpg")["results"]
    (tmp_path / "a.h5").rename(tmp_path / "moved.h5")
    assert "--features" in refused(1, "search", index, "a/000.jpg")
    assert told("search", index, "a/000.jpg", "--features", tmp_path / "moved.h5")["results"]

    own = {"detector": "hessian", "shape": "none", "orientation": "upright", "max_keypoints": 9, "precision": "float32"}
    weights = {"descriptor": "0123456789abcdef"}
    lost = write_features(tmp_path / "b.h5", [50] * 3, **{**own, "descriptor": "hardnet", "weights": weights})
    told("index", lost, "-o", tmp_path / "lost", "--words", "8")
    assert "0123456789abcdef" in refused(2, "search", tmp_path / "lost", photo)


def test_features_are_found_in_every_file_that_the_index_took(tmp_path: Path) -> None:
    """Also where files differ in what may differ: how many keypoints there are, and what descriptors are kept as."""
    old = write_features(tmp_path / "a.h5", [50] * 3, max_keypoints=50)
    new = write_features(tmp_path / "b.h5", [40] * 3, seed=1, max_keypoints=40, store="float16")
    index = tmp_path / "index"
    for file in (old, new):
        told("index", file, "-o", index, *(["--words", "8"] if file == old else []))
    for name in ("a/000.jpg", "b/000.jpg"):
        assert told("search", index, name)["results"]
    new.unlink()
    write_features(new, [40] * 3, seed=1, descriptor="another")  # made anew, of what the words are not for
    assert "in no file at hand" in refused(1, "search", index, "b/000.jpg")


def test_a_truncated_index_is_named(tmp_path: Path) -> None:
    index = tmp_path / "index"
    told("index", write_features(tmp_path / "a.h5", [50] * 3), "-o", index, "--words", "8")
    for file in sorted(index.rglob("*.npy")):
        content = file.read_bytes()
        file.write_bytes(content[:-8])
        assert file.name in refused(1, "search", index, "a/000.jpg")
        file.write_bytes(content)
    assert told("search", index, "a/000.jpg")["results"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_stopped_while_it_writes(tmp_path: Path, how: signal.Signals) -> None:
    """Stopped after some commits, the index is whole, and the same command finishes it to what it would have been."""
    features = write_features(tmp_path / "a.h5", [400] * 60)
    told("index", features, "-o", tmp_path / "whole", "--words", "64")
    index = tmp_path / "index"
    arguments = ["hardnet-match", "index", str(features), "-o", str(index), "--codebook", str(tmp_path / "whole")]
    code = (
        "import sys, time\n"
        "import hardnet_match.jobs.index as job\n"
        "from hardnet_match.retrieval.index import Index\n"
        "job.COMMIT_SECONDS = 0\n"
        "add = Index.add\n"
        "Index.add = lambda *given: (time.sleep(0.02), add(*given))[1]\n"
        f"sys.argv = {arguments!r}\n"
        "from hardnet_match.cli import main\n"
        "main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while len(list(index.glob("segments/*"))) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(how)
        process.wait(30)
    assert process.returncode == (-how if how == signal.SIGKILL else 130)
    kept = len(Index.open(index))
    assert 0 < kept < 60
    summary = told("index", features, "-o", index)
    assert (summary["images"], summary["reused"]) == (60, kept)
    first, second = (told("search", tmp_path / name, "a/010.jpg", "--top", "60") for name in ("index", "whole"))
    assert first == second
