"""Parts of other packages: found, listed, used by name, named in the settings; a broken one harms nobody."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plugin_helpers import install, install_example
from typer.testing import CliRunner

from hardnet_match import FeatureExtractor, extensions, match
from hardnet_match.cli import app
from hardnet_match.errors import OptionError, PluginError, StoreError
from hardnet_match.jobs.same_extractor import extractor_like
from hardnet_match.matching import METHODS
from hardnet_match.presets import ABOUT, CHOICES, compose
from hardnet_match.presets import METHODS as NAMES
from hardnet_match.store import FeatureReader, MatchReader

PARTS = """
import torch
from torch import nn

class Grid(nn.Module):
    '''Circles on a grid.'''
    def forward(self, image, mask=None, max_keypoints=4096):
        height, width = image.shape[-2:]
        y, x = torch.meshgrid(torch.arange(20.0, height - 20, 15), torch.arange(20.0, width - 20, 15), indexing="ij")
        zero, size = torch.zeros(x.numel()), torch.full((x.numel(),), 12.0)
        lafs = torch.stack([size, zero, x.flatten(), zero, size, y.flatten()], dim=1).reshape(-1, 2, 3)
        return lafs, torch.arange(x.numel()).float()

class Wrong(nn.Module):
    def __init__(self, what):
        super().__init__()
        self.what = what
    def forward(self, image, mask=None, max_keypoints=4096):
        if self.what == "raises":
            return image[99]
        return {"shape": torch.zeros(3, 6), "nan": torch.full((3, 2, 3), torch.nan)}[self.what], torch.zeros(3)

def raises(): return Wrong("raises")
def shape(): return Wrong("shape")
def nan(): return Wrong("nan")
def thing(): return "no module"
def fails(): raise RuntimeError("no licence key")

class Mean(nn.Module):
    '''Rows of the patch's 4 x 4 means, and weights that can be given.'''
    def __init__(self, factor=1.0):
        super().__init__()
        self.factor = factor
        self.patch_size = 24
    def forward(self, patches):
        assert patches.shape[1:] == (1, 24, 24)
        return self.factor * torch.nn.functional.adaptive_avg_pool2d(patches, 4).flatten(1)

def mean(weights=None):
    return Mean(1.0 if weights is None else float(open(weights).read()))

def first(a, b, device, options):
    from hardnet_match import Matches
    import numpy as np
    count = min(len(a), len(b))
    rows = np.arange(count, dtype=np.int32)
    return Matches(np.stack([rows, rows], axis=1), np.full(count, options.ratio, np.float32))

def beyond(a, b, device, options):
    from hardnet_match import Matches
    import numpy as np
    return Matches(np.array([[0, len(b)]], np.int32), np.ones(1, np.float32))

def stumbles(a, b, device, options):
    return [][0]

constant = 7
"""

ENTRIES = {
    "hardnet_match.detectors": {
        "grid": "acme_parts:Grid",
        **{name: f"acme_parts:{name}" for name in ("raises", "shape", "nan", "thing", "fails", "constant")},
        "gone": "acme_nowhere:Detector",
        "hessian": "acme_parts:Grid",
    },
    "hardnet_match.descriptors": {"mean": "acme_parts:mean"},
    "hardnet_match.matchers": {name: f"acme_parts:{name}" for name in ("first", "beyond", "stumbles")},
}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on sys.path, here and in processes started from here; what it brought is forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    for module in ("acme_parts", "hardnet_match_mser"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    return folder


@pytest.fixture
def acme(site: Path) -> Path:
    install(site, "acme-parts", "1.2.3", ENTRIES, {"acme_parts": PARTS})
    return site


def picture(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.kron(rng.integers(0, 255, (16, 20)), np.ones((8, 8))).astype(np.uint8)


def test_names_told_without_imports_are_those_of_the_registries() -> None:
    assert tuple(METHODS) == NAMES
    assert {part: tuple(words) for part, words in ABOUT.items()} == {**CHOICES, "matcher": NAMES}


def test_nothing_is_found_where_nothing_is_installed() -> None:
    assert all(extensions.installed(part) == {} for part in extensions.GROUPS)


def test_a_plugin_is_found_without_importing_it(acme: Path) -> None:
    found = extensions.installed("detector")
    assert {"grid", "gone"} <= set(found)
    assert str(found["grid"][0]) == "detector 'grid' of acme-parts 1.2.3"
    assert compose(detector="grid").detector == "grid"
    assert "acme_parts" not in sys.modules


def test_its_parts_compose_with_ours(acme: Path) -> None:
    image = picture()
    extractor = FeatureExtractor.from_preset(detector="grid", descriptor="mean", max_keypoints=12)
    features = extractor.extract(image)
    assert features.descriptors.shape == (12, 16)
    assert (np.diff(features.scores) <= 0).all()  # it gave them the weakest first
    plugin = {"package": "acme-parts", "version": "1.2.3"}
    assert extractor.settings["plugins"] == {"detector": plugin, "descriptor": plugin}
    mask = np.zeros(image.shape, bool)
    mask[:, : image.shape[1] // 2] = True
    inside = extractor.extract(image, mask).keypoints
    assert len(inside)
    assert (inside[:, 0] <= image.shape[1] / 2).all()


def test_settings_of_our_own_parts_say_nothing_of_plugins() -> None:
    assert set(FeatureExtractor(max_keypoints=5).settings) == {
        "detector", "shape", "orientation", "descriptor", "weights", "max_keypoints", "precision",
        "scale_weight",
    }  # fmt: skip


def test_its_weights_are_given_and_hashed(acme: Path, tmp_path: Path) -> None:
    (tmp_path / "three.txt").write_text("3.0")
    image = picture()
    plain = FeatureExtractor.from_preset(detector="grid", descriptor="mean", max_keypoints=9)
    given = FeatureExtractor(
        compose(detector="grid", descriptor="mean"), max_keypoints=9, weights=str(tmp_path / "three.txt")
    )
    np.testing.assert_allclose(given.extract(image).descriptors, 3 * plain.extract(image).descriptors, rtol=1e-5)
    assert given.settings["weights"]["descriptor"] != plain.settings["weights"].get("descriptor")
    with pytest.raises(OptionError, match=r"detector 'grid' of acme-parts 1\.2\.3 has no weights"):
        FeatureExtractor(compose(detector="grid"), detector_weights=str(tmp_path / "three.txt"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", ["'gone' of acme-parts 1.2.3", "acme_nowhere", "uninstall"]),
        ("constant", ["'constant' of acme-parts", "int"]),
        ("fails", ["'fails' of acme-parts", "no licence key"]),
        ("thing", ["'thing' of acme-parts", "torch module"]),
    ],
)
def test_a_part_that_cannot_be_made_is_named(acme: Path, name: str, words: list[str]) -> None:
    with pytest.raises(PluginError) as error:
        FeatureExtractor.from_preset(detector=name)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(("name", "words"), [("raises", "IndexError"), ("shape", r"\(3, 6\)"), ("nan", "NaN")])
def test_a_part_that_fails_at_work_is_named(acme: Path, name: str, words: str) -> None:
    with pytest.raises(PluginError, match=f"'{name}' of acme-parts 1.2.3.*{words}"):
        FeatureExtractor.from_preset(detector=name).extract(picture())


def test_matching_methods(acme: Path) -> None:
    extractor = FeatureExtractor.from_preset(detector="grid", max_keypoints=8)
    a, b = extractor.extract(picture()), extractor.extract(picture(1))
    found = match(a, b, "first", ratio=0.5)
    assert found.pairs[:, 0].tolist() == list(range(8))
    assert (found.scores == np.float32(0.5)).all()
    with pytest.raises(PluginError, match=r"'beyond' of acme-parts 1\.2\.3 gave rows up to"):
        match(a, b, "beyond")
    with pytest.raises(PluginError, match=r"'stumbles' of acme-parts 1\.2\.3 failed: IndexError"):
        match(a, b, "stumbles")
    with pytest.raises(OptionError, match=r"smnn.*first"):
        match(a, b, "nothing")


def test_our_own_names_are_ours(acme: Path) -> None:
    ours = FeatureExtractor(max_keypoints=5)
    assert "plugins" not in ours.settings
    assert type(ours.detector).__name__ == "Hessian"


def test_two_packages_of_one_name_are_told_apart(acme: Path) -> None:
    install(acme, "other", "9", {"hardnet_match.detectors": {"grid": "acme_parts:Grid"}}, {})
    extensions._scan.cache_clear()
    with pytest.raises(PluginError, match=r"offered by .*acme-parts 1.2.3.* and .*other 9|offered by other 9 and acme"):
        FeatureExtractor.from_preset(detector="grid")


def test_damaged_metadata_of_one_package_hides_nobody(acme: Path, caplog: pytest.LogCaptureFixture) -> None:
    install(acme, "garbled", "1", {}, {})
    (acme / "garbled-1.dist-info" / "entry_points.txt").write_text("[hardnet_match.detectors]\nno equals sign here\n")
    extensions._scan.cache_clear()
    assert len(extensions.installed("detector")["grid"]) == 1
    assert "garbled-1" in caplog.text
    extensions._scan.cache_clear()


def test_a_search_finds_the_plugin_again(acme: Path) -> None:
    settings = FeatureExtractor.from_preset(detector="grid", max_keypoints=5).settings
    assert extractor_like(settings, "f.h5").settings == settings
    newer = {**settings, "plugins": {"detector": {"package": "acme-parts", "version": "2.0"}}}
    with pytest.raises(StoreError, match=r"2\.0.*1\.2\.3"):
        extractor_like(newer, "f.h5")
    given = FeatureExtractor.from_preset(descriptor=torch.nn.Flatten(), max_keypoints=5).settings
    with pytest.raises(StoreError, match="modules given in Python"):
        extractor_like(given, "f.h5")


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_list(acme: Path) -> None:
    plain = run("list")
    assert plain.exit_code == 0
    for names in (*CHOICES.values(), NAMES):
        assert all(f"\n  {name}" in plain.stdout for name in names)
    assert "grid           acme-parts 1.2.3: Circles on a grid.\n" in plain.stdout
    assert "mean           acme-parts 1.2.3\n" in plain.stdout
    assert "gone           acme-parts 1.2.3: cannot be used" in plain.stdout
    told = json.loads(run("list", "--json").stdout)
    detectors = {(entry["name"], entry["package"]): entry for entry in told["parts"]["detector"]}
    assert detectors["hessian", "hardnet-match"]["problem"] is None
    assert "never used" in detectors["hessian", "acme-parts"]["problem"]
    assert "acme_nowhere" in detectors["gone", "acme-parts"]["problem"]
    assert [entry["name"] for entry in told["parts"]["matcher"]][-3:] == ["beyond", "first", "stumbles"]


def test_broken_parts_are_warned_of_by_name_and_harm_nobody(
    acme: Path, tmp_path: Path, photos: Callable[[int], Path]
) -> None:
    listed = run("list")
    assert "warning: detector 'gone' of acme-parts 1.2.3 cannot be loaded" in listed.stderr
    done = run("extract", str(photos(1)), "-o", str(tmp_path / "f.h5"), "--max-keypoints", "50")
    assert done.exit_code == 0, done.stderr
    failed = run("extract", str(photos(1)), "-o", str(tmp_path / "g.h5"), "--detector", "gone")
    assert failed.exit_code == 1
    assert failed.stderr.count("\n") == 1
    assert "'gone' of acme-parts 1.2.3" in failed.stderr
    assert run("extract", str(photos(1)), "-o", str(tmp_path / "g.h5"), "--detector", "eye").exit_code == 2


@pytest.fixture
def photos(tmp_path: Path, rendered: dict[str, Any]) -> Callable[[int], Path]:
    def some(count: int) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir(exist_ok=True)
        for index in range(count):
            name = f"view_00{index}.jpg"
            if not (folder / name).exists():
                (folder / name).write_bytes((rendered["folder"] / name).read_bytes())
        return folder

    return some


def test_the_example_works_by_name(site: Path, tmp_path: Path, photos: Callable[[int], Path]) -> None:
    project = install_example(site)
    listed = json.loads(run("list", "--json").stdout)["parts"]
    mser = next(entry for entry in listed["detector"] if entry["name"] == "mser")
    assert (mser["package"], mser["version"], mser["problem"]) == (project["name"], project["version"], None)
    features, matches = tmp_path / "f.h5", tmp_path / "m.h5"
    parts = ["--detector", "mser", "--shape", "none", "--descriptor", "kornia-sift"]
    done = run("extract", str(photos(2)), "-o", str(features), *parts, "--max-keypoints", "300")
    assert done.exit_code == 0, done.stderr
    done = run("match", str(features), "-o", str(matches), "--method", "within")
    assert done.exit_code == 0, done.stderr
    with FeatureReader(features) as reader, MatchReader(matches) as pairs:
        assert reader.settings["plugins"]["detector"] == {"package": "hardnet-match-mser", "version": "0.1.0"}
        assert pairs.settings["plugins"]["matcher"]["version"] == "0.1.0"
        first, second = (reader.read(name) for name in reader.names())
        found = pairs.read(*reader.names())
    assert len(first) > 100
    assert len(found) > 20
    ratio = np.linalg.cond(first.lafs[:, :, :2].astype(float))
    assert np.median(ratio) > 1.1  # regions are no circles
    del second
    # A newer version of the plugin may find other things: the file is not gone on with.
    (site / "hardnet_match_mser-0.1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: x\nVersion: 2\n"
    )
    extensions._scan.cache_clear()
    again = run("extract", str(photos(2)), "-o", str(features), *parts, "--max-keypoints", "300")
    assert again.exit_code == 1
    assert "version" in again.stderr


def test_its_regions_are_ellipses_of_their_moments(site: Path) -> None:
    install_example(site)
    import cv2

    image = np.full((200, 240), 200, np.uint8)
    cv2.ellipse(image, (130, 90), (40, 16), 30, 0, 360, 30, -1)
    lafs = FeatureExtractor.from_preset(detector="mser", shape="none", orientation="upright").extract(image).lafs
    covariance = lafs[:, :, :2] @ lafs[:, :, :2].transpose(0, 2, 1) / 36
    values, vectors = np.linalg.eigh(covariance)
    # A filled ellipse of half axes a, b has standard deviations a / 2, b / 2.
    good = np.abs(np.sqrt(values) - [8, 20]).max(axis=1) < 1
    assert good.any()
    np.testing.assert_allclose(lafs[good][0, :, 2], [130, 90], atol=1)
    along = vectors[good][0, :, 1]
    angle = np.rad2deg(np.arctan2(along[1], along[0])) % 180
    assert abs(angle - 30) < 3


def test_bare_patches_are_described(acme: Path, tmp_path: Path) -> None:
    import cv2

    patches = np.random.default_rng(0).integers(0, 255, (5 * 24, 24), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "column.png"), patches)
    done = run("describe", str(tmp_path / "column.png"), "-o", str(tmp_path / "d.npy"), "--descriptor", "mean")
    assert done.exit_code == 0, done.stderr
    cells = patches.reshape(5, 4, 6, 4, 6).mean(axis=(2, 4)).reshape(5, 16) / 255
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), cells, atol=1e-5)


def test_help_looks_for_no_plugins(acme: Path) -> None:
    code = (
        "import importlib.metadata as m, sys\n"
        "def looked(*a, **k): raise SystemExit('looked for plugins')\n"
        "m.entry_points = m.distributions = looked\n"
        "from hardnet_match.cli import main\n"
        "sys.argv = ['hardnet-match', 'extract', '--help']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
