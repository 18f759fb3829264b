"""`eval homography`, `pose` and `sfm` through the real command, on rendered views with known geometry."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from benchmark_helpers import known_scene, planar_sequence
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.errors import OptionError, ReconstructionError, StoreError
from hardnet_match.images import read_image
from hardnet_match.jobs import sfm_scores
from hardnet_match.jobs.contestants import Contest, best, contestants
from hardnet_match.jobs.evaluate import ProtocolScores, QueryScores, RetrievalScores
from hardnet_match.jobs.homography import HomographyScores, HomographySummary, evaluate_homography
from hardnet_match.jobs.ledger import Ledger
from hardnet_match.jobs.score_tables import homography_tables, retrieval_tables
from hardnet_match.report.scores import Column, ScoreTable, as_html, as_markdown, as_text
from hardnet_match.sfm import ModelSummary
from hardnet_match.store import FeatureReader


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["eval", *map(str, arguments)])


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planar_sequence(tmp_path_factory.mktemp("planar"), views=3)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, rendered: dict[str, Any]) -> Path:
    return known_scene(tmp_path_factory.mktemp("scene") / "place", rendered, 4)


# Homographies


def test_homography_side_by_side_and_again(sequences: Path, tmp_path: Path) -> None:
    work, page, markdown = tmp_path / "work", tmp_path / "page.html", tmp_path / "page.md"
    asked = ["homography", sequences, "--preset", "dog-hardnet", "--peers", "sift,orb", "--keypoints", "300"]
    asked += ["--work", work, "--quiet"]
    result = run(*asked, "--json", "--html", page, "--markdown", markdown)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["pairs"], [one["label"] for one in found["scores"]]) == (2, ["dog-hardnet", "sift", "orb"])
    for one in found["scores"]:
        assert one["keypoints"] <= 300
        accuracy = list(one["accuracy"].values())
        assert len(accuracy) == 10
        assert accuracy == sorted(accuracy)
        assert 0.2 < one["accuracy"]["3"] <= 1
        assert one["correct"] == sum(pair["correct"] for pair in one["each"].values())
        assert set(one["auc"]) == {"3", "5", "10"}
        assert one["sequences"] == {"front": pytest.approx(one["accuracy"]["3"])}
    html = page.read_text(encoding="utf-8")
    assert "front 1-3" in html
    assert "://" not in html
    rows = [line for line in markdown.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert [row.split("|")[1].strip() for row in rows] == ["features", "dog-hardnet", "sift", "orb"]
    # Once more: nothing is extracted or matched again, and the figures are the same.
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    again = json.loads(run(*asked, "--json").stdout)
    assert again["scores"] == found["scores"]
    assert {
        path: path.stat().st_mtime_ns for path in work.rglob("*") if path.suffix == ".jsonl"
    }.items() <= before.items()
    text = run(*asked).stdout
    assert "MMA@3" in text
    assert len(text.splitlines()) == 5


def test_figures_of_a_pair_are_those_of_its_matches(sequences: Path, tmp_path: Path) -> None:
    """The whole way once more by OpenCV alone: SIFT, brute force, its homography."""
    options = Contest([], ["sift"], keypoints=200)
    [one] = evaluate_homography(sequences, options, method="mnn", quiet=True).scores
    images = [read_image(sequences / "front" / f"img{k}.png").pixels for k in (1, 2)]
    sift = cv2.SIFT.create(200, 3, 0.01, 10, 1.6, True)
    (k0, d0), (k1, d1) = (sift.detectAndCompute(image, None) for image in images)
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=True).match(d0[:200], d1[:200])
    first = np.array([k0[m.queryIdx].pt for m in matches])
    second = np.array([k1[m.trainIdx].pt for m in matches])
    there = cv2.perspectiveTransform(first[None], np.loadtxt(sequences / "front" / "H1to2p"))[0]
    errors = np.linalg.norm(there - second, axis=1)
    pair = one.each["front 1-2"]
    assert abs(pair["matches"] - len(matches)) <= 2  # ties
    assert pair["correct"] == pytest.approx((errors <= 3).sum(), abs=2)
    assert pair["accuracy"][4] == pytest.approx((errors <= 5).mean(), abs=0.02)


def test_another_seed_is_measured_anew_and_changed_images_too(sequences: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planar"
    shutil.copytree(sequences, folder)
    options, work = Contest([], ["orb"], keypoints=200), tmp_path / "work"
    first = evaluate_homography(folder, options, work=work, quiet=True)
    other = evaluate_homography(folder, options, work=work, seed=1, quiet=True)
    assert other.scores[0].correct == first.scores[0].correct
    assert len(list((work / "homography").rglob("orb.jsonl"))) == 2
    image = cv2.imread(str(folder / "front" / "img2.png"))
    cv2.imwrite(str(folder / "front" / "img2.png"), cv2.GaussianBlur(image, None, 3))
    assert evaluate_homography(folder, options, work=work, quiet=True).scores[0].correct < first.scores[0].correct


def test_features_of_others_come_as_a_file(sequences: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    evaluate_homography(sequences, Contest([], ["sift"], keypoints=300), work=work, quiet=True)
    # As hloc writes them: no frames, float16, no settings.
    with FeatureReader(work / "features" / "sift.h5") as ours, h5py.File(tmp_path / "hloc.h5", "w") as theirs:
        for name in ours.names():
            group, features = theirs.create_group(name), ours.read(name)
            group["keypoints"], group["scores"] = features.keypoints, features.scores
            group["descriptors"] = features.descriptors.T.astype(np.float16)
            group["image_size"] = np.array(features.image_size)
    asked = [
        "homography",
        sequences,
        "--preset",
        "none",
        "--features",
        f"theirs={tmp_path / 'hloc.h5'}",
        "--json",
        "-q",
    ]
    found = json.loads(run(*asked, "--peers", "sift", "--keypoints", "300").stdout)
    sift, theirs_score = ({k: v for k, v in one.items() if k != "label"} for one in found["scores"])
    assert sift == theirs_score
    few = json.loads(run(*asked, "--keypoints", "50").stdout)["scores"][0]
    assert few["keypoints"] == 50
    with h5py.File(tmp_path / "hloc.h5", "a") as theirs:
        del theirs["front/img3.png"]
    result = run(*asked)
    assert result.exit_code == 1
    assert "front/img3.png" in result.stderr


def test_an_unreadable_image_is_skipped_and_named(sequences: Path, tmp_path: Path) -> None:
    folder = tmp_path / "planar"
    shutil.copytree(sequences, folder)
    (folder / "front" / "img3.png").write_bytes(b"no picture")
    result = run("homography", folder, "--preset", "none", "--peers", "orb", "--keypoints", "100", "--quiet")
    assert result.exit_code == 3
    assert "1 pair\n" in result.stdout
    assert "front/img3.png" in result.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--preset", "sift-hardnet"], "sift-hardnet"),
        (["--peers", "surf"], "surf"),
        (["--peers", "orb,orb"], "each once"),
        (["--peers", "kornia-keynetaffnet-hardnet"], "--detector-weights"),
        (["--features", "mine"], "LABEL=FILE"),
        (["--features", "mine=no.h5"], "no.h5"),
        (["--features", "../mine=no.h5"], "no.h5"),
        (["--method", "nearest"], "nearest"),
        (["--ratio", "0"], "ratio"),
        (["--estimator", "lmeds"], "lmeds"),
        (["--threshold", "0"], "above 0"),
        (["--max-size", "5"], "16 pixels"),
        (["--work", "no/where"], "no/where"),
        (["--html", "no/where.html"], "no"),
        (["--preset", "none"], "none"),
    ],
)
def test_wrong_usage_is_told_in_a_line(sequences: Path, words: list[str], told: str) -> None:
    result = run("homography", sequences, *words)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert result.stderr.count("\n") == 1


def test_labels_name_files(tmp_path: Path) -> None:
    (tmp_path / "f.h5").write_bytes(b"")
    with pytest.raises(OptionError, match="slashes"):
        contestants(Contest([], files={"../f": tmp_path / "f.h5"}))
    with pytest.raises(StoreError):
        evaluate_homography(planar_sequence(tmp_path / "p"), Contest([], files={"f": tmp_path / "f.h5"}), quiet=True)


def test_weights_are_for_those_that_have_some() -> None:
    ours = contestants(Contest(["hesaffnet-rootsift", "dog-hardnet"], weights="hardnet-bundled"))
    assert [one.source.composition.descriptor for one in ours] == ["rootsift", "hardnet"]


# Poses


def test_poses_of_known_cameras(scene: Path, tmp_path: Path) -> None:
    pytest.importorskip("poselib")
    asked = [
        "pose",
        scene,
        "--preset",
        "dog-hardnet",
        "--peers",
        "sift",
        "--keypoints",
        "400",
        "--work",
        tmp_path / "w",
    ]
    result = run(*asked, "--json", "--quiet", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["images"], found["pairs"]) == (4, 6)
    assert found["settings"]["estimators"] == ["magsac", "poselib"]
    for one in found["scores"]:
        neighbours = one["each"]["view_000.jpg view_001.jpg"]
        assert neighbours["precision"] > 0.5
        for estimator in ("magsac", "poselib"):
            assert neighbours["errors"][estimator][2] < 3
            assert 0 < one["auc"][estimator]["5"] <= one["auc"][estimator]["20"] <= 1
    again = json.loads(run(*asked, "--json", "--quiet").stdout)
    assert again["scores"] == found["scores"]
    assert "view_000.jpg view_001.jpg" in (tmp_path / "page.html").read_text(encoding="utf-8")
    (tmp_path / "pairs.txt").write_text("view_000.jpg view_001.jpg\n")
    few = json.loads(run(*asked, "--json", "--quiet", "--pairs", tmp_path / "pairs.txt").stdout)
    assert few["pairs"] == 1
    for pairs, told in (("view_000.jpg other.jpg", "other.jpg"), ("", "no pair")):
        (tmp_path / "pairs.txt").write_text(pairs)
        result = run(*asked, "--pairs", tmp_path / "pairs.txt")
        assert result.exit_code == 1
        assert told in result.stderr


def test_two_cameras_in_one_place_have_no_direction(scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "place"
    shutil.copytree(scene, folder)
    rows = (folder / "poses.txt").read_text().splitlines()
    rows[1] = " ".join([rows[1].split()[0], *rows[0].split()[1:]])
    (folder / "poses.txt").write_text("\n".join(rows))
    result = run("pose", folder, "--preset", "none", "--peers", "orb")
    assert result.exit_code == 1
    assert "one place" in result.stderr


# Reconstructions


@pytest.mark.slow
def test_reconstructions_against_known_cameras(scene: Path, tmp_path: Path) -> None:
    asked = [
        "sfm",
        scene,
        "--preset",
        "none",
        "--peers",
        "sift,orb",
        "--keypoints",
        "600",
        "--work",
        tmp_path / "w",
    ]
    result = run(*asked, "--json", "--quiet", "--html", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["images"] == 4
    for one in found["scores"][:2]:
        assert one["registered"] >= 3
        assert one["points"] > 50
        assert 2 <= one["track_length"] <= 4
        assert one["reprojection_error"] < 1.5
        assert one["cameras"]["rotation_median_degrees"] < 3
    again = run(*asked, "--json", "--quiet")
    assert json.loads(again.stdout)["scores"] == found["scores"]
    # Other features: other matches and another model, not the earlier ones' or an error.
    more = json.loads(run(*asked, "--json", "--quiet", "--keypoints", "500").stdout)
    assert more["scores"][0]["keypoints"] <= 500
    assert "rotation" in run(*asked).stdout
    thrice = json.loads(run(*asked, "--json", "--quiet", "--repeats", "3").stdout)["scores"][0]
    assert len(thrice["runs"]) == 3
    assert thrice["runs"][1] == [thrice["registered"], thrice["points"]]
    assert "most points" in run(*asked, "--repeats", "3").stdout


@pytest.mark.parametrize(
    ("points", "taken"),
    [((50, 70, 60), 60), ((80, None, 70), 70), ((None, None, 70), None), ((90, 60), 60)],
)
def test_the_mapping_in_the_middle_counts(
    points: tuple[int | None, ...], taken: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reconstruct(_: Path, __: Path, out: Path, ___: str, *, seed: int, overwrite: bool) -> list[ModelSummary]:
        assert overwrite
        found = points[seed - 3]
        if found is None:
            raise ReconstructionError("no model")
        (out / "0").mkdir(parents=True)
        (out / "0" / "points").write_text(str(found))
        return [ModelSummary(str(out / "0"), ("a", "b"), (), found, 2 * found, 2.0, 0.5)]

    monkeypatch.setattr(sfm_scores, "reconstruct", reconstruct)
    out = tmp_path / "sparse"
    (out / "0").mkdir(parents=True)  # an earlier run's, which has to go
    terms = {"mapper": "incremental", "seed": 3, "repeats": len(points)}
    models, runs = sfm_scores._mapped("mine", tmp_path / "d.db", tmp_path, out, terms)
    assert [model.points for model in models] == ([] if taken is None else [taken])
    assert sorted(runs) == runs
    assert len(runs) == len(points)
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ([] if taken is None else ["sparse"])
    assert taken is None or (out / "0" / "points").read_text() == str(taken)


def test_photos_that_make_no_model_are_a_row_of_zeros(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 255, (96, 128), np.uint8))
    result = run("sfm", tmp_path, "--preset", "none", "--peers", "orb", "--json", "--quiet")
    assert result.exit_code == 0, result.output
    [one] = json.loads(result.stdout)["scores"]
    assert (one["models"], one["registered"], one["points"], one["cameras"]) == (0, 0, 0, None)
    (tmp_path / "1.png").unlink()
    result = run("sfm", tmp_path, "--preset", "none", "--peers", "orb")
    assert result.exit_code == 2
    assert "two images" in result.stderr
    with pytest.raises(OptionError, match="repeats"):
        sfm_scores.evaluate_sfm(tmp_path, repeats=0)


# What they share


def test_a_ledger_goes_on_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    first = Ledger(path, {"a": 1})
    first.add("x", {"value": 1})
    first.add("y", {"value": 2})
    with path.open("a") as file:
        file.write('{"key": "z", "val')  # killed while writing
    second = Ledger(path, {"a": 1})
    assert second.figures == {"x": {"value": 1}, "y": {"value": 2}}
    second.add("z", {"value": 3})
    assert Ledger(path, {"a": 1}).figures.keys() == {"x", "y", "z"}
    assert Ledger(path, {"a": 2}).figures == {}
    assert Ledger(path, {"a": 1}).figures == {}  # begun anew by the line above
    path.write_bytes(b"\xff\xfe nothing")
    assert Ledger(path, {"a": 1}).figures == {}


def test_the_best_features_stay_in_their_order(sequences: Path) -> None:
    from hardnet_match.benchmark.peers import make_peer

    image = cv2.imread(str(sequences / "front" / "img1.png"), cv2.IMREAD_GRAYSCALE)
    features = make_peer("sift", 100).extract(image)
    few = best(features, 30)
    assert len(few) == 30
    assert few.scores.min() >= np.sort(features.scores)[-30]
    places = [int(np.flatnonzero((features.lafs == laf).all(axis=(1, 2)))[0]) for laf in few.lafs]
    assert places == sorted(places)
    assert best(features, 100) is features


def test_hpatches_sequences_are_told_apart_by_what_changes() -> None:
    def scores(label: str, **sequences: float) -> HomographyScores:
        each = {name: {"correct": 3} for name in sequences}
        return HomographyScores(
            label, 3, 9, 9, 9, dict.fromkeys(range(1, 11), 0.5), 0.1, 0.1, {3: 0.1}, sequences, each
        )

    both = [scores("a", i_x=0.5, v_y=0.25, v_z=0.75), scores("b", i_x=0.25, v_y=0.0, v_z=0.0)]
    tables = homography_tables(HomographySummary("f", 3, {}, both, 1.0))
    assert [column.name for column in tables[1].columns] == ["illumination", "viewpoint"]
    assert tables[1].rows == {"a": [0.5, 0.5], "b": [0.25, 0.0]}
    many = [scores("a", **{f"s{k}": 0.5 for k in range(40)})]
    assert len(homography_tables(HomographySummary("f", 40, {}, many, 1.0))) == 2


def test_retrieval_as_tables() -> None:
    queries = [QueryScores("a.jpg", {"easy": 0.5, "hard": None}, {}, 9, 0.1)]
    protocols = {"easy": ProtocolScores(0.5, {1: 1.0, 5: None}, 1), "hard": ProtocolScores(None, {1: None, 5: None}, 0)}
    scores = RetrievalScores("i", "g", "k", "asmk", 1200, 0, False, protocols, 0.1, [], queries)
    means, by_query = retrieval_tables(scores)
    assert as_text(means).splitlines()[1].split() == ["easy", "1", "50.00", "100.00", "-"]
    assert as_text(means).splitlines()[2].split() == ["hard", "0", "-", "-", "-"]
    assert as_text(by_query).splitlines()[1].split() == ["1.", "a.jpg", "50.00", "-"]


def test_tables_mark_the_best() -> None:
    columns = (Column("size", 0, None), Column("good", 1, share=True), Column("bad px", 2, False), Column("same", 0))
    rows = {"a": (2000, 0.5, 1.004, 7), "b <x>": (10, 0.5004, None, 7), "c": (3, 0.25, 1.21, 7)}
    table = ScoreTable("All", columns, rows)
    assert table.best() == {("a", 1), ("b <x>", 1), ("a", 2)}  # equal as shown
    assert as_markdown(table).splitlines()[2] == "| a | 2,000 | **50.0** | **1.00** | 7 |"
    assert as_text(table).splitlines()[0].split() == ["features", "size", "good", "bad", "px", "same"]
    html = as_html(table)
    assert "b &lt;x&gt;" in html
    assert html.count('class="best"') == 3
