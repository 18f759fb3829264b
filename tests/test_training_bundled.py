"""Packed patches, and the script that remakes the bundled weights, where torch is there and little else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import made_up_set

from hardnet_match.architectures import load_network
from hardnet_match.errors import DataError, StoreError
from hardnet_match.training.judge import descriptor_figures, hold_out
from hardnet_match.training.pack import choose, pack, packed_loss, unpack
from hardnet_match.weights.reading import read_state

SCRIPT = Path(__file__).parents[1] / "scripts" / "train_bundled.py"
ABSENT = ("kornia", "pycolmap", "safetensors", "filelock", "typer", "tqdm", "PIL", "scipy", "tensorboard")


def test_packed_patches_come_back_nearly_as_they_were(tmp_path: Path) -> None:
    found = made_up_set(300, views=3)
    kept = pack({"corpus": found, "held": made_up_set(40, seed=1)}, tmp_path / "p", 5, quality=80)
    assert kept == {"corpus": len(found), "held": 80}
    again = unpack(tmp_path / "p")["corpus"]
    assert (again.track == found.track).all()
    assert (again.image == found.image).all()
    assert (again.scene == found.scene).all()
    assert again.margin == found.margin
    np.testing.assert_allclose(again.position, found.position, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(again.size, found.size)
    np.testing.assert_allclose(again.direction, found.direction, atol=2e-3)
    error = np.sqrt(np.mean((again.patches.astype(float) - found.patches) ** 2))
    assert 0.1 < error < 4
    assert packed_loss(found, 95) < packed_loss(found, 80) < packed_loss(found, 30)
    network = load_network("hardnet-bundled").network
    one, other = (descriptor_figures(network, hold_out(part, 100))["rank1"] for part in (found, again))
    assert other > one - 0.03


def test_a_pack_keeps_to_its_size_and_to_tracks_with_views(tmp_path: Path) -> None:
    found = made_up_set(900, views=6)
    kept = pack({"corpus": found}, tmp_path / "p", 0.6)
    assert (tmp_path / "p").stat().st_size < 0.6 * 2**20
    assert kept["corpus"] < len(found)
    again = unpack(tmp_path / "p")["corpus"]
    counts = np.unique(again.track, return_counts=True)[1]
    assert counts.max() == 4
    assert 0.2 < (counts == 1).sum() / len(again) < 0.5
    with pytest.raises(DataError, match="too little"):
        pack({"corpus": found}, tmp_path / "small", 0.0005)
    assert not (tmp_path / "small").exists()


def test_chosen_views_are_spread_over_a_track() -> None:
    found = made_up_set(20, views=7)
    rows = choose(found, 1000, views=3, singles=0.0)
    assert len(np.unique(rows)) == len(rows)
    starts = np.flatnonzero(np.r_[True, np.diff(found.track) > 0])
    for start in starts[:10]:
        assert sorted(rows[(rows >= start) & (rows < start + 7)] - start) == [0, 2, 4]
    assert len(choose(found, 10)) <= 10


def test_what_is_no_pack_is_told(tmp_path: Path) -> None:
    (tmp_path / "no").write_bytes(b"nothing")
    with pytest.raises(StoreError, match="packed"):
        unpack(tmp_path / "no")
    made_up_set(10).save(tmp_path / "set.h5")
    with pytest.raises(StoreError, match="packed"):
        unpack(tmp_path / "set.h5")


@pytest.mark.slow
def test_the_bundled_networks_are_remade_where_only_torch_numpy_h5py_and_opencv_are(tmp_path: Path) -> None:
    """From a packed file to three networks; then, with everything there, to the files that the package carries."""
    pack({"corpus": made_up_set(200), "held": made_up_set(60, seed=1)}, tmp_path / "corpus.pack", 5)
    changes = [
        f"{name}:{change}"
        for name in ("hardnet", "affnet", "orinet")
        for change in ("schedule.batch=8", "schedule.epochs=1", "schedule.pairs_an_epoch=24", "run.pairs=20")
    ]
    arguments = ["--packed", str(tmp_path / "corpus.pack"), "--work", str(tmp_path / "work"), "--device", "cpu"]
    arguments += ["--only", "hardnet", "affnet", "orinet", "--threads", "1", "--set", *changes]
    bare = f"""
import runpy, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {ABSENT!r} else found(name, package)
sys.argv = [{str(SCRIPT)!r}, *{arguments!r}]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", bare], capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("hardnet", "affnet", "orinet"):
        last = tmp_path / "work" / "runs" / name / "last.safetensors"
        checkpoint = read_state(tmp_path / "work" / "runs" / name / "last.pt")
        weights = read_state(last)
        assert all(torch.equal(value, checkpoint[key]) for key, value in weights.items())
        assert load_network(last).architecture.name == name
    again = subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=500, check=False
    )
    assert again.returncode == 0, again.stderr
    for name in ("hardnet", "affnet", "orinet"):
        assert load_network(tmp_path / "work" / f"{name}-bundled.safetensors").architecture.name == name


@pytest.mark.slow
def test_the_benchmark_of_a_step_counts(tmp_path: Path) -> None:
    made_up_set(40).save(tmp_path / "a.h5")
    script = SCRIPT.with_name("bench_training.py")
    arguments = [str(tmp_path / "a.h5"), "--batch", "8", "--threads", "1", "--precision", "float32", "--seconds", "0.1"]
    done = subprocess.run(
        [sys.executable, str(script), *arguments, "--device", "cpu"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    cells = [cell.strip() for cell in done.stdout.splitlines()[-1].split("|")]
    assert cells[1:4] == ["1", "float32", "8"]
    step, patches, products, ratio = (float(cells[place]) for place in (4, 5, 11, 13))
    assert patches == pytest.approx(16 / step, rel=0.1)
    assert ratio == pytest.approx(step / products, rel=0.5)
    assert 0.3 < ratio < 100
