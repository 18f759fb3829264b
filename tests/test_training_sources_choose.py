"""Which source a path is, which options fit it, and at which size its photos are read."""

from __future__ import annotations

import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from source_helpers import as_features, brown_like, hpatches_like, made_up_scene, zipped

from hardnet_match.errors import DataError, OptionError
from hardnet_match.store import FeatureReader, FeatureWriter
from hardnet_match.training.sources.choose import kind_of, models_in, open_source
from hardnet_match.training.sources.colmap import ColmapModel
from hardnet_match.training.sources.gather import gather


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`model` (with its database) and `photos` of a made-up scene; nobody may write there."""
    return made_up_scene(tmp_path_factory.mktemp("scene"))


def test_kinds_are_told_by_what_is_there(tmp_path: Path, scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    brown_like(tmp_path / "b")
    hpatches_like(tmp_path / "hp", {"i_a": 1})
    zipped(tmp_path / "b", tmp_path / "b.zip")
    assert {path: kind_of(path) for path in ("b", "b.zip", "hp", str(scene / "photos"), str(scene / "model"))} == {
        "b": "brown", "b.zip": "brown", "hp": "hpatches", str(scene / "photos"): "photos",
        str(scene / "model"): "colmap",
    }  # fmt: skip
    assert kind_of("yosemite_harris") == "brown"
    (tmp_path / "liberty").mkdir()
    with pytest.raises(DataError, match="it holds nothing"):
        kind_of("liberty")  # a folder of that name comes first
    with pytest.raises(OptionError, match=r"known: liberty"):
        kind_of("libertee")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=r"notes\.txt is no source"):
        kind_of("notes.txt")
    (tmp_path / "out" / "sparse").mkdir(parents=True)
    for number in (10, 2):
        (tmp_path / "out" / "sparse" / str(number)).symlink_to(scene / "model")
    assert [model.name for model in models_in(tmp_path / "out")] == ["2", "10"]
    assert [model.name for model in models_in(tmp_path / "out" / "sparse")] == ["2", "10"]


def test_options_of_another_kind_are_refused(tmp_path: Path, scene: Path) -> None:
    with pytest.raises(OptionError, match="--split is of no use for a source of kind photos"):
        open_source(scene / "photos", split="a")
    with pytest.raises(OptionError, match="--masks"):
        open_source(scene / "model", masks=tmp_path)
    with pytest.raises(OptionError, match="not from both"):
        open_source(scene / "model", database=tmp_path, features=tmp_path)
    with pytest.raises(OptionError, match="kind 'sift'"):
        open_source(scene / "photos", "sift")
    with pytest.raises(OptionError, match="--images"):
        open_source(scene / "model")
    bare = tmp_path / "a" / "b" / "model"
    bare.mkdir(parents=True)
    pycolmap.Reconstruction(scene / "model").write(bare)
    with pytest.raises(OptionError, match=r"--database or the --features"):
        open_source(bare, images=scene / "photos")
    with pytest.raises(OptionError, match="no such folder of photos"):
        open_source(scene / "model", images=tmp_path / "nowhere")
    source = open_source(scene / "model", images=scene / "photos", max_views=2)
    assert isinstance(source, ColmapModel)
    assert source.filters.max_views == 2


def test_photos_are_shrunk_as_their_features_say(scene: Path, tmp_path: Path) -> None:
    features = as_features(scene, tmp_path / "plain.h5")
    with FeatureWriter(tmp_path / "features.h5", {"max_size": 320}) as writer, FeatureReader(features) as reader:
        for name in reader.names():
            writer.write(name, reader.read(name))
    sizes = [
        open_source(scene / "model", images=scene / "photos", **options).max_size  # type: ignore[attr-defined]
        for options in ({}, {"features": features}, {"features": tmp_path / "features.h5"}, {"max_size": 99})
    ]
    assert sizes == [None, None, 320, 99]
    for options, size in (({}, 1600), ({"features": tmp_path / "features.h5"}, 320), ({"max_size": 0}, None)):
        assert open_source(scene / "photos", **options).max_size == size  # type: ignore[attr-defined]
    small = gather(open_source(scene / "model", images=scene / "photos", features=tmp_path / "features.h5"))
    whole = gather(open_source(scene / "model", images=scene / "photos"))
    sharp = [np.abs(np.diff(found.patches.astype(float), axis=2)).mean() for found in (small, whole)]
    assert sharp[0] < 0.9 * sharp[1]
    both = small.track[:, None] * 100 + small.image[:, None] == (whole.track * 100 + whole.image)[None]
    one, other = np.nonzero(both)
    gap = np.abs(small.patches[one].astype(float) - whole.patches[other]).mean()
    assert gap < 0.25 * whole.patches[other].std()  # blurred, not moved
    single = gather(open_source(scene / "photos", max_size=320, per_photo=100))
    assert single.position is not None
    assert single.position[:, 0].max() < 320
