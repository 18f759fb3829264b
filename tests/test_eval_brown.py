"""`eval brown`: by hand, with networks and peers, and what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from benchmark_helpers import brown_set
from typer.testing import CliRunner

from hardnet_match.cli import app
from hardnet_match.jobs.brown import evaluate_brown
from hardnet_match.metrics.patches import fpr95


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["eval", "brown", *map(str, arguments)])


def test_brown_by_hand(tmp_path: Path) -> None:
    """Descriptors that are one number: distances, and so the figure, can be read off."""
    folder, _, rows = brown_set(tmp_path / "set", 20)
    numbers = np.zeros((300, 1), np.float32)
    numbers[rows[:20, 0], 0] = np.arange(20) * 100
    numbers[rows[:20, 1], 0] = np.arange(20) * 100 + np.arange(20)  # matching pairs are 0, 1, ..., 19 apart
    np.save(tmp_path / "d.npy", numbers)
    [found] = evaluate_brown(folder, files={"numbers": tmp_path / "d.npy"}, quiet=True).scores
    # 95 % of 20 are the 19 nearest: at most 18 apart. Others: 100 k against 100 (k - 1) + k - 1, that is 101 - k apart
    # for k = 1, ..., 19 (101 - 19 = 82 the nearest), and 0 against 1919.
    assert (found.dim, found.fpr95) == (1, 0.0)
    numbers[rows[:20, 1], 0] += 95  # now matching pairs are 95 + k apart, kept at 113; others 6 - k apart, but for one
    np.save(tmp_path / "d.npy", numbers)
    [found] = evaluate_brown(folder, files={"numbers": tmp_path / "d.npy"}, quiet=True).scores
    assert found.fpr95 == 19 / 20


def test_brown_with_networks_and_peers(tmp_path: Path) -> None:
    import kornia.feature as KF

    from hardnet_match.architectures import open_network

    folder, patches, rows = brown_set(tmp_path / "set")
    markdown = tmp_path / "t.md"
    result = run(
        folder, "--descriptor", "hardnet,rootsift", "--peers", "sift,rootsift-opencv", "--json", "-q",
        "--markdown", markdown,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["pairs"], found["matching"], found["patches"]) == (120, 60, 120)
    assert [one["label"] for one in found["scores"]] == ["hardnet", "rootsift", "sift", "rootsift-opencv"]
    assert all(0 <= one["fpr95"] < 0.5 for one in found["scores"])
    assert "| hardnet |" in markdown.read_text(encoding="utf-8")
    network = KF.HardNet(pretrained=False).eval()
    network.load_state_dict(open_network("hardnet").network.state_dict())
    small = np.stack([cv2.resize(patch.astype(np.float32), (32, 32)) for patch in patches]) / 255
    with torch.inference_mode():
        described = network(torch.from_numpy(small)[:, None]).double()
    distance = (described[rows[:, 0]] - described[rows[:, 1]]).norm(dim=1)
    assert found["scores"][0]["fpr95"] == pytest.approx(fpr95(distance[:60], distance[60:]), abs=1 / 60)


def test_brown_that_cannot_be_measured_is_told(tmp_path: Path) -> None:
    folder, _, _ = brown_set(tmp_path / "set")
    np.save(tmp_path / "short.npy", np.zeros((5, 3)))
    for words, code, told in (
        (["--descriptor", "affnet"], 2, "no descriptor"),
        (["--descriptor", "hardnet", "--descriptors", f"hardnet={tmp_path / 'short.npy'}"], 2, "named twice"),
        (["--peers", "orb"], 2, "no peer 'orb'"),
        (["--descriptors", f"a={tmp_path / 'short.npy'}"], 1, "(300, D)"),
        (["--descriptors", f"a={tmp_path / 'no.npy'}"], 1, "no.npy"),
    ):
        result = run(folder, *words)
        assert result.exit_code == code, result.output
        assert told in result.stderr
    (folder / "m50_100000_100000_0.txt").unlink()
    result = run(folder)
    assert result.exit_code == 1
    assert "no pairs" in result.stderr
