"""The loop: exact resume, schedules, checkpoints, logs, and what is refused."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from training_helpers import made_up_set

from hardnet_match.descriptors import HardNet
from hardnet_match.errors import OptionError, StoreError, TrainingError, WeightsError
from hardnet_match.orientation import OriNet
from hardnet_match.shape import AffNet
from hardnet_match.training.augment import Light, make_augmentation
from hardnet_match.training.checkpoint import load_checkpoint, resume_original
from hardnet_match.training.logs import RunLog, read_rows
from hardnet_match.training.losses import make_loss
from hardnet_match.training.parallel import Processes
from hardnet_match.training.sampling import PairSampler
from hardnet_match.training.schedules import Optimiser, Schedule, build
from hardnet_match.training.tasks import DescriptorTask, OrientationTask, ShapeTask, Task
from hardnet_match.training.trainer import Best, Trainer, choose_precision
from hardnet_match.weights import load_into, read_state


class Killed(Exception):
    """Stands for the end of a process."""


def sampler() -> PairSampler:
    return PairSampler(made_up_set(60))


def orientation(guided: float = 0.4) -> Task:
    torch.manual_seed(0)
    return OrientationTask(OriNet(), guided=guided, dropout=None, light=Light())


def described(loss: str = "triplet_margin") -> Task:
    torch.manual_seed(0)
    augment = make_augmentation(["fliprot", "jitter", "photometric"])
    return DescriptorTask(HardNet(), make_loss(loss), augment)


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in trainer.task.network.state_dict().items()}


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# exact resume ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "optimiser", "kind"),
    [
        (orientation, Optimiser(head_rate=0.03), "cosine"),
        (orientation, Optimiser("sgd", momentum=0.9, dampening=0.9, weight_decay=1e-4), "linear"),
        (described, Optimiser("adamw", weight_decay=0.01), "one-cycle"),
        (lambda: described("dynamic_soft_margin"), Optimiser(), "cosine"),
    ],
)
def test_a_run_killed_at_any_step_gives_the_weights_of_one_never_killed(
    make: Callable[[], Task], optimiser: Optimiser, kind: str, tmp_path: Path
) -> None:
    """Dropout, augmentation, momentum, schedule, losses with a memory, half-full reports: nothing is lost."""
    schedule = Schedule(steps=9, batch=8, rate=1e-2, report=4, kind=kind, warm_up=0.3)

    def trainer(out: Path, evaluate: Callable[[], dict[str, float]]) -> Trainer:
        return Trainer(
            make(), sampler(), schedule, optimiser, out=out, evaluate=evaluate, evaluate_every=1, best=Best("good"),
            precision="float32", checkpoint_seconds=0, tensorboard=False, seed=3,
        )  # fmt: skip

    def figures() -> dict[str, float]:
        return {"good": float(torch.rand(1))}  # draws at will: training does not notice

    whole = trainer(tmp_path / "whole", figures)
    whole.run()
    stops = iter([2, 3, 6, 8, 99])
    for stop in stops:
        steps = iter(range(stop))

        def until_killed(steps: Any = steps) -> dict[str, float]:
            if next(steps, None) is None:
                raise Killed
            return figures()

        begun = trainer(tmp_path / "pieces", until_killed)
        begun_at = begun.state.step
        try:
            begun.run()
            break
        except Killed:
            assert begun.state.step > begun_at
    assert begun_at > 0
    assert begun.state.step == 9
    assert_same(weights(whole), weights(begun))
    assert_same(*(read_state(tmp_path / name / "last.safetensors") for name in ("whole", "pieces")))
    one, other = (read_rows(tmp_path / name / "log.csv") for name in ("whole", "pieces"))
    assert [row["step"] for row in one] == [4, 8, 9]
    for key in ("step", "rate", "loss", "epoch"):
        assert [row[key] for row in one] == [row[key] for row in other]
    assert [row["step"] for row in read_rows(tmp_path / "pieces" / "figures.csv")] == list(range(1, 10))


def test_another_seed_gives_other_weights() -> None:
    found = []
    for seed in (0, 1):
        trainer = Trainer(orientation(), sampler(), Schedule(steps=2, batch=8), precision="float32", seed=seed)
        trainer.run()
        found.append(trainer.task.network.state_dict()["features.0.weight"])
    assert not torch.equal(*found)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    task = orientation()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Trainer(task, sampler(), Schedule(steps=2, batch=8), precision="float32").run()
    assert torch.equal(torch.rand(3), expected)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    schedule = Schedule(steps=3, batch=8, report=2)
    first = Trainer(orientation(), sampler(), schedule, out=tmp_path, tensorboard=False)
    first.run()
    again = Trainer(orientation(), sampler(), schedule, out=tmp_path, tensorboard=False)
    history = again.run()
    assert_same(weights(first), weights(again))
    assert history.steps == 3
    assert len(history.reports) == 2


def test_a_folder_of_another_run_is_refused_with_both_told(tmp_path: Path) -> None:
    schedule = Schedule(steps=2, batch=8)
    Trainer(orientation(), sampler(), schedule, out=tmp_path, identity={"data": "a1"}, tensorboard=False).run()
    with pytest.raises(TrainingError, match="data: a1 then, b2 now"):
        Trainer(orientation(), sampler(), schedule, out=tmp_path, identity={"data": "b2"}, tensorboard=False)


def test_the_best_state_is_kept(tmp_path: Path) -> None:
    values = iter([0.5, 0.2, 0.9, 0.3])
    kept: dict[float, Tensor] = {}

    def figures() -> dict[str, float]:
        value = next(values)
        kept[value] = trainer.task.network.state_dict()["features.0.weight"].clone()
        return {"error": value}

    trainer = Trainer(
        orientation(), sampler(), Schedule(steps=4, batch=8, report=1), out=tmp_path, evaluate=figures,
        best=Best("error", lowest=True), tensorboard=False,
    )  # fmt: skip
    history = trainer.run()
    assert (history.best, history.best_step) == (0.2, 2)
    assert torch.equal(read_state(tmp_path / "best.safetensors")["features.0.weight"], kept[0.2])
    assert torch.equal(read_state(tmp_path / "last.safetensors")["features.0.weight"], kept[0.3])
    trainer.best = Best("errror")
    with pytest.raises(OptionError, match=r"errror.*error"):
        trainer._keep_best({"error": 1.0})


def test_checkpoints_are_weights_too(tmp_path: Path) -> None:
    trainer = Trainer(orientation(), sampler(), Schedule(steps=2, batch=8), out=tmp_path, tensorboard=False)
    trainer.run()
    network = OriNet()
    load_into(network, read_state(tmp_path / "last.pt"), "last.pt")
    assert torch.equal(network.features[0].weight, trainer.task.network.state_dict()["features.0.weight"])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file"])
def test_a_damaged_checkpoint_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(StoreError, match=r"last\.pt.*checkpoint"):
        Trainer(orientation(), sampler(), Schedule(steps=2, batch=8), out=tmp_path)
    torch.save({"state_dict": {}}, tmp_path / "last.pt")
    with pytest.raises(StoreError, match="another folder"):
        load_checkpoint(tmp_path / "last.pt")


# what is refused -------------------------------------------------------------------------------------


def test_too_few_classes_are_told_before_the_first_step() -> None:
    with pytest.raises(TrainingError, match=r"60 classes.*batch of 61"):
        Trainer(orientation(), sampler(), Schedule(steps=2, batch=61))


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    class Breaking(OrientationTask):
        steps = 0

        def loss(self, batch: Any, moment: Any) -> Tensor:
            self.steps += 1
            return super().loss(batch, moment) * (math.nan if self.steps > 2 else 1)

    torch.manual_seed(0)
    trainer = Trainer(
        Breaking(OriNet()), sampler(), Schedule(steps=9, batch=8), out=tmp_path, checkpoint_seconds=0, tensorboard=False
    )
    with pytest.raises(TrainingError, match=r"nan by step 3.*rate"):
        trainer.run()
    content = load_checkpoint(tmp_path / "last.pt")
    assert content["step"] == 2
    assert all(value.isfinite().all() for value in content["state_dict"].values())


@pytest.mark.parametrize(
    "arguments",
    [{"kind": "cosinus"}, {"steps": 0}, {"batch": 1}, {"seconds": 0}, {"warm_up": 1.0}, {"report": 0}],
)
def test_schedules_that_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Schedule(**arguments)


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("float32", cpu) is None
    assert choose_precision("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(OptionError, match="CUDA"):
        choose_precision("float16", cpu)
    with pytest.raises(OptionError, match="float32, bfloat16"):
        choose_precision("double", cpu)


def test_bfloat16_trains_nearly_as_float32() -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(orientation(), sampler(), Schedule(steps=2, batch=16, report=1), precision=precision)
        losses.append([report["loss"] for report in trainer.run().reports])
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)


# schedules -------------------------------------------------------------------------------------------


def test_the_originals_rate_falls_to_zero_in_a_line() -> None:
    schedule = Schedule(steps=50, rate=10.0, kind="linear")
    rates = [schedule.at(step / 50) for step in range(51)]
    assert rates == pytest.approx([10 * (1 - step / 50) for step in range(51)])
    assert schedule.momentum(0.5) is None


def test_one_cycle_is_torchs() -> None:
    """torch's OneCycleLR with the same numbers, momentum included."""
    steps, warm_up = 40, 0.25
    parameter = nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.AdamW([parameter], lr=1.0, betas=(0.95, 0.99))
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 3.0, total_steps=steps + 1, pct_start=warm_up, div_factor=25, final_div_factor=1e5 / 25,
        base_momentum=0.85, max_momentum=0.95,
    )  # fmt: skip
    ours = Schedule(steps=steps, rate=3.0, kind="one-cycle", warm_up=warm_up)
    peak = theirs._schedule_phases[0]["end_step"] / steps  # torch counts from 0 to total - 1, one step early
    ours = Schedule(steps=steps, rate=3.0, kind="one-cycle", warm_up=peak)
    for step in range(steps + 1):
        group = optimiser.param_groups[0]
        assert ours.at(step / steps) == pytest.approx(group["lr"], rel=1e-6)
        assert ours.momentum(step / steps) == pytest.approx(group["betas"][0], rel=1e-6)
        optimiser.step()
        if step < steps:
            theirs.step()


@given(
    kind=st.sampled_from(["cosine", "linear", "one-cycle"]), warm_up=st.floats(0, 0.9), progress=st.floats(-1, 2),
    rate=st.floats(1e-6, 100),
)  # fmt: skip
def test_rates_stay_between_zero_and_the_peak(kind: str, warm_up: float, progress: float, rate: float) -> None:
    found = Schedule(rate=rate, kind=kind, warm_up=warm_up).at(progress)
    assert 0 <= found <= rate * (1 + 1e-9) + 1e-6


def test_the_head_has_its_share_of_the_rate() -> None:
    network = OriNet()
    optimiser = build(network, Optimiser(head_rate=0.1), network.features[19])
    assert [group["factor"] for group in optimiser.param_groups] == [1.0, 0.1]
    held_back = {id(p) for p in optimiser.param_groups[1]["params"]}
    assert held_back == {id(p) for p in network.features[19].parameters()}


# checkpoints of the originals --------------------------------------------------------------------------


def test_an_originals_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    """Weights, momentum and epoch of {'epoch', 'state_dict', 'optimizer'}, as DagnyT/hardnet writes it."""
    torch.manual_seed(1)
    theirs = AffNet()
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, dampening=0.9)
    for _ in range(2):
        sgd.zero_grad()
        theirs(torch.rand(8, 1, 32, 32)).square().sum().backward()
        sgd.step()
    path = tmp_path / "checkpoint_2.pth"
    torch.save({"epoch": 3, "state_dict": theirs.state_dict(), "optimizer": sgd.state_dict()}, path)
    ours = AffNet()
    # another order of groups: the head is last in both here, but in a group of its own
    optimiser = build(ours, Optimiser("sgd", momentum=0.9, dampening=0.9), ours.features[19])
    assert resume_original(path, ours, optimiser) == 3
    for name, value in theirs.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name])
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(optimiser.state[mine]["momentum_buffer"], sgd.state[other]["momentum_buffer"])
    adam = build(ours, Optimiser("adam"))
    with pytest.raises(WeightsError, match="--start"):
        resume_original(path, ours, adam)
    torch.save(theirs.state_dict(), path)
    with pytest.raises(WeightsError, match="epoch"):
        resume_original(path, ours, optimiser)


def test_a_run_begins_where_the_original_stopped(tmp_path: Path) -> None:
    schedule = Schedule(steps=6, batch=8, report=1, kind="linear", rate=1.0)
    trainer = Trainer(orientation(), sampler(), schedule, Optimiser("sgd"), start=lambda _: 4)
    assert [row["step"] for row in trainer.run().reports] == [5, 6]
    assert [round(row["rate"], 6) for row in trainer.history.reports] == [round(2 / 6, 6), round(1 / 6, 6)]
    with pytest.raises(TrainingError, match="nothing is left"):
        Trainer(orientation(), sampler(), schedule, Optimiser("sgd"), start=lambda _: 6)


# logs ------------------------------------------------------------------------------------------------


def test_logs_are_cut_back_to_the_checkpoint_and_half_lines_dropped(tmp_path: Path) -> None:
    first = RunLog(tmp_path, tensorboard=False)
    for step in (10, 20, 30):
        first.report({"step": step, "loss": 1 / step})
    first.evaluated({"step": 20, "a/rank1": 0.5})
    first.evaluated({"step": 30, "a/rank1": 0.6, "b/rank1": 0.25})
    with (tmp_path / "log.csv").open("a") as file:
        file.write("40,0.0")
    (tmp_path / "log.csv").write_text((tmp_path / "log.csv").read_text()[:-6] + "40")
    again = RunLog(tmp_path, last_step=20, tensorboard=False)
    assert [row["step"] for row in again.reports.rows] == [10, 20]
    again.report({"step": 30, "loss": 0.125})
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert rows == [{"step": "10", "loss": "0.1"}, {"step": "20", "loss": "0.05"}, {"step": "30", "loss": "0.125"}]
    assert read_rows(tmp_path / "figures.csv") == [{"step": 20.0, "a/rank1": 0.5}]


def test_tensorboard_has_the_same_numbers(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    log = RunLog(tmp_path, tensorboard=True)
    log.report({"step": 10, "loss": 0.5})
    log.report({"step": 20, "loss": 0.25})
    log.evaluated({"step": 20, "rank1": 0.75})
    log.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("training/loss")] == [(10, 0.5), (20, 0.25)]
    assert [event.value for event in events.Scalars("figures/rank1")] == [0.75]


def test_tensorboard_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardnet_match.training.logs.find_spec", lambda _: None)
    with pytest.raises(OptionError, match=r"hardnet-match\[training\]"):
        RunLog(tmp_path, tensorboard=True)
    RunLog(tmp_path).report({"step": 1, "loss": 0.0})


# tasks -----------------------------------------------------------------------------------------------


def first_loss(task: Task, batch: int = 24, **options: Any) -> float:
    trainer = Trainer(task, sampler(), Schedule(steps=1, batch=batch, report=1, **options), precision="float32")
    return trainer.run().reports[0]["loss"]


def test_the_stored_frames_orientation_is_what_an_orientation_network_is_led_to() -> None:
    """A network that gives minus the turn put on the patch has no loss from the teacher nor from the two views."""

    class Knows(OriNet):
        def vectors(self, patches: Tensor) -> Tensor:
            return told["vectors"] + 0 * self.features[19].bias.sum()

    told: dict[str, Tensor] = {}
    task = OrientationTask(Knows(), guided=1.0, light=None)
    import hardnet_match.training.tasks.orientation as module

    turned = module._turned

    def noticing(frames: Tensor, angle: Tensor) -> Tensor:
        told["vectors"] = torch.stack([(-angle).sin(), (-angle).cos()], dim=1)
        return turned(frames, angle)

    module._turned = noticing
    try:
        assert first_loss(task) == pytest.approx(0, abs=1e-5)
    finally:
        module._turned = turned
    assert first_loss(orientation(guided=1.0)) > 0.5


def test_the_original_ways_of_shape_and_orientation_learn_through_the_descriptor() -> None:
    torch.manual_seed(0)
    for task in (
        ShapeTask(AffNet(), HardNet(), loss=make_loss("hardnegc"), augment=make_augmentation(["tilt"])),
        OrientationTask(OriNet(), HardNet(), augment=make_augmentation(["turn"])),
    ):
        trainer = Trainer(task, sampler(), Schedule(steps=2, batch=16, rate=1e-2), precision="float32")
        before = weights(trainer)
        frozen = {name: value.clone() for name, value in task.descriptor.state_dict().items()}
        trainer.run()
        assert not torch.equal(before["features.0.weight"], weights(trainer)["features.0.weight"])
        assert_same(frozen, task.descriptor.state_dict())
    with pytest.raises(OptionError, match="descriptor"):
        ShapeTask(AffNet(), None)
    with pytest.raises(OptionError, match="descriptor"):
        OrientationTask(OriNet(), matching=1.0)
    with pytest.raises(OptionError, match="frame, gradient"):
        OrientationTask(OriNet(), teacher="sun")


def test_batches_are_waited_for_less_than_steps_take() -> None:
    trainer = Trainer(described(), sampler(), Schedule(steps=4, batch=32, report=4), precision="float32")
    [report] = trainer.run().reports
    assert report["waiting"] < 0.5
    assert report["pairs_a_second"] > 0
    assert np.isfinite(report["loss"])


def test_processes_that_found_different_checkpoints_do_not_train_on(tmp_path: Path) -> None:
    """A folder that is not the same on all machines: their weights would part, and nobody would see."""

    class Apart(Processes):
        def agree(self, values: list[float], device: torch.device) -> list[float]:
            return [max(value, other) for value, other in zip(values, [3.0, -3.0], strict=True)]

    trainer = Trainer(
        orientation(), sampler(), Schedule(steps=4, batch=8), out=tmp_path, processes=Apart(), tensorboard=False
    )
    with pytest.raises(TrainingError, match=r"different steps, 0 to 3 .*one folder that all machines see"):
        trainer.run()
