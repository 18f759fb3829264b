"""Stages that are reused and those that are not; a database that is there whole or not at all; the demo's scene."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardnet_match.errors import OptionError, ReconstructionError
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.jobs import database as database_job
from hardnet_match.jobs import demo as demo_job
from hardnet_match.jobs import reconstruct as job
from hardnet_match.jobs.database import make_database
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.jobs.match import match_features
from hardnet_match.jobs.reconstruct import reconstruct_folder
from hardnet_match.jobs.stages import Stages, fingerprint
from hardnet_match.sfm import summarise
from hardnet_match.sfm.inliers import inlier_matches, verified_pairs
from hardnet_match.store import read_pairs

FAST: dict[str, Any] = {"orientation": "upright", "max_keypoints": 400, "device": "cpu"}


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_preset("dog-rootsift", **FAST)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, rendered: dict[str, Any], extractor: FeatureExtractor) -> Path:
    """A folder with photos, features and matches; for reading."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "photos").mkdir()
    for i in range(4):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", folder / "photos")
    extract_folder(folder / "photos", folder / "features.h5", extractor, quiet=True)
    match_features(folder / "features.h5", folder / "matches.h5", device="cpu", quiet=True)
    return folder


def test_a_stage_is_reused_from_the_same_input_only(tmp_path: Path) -> None:
    record = tmp_path / "stages.json"
    stages = Stages(record, fresh=False)
    assert stages.result("map", "abc") is None
    stages.record("map", "abc", {"points": 5})
    again = Stages(record, fresh=False)
    assert again.result("map", "other") is None
    assert again.reused == []
    assert again.result("map", "abc") == {"points": 5}
    assert again.reused == ["map"]
    assert Stages(record, fresh=True).result("map", "abc") is None


@given(st.text(max_size=30))
def test_a_damaged_record_is_no_record(text: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "stages.json"
        record.write_text(text, encoding="utf-8")
        assert Stages(record, fresh=False).result("map", "abc") is None


def test_time_is_counted_even_when_a_stage_fails(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "stages.json", fresh=True)
    with pytest.raises(ValueError), stages.timed("map"):
        raise ValueError
    assert stages.seconds["map"] >= 0
    assert fingerprint("a", ["b"]) == fingerprint("a", ["b"]) != fingerprint("a", ["c"])


def test_database_and_its_inliers(made: Path, tmp_path: Path) -> None:
    summary = make_database(
        made / "features.h5", made / "matches.h5", made / "photos", tmp_path / "d.db", verified=True
    )
    assert (summary.images, summary.pairs, summary.descriptors) == (4, 6, "written")
    pairs = verified_pairs(tmp_path / "d.db")
    assert len(pairs) == summary.verified_pairs > 0
    assert sum(count for *_, count in pairs) == summary.inliers
    assert [count for *_, count in pairs] == sorted((count for *_, count in pairs), reverse=True)
    first, second, count = pairs[0]
    inliers = inlier_matches(tmp_path / "d.db", first, second)
    assert inliers.shape == (count, 2)
    assert inlier_matches(tmp_path / "d.db", second, first).tolist() == inliers[:, ::-1].tolist()
    with pytest.raises(ReconstructionError, match="nobody"):
        inlier_matches(tmp_path / "d.db", first, "nobody.jpg")


def test_interrupted_verification_leaves_no_database(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(path: Path) -> None:
        assert path.is_file()
        raise KeyboardInterrupt

    monkeypatch.setattr(database_job, "verify", stopped)
    sources = (made / "features.h5", made / "matches.h5", made / "photos")
    with pytest.raises(KeyboardInterrupt):
        make_database(*sources, tmp_path / "d.db", verified=True)
    assert list(tmp_path.iterdir()) == []
    # An existing one stays as it was, and is only replaced when asked.
    make_database(*sources, tmp_path / "d.db")
    with pytest.raises(KeyboardInterrupt):
        make_database(*sources, tmp_path / "d.db", verified=True, overwrite=True)
    assert summarise(tmp_path / "d.db").pairs == 6
    with pytest.raises(OptionError, match="exists"):
        make_database(*sources, tmp_path / "d.db")


def test_stages_after_a_change(made: Path, tmp_path: Path, extractor: FeatureExtractor) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    shutil.copytree(made / "photos", photos)
    options: dict[str, Any] = {"device": "cpu", "quiet": True, "camera_mode": "single"}
    first = reconstruct_folder(photos, out, extractor, **options)
    assert first.registered == first.images == 4
    assert first.reused == []
    assert json.loads((out / "report.json").read_text())["points"] == first.points > 50
    second = reconstruct_folder(photos, out, extractor, **options)
    assert second.reused == ["extract", "match", "database", "map"]
    assert (second.points, second.models) == (first.points, first.models)
    # One photo less: its features and matches stay in the files, but not in what is reconstructed from now on.
    (photos / "view_003.jpg").unlink()
    third = reconstruct_folder(photos, out, extractor, **options)
    assert third.reused == ["extract", "match"]
    assert (third.images, third.registered, third.pairs) == (3, 3, 3)
    # Overwriting starts anew.
    assert reconstruct_folder(photos, out, extractor, overwrite=True, **options).reused == []


def test_pairs_by_retrieval_are_chosen_once(made: Path, tmp_path: Path, extractor: FeatureExtractor) -> None:
    options: dict[str, Any] = {"device": "cpu", "quiet": True, "pairs": "retrieval"}
    first = reconstruct_folder(made / "photos", tmp_path / "out", extractor, **options)
    assert (first.registered, first.pairs, first.reused) == (4, 6, [])
    assert len(read_pairs(tmp_path / "out" / "pairs.txt")) == 6
    second = reconstruct_folder(made / "photos", tmp_path / "out", extractor, **options)
    assert second.reused == ["extract", "pairs", "match", "database", "map"]
    assert second.points == first.points


def test_images_that_a_pairs_file_names_in_vain_are_told(
    made: Path, tmp_path: Path, extractor: FeatureExtractor
) -> None:
    names = [f"view_00{i}.jpg" for i in range(4)]
    pairs = [*itertools.combinations(names, 2), (names[0], "view_0O1.jpg")]
    (tmp_path / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs))
    found = reconstruct_folder(
        made / "photos", tmp_path / "out", extractor, pairs=tmp_path / "pairs.txt", device="cpu", quiet=True
    )
    assert (found.images, found.registered, found.pairs, found.unregistered) == (4, 4, 6, [])
    assert found.skipped.keys() == {"view_0O1.jpg"}


@pytest.mark.parametrize("option", [{"mapper": "local"}, {"pairs": "nowhere.txt"}, {"max_size": 5}])
def test_options_that_cannot_work(
    made: Path, tmp_path: Path, extractor: FeatureExtractor, option: dict[str, Any]
) -> None:
    with pytest.raises(OptionError):
        reconstruct_folder(made / "photos", tmp_path / "out", extractor, quiet=True, **option)


def test_an_interrupted_map_is_done_again(
    made: Path, tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = job.reconstruct

    def stopped(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "reconstruct", stopped)
    with pytest.raises(KeyboardInterrupt):
        reconstruct_folder(made / "photos", tmp_path / "out", extractor, device="cpu", quiet=True)
    monkeypatch.setattr(job, "reconstruct", real)
    summary = reconstruct_folder(made / "photos", tmp_path / "out", extractor, device="cpu", quiet=True)
    assert summary.reused == ["extract", "match", "database"]
    assert summary.registered == 4


def test_the_demo_renders_again_only_for_another_scene(tmp_path: Path) -> None:
    truth = {"seed": 1, "size": [64, 48], "images": {"view_000.jpg": {}, "view_001.jpg": {}}}
    (tmp_path / "cameras.json").write_text(json.dumps(truth))
    (tmp_path / "images").mkdir()
    for name in truth["images"]:  # type: ignore[attr-defined]
        (tmp_path / "images" / name).touch()
    asked = {"seed": 1, "size": [64, 48], "views": 2}
    assert demo_job._rendered(tmp_path, asked) == truth
    assert demo_job._rendered(tmp_path, {**asked, "seed": 2}) is None
    assert demo_job._rendered(tmp_path, {**asked, "views": 3}) is None
    (tmp_path / "images" / "view_001.jpg").unlink()
    assert demo_job._rendered(tmp_path, asked) is None
    (tmp_path / "cameras.json").write_text("[1")
    assert demo_job._rendered(tmp_path, asked) is None
