"""The three tasks in one call each: a network, where pairs come from, how long."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from ..orientation import OriNet
from ..shape import AffNet
from .augment import DESCRIPTOR_WARPS, Augmentation, Light, PairWarps, Warp
from .augment.pieces import FlipRot, Jitter
from .losses import make_loss
from .sampling import Sampler
from .schedules import Optimiser, Schedule
from .tasks import DescriptorTask, OrientationTask, ShapeTask, Task
from .trainer import History, Trainer

__all__ = ["History", "PairWarps", "Schedule", "train_descriptor", "train_orientation", "train_shape"]

HEAD_RATE = 0.03
"""Share of the rate for the last layer of AffNet and OriNet, which sums 4,096 inputs into a tanh: at Adam's full rate a
few steps saturate it for good."""
Check = Callable[[], dict[str, float]]


ORIENTATION_WARPS = PairWarps(Warp(0, 0.2, 1.0, 1.2), Warp(0, 0.35, 2.0, 1.6))


def train_descriptor(
    network: nn.Module,
    sampler: Sampler,
    schedule: Schedule,
    *,
    warps: PairWarps = DESCRIPTOR_WARPS,
    light: Light | None = None,
    margin: float = 1.0,
    check: Check | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> History:
    """Train a HardNet, or another descriptor, in place with the hardest-in-batch triplet loss.

    Negatives that show the same place as the anchor are left out. Both patches of a pair are mirrored or transposed
    alike; each has its own jitter of frame and light.

    Args:
        network: learns; left on the device, in evaluation mode.
        sampler: draws the pairs.
        schedule: how long, how fast, by Adam.
        warps, light: the jitter.
        margin: of the loss.
        check: figures by name, called with every report and put into it.
        device: where to train.
        seed: of all that is random.

    Raises:
        TrainingError: there are fewer classes than the batch takes, or the loss is no number.
    """
    mild, strong = warps.second_view, warps.itself
    jitter = Jitter(
        *(mild.rotation, mild.octaves, mild.shift, mild.tilt),
        *(strong.rotation, strong.octaves, strong.shift, strong.tilt),
    )
    augment = Augmentation((FlipRot(), jitter), light or Light())
    task = DescriptorTask(network, make_loss(margin=margin), augment)
    return _run(task, sampler, schedule, Optimiser(), check, device, seed)


def train_shape(
    network: AffNet,
    descriptor: nn.Module,
    sampler: Sampler,
    schedule: Schedule,
    *,
    tilt: float = 3.0,
    consistency: float = 1.0,
    modesty: float = 0.02,
    matching: float = 1.0,
    guided: float = 0.6,
    light: Light | None = None,
    check: Check | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> History:
    """Train an AffNet in place; the arguments are those of `tasks.ShapeTask` and of `train_descriptor`.

    Raises:
        TrainingError: there are fewer classes than the batch takes, or the loss is no number.
    """
    task = ShapeTask(
        network,
        descriptor,
        tilt=tilt,
        consistency=consistency,
        modesty=modesty,
        matching=matching,
        guided=guided,
        light=light or Light(),
    )
    return _run(task, sampler, schedule, Optimiser(head_rate=HEAD_RATE), check, device, seed)


def train_orientation(
    network: OriNet,
    sampler: Sampler,
    schedule: Schedule,
    *,
    warps: PairWarps = ORIENTATION_WARPS,
    light: Light | None = None,
    guided: float = 0.4,
    teacher: str = "frame",
    dropout: float = 0.0,
    check: Check | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> History:
    """Train an OriNet in place; the arguments are those of `tasks.OrientationTask` and of `train_descriptor`.

    Raises:
        TrainingError: there are fewer classes than the batch takes, or the loss is no number.
    """
    usual = [(module, module.p) for module in network.modules() if isinstance(module, nn.Dropout)]
    task = OrientationTask(
        network,
        second_view=warps.second_view,
        itself=warps.itself,
        guided=guided,
        teacher=teacher,
        dropout=dropout,
        light=light or Light(),
    )
    history = _run(task, sampler, schedule, Optimiser(head_rate=HEAD_RATE), check, device, seed)
    for module, share in usual:
        module.p = share
    return history


def _run(
    task: Task,
    sampler: Sampler,
    schedule: Schedule,
    optimiser: Optimiser,
    check: Check | None,
    device: str,
    seed: int,
) -> History:
    return Trainer(task, sampler, schedule, optimiser, evaluate=check, device=device, seed=seed).run()
