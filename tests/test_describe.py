"""Descriptors of patch files: kornia's numbers, every form in and out, and folders that go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import kornia.feature as KF
import numpy as np
import pytest
import torch
from network_helpers import trained
from numpy.typing import NDArray
from typer.testing import CliRunner

from hardnet_match.architectures import open_network
from hardnet_match.cli import app
from hardnet_match.errors import DataError, OptionError, StoreError
from hardnet_match.export.check import sample_patches
from hardnet_match.jobs.describe import describe_patches
from hardnet_match.patches import fit_patches
from hardnet_match.training.patchset import PatchSet
from hardnet_match.weights import save_weights


def patches(count: int, side: int = 32) -> NDArray[np.uint8]:
    return np.asarray(
        (sample_patches(count, side)[:, 0] * 255).byte().numpy() if count else np.zeros((0, side, side)), np.uint8
    )


def column(path: Path, count: int, side: int = 32) -> NDArray[np.uint8]:
    made = patches(count, side)
    assert cv2.imwrite(str(path), made.reshape(-1, side))
    return made


def kornias(made: NDArray[np.uint8]) -> NDArray[np.float32]:
    """kornia's HardNet with the bundled weights, on patches shrunk as OpenCV does it in float32."""
    network = KF.HardNet(pretrained=False).eval()
    network.load_state_dict(open_network("hardnet").network.state_dict(), strict=True)
    small = [cv2.resize(patch.astype(np.float32), (32, 32)) for patch in made]
    with torch.inference_mode():
        out: NDArray[np.float32] = network(torch.from_numpy(np.stack(small))[:, None] / 255).numpy()
    return out


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["describe", *map(str, arguments)])


@pytest.mark.parametrize("side", [32, 65])
@pytest.mark.parametrize("count", [0, 1, 127, 128, 129])
def test_numbers_are_kornias(tmp_path: Path, count: int, side: int) -> None:
    np.save(tmp_path / "p.npy", patches(count, side))
    summary = describe_patches(tmp_path / "p.npy", tmp_path / "d.npy", quiet=True)
    found = np.load(tmp_path / "d.npy")
    assert (summary.patches, found.shape, found.dtype) == (count, (count, 128), np.float32)
    if count:
        np.testing.assert_allclose(found, kornias(patches(count, side)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", [1, 127, 128, 129])
def test_a_column_from_the_command_line_to_text(tmp_path: Path, count: int) -> None:
    made = column(tmp_path / "ref.png", count)
    result = run(tmp_path / "ref.png", "-o", tmp_path / "d.csv")
    assert result.exit_code == 0, result.output
    assert f"{count} patches, 128 dimensions" in result.stdout
    lines = (tmp_path / "d.csv").read_text().splitlines()
    assert len(lines) == count
    assert all(len(field) == 10 and field[-6] == "." for field in lines[0].split(","))  # %10.5f
    np.testing.assert_allclose(np.loadtxt(lines, delimiter=",", ndmin=2), kornias(made), atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [1, 7, 20, 33, 64, 96])
def test_patches_of_any_side_are_resized_as_opencv_does(side: int) -> None:
    made = patches(9, side)
    expected = np.stack([cv2.resize(patch.astype(np.float32), (32, 32)) for patch in made]) / 255
    np.testing.assert_allclose(fit_patches(torch.from_numpy(made))[:, 0], expected, atol=2e-6)


def test_every_form_holds_the_same_rows(tmp_path: Path) -> None:
    column(tmp_path / "ref.png", 5, 65)
    for form in ("csv", "txt", "npy", "h5"):
        summary = describe_patches(tmp_path / "ref.png", tmp_path / f"d.{form}", quiet=True)
        assert (summary.files, summary.reused, summary.dim) == (1, 0, 128)
    rows = np.load(tmp_path / "d.npy")
    with h5py.File(tmp_path / "d.h5") as file:
        np.testing.assert_array_equal(file["descriptors"][:], rows)
        assert json.loads(file.attrs["settings"])["descriptor"] == "hardnet"
    for form, delimiter in (("csv", ","), ("txt", " ")):
        np.savetxt(tmp_path / "expected", rows, delimiter=delimiter, fmt="%10.5f")
        assert (tmp_path / f"d.{form}").read_text() == (tmp_path / "expected").read_text()


@pytest.mark.parametrize("form", ["csv", "txt", "npy", "h5"])
def test_no_patches_make_an_empty_file(tmp_path: Path, form: str) -> None:
    np.save(tmp_path / "p.npy", patches(0))
    result = run(tmp_path / "p.npy", "-o", tmp_path / f"d.{form}")
    assert result.exit_code == 0, result.output
    if form == "h5":
        with h5py.File(tmp_path / "d.h5") as file:
            assert file["descriptors"].shape == (0, 128)
    elif form == "npy":
        assert np.load(tmp_path / "d.npy").shape == (0, 128)
    else:
        assert (tmp_path / f"d.{form}").read_bytes() == b""


def test_other_networks_and_weights(tmp_path: Path) -> None:
    column(tmp_path / "ref.png", 4)
    weights = tmp_path / "mine.safetensors"
    save_weights(weights, trained("h8-pca20").state_dict(), "h8-pca20")
    assert describe_patches(tmp_path / "ref.png", tmp_path / "a.npy", weights=str(weights), quiet=True).dim == 20
    with torch.inference_mode():
        expected = trained("h8-pca20")(fit_patches(torch.from_numpy(patches(4)))).numpy()
    np.testing.assert_allclose(np.load(tmp_path / "a.npy"), expected, atol=1e-5)
    summary = describe_patches(tmp_path / "ref.png", tmp_path / "b.npy", descriptor="rootsift", quiet=True)
    assert summary.settings == {"descriptor": "rootsift", "weights": None}
    with pytest.raises(OptionError, match="no descriptor"):
        describe_patches(tmp_path / "ref.png", tmp_path / "c.npy", descriptor="affnet", quiet=True)


def test_a_patch_set_is_shown_through_its_measurement_region(tmp_path: Path) -> None:
    stored = patches(6, 64)
    zeros = np.zeros(6, np.int32)
    PatchSet(stored, np.arange(6), zeros, zeros, margin=2.0).save(tmp_path / "s.h5")
    describe_patches(tmp_path / "s.h5", tmp_path / "d.npy", quiet=True)
    np.testing.assert_allclose(np.load(tmp_path / "d.npy"), kornias(stored[:, 16:48, 16:48]), atol=1e-5)


def test_a_brown_folder(tmp_path: Path) -> None:
    made = patches(300, 64)
    grid = np.zeros((512, 64, 64), np.uint8)
    grid[:300] = made
    folder = tmp_path / "liberty"
    folder.mkdir()
    for number in range(2):
        cells = grid[256 * number : 256 * (number + 1)].reshape(16, 16, 64, 64).swapaxes(1, 2).reshape(1024, 1024)
        cv2.imwrite(str(folder / f"patches{number:04d}.bmp"), cells)
    (folder / "info.txt").write_text("".join(f"{k // 2} 0\n" for k in range(300)))
    result = run(folder, "-o", tmp_path / "d.npy", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["patches"] == 300
    np.testing.assert_allclose(np.load(tmp_path / "d.npy")[250:262], kornias(made[250:262]), atol=1e-5)


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    for number, name in enumerate(("i_one/ref.png", "i_one/e1.png", "v_two/ref.png")):
        (tmp_path / "hp" / name).parent.mkdir(parents=True, exist_ok=True)
        column(tmp_path / "hp" / name, 3 + number, 65)
    return tmp_path / "hp"


def test_hpatches_sequences_keep_their_folders_and_go_on(tmp_path: Path, sequences: Path) -> None:
    (sequences / "v_two" / "t5.png").write_bytes(b"no picture")
    cv2.imwrite(str(sequences / "v_two" / "h1.png"), np.zeros((100, 65), np.uint8))
    target = tmp_path / "out"
    result = run(sequences, "-o", target)
    assert result.exit_code == 3
    for words in ("2 skipped", "v_two/t5.png: ", "v_two/h1.png: 65 wide and 100 high"):
        assert words in result.stdout
    written = sorted(path.relative_to(target).as_posix() for path in target.rglob("*.csv"))
    assert written == ["i_one/e1.csv", "i_one/ref.csv", "v_two/ref.csv"]
    assert len(np.loadtxt(target / "v_two" / "ref.csv", delimiter=",")) == 5
    (target / "i_one" / "e1.csv").unlink()
    before = (target / "i_one" / "ref.csv").stat().st_mtime_ns
    again = describe_patches(sequences, target, quiet=True)
    assert (again.files, again.reused, again.patches) == (1, 2, 4)
    assert (target / "i_one" / "ref.csv").stat().st_mtime_ns == before
    assert describe_patches(sequences, target, overwrite=True, quiet=True).files == 3
    with pytest.raises(StoreError, match="rootsift"):
        describe_patches(sequences, target, descriptor="rootsift", quiet=True)
    assert describe_patches(sequences, target, descriptor="rootsift", form="npy", overwrite=True, quiet=True).files == 3


def test_two_pictures_of_one_name_do_not_overwrite_each_other(tmp_path: Path, sequences: Path) -> None:
    column(sequences / "v_two" / "ref.bmp", 9)
    summary = describe_patches(sequences, tmp_path / "out", quiet=True)
    assert summary.skipped == {"v_two/ref.png": "its result would replace that of v_two/ref.bmp"}
    assert (summary.files, summary.patches) == (3, 3 + 4 + 9)


def test_results_of_unknown_make_are_not_added_to(tmp_path: Path, sequences: Path) -> None:
    (tmp_path / "out" / "i_one").mkdir(parents=True)
    (tmp_path / "out" / "i_one" / "ref.csv").write_text("1,2\n")
    with pytest.raises(StoreError, match="unknown make"):
        describe_patches(sequences, tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "i_one" / "ref.csv").read_text() == "1,2\n"


@pytest.mark.parametrize(
    ("name", "target", "code", "words"),
    [
        ("bad.png", "d.csv", 1, "65 wide and 100 high"),
        ("wide.png", "d.csv", 1, "40 wide and 20 high"),
        ("text.png", "d.csv", 1, "text.png"),
        ("no.png", "d.csv", 2, "no.png"),
        ("float.npy", "d.csv", 1, "float32"),
        ("flat.npy", "d.csv", 1, "(4, 32)"),
        ("text.npy", "d.csv", 1, "text.npy"),
        ("text.h5", "d.csv", 1, "text.h5"),
        ("good.png", "d.xml", 2, ".csv, .txt, .npy, .h5"),
        ("good.png", "no/d.csv", 2, "does not exist"),
        ("empty", "d", 2, "empty"),
        ("folder", "d.txt", 2, "is a file"),
    ],
)
def test_what_cannot_be_described_is_told_in_one_line(
    tmp_path: Path, name: str, target: str, code: int, words: str
) -> None:
    cv2.imwrite(str(tmp_path / "bad.png"), np.zeros((100, 65), np.uint8))
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((20, 40), np.uint8))
    column(tmp_path / "good.png", 2)
    for suffix in ("png", "npy", "h5"):
        (tmp_path / f"text.{suffix}").write_text("this is text")
    np.save(tmp_path / "float.npy", np.zeros((2, 32, 32), np.float32))
    np.save(tmp_path / "flat.npy", np.zeros((4, 32), np.uint8))
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder").mkdir()
    column(tmp_path / "folder" / "ref.png", 1)
    (tmp_path / "d.txt").write_text("mine")
    result = run(tmp_path / name, "-o", tmp_path / target)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert (tmp_path / "d.txt").read_text() == "mine"
    assert not (tmp_path / "d.csv").exists()


def test_a_failure_half_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "p.npy", patches(3))
    (tmp_path / "d.csv").write_text("before")

    def fail(*_: Any) -> Any:
        raise DataError("half way")

    monkeypatch.setattr("hardnet_match.jobs.describe.run_tiled", fail)
    with pytest.raises(DataError, match="half way"):
        describe_patches(tmp_path / "p.npy", tmp_path / "d.csv", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.csv", "p.npy"]
    assert (tmp_path / "d.csv").read_text() == "before"
