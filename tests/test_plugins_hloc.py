"""hloc finds and runs this package's extractor and matcher: hloc itself where it is installed, its rules always."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import hloc_helpers
import numpy as np
import pytest
import torch

from hardnet_match import FeatureExtractor, match
from hardnet_match.errors import DataError, OptionError
from hardnet_match.images import read_image
from hardnet_match.plugins.hloc import NAME, extractor_conf, matcher_conf, register
from hardnet_match.presets import METHODS, PRESETS
from hardnet_match.store import FeatureReader, MatchReader

COUNT = 200


@pytest.fixture
def hloc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The stand-in, imported and registered with."""
    (tmp_path / "site").mkdir()
    hloc_helpers.install(tmp_path / "site")
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] == "hloc"}
    monkeypatch.syspath_prepend(tmp_path / "site")
    register()
    names = ("extract_features", "match_features", "extractors", "matchers", "utils.base_model")
    yield SimpleNamespace(**{name.rpartition(".")[2]: importlib.import_module(f"hloc.{name}") for name in names})
    for name in [name for name in sys.modules if name.partition(".")[0] == "hloc"]:
        del sys.modules[name]
    sys.modules.update(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, rendered: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(2):
        name = f"view_00{index}.jpg"
        (folder / name).write_bytes((rendered["folder"] / name).read_bytes())
    return folder


def test_models_and_confs_are_found(hloc: SimpleNamespace) -> None:
    register()  # twice is once
    for package in (hloc.extractors, hloc.matchers):
        model = hloc.base_model.dynamic_load(package, NAME)
        assert issubclass(model, hloc.base_model.BaseModel)
        assert model.__module__ == f"{package.__name__}.{NAME}"
    assert set(hloc.extract_features.confs) == {"theirs", *PRESETS}
    assert set(hloc.match_features.confs) == {"theirs", *(f"hardnet-match-{method}" for method in METHODS)}
    outputs = [conf["output"] for conf in hloc.extract_features.confs.values()]
    assert len(set(outputs)) == len(outputs)
    assert extractor_conf("dog-hardnet", 100, None)["output"] == "feats-dog-hardnet-n100"
    assert matcher_conf("mnn")["output"] == "matches-hardnet-match-mnn"
    assert matcher_conf("smnn", 0.8)["output"] == "matches-hardnet-match-smnn-ratio0.8"


def test_confs_that_are_there_stay(hloc: SimpleNamespace) -> None:
    hloc.extract_features.confs["dog-hardnet"] = changed = {"output": "mine"}
    register()
    assert hloc.extract_features.confs["dog-hardnet"] is changed


def test_without_hloc_it_says_where_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "hloc":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hloc", None)
    with pytest.raises(OptionError, match="cvg/Hierarchical-Localization"):
        register()


@pytest.mark.parametrize("as_half", [False, True])
def test_features_are_the_extractors_own(hloc: SimpleNamespace, photos: Path, tmp_path: Path, as_half: bool) -> None:
    conf = extractor_conf("hesaffnet-hardnet", COUNT, None)
    path = hloc.extract_features.main(conf, photos, tmp_path, as_half=as_half)
    name = "view_000.jpg"
    expected = FeatureExtractor(max_keypoints=COUNT).extract(read_image(photos / name, color=True).pixels)
    with FeatureReader(path) as reader:
        assert reader.names() == ["view_000.jpg", "view_001.jpg"]
        features = reader.read(name)
        assert reader.keypoints(name).shape == (COUNT, 2)
    # hloc's pixels are floats of the same numbers, so that all is the same but for a rounding here and there.
    assert features.image_size == (480, 360)
    distance = np.abs(features.keypoints - expected.keypoints).max(axis=1)
    assert (distance < 1e-3).mean() > 0.98  # in half precision too: positions are not halved
    same = distance < 1e-3
    axes = np.abs(features.lafs - expected.lafs)[same].max(axis=(1, 2)) / np.abs(expected.lafs[same]).max(axis=(1, 2))
    assert np.median(axes) < (2e-3 if as_half else 1e-5)
    np.testing.assert_allclose(features.scores[same], expected.scores[same], rtol=1e-3)
    assert features.descriptors.dtype == (np.float16 if as_half else np.float32)
    cosine = (features.descriptors.astype(np.float32) * expected.descriptors).sum(axis=1)[same]
    assert np.median(cosine) > 0.9999
    with h5py.File(path) as h5:
        assert set(h5[name]) == {"keypoints", "scores", "descriptors", "scales", "oris", "shapes", "image_size"}
        assert h5[f"{name}/descriptors"].shape == (128, COUNT)
        assert h5[f"{name}/keypoints"].attrs["uncertainty"] == 1.0


def test_frames_are_in_pixels_of_the_file_after_resizing(hloc: SimpleNamespace, photos: Path, tmp_path: Path) -> None:
    path = hloc.extract_features.main(extractor_conf("hesaffnet-hardnet", COUNT, 240), photos, tmp_path, as_half=False)
    name = "view_001.jpg"
    import cv2

    picture = read_image(photos / name, color=True).pixels
    small = cv2.resize(picture.astype(np.float32), (240, 180), interpolation=cv2.INTER_AREA) / 255
    found = FeatureExtractor(max_keypoints=COUNT).extract(small)
    with FeatureReader(path) as reader:
        features = reader.read(name)
    assert features.image_size == (480, 360)
    np.testing.assert_allclose(features.lafs[:, :, :2], 2 * found.lafs[:, :, :2], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(features.keypoints, 2 * found.keypoints + 0.5, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_matches_are_the_methods_own(hloc: SimpleNamespace, photos: Path, tmp_path: Path, method: str) -> None:
    features = hloc.extract_features.main(extractor_conf("dog-rootsift", COUNT, None), photos, tmp_path, as_half=False)
    (tmp_path / "pairs.txt").write_text("view_000.jpg view_001.jpg\n")
    conf = hloc.match_features.confs[f"hardnet-match-{method}"]
    path = hloc.match_features.main(conf, tmp_path / "pairs.txt", features, tmp_path / "m.h5")
    with FeatureReader(features) as reader, MatchReader(path) as matches:
        first, second = (reader.read(name) for name in reader.names())
        found = matches.read("view_000.jpg", "view_001.jpg")
    expected = match(first, second, method, 0.9)
    assert len(expected) > 20
    np.testing.assert_array_equal(found.pairs, expected.pairs)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)


def test_matching_takes_other_extractors_features(hloc: SimpleNamespace) -> None:
    model = hloc.base_model.dynamic_load(hloc.matchers, NAME)({"name": NAME, "method": "fginn", "mutual": False})
    rng = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(1, 64, 50, generator=rng), dim=1)
    data = {
        "keypoints0": 100 * torch.rand(1, 50, 2, generator=rng), "descriptors0": rows,
        "keypoints1": 100 * torch.rand(1, 40, 2, generator=rng), "descriptors1": rows[:, :, 10:],
    }  # fmt: skip
    found = model(data)
    assert found["matches0"].shape == found["matching_scores0"].shape == (1, 50)
    assert found["matches0"][0, 10:].tolist() == list(range(40))
    empty = model({**data, "keypoints1": data["keypoints1"][:, :0], "descriptors1": rows[:, :, :0]})
    assert (empty["matches0"] == -1).all()


def test_what_16_bits_cannot_hold_is_refused(hloc: SimpleNamespace) -> None:
    model = hloc.base_model.dynamic_load(hloc.matchers, NAME)({"name": NAME, "method": "mnn"})
    many = torch.nn.functional.normalize(torch.randn(1, 8, 32_769, generator=torch.Generator().manual_seed(0)), dim=1)
    data = {
        "keypoints0": torch.zeros(1, 1, 2), "descriptors0": many[:, :, -1:].clone(),
        "keypoints1": torch.zeros(1, 32_769, 2), "descriptors1": many,
    }  # fmt: skip
    with pytest.raises(DataError, match="32767"):
        model(data)


def test_a_conf_that_cannot_work_is_told_at_once(hloc: SimpleNamespace) -> None:
    model = hloc.base_model.dynamic_load(hloc.extractors, NAME)
    with pytest.raises(OptionError, match="no preset 'nothing'"):
        model({"name": NAME, "preset": "nothing"})


SCRIPT = """
import sys
from pathlib import Path
import zlib
from hloc import extract_features, match_features, pairs_from_exhaustive, reconstruction
from hardnet_match.plugins.hloc import register

register()
images, out = Path(sys.argv[1]), Path(sys.argv[2])
conf = extract_features.confs["hesaffnet-hardnet"]
conf["model"]["max_keypoints"] = int(sys.argv[3])
features = extract_features.main(conf, images, out)
pairs_from_exhaustive.main(out / "pairs.txt", features=features)
matches = match_features.main(
    match_features.confs["hardnet-match-smnn"], out / "pairs.txt", features, matches=out / "matches.h5"
)
model = reconstruction.main(out / "sfm", images, out / "pairs.txt", features, matches)
print("MODEL", model.num_reg_images(), model.num_points3D(), model.compute_mean_reprojection_error())
"""


def run_hloc(images: Path, out: Path, keypoints: int) -> tuple[int, int, float]:
    """hloc's own extract_features, match_features and reconstruction, in a process of its own."""
    if importlib.util.find_spec("hloc") is None and "HLOC" not in os.environ:
        pytest.skip("hloc is not installed (nor a checkout named by the environment variable HLOC)")
    paths = [os.environ.get("HLOC", ""), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    out.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(images), str(out), str(keypoints)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    told = next(line for line in done.stdout.splitlines() if line.startswith("MODEL")).split()
    return int(told[1]), int(told[2]), float(told[3])


@pytest.mark.slow
def test_hloc_itself_reconstructs_the_rendered_scene(rendered: dict[str, Any], tmp_path: Path) -> None:
    registered, points, error = run_hloc(rendered["folder"], tmp_path / "out", 600)
    assert registered == 8
    assert points > 200
    assert error < 1.0
