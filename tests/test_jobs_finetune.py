"""Fine-tuning on one's own photos: the verdict, what is written, and what is told."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finetune_helpers import TINY, made_scene
from page_helpers import Seen
from typer.testing import CliRunner

from hardnet_match import weights
from hardnet_match.cli import app
from hardnet_match.errors import OptionError
from hardnet_match.jobs import finetune as job
from hardnet_match.jobs import finetune_stages
from hardnet_match.jobs.finetune_summary import change_error, verdict
from hardnet_match.sfm.views import read_views
from hardnet_match.store import FeatureReader
from hardnet_match.training.adapt import adapt
from hardnet_match.training.measure import Figures, PairFigures
from hardnet_match.training.patchset import PatchSet


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos`, their true `model` and `features.h5`; nobody may write there."""
    return made_scene(tmp_path_factory.mktemp("scene"))


def made_figures(*precisions: float, correct: int = 100, fpr: float = 0.01) -> Figures:
    pairs = tuple(PairFigures("a.jpg", f"{n}.jpg", 50, p, p, 120, correct) for n, p in enumerate(precisions))
    total = correct * len(pairs)
    mean = float(np.mean(precisions))
    return Figures(fpr, mean, mean, 120 * len(pairs), total, total / (120 * len(pairs)), pairs)


def test_verdict() -> None:
    before = made_figures(0.8, 0.9)
    assert verdict(before, made_figures(0.82, 0.9))[0]
    better, reason = verdict(before, made_figures(0.8, 0.89))
    assert not better
    assert "not improved" in reason
    assert "85.00 -> 84.50" in reason
    assert not verdict(before, made_figures(0.9, 0.9, correct=95))[0]
    assert verdict(before, made_figures(0.9, 0.9, correct=99))[0]
    assert not verdict(before, None)[0]
    assert change_error(before, made_figures(0.82, 0.94)) == pytest.approx(0.01)
    assert change_error(made_figures(0.8), made_figures(0.9)) is None


def run_job(scene: Path, output: Path, **changes: Any) -> Any:
    options: dict[str, Any] = {"model": scene / "model", "plan": TINY, "device": "cpu", "quiet": True, **changes}
    return job.finetune(scene / "photos", output, **options)


def test_job_writes_weights_and_page_and_goes_on(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.safetensors"
    summary = run_job(scene, output)
    assert summary.held
    assert summary.points >= 40
    assert summary.steps == 3
    kept = weights.read_checkpoint(output)
    state, start = kept.state, weights.load_state_dict("hardnet-bundled", "hardnet")
    changed = any(not torch.equal(state[name], start[name].half().float()) for name in state)
    assert changed == summary.improved
    assert kept.about["architecture"] == "hardnet"
    page = Path(summary.page).read_text(encoding="utf-8")
    assert Seen(page).open == []
    assert summary.held[0] in page
    assert f"{100 * summary.before['matching_map']:.2f} %" in page
    # not one patch of a held-out photo was even cut
    held = {view.image_id for view in read_views(scene / "model", scene / "features.h5") if view.name in summary.held}
    for name in ("learn.h5", "choose.h5"):
        assert not held & set(PatchSet.load(Path(summary.work) / name).image.tolist())
    again = run_job(scene, output)
    assert "done" in again.reused
    assert json.dumps([again.before, again.after]) == json.dumps([summary.before, summary.after])
    Path(summary.page).unlink()
    once_more = run_job(scene, output)
    assert Path(summary.page).is_file()
    assert json.dumps(once_more.after) == json.dumps(summary.after)


def test_worse_weights_are_not_taken(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = finetune_stages.measure
    calls: list[int] = []

    def second_time_worse(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        figures, answers = real(*arguments, **options)
        return (made_figures(*[0.0] * len(figures.pairs)) if len(calls) > 1 else figures), answers

    def learned(network: Any, *arguments: Any, **options: Any) -> Any:
        came = adapt(network, *arguments, **options)
        other = copy.deepcopy(network)
        with torch.no_grad():
            next(other.parameters()).mul_(1.01)
        return replace(came, network=other, share=0.5, step=3)

    monkeypatch.setattr(finetune_stages, "measure", second_time_worse)
    monkeypatch.setattr(job, "adapt", learned)
    summary = run_job(scene, tmp_path / "mine.safetensors")
    assert not summary.improved
    assert "not improved" in summary.words()
    assert "not improved" in Path(summary.page).read_text().lower()
    start = weights.load_state_dict("hardnet-bundled", "hardnet")
    for name, value in weights.read_checkpoint(tmp_path / "mine.safetensors").state.items():
        assert torch.equal(value, start[name]), name


def test_what_cannot_work_is_told(scene: Path, tmp_path: Path) -> None:
    photos, model = str(scene / "photos"), str(scene / "model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.safetensors").write_bytes(b"precious")
    for arguments, code, words in (
        ([photos, "-o", str(tmp_path / "w.pth"), "--model", model], 2, "safetensors"),
        ([photos, "-o", str(tmp_path / "other.safetensors"), "--model", model], 2, "--overwrite"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--from", "rootsift", "--model", model], 2, "no weights"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--from", "affnet", "--model", model], 2, "no descriptor"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--from", "no-such", "--model", model], 1, "no-such"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--hold-out", "1.5", "--model", model], 2, "between 0 and 1"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--minutes", "0", "--model", model], 2, "minutes"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--model", str(tmp_path / "empty")], 1, "empty"),
        ([str(tmp_path / "empty"), "-o", str(tmp_path / "w.safetensors")], 2, "no images"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--detector", "eye"], 2, "eye"),
    ):
        result = CliRunner().invoke(app, ["finetune", *arguments, "--quiet"])
        assert result.exit_code == code, result.output
        assert words in result.output
        assert "Traceback" not in result.output
    assert (tmp_path / "other.safetensors").read_bytes() == b"precious"


def test_options_errors_are_errors(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        run_job(scene, tmp_path / "w.safetensors", hold_out=0.0)


@pytest.mark.slow
def test_command_from_photos_to_features(rendered: dict[str, Any], tmp_path: Path) -> None:
    """The whole way: photos, fine-tuning, and features by the new weights, which are told apart from the old ones'."""
    output = tmp_path / "mine.safetensors"
    command = ["finetune", str(rendered["folder"]), "-o", str(output), "--minutes", "0.05", "--max-keypoints", "700"]
    result = CliRunner().invoke(app, [*command, "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["photos"] >= 4
    assert output.is_file()
    assert output.with_suffix(".html").is_file()
    assert (tmp_path / "mine-finetune" / "reconstruction" / "sparse" / "0").is_dir()
    hashes = []
    for name, more in (("old.h5", []), ("new.h5", ["--weights", str(output)])):
        extract = ["extract", str(rendered["folder"]), "-o", str(tmp_path / name), "--max-keypoints", "200", *more]
        assert CliRunner().invoke(app, [*extract, "--quiet"]).exit_code == 0
        with FeatureReader(tmp_path / name) as reader:
            hashes.append(reader.settings_hash)
            assert len(reader.read(reader.names()[0])) > 0
    assert hashes[0] != hashes[1]
