"""Every network by name, with the originals' initialisation; checkpoints of the originals in, and out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kornia.feature as KF
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_helpers import trained
from safetensors import safe_open
from torch import Tensor, nn
from typer.testing import CliRunner

from hardnet_match import FeatureExtractor
from hardnet_match.architectures import ARCHITECTURES, build, family_of, find, load_network, name_of, open_network
from hardnet_match.cli import app
from hardnet_match.descriptors import DESCRIPTORS, HardNet, HardNet8
from hardnet_match.errors import DataError, OptionError, WeightsError
from hardnet_match.export.check import sample_patches
from hardnet_match.l2net import without_initialisation
from hardnet_match.orientation import ORIENTATIONS
from hardnet_match.shape import SHAPES
from hardnet_match.weights import read_checkpoint, save_checkpoint, save_weights

TRAINABLE = [name for name, known in ARCHITECTURES.items() if known.trainable]
PROJECTED = ["hardnet-pca64", "h8-pca128", "h8E512-pca128", "tfeat-pca32", "hardnet-ps-pca7"]


def same(first: nn.Module, second: nn.Module, atol: float = 1e-6) -> None:
    patches = sample_patches(5, 32)
    with torch.inference_mode():
        torch.testing.assert_close(first(patches), second(patches), atol=atol, rtol=0)


# Names ----------------------------------------------------------------------------------------------------


def test_every_family_has_networks() -> None:
    families = {known.family for known in ARCHITECTURES.values()}
    assert families == {*DESCRIPTORS, *SHAPES, *ORIENTATIONS}


@pytest.mark.parametrize("name", [*ARCHITECTURES, *PROJECTED])
@without_initialisation()
def test_every_network_is_made_by_its_name_and_knows_it(name: str) -> None:
    assert name_of(build(name)) == name
    assert find(name).name == name


@pytest.mark.parametrize(
    ("alias", "name"),
    [("h7", "hardnet"), ("hardnet8", "h8E512-pca128"), ("h8E512pca128", "h8E512-pca128"), ("h7pca64", "hardnet-pca64")],
)
def test_the_originals_names_are_known(alias: str, name: str) -> None:
    assert name_of(build(alias)) == name


@given(st.sampled_from(["hardnet", "h8", "h8E512", "tfeat"]), st.integers(0, 600), st.sampled_from(["-", ""]))
def test_projections_are_made_for_every_number_of_dimensions_that_fits(base: str, dim: int, dash: str) -> None:
    width = {"h8": 256, "h8E512": 512}.get(base, 128)
    name = f"{base}{dash}pca{dim}"
    if base.startswith("h8"):  # large: only told, not made
        assert find(name).name == f"{base}-pca{dim}"
    elif 1 <= dim <= width:
        assert name_of(build(name)) == f"{base}-pca{dim}"
    else:
        with pytest.raises(OptionError, match=f"keeps 1 to {width}"):
            build(name)


@pytest.mark.parametrize("name", ["", "h9", "affnet-pca2", "rootsift-pca64", "hardnet-pca", "keynet", "pca64"])
def test_other_names_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(OptionError, match="hardnet, h8, h8E512"):
        find(name)


def test_a_width_of_its_own_has_no_name() -> None:
    with pytest.raises(OptionError, match="256 or 512"):
        name_of(HardNet8(384, None))


# Initialisation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gain"),
    [("hardnet", 0.6), ("h8", 0.6), ("h8E512", 0.6), ("hardnet-ps", 0.6), ("affnet", 0.8), ("orinet", 0.8)],
)
def test_initialisation_is_orthogonal_with_the_originals_gain(name: str, gain: float) -> None:
    convolutions = [module for module in build(name).modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 8 if name.startswith("h8") else 7
    for layer in convolutions:
        matrix = layer.weight.detach().flatten(1)
        if matrix.shape[0] > matrix.shape[1]:
            matrix = matrix.T
        torch.testing.assert_close(matrix @ matrix.T, gain**2 * torch.eye(len(matrix)), atol=1e-4, rtol=0)
        if layer.bias is not None:
            assert (layer.bias == 0.01).all()


# Projections ----------------------------------------------------------------------------------------------


def test_a_projection_is_put_on_replaced_and_taken_off() -> None:
    network = trained("hardnet")
    assert isinstance(network, HardNet)
    patches = sample_patches(6, 32)
    plain = network(patches)
    directions, mean = torch.linalg.qr(torch.randn(128, 40))[0], torch.randn(128) * 0.1
    network.project(directions, mean)
    expected = nn.functional.normalize((plain - mean) @ directions, dim=1)
    torch.testing.assert_close(network(patches), expected)
    assert (network.dim, set(network.state_dict()) >= {"components", "mean"}) == (40, True)
    network.project(directions[:, :3])
    assert network(patches).shape == (6, 3)
    network.project(None)
    torch.testing.assert_close(network(patches), plain)
    assert (network.dim, "components" in network.state_dict()) == (128, False)
    with pytest.raises(DataError, match=r"components \(128, 1 to 128\)"):
        network.project(torch.eye(64, 32))
    with pytest.raises(DataError, match="mean"):
        network.project(directions, torch.zeros(40))


# The originals' files, read -------------------------------------------------------------------------------


def lean(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


FORMS = ["dagnyt", "pultarmi", "bare", "safetensors", "jitpt"]
LARGE = ("h8E512", "h8E512-pca128")


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, form) for name in [*TRAINABLE, "tfeat-pca32"] for form in FORMS if name not in LARGE]
    + list(zip(LARGE, ("bare", "safetensors"), strict=True)),
)
def test_files_of_every_form_tell_their_network(tmp_path: Path, name: str, form: str) -> None:
    network = trained(name)
    state, path = network.state_dict(), tmp_path / "w.pth"
    if form == "dagnyt":
        torch.save({"epoch": 3, "state_dict": lean(state)}, path)
    elif form == "pultarmi":
        torch.save({"epoch": 3, "state_dict": state, "optimizer": {}, "model_arch": "?", "save_name": "s"}, path)
    elif form == "bare":
        torch.save(state, path)
    elif form == "safetensors":
        save_weights(path, state, name)
    else:
        torch.jit.trace(network, sample_patches(2, 32), check_trace=False).save(path)
    found = load_network(path)
    assert found.architecture.name == name
    same(found.network, network)


def test_the_originals_own_files_are_read(shared: Path) -> None:
    folder = shared / "weights" / "affnet_repo"
    if not folder.is_dir():
        pytest.skip(f"no networks of the originals in {folder}")
    for file, name in (("AffNet.pth", "affnet"), ("OriNet.pth", "orinet"), ("HardTFeat.pth", "hardtfeat")):
        found = load_network(folder / file)
        assert found.architecture.name == name
        assert read_checkpoint(folder / file).epoch == {"affnet": 20, "orinet": 30, "hardtfeat": 2}[name]
        assert not any(key.startswith("SIFT.") for key in found.network.state_dict())
    assert load_network(folder / "AffNetJIT.pt").architecture.name == "affnet"


def test_an_originals_checkpoint_is_a_start_for_training(tmp_path: Path) -> None:
    """Weights, epoch and SGD's momenta come back, so that the next step is the one that would have followed."""
    torch.manual_seed(0)
    network = build("affnet")
    patches = sample_patches(8, 32)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        torch.manual_seed(7)
        optimizer.zero_grad()
        model(patches)[:, 1].square().mean().backward()
        optimizer.step()

    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, dampening=0.9, weight_decay=1e-4)
    network.train()
    step(network, optimizer)
    state, name = network.state_dict(), tmp_path / "checkpoint_4.pth"
    torch.save({"epoch": 5, "state_dict": state, "optimizer": optimizer.state_dict(), "model_arch": "x"}, name)
    found, read = load_network(name), read_checkpoint(name)
    assert (read.epoch, read.about["model_arch"]) == (5, "x")
    again = found.network.train()
    resumed = torch.optim.SGD(again.parameters(), lr=1.0)
    assert read.optimizer is not None
    resumed.load_state_dict(dict(read.optimizer))
    step(network, optimizer)
    step(again, resumed)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value, atol=1e-6, rtol=1e-5)


# Ours, written --------------------------------------------------------------------------------------------


class Original(nn.Module):
    """The layers of the originals' HardNet and HardNet8 by their table, to load a checkpoint as their tools do."""

    def __init__(self, widths: list[tuple[int, int, int]], last: tuple[int, int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after, stride in widths:
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after, affine=False)]
            layers.append(nn.ReLU())
        layers += [nn.Dropout(0.3), nn.Conv2d(*last, 8, bias=False), nn.BatchNorm2d(last[1], affine=False)]
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        x = (x - flat.mean(1)[:, None, None, None]) / (flat.std(1)[:, None, None, None] + 1e-7)
        return nn.functional.normalize(self.features(x).flatten(1), dim=1)


TRUNK = [(1, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]


@pytest.mark.parametrize(
    ("name", "arch", "original"),
    [
        ("hardnet", "h7", Original(TRUNK, (128, 128))),
        ("h8", "h8", Original([*TRUNK, (128, 256, 1)], (256, 256))),
        ("h8E512-pca128", "h8E512pca128", Original([*TRUNK, (128, 256, 1)], (256, 512))),
    ],
)
def test_the_originals_tools_read_our_checkpoints(tmp_path: Path, name: str, arch: str, original: nn.Module) -> None:
    network, path = trained(name), tmp_path / "mine.pth"
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    save_checkpoint(path, network.state_dict(), name, epoch=9, optimizer=optimizer.state_dict())
    content: dict[str, Any] = torch.load(path, weights_only=True)
    assert {"epoch", "state_dict", "optimizer", "model_arch", "save_name"} <= set(content)
    assert (content["epoch"], content["model_arch"], content["save_name"]) == (9, arch, "mine")
    original.load_state_dict(content["state_dict"], strict=True)
    again = load_network(path)
    assert again.architecture.name == name
    same(again.network, network)
    again.network.project(None)  # type: ignore[operator]
    same(again.network, original.eval(), atol=2e-5)  # they add another epsilon to the deviation


def test_kornia_reads_our_hardnet8() -> None:
    ours = trained("h8E512-pca128")
    theirs = KF.HardNet8(pretrained=False).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    same(ours, theirs)
    assert set(ours.state_dict()) == set(theirs.state_dict())


@pytest.mark.parametrize("half", [False, True])
def test_own_weights_carry_their_architecture(tmp_path: Path, half: bool) -> None:
    network, path = trained("h8-pca96"), tmp_path / "mine.safetensors"
    save_weights(path, network.state_dict(), "h8-pca96", {"command": "by hand"}, half=half)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"architecture": "h8-pca96", "command": "by hand", "format": "pt"}
        assert file.get_tensor("features.0.weight").dtype == (torch.float16 if half else torch.float32)
        assert not any(key.endswith("num_batches_tracked") for key in file.keys())  # noqa: SIM118
    found = load_network(path, "hardnet8", "descriptor")
    assert (found.architecture.name, found.about["command"]) == ("h8-pca96", "by hand")
    assert path.stat().st_mode & 0o044  # others may read it, as the umask says


def test_what_does_not_fit_float16_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"before")
    with pytest.raises(DataError, match=r"float16: features\.0\.weight"):
        save_weights(path, {"features.0.weight": torch.tensor([1e6])}, "hardnet", half=True)
    assert path.read_bytes() == b"before"
    assert [item.name for item in tmp_path.iterdir()] == ["mine.safetensors"]


# Opening --------------------------------------------------------------------------------------------------


def test_a_networks_name_means_its_bundled_weights() -> None:
    for name in ("hardnet", "affnet", "orinet"):
        found = open_network(name)
        assert (found.source, found.architecture.name) == (f"{name}-bundled", name)
    assert open_network("rootsift").source == ""


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("h8",), OptionError, "--weights"),
        (("rootsift", "x.pth"), OptionError, "no weights to load"),
        (("nothing",), WeightsError, "no weights named"),
        (("keynet",), WeightsError, "detector"),
        (("affnet", "hardnet++"), WeightsError, "are for hardnet, not for affnet"),
    ],
)
def test_what_cannot_be_opened_is_told_before_any_download(
    arguments: tuple[str, ...], error: type[Exception], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardnet_match.weights.fetch", lambda entry: pytest.fail("a download"))
    with pytest.raises(error, match=words):
        open_network(*arguments)


def test_weights_of_other_networks_are_refused(tmp_path: Path) -> None:
    save_weights(tmp_path / "o.safetensors", trained("orinet").state_dict(), "orinet")
    torch.save({"strange.weight": torch.zeros(3)}, tmp_path / "s.pth")
    torch.save({"features.19.weight": torch.zeros(128, 128, 8, 8)}, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"orinet, not of affnet"):
        load_network(tmp_path / "o.safetensors", "affnet")
    with pytest.raises(WeightsError, match=r"orinet gives the orientation, not the descriptor"):
        load_network(tmp_path / "o.safetensors", kind="descriptor")
    with pytest.raises(WeightsError, match=r"no network known here .*strange\.weight"):
        load_network(tmp_path / "s.pth")
    with pytest.raises(WeightsError, match="it lacks"):
        load_network(tmp_path / "part.pth")


def test_descriptor_weights_bring_their_network(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_weights(path, trained("h8-pca48").state_dict(), "h8-pca48")
    assert family_of(path) == "hardnet8"
    extractor = FeatureExtractor.from_preset(weights=str(path))
    assert extractor.composition.descriptor == "hardnet8"
    assert extractor.descriptor.dim == 48
    with pytest.raises(WeightsError, match="h8-pca48, not of hardnet"):
        FeatureExtractor.from_preset(weights=str(path), descriptor="hardnet")


def test_extract_takes_projected_weights(tmp_path: Path, rendered: dict[str, Any]) -> None:
    path = tmp_path / "small.safetensors"
    save_weights(path, trained("hardnet-pca24").state_dict(), "hardnet-pca24")
    arguments = ["extract", str(rendered["folder"]), "-o", str(tmp_path / "f.h5"), "--weights", str(path)]
    result = CliRunner().invoke(app, [*arguments, "--max-keypoints", "20", "--max-size", "200", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["settings"]["descriptor"] == "hardnet"
    import h5py

    with h5py.File(tmp_path / "f.h5") as file:
        group = file[sorted(file)[0]]
        assert group["descriptors"].shape[0] == 24
