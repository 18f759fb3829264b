"""What is no index, or a damaged one, or another's, is told by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from index_helpers import CODEBOOK, IMAGES, QUERY, built
from retrieval_helpers import SETTINGS, make_codebook

from hardnet_match.errors import OptionError, StoreError
from hardnet_match.retrieval.index import Index

pytestmark = pytest.mark.usefixtures("quick_disk")


def test_no_index_and_things_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no index there"):
        Index.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no index there"):
        Index.open(tmp_path / "file")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").write_text("")
    with pytest.raises(StoreError, match=r"not empty \(holiday\.jpg\)"):
        Index.create(tmp_path / "full", CODEBOOK)
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["holiday.jpg"]


def test_an_index_is_replaced_only_if_asked(tmp_path: Path) -> None:
    built(tmp_path / "index", [IMAGES])
    with pytest.raises(StoreError, match="holds an index already"):
        Index.create(tmp_path / "index", CODEBOOK)
    assert len(Index.open(tmp_path / "index")) == len(IMAGES)
    assert len(Index.create(tmp_path / "index", CODEBOOK, "bow", overwrite=True)) == 0


@pytest.mark.parametrize(
    ("method", "parameters", "message"),
    [
        ("vlad", {}, "vlad.*asmk"),
        ("asmk", {"beta": 1}, "no parameter beta; it has: alpha"),
        ("asmk", {"alpha": "much"}, "alpha.*much"),
        ("asmk", {"alpha": 0}, "alpha"),
        ("asmk", {"threshold": -0.5}, "threshold"),
        ("asmk", {"binary": 1}, "binary"),
        ("bow", {"burstiness": "log"}, "root, none"),
    ],
)
def test_wrong_parameters(method: str, parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        Index.create(tmp_path / "index", CODEBOOK, method, **parameters)
    assert not (tmp_path / "index").exists()


def test_foreign_settings_are_refused(tmp_path: Path) -> None:
    foreign = {**SETTINGS, "weights": {"descriptor": "ffff"}}
    with pytest.raises(StoreError, match=r"weights\.descriptor"):
        Index.create(tmp_path / "other", CODEBOOK, settings=foreign)
    index = built(tmp_path / "index", [IMAGES])
    index.check_settings({**SETTINGS, "max_keypoints": 7}, "query.jpg")
    with pytest.raises(StoreError, match=r"query\.jpg.*weights\.descriptor"):
        index.check_settings(foreign, "query.jpg")


def test_every_truncated_or_missing_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    built(folder, [IMAGES])
    paths = [path for path in folder.rglob("*") if path.is_file()]
    assert len(paths) == 8
    for path in paths:
        whole = path.read_bytes()
        for damaged in (whole[: len(whole) // 2], whole[:-1], b"", None):
            if damaged is None:
                path.unlink()
            else:
                path.write_bytes(damaged)
            with pytest.raises(StoreError) as told:
                Index.open(folder).rank(QUERY)
            assert (
                path.name in str(told.value) or "no index there" in str(told.value) or "no codebook" in str(told.value)
            )
            path.write_bytes(whole)
    assert len(Index.open(folder).rank(QUERY))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 99}, r"manifest\.json: index version 99, this package reads 1"),
        ({"format": "x"}, r"manifest\.json: .*of another kind"),
        ({"segments": [{}]}, r"manifest\.json: .*segment"),
        ({"extra": 1}, r"manifest\.json: .*extra"),
        ({"method": "x"}, r"manifest\.json: .*retrieval method 'x' is none of bow"),
        ({"method": ["bow"]}, r"manifest\.json: "),
        ({"method": 3}, r"manifest\.json: .*method 3 is none of"),
    ],
)
def test_manifests_that_are_none(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    built(folder, [IMAGES])
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
    with pytest.raises(StoreError, match=words):
        Index.open(folder)


def test_another_codebook_slipped_in(tmp_path: Path) -> None:
    built(tmp_path / "index", [IMAGES])
    make_codebook(seed=5).save(tmp_path / "index" / "codebook")
    with pytest.raises(StoreError, match="not the codebook"):
        Index.open(tmp_path / "index")
