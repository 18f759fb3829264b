"""Exported files compute what the networks compute: TorchScript, ONNX, weights, and C++ with libtorch."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_helpers import loaded
from torch import Tensor
from typer.testing import CliRunner

from hardnet_match.architectures import ARCHITECTURES, load_network, open_network
from hardnet_match.cli import app
from hardnet_match.errors import ExportError, OptionError, WeightsError
from hardnet_match.export import export_network, form_of
from hardnet_match.export.check import sample_frames, sample_patches
from hardnet_match.export.graph import LEVELS, PatchSampler
from hardnet_match.export.torchscript import torchscript_runner
from hardnet_match.patches import extract_patches
from hardnet_match.pyramid import patch_pyramid

ROOT = Path(__file__).parents[1]
EVERY = [*(name for name in ARCHITECTURES if name not in ("h8", "h8E512")), "h8-pca20"]
NEED_ONNX = ("onnx", "onnxscript", "onnxruntime")


def image(height: int, width: int, seed: int = 0) -> Tensor:
    """A grey picture with structure at several scales, (1, 1, H, W) in [0, 1]."""
    rng = np.random.default_rng(seed)
    layers = [
        cv2.resize(rng.random((max(height // k, 1), max(width // k, 1)), np.float32), (width, height))
        for k in (1, 5, 20)
    ]
    return torch.from_numpy(sum(layers) / 3)[None, None]


def circle(difference: Tensor) -> Tensor:
    return torch.remainder(difference + math.pi, 2 * math.pi) - math.pi


# The extraction of patches as a graph ---------------------------------------------------------------------


@settings(max_examples=40)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 10**6), st.floats(0.3, 200))
def test_sampled_patches_are_those_of_the_pipeline(height: int, width: int, seed: int, scale: float) -> None:
    """Any size of image, frames from a fraction of a pixel to larger than the image."""
    picture = image(height, width, seed)
    frames = sample_frames(20, height, width)
    frames[:, :, :2] *= scale / 20
    with torch.inference_mode():
        expected = extract_patches(patch_pyramid(picture), frames)
        found = PatchSampler()(picture, frames)
    torch.testing.assert_close(found, expected, atol=5e-5, rtol=0)


def test_frames_between_two_levels_get_the_level_of_the_pipeline() -> None:
    picture = image(700, 900)
    sizes = torch.tensor([16 * 2.0**k * factor for k in range(6) for factor in (0.999, 1.0, 1.001)])
    axes = torch.eye(2) * sizes[:, None, None]
    frames = torch.cat([axes, torch.tensor([[450.0], [350.0]]).expand(len(sizes), 2, 1)], 2)
    with torch.inference_mode():
        expected = extract_patches(patch_pyramid(picture), frames)
        torch.testing.assert_close(PatchSampler()(picture, frames), expected, atol=2e-5, rtol=0)


def test_coordinates_of_large_images_stay_good() -> None:
    picture = image(1500, 4000)
    frames = sample_frames(200, 1500, 4000)
    with torch.inference_mode():
        difference = PatchSampler()(picture, frames) - extract_patches(patch_pyramid(picture), frames)
    assert difference.abs().max() < 5e-4  # float32 has 2e-4 of a pixel there
    assert len(patch_pyramid(picture)) <= LEVELS


# TorchScript ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_torchscript_of_every_network(tmp_path: Path, name: str) -> None:
    made = loaded(name)
    done = export_network(made, tmp_path / "n.pt")
    assert (done.form, done.network, done.checked) == ("torchscript", name, "torch.jit")
    assert done.difference is not None
    assert done.difference < 1e-4
    run = torchscript_runner(tmp_path / "n.pt")
    for count in (0, 1, 2, 65):  # it was traced with three
        patches = sample_patches(65, 32)[:count]
        expected = made.network(patches) if count else made.network(sample_patches(1, 32))[:0]
        difference = run(patches) - expected.detach()
        assert run(patches).shape == expected.shape
        difference = circle(difference) if done.output == "angles" else difference
        assert difference.abs().max() < 1e-4 if count else True
    with pytest.raises(Exception, match="patches must be"):
        run(torch.zeros(2, 1, 41, 41))


@pytest.mark.parametrize("name", ["hardnet", "affnet", "orinet"])
def test_torchscript_with_patches(tmp_path: Path, name: str) -> None:
    made = open_network(name)
    done = export_network(made, tmp_path / "n.pt", with_patches=True)
    assert done.inputs == ["image", "lafs"]
    run = torchscript_runner(tmp_path / "n.pt")
    for height, width, count in ((240, 333, 50), (61, 200, 1), (500, 400, 0)):
        picture, frames = image(height, width), sample_frames(max(count, 1), height, width)[:count]
        with torch.inference_mode():
            expected = made.network(extract_patches(patch_pyramid(picture), frames))
            difference = run(picture, frames) - expected
        difference = circle(difference) if name == "orinet" else difference
        assert difference.shape[0] == count
        assert not count or difference.abs().max() < 1e-3


@pytest.mark.parametrize("name", ["hardnet", "hardtfeat"])
def test_half_is_half_the_size_and_nearly_the_same(tmp_path: Path, name: str) -> None:
    made = loaded(name)
    full, half = (export_network(made, tmp_path / f"{half}.pt", half=half) for half in (False, True))
    assert half.bytes < 0.6 * full.bytes
    assert half.difference is not None
    assert full.difference is not None
    assert full.difference < half.difference < 0.05


# Weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["hardnet", "affnet", "orinet", "tfeat", "hardtfeat", "hardnet-ps", "h8-pca20"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_come_back(tmp_path: Path, name: str, suffix: str) -> None:
    made = loaded(name)
    done = export_network(made, tmp_path / f"w{suffix}")
    assert done.difference is not None
    assert done.difference < 1e-5
    again = load_network(tmp_path / f"w{suffix}")
    assert again.architecture.name == name
    for key, value in made.network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(again.network.state_dict()[key], value)


def test_half_weights(tmp_path: Path) -> None:
    made = open_network("hardnet")
    full, half = (export_network(made, tmp_path / f"{half}.safetensors", half=half) for half in (False, True))
    assert half.bytes < 0.51 * full.bytes
    # the bundled weights were float16 to begin with: nothing is lost
    assert half.difference == full.difference


# ONNX -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["hardnet", "orinet", *(pytest.param(n, marks=pytest.mark.slow) for n in EVERY if n not in ("hardnet", "orinet"))],
)
def test_onnx_of_every_network(tmp_path: Path, name: str) -> None:
    for module in NEED_ONNX:
        pytest.importorskip(module)
    import onnx
    import onnxruntime

    made, path = loaded(name), tmp_path / "n.onnx"
    done = export_network(made, path)
    assert (done.form, done.inputs, done.checked) == ("onnx", ["patches"], "onnxruntime")
    assert done.difference is not None
    assert done.difference < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # onnxruntime has no batched product of no matrices, which RootSIFT's cells would be
    for count in (1, 2, 65) if name == "rootsift" else (0, 1, 2, 65):
        patches = sample_patches(65, 32)[:count]
        (found,) = session.run([done.output], {"patches": patches.numpy()})
        expected = made.network(patches) if count else made.network(sample_patches(1, 32))[:0]
        assert found.shape == expected.shape
        difference = torch.from_numpy(found) - expected.detach()
        difference = circle(difference) if done.output == "angles" else difference
        assert difference.abs().max() < 1e-4 if count else True
    model = onnx.load(path)
    onnx.checker.check_model(model)
    assert {item.key: item.value for item in model.metadata_props}["architecture"] == name
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    content = path.read_bytes()
    assert b"site-packages" not in content  # nothing of the machine that wrote it
    assert str(ROOT).encode() not in content


@pytest.mark.slow
def test_onnx_with_patches(tmp_path: Path) -> None:
    for module in NEED_ONNX:
        pytest.importorskip(module)
    import onnxruntime

    made, path = open_network("hardnet"), tmp_path / "n.onnx"
    done = export_network(made, path, with_patches=True)
    assert done.inputs == ["image", "lafs"]
    assert done.difference is not None
    assert done.difference < 1e-4
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for height, width, count in ((240, 333, 40), (31, 31, 3), (64, 200, 1), (800, 600, 60)):
        picture, frames = image(height, width), sample_frames(count, height, width)
        with torch.inference_mode():
            expected = made.network(extract_patches(patch_pyramid(picture), frames)).numpy()
        (found,) = session.run(["descriptors"], {"image": picture.numpy(), "lafs": frames.numpy()})
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_onnx_is_written_without_a_sound(tmp_path: Path) -> None:
    for module in NEED_ONNX:
        pytest.importorskip(module)
    command = [sys.executable, "-m", "hardnet_match", "export", "affnet", "-o", str(tmp_path / "a.onnx"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ})
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert (summary["network"], summary["output"], summary["checked"]) == ("affnet", "shapes", "onnxruntime")
    assert summary["difference"] < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx"]  # weights inside, no file beside it


def test_onnx_without_the_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardnet_match.export.onnx.importlib.util.find_spec", lambda name: None)
    with pytest.raises(OptionError, match=r"pip install \"hardnet-match\[export\]\""):
        export_network(loaded("affnet"), tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


# Wrong use ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "options", "words"),
    [
        ("n.caffemodel", {}, r"\.onnx, \.pt"),
        ("n", {}, "suffix"),
        ("n.safetensors", {"with_patches": True}, "no patch extraction"),
        ("n.pth", {"half": True}, "float32"),
    ],
)
def test_forms_that_cannot_be(output: str, options: dict[str, bool], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        form_of(output, **options)


def test_a_file_that_computes_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "n.pt").write_bytes(b"before")
    monkeypatch.setattr("hardnet_match.export.files.worst_difference", lambda *_, **__: (0.3, 67))
    with pytest.raises(ExportError, match=r"differs from the network by 0\.3"):
        export_network(loaded("affnet"), tmp_path / "n.pt")
    assert (tmp_path / "n.pt").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["n.pt"]


def test_an_exported_graph_is_no_weights_file(tmp_path: Path) -> None:
    export_network(loaded("affnet"), tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="exported for use elsewhere"):
        load_network(tmp_path / "a.pt")
    (tmp_path / "a.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    with pytest.raises(WeightsError, match="ONNX"):
        load_network(tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["hardnet", "-o", "n.xyz"], 2, "suffix"),
        (["hardnet", "-o", "n.pt", "--with", "frames"], 2, "with patches"),
        (["nothing", "-o", "n.pt"], 1, "no weights named"),
        (["no.pth", "-o", "n.pt"], 1, "no such weights file"),
        (["keynet", "-o", "n.pt"], 1, "detector"),
        (["rootsift", "-o", "n.safetensors"], 2, "no weights"),
        (["h8", "-o", "n.pt"], 2, "--weights"),
        (["hardnet", "-o", "no/n.pt"], 2, "does not exist"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    arguments: list[str], code: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["export", *arguments])
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_verb_tells_what_it_wrote(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["export", "affnet", "-o", str(tmp_path / "a.pt")])
    assert result.exit_code == 0, result.output
    for words in ("affnet as torchscript, patches -> shapes", "differs from the network by", "torch.jit"):
        assert words in result.stdout


# C++ ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_cpp_example_gives_the_same_descriptors(tmp_path: Path) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    from torch.utils.cpp_extension import include_paths, library_paths

    headers, libraries = include_paths(), library_paths()
    if not any((Path(folder) / "torch" / "script.h").is_file() for folder in headers):
        pytest.skip("this torch comes without libtorch's headers")
    program = tmp_path / "describe"
    command = [
        *(compiler, "-std=c++20", f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"),
        *(str(ROOT / "examples" / "cpp" / "describe.cpp"), "-o", str(program)),
        *(f"-isystem{folder}" for folder in headers),
        *(f"-L{folder}" for folder in libraries),
        *(f"-Wl,-rpath,{folder}" for folder in libraries),
        *("-ltorch", "-ltorch_cpu", "-lc10"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert built.returncode == 0, built.stderr[-3000:]
    export_network(open_network("hardnet"), tmp_path / "n.pt")
    stored = (sample_patches(300, 65)[:, 0] * 255).byte().numpy()
    cv2.imwrite(str(tmp_path / "p.pgm"), stored.reshape(-1, 65))
    arguments = [str(program), "n.pt", "p.pgm", "d.csv"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    result = CliRunner().invoke(app, ["describe", str(tmp_path / "p.pgm"), "-o", str(tmp_path / "e.csv")])
    assert result.exit_code == 0, result.output
    ours, theirs = (np.loadtxt(tmp_path / name, delimiter=",") for name in ("e.csv", "d.csv"))
    assert theirs.shape == (300, 128)
    np.testing.assert_allclose(theirs, ours, atol=2.1e-5)  # two roundings to five places
    (tmp_path / "bad.pgm").write_bytes(b"P5 32 40 255\n" + bytes(32 * 40))
    refused = subprocess.run([str(program), "n.pt", "bad.pgm", "x.csv"], cwd=tmp_path, capture_output=True, text=True)
    assert (refused.returncode, "no multiple of the width" in refused.stderr) == (1, True)
