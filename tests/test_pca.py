"""Projections of descriptors: against scikit-learn, into files and out of them, and from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kornia.feature as KF
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import trained
from torch.nn.functional import normalize
from typer.testing import CliRunner

from hardnet_match.architectures import load_network
from hardnet_match.cli import app
from hardnet_match.descriptors.base import DescriptorNetwork
from hardnet_match.errors import DataError, OptionError
from hardnet_match.export.check import sample_patches
from hardnet_match.jobs.pca import add_projection
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.pca import Moments, fit_projection, principal_directions
from hardnet_match.weights import save_weights


def patch_set(count: int = 150, side: int = 32, margin: float = 1.0) -> PatchSet:
    patches = (sample_patches(count, side)[:, 0] * 255).byte().numpy()
    return PatchSet(patches, np.arange(count), *(np.zeros(count, np.int32) for _ in range(2)), margin=margin)


def network(name: str = "hardnet") -> DescriptorNetwork:
    made = trained(name)
    assert isinstance(made, DescriptorNetwork)
    return made


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 2**32 - 1), st.floats(-1e3, 1e3))
def test_moments_do_not_depend_on_the_blocks(blocks: list[int], seed: int, offset: float) -> None:
    rows = np.random.default_rng(seed).normal(size=(sum(blocks), 5)) * [1, 2, 3, 1, 0.1] + offset
    moments = Moments(5)
    for part in np.split(rows, np.cumsum(blocks)[:-1]):
        moments.add(torch.from_numpy(part))
    assert moments.count == len(rows)
    if len(rows) > 1:
        np.testing.assert_allclose(moments.mean, rows.mean(0), atol=1e-9)
        np.testing.assert_allclose(moments.covariance, np.cov(rows.T), atol=1e-8)


@pytest.mark.parametrize("dim", [1, 5, 17, 24])
def test_directions_are_scikit_learns(dim: int) -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    rng = np.random.default_rng(dim)
    rows = rng.normal(size=(400, 24)) @ rng.normal(size=(24, 24)) + rng.normal(size=24)
    moments = Moments(24)
    for start in range(0, 400, 64):
        moments.add(torch.from_numpy(rows[start : start + 64]))
    found = principal_directions(moments, dim)
    expected = decomposition.PCA(dim, svd_solver="full").fit(rows)
    np.testing.assert_allclose(found.components, expected.components_.T, atol=1e-5)
    np.testing.assert_allclose(found.mean, expected.mean_, atol=1e-5)
    np.testing.assert_allclose(found.variances, expected.explained_variance_, rtol=1e-5)
    assert found.kept == pytest.approx(expected.explained_variance_ratio_.sum(), abs=1e-9)
    assert found.count == 400


@pytest.mark.parametrize(("name", "side", "margin"), [("hardnet", 32, 1.0), ("hardnet", 64, 2.0), ("tfeat", 32, 1.0)])
def test_a_projected_network_does_what_scikit_learn_does_to_its_descriptors(
    name: str, side: int, margin: float
) -> None:
    """L2, PCA without whitening, L2; patches are the measurement regions of the stored ones."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    plain, patches = network(name), patch_set(side=side, margin=margin)
    inner = patches.patches[:, 16:48, 16:48] if margin == 2 else patches.patches
    shown = torch.from_numpy(inner[:, None]).float() / 255
    with torch.inference_mode():
        rows = normalize(plain(shown), dim=1)
    pca = decomposition.PCA(20, svd_solver="full").fit(rows.double().numpy())
    expected = normalize(torch.from_numpy(pca.transform(rows.double().numpy())), dim=1).float()
    done: list[int] = []
    found = fit_projection(plain, [patches], 20, advance=done.append)
    plain.project(found.components, found.mean)
    with torch.inference_mode():
        torch.testing.assert_close(plain(shown), expected, atol=2e-4, rtol=0)
    assert sum(done) == found.count == 150


def test_an_earlier_projection_counts_for_nothing() -> None:
    projected, plain = network("hardnet-pca10"), network("hardnet-pca10")
    plain.project(None)
    first, second = (fit_projection(one, [patch_set()], 16) for one in (projected, plain))
    assert torch.equal(first.components, second.components)
    assert (projected.dim, plain.dim) == (10, 128)  # fitting changes no network


def test_a_sample_is_drawn_by_its_seed_in_equal_shares() -> None:
    sets = [patch_set(60), patch_set(120)]
    first, again, other = (fit_projection(network(), sets, 8, sample=90, seed=seed) for seed in (3, 3, 4))
    assert first.count == other.count == 90
    assert torch.equal(first.components, again.components)
    assert not torch.equal(first.components, other.components)
    counts: list[int] = []
    fit_projection(network(), sets, 8, sample=90, advance=counts.append)
    assert counts == [30, 60]


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"dim": 0}, OptionError, "1 to 128"),
        ({"dim": 129}, OptionError, "1 to 128"),
        ({"dim": 60, "sample": 60}, DataError, "60 patches do not span 60"),
        ({"dim": 150}, OptionError, "1 to 128"),
        ({"dim": 8, "sample": 0}, OptionError, "sample"),
    ],
)
def test_what_cannot_work_is_told(options: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_projection(network(), [patch_set(100)], **options)
    with pytest.raises(DataError, match="do not span"):
        principal_directions(Moments(4), 2)


def test_weights_with_a_projection_from_patches_to_files(tmp_path: Path) -> None:
    patch_set(200).save(tmp_path / "patches.h5")
    save_weights(tmp_path / "w.safetensors", network().state_dict(), "hardnet", {"trained_on": "noise"})
    arguments = ["pca", str(tmp_path / "w.safetensors"), "--data", str(tmp_path / "patches.h5"), "--dim", "12"]
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "p.safetensors"), "--json"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert (summary["network"], summary["dim"], summary["of"], summary["patches"]) == ("hardnet-pca12", 12, 128, 200)
    assert 0 < summary["kept"] <= 1
    found = load_network(tmp_path / "p.safetensors")
    assert (found.architecture.name, found.about["trained_on"]) == ("hardnet-pca12", "noise")
    assert "200 patches" in found.about["projection"]
    expected = fit_projection(network(), [patch_set(200)], 12)
    torch.testing.assert_close(found.network.components, expected.components)
    result = CliRunner().invoke(app, [*arguments, "-o", str(tmp_path / "p.pth")])
    assert result.exit_code == 0, result.output
    assert "hardnet-pca12, 12 of 128" in result.stdout
    patches = sample_patches(4, 32)
    torch.testing.assert_close(load_network(tmp_path / "p.pth").network(patches), found.network(patches))


def test_kornias_hardnet8_takes_our_projection(tmp_path: Path) -> None:
    made = network("h8E512")
    patch_set(140).save(tmp_path / "patches.h5")
    save_weights(tmp_path / "w.safetensors", made.state_dict(), "h8E512")
    add_projection(tmp_path / "w.safetensors", [tmp_path / "patches.h5"], tmp_path / "p.safetensors", quiet=True)
    found = load_network(tmp_path / "p.safetensors")
    assert found.architecture.name == "h8E512-pca128"
    theirs = KF.HardNet8(pretrained=False).eval()
    theirs.load_state_dict(found.network.state_dict(), strict=True)
    patches = sample_patches(4, 32)
    torch.testing.assert_close(found.network(patches), theirs(patches), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("weights", "output", "words"),
    [
        ("rootsift", "p.safetensors", "no descriptor with weights"),
        ("affnet", "p.safetensors", "no descriptor with weights"),
        ("hardnet", "p.onnx", "export makes graphs"),
        ("hardnet", "p.txt", "suffix"),
        ("no.pth", "p.safetensors", "no such weights file"),
    ],
)
def test_wrong_use_leaves_nothing(tmp_path: Path, weights: str, output: str, words: str) -> None:
    patch_set(20).save(tmp_path / "patches.h5")
    result = CliRunner().invoke(
        app, ["pca", weights, "--data", str(tmp_path / "patches.h5"), "-o", str(tmp_path / output)]
    )
    assert result.exit_code in (1, 2)
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["patches.h5"]
