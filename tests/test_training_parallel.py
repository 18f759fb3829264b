"""Several processes train as one: two of them give what one gives with the joined batch."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from training_helpers import made_up_set

from hardnet_match.descriptors import RootSIFT
from hardnet_match.errors import OptionError, TrainingError
from hardnet_match.inference import standardise
from hardnet_match.l2net import trunk
from hardnet_match.orientation import OriNet
from hardnet_match.shape import AffNet
from hardnet_match.training.augment import Light, make_augmentation
from hardnet_match.training.losses import make_loss
from hardnet_match.training.parallel import Processes, SynchronisedBatchNorm2d, processes
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sampling import PairSampler, TupleSampler
from hardnet_match.training.schedules import Optimiser, Schedule
from hardnet_match.training.tasks import DescriptorTask, OrientationTask, ShapeTask, Task
from hardnet_match.training.trainer import Trainer

WORLD = 2
EXACT = ("hardest", "random", "tuples")


def without_dropout(network: nn.Module) -> Any:
    """Each process drops out of its own half, so masks differ from one process's."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return network


class Double(nn.Module):
    """A thin HardNet computed in float64: what rounding would blow up through BatchNorm and mining stays small."""

    def __init__(self) -> None:
        super().__init__()
        last = [nn.Conv2d(16, 16, 8, bias=False), nn.BatchNorm2d(16, affine=False)]
        self.features = nn.Sequential(*trunk((4, 8, 16)), *last).double()

    def forward(self, patches: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.features(standardise(patches.double())).flatten(1), dim=1)


def described(loss: str = "triplet_margin", **options: Any) -> Task:
    augment = make_augmentation(["fliprot", "jitter", "photometric"])
    return DescriptorTask(Double(), make_loss(loss, **options), augment)


def tasks() -> dict[str, Callable[[], Task]]:
    return {
        "hardest": described,
        "random": lambda: described(mining="random", gor=1.0),
        "tuples": lambda: described("triplet_margin++"),
        "shape": lambda: ShapeTask(without_dropout(AffNet()), RootSIFT(), guided=0.4, light=Light()),
        "tilts": lambda: ShapeTask(without_dropout(AffNet()), RootSIFT(), augment=make_augmentation(["tilt"])),
        "orientation": lambda: OrientationTask(OriNet(), RootSIFT(), matching=0.5, guided=0.5, light=Light()),
    }


def train(name: str, observations: PatchSet, group: Processes) -> tuple[dict[str, Tensor], float]:
    """Weights and first loss of a few steps of plain SGD: Adam would blow a gradient's rounding up to a whole step."""
    torch.manual_seed(0)
    task = tasks()[name]()
    sampler = TupleSampler(observations, 3) if name == "tuples" else PairSampler(observations)
    schedule = Schedule(steps=3 if name in EXACT else 1, batch=16, rate=0.01, report=1, kind="linear")
    trainer = Trainer(task, sampler, schedule, Optimiser("sgd"), precision="float32", seed=1, processes=group)
    return dict(task.network.state_dict()), trainer.run().reports[0]["loss"]


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def as_one_of_two(rank: int, port: str, folder: Path) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(WORLD), MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    torch.set_num_threads(1)
    observations = PatchSet.load(folder / "set.h5")
    with processes(torch.device("cpu")) as (group, device):
        assert (group.rank, group.world, device.type) == (rank, WORLD, "cpu")
        for name in tasks():
            torch.save(train(name, observations, group), folder / f"{name}{rank}.pt")
        torch.save(gathered_gradients(group), folder / f"gather{rank}.pt")
        torch.save(normalised(group), folder / f"norm{rank}.pt")
        assert group.agree([float(rank), -float(rank)], device) == [1.0, 0.0]


def descriptors_of(network: nn.Module, patches: Tensor) -> Tensor:
    return torch.nn.functional.normalize(network(patches), dim=1)


def gathered_gradients(group: Processes) -> list[Tensor]:
    """Gradients of a mined loss over what all processes describe, in float64."""
    torch.manual_seed(0)
    network = nn.Linear(6, 4).double()
    patches = torch.randn(2, 8, 6, dtype=torch.float64)
    own = patches[:, group.share(8)]
    described = group.gather(descriptors_of(network, own.flatten(0, 1)).unflatten(0, (2, -1)), dim=1)
    make_loss("triplet_margin", gor=0.5)(described, torch.arange(8).expand(2, 8)).backward()
    group.average_gradients(network.parameters())
    return [p.grad for p in network.parameters()]


def normalised(group: Processes) -> list[Tensor]:
    """A synchronised BatchNorm's output, input gradient and running statistics, in float64."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.BatchNorm2d(3)).double()
    values = torch.randn(8, 3, 4, 4, dtype=torch.float64) * 3 + 1
    weights = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    own = values[group.share(8)].clone().requires_grad_()
    with group.synchronised(network):
        assert isinstance(network[0], SynchronisedBatchNorm2d) == (group.world > 1)
        out = network(own)
        (out * weights[group.share(8)]).sum().backward()
    assert type(network[0]) is nn.BatchNorm2d
    return [out.detach(), own.grad, network[0].running_mean, network[0].running_var, network[0].num_batches_tracked]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made, on one patch set."""
    folder = tmp_path_factory.mktemp("two")
    made_up_set(60).save(folder / "set.h5")
    mp.spawn(as_one_of_two, (free_port(), folder), nprocs=WORLD)
    assert not dist.is_initialized()
    return folder


@pytest.mark.parametrize("name", tasks())
def test_two_processes_are_one_with_the_joined_batch(name: str, two: Path) -> None:
    """Sampling, augmentation, BatchNorm, mining and gradients alike; only the order of sums differs.

    Shapes and orientations run in float32, where gradients through BatchNorm over so few patches lose three digits.
    """
    alone, loss = train(name, PatchSet.load(two / "set.h5"), Processes())
    (one, first_loss), (other, _) = (torch.load(two / f"{name}{rank}.pt", weights_only=True) for rank in range(WORLD))
    torch.manual_seed(0)
    start = tasks()[name]().network.state_dict()
    assert first_loss == pytest.approx(loss, rel=1e-9 if name in EXACT else 1e-5)
    for key, value in alone.items():
        assert torch.equal(one[key], other[key])
        if value.is_floating_point():
            assert (one[key] - value).norm() <= (1e-9 if name in EXACT else 0.03) * (value - start[key]).norm()
    assert any(not torch.equal(alone[key], start[key]) for key in alone)


def test_gathered_descriptors_carry_the_gradient_of_the_joined_batch(two: Path) -> None:
    alone = gathered_gradients(Processes())
    for rank in range(WORLD):
        for found, expected in zip(torch.load(two / f"gather{rank}.pt", weights_only=True), alone, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_batchnorm_takes_the_statistics_of_the_joined_batch(two: Path) -> None:
    out, gradient, *statistics = normalised(Processes())
    for rank in range(WORLD):
        part = slice(4 * rank, 4 * rank + 4)
        found = torch.load(two / f"norm{rank}.pt", weights_only=True)
        torch.testing.assert_close(found[0], out[part], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[1], gradient[part], rtol=1e-10, atol=1e-12)
        for value, expected in zip(found[2:], statistics, strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


def test_a_batch_that_does_not_split_is_told() -> None:
    with pytest.raises(OptionError, match=r"batch of 10 .* 4 processes"):
        Processes(1, 4).share(10)
    assert [Processes(rank, 3).share(12) for rank in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({}, "MASTER_ADDR"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "none"}, "none"),
        ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999"}, "99999"),
    ],
)
def test_a_place_that_cannot_be_is_told(
    environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of what torchrun sets, as some clusters have it."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", **environment}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainingError, match=told) as error, processes(torch.device("cpu")):
        pass
    assert "torchrun" in str(error.value)
