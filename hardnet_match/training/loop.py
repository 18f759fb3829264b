"""Training of the three networks."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..descriptors import HardNet
from ..orientation import Dominant, OriNet
from ..shape import AffNet, Baumberg
from .augment import Light, Warp, crop, flip_or_transpose, random_frames, random_tilt, relight, rotation_matrix
from .losses import angle_loss, hard_negative_constant_loss, hardnet_loss, shape_distance
from .sampling import PairSampler

log = logging.getLogger(__name__)

HEAD_RATE = 0.03
"""Share of the rate for the last layer of AffNet and OriNet, which sums 4,096 inputs into a tanh: at Adam's full rate a
few steps saturate it for good."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Args:
        steps: batches, at most.
        seconds: wall-clock time after which training stops; the schedule follows whichever runs out first.
        batch: pairs.
        rate: peak learning rate of Adam.
        warm_up: share of the run in which the rate rises; it falls as a cosine afterwards.
        report: steps between two lines of the log.
    """

    steps: int = 1000
    seconds: float = math.inf
    batch: int = 512
    rate: float = 2e-3
    warm_up: float = 0.05
    report: int = 50

    def at(self, progress: float) -> float:
        """Learning rate at `progress` in [0, 1] of the run."""
        if progress < self.warm_up:
            return self.rate * (progress + 1e-3) / self.warm_up
        rest = min((progress - self.warm_up) / (1 - self.warm_up), 1.0)
        return self.rate * (0.5 + 0.5 * math.cos(math.pi * rest)) + 1e-6


@dataclass
class History:
    """What training said on its way: a dict of numbers a report."""

    reports: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class PairWarps:
    """Changes of frame: mild for true second views, strong for a patch paired with itself."""

    second_view: Warp
    itself: Warp


DESCRIPTOR_WARPS = PairWarps(Warp(8, 0.15, 0.8, 1.15), Warp(15, 0.35, 2.0, 1.7))
SHAPE_WARPS = PairWarps(Warp(shift=0.5), Warp(shift=1.0))
ORIENTATION_WARPS = PairWarps(Warp(0, 0.2, 1.0, 1.2), Warp(0, 0.35, 2.0, 1.6))


def paired_frames(itself: Tensor, warps: PairWarps, generator: torch.Generator) -> Tensor:
    """(N, 2, 3) random frames, the strong ones where `itself` (N,) bool says so."""
    mild = random_frames(len(itself), warps.second_view, generator)
    strong = random_frames(len(itself), warps.itself, generator)
    return torch.where(itself[:, None, None], strong, mild)


def _run(
    network: nn.Module,
    loss_of: Callable[[float], Tensor],
    schedule: Schedule,
    check: Callable[[], dict[str, float]] | None,
    head: tuple[nn.Module, float] | None = None,
) -> History:
    """Adam over `loss_of(progress in [0, 1])` with the schedule's rate, a report every so often and a check with it.

    The layer of `head`, where one is given, learns at its share of the rate.
    """
    layer, share = head or (nn.Identity(), 1.0)
    held_back = {id(parameter) for parameter in layer.parameters()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in network.parameters() if (id(p) in held_back) == back], "factor": factor}
        for back, factor in ((False, 1.0), (True, share))
    ]
    optimiser = torch.optim.Adam([group for group in groups if group["params"]], lr=schedule.rate)
    history, started, total = History(), time.monotonic(), 0.0
    network.train()
    for step in range(schedule.steps):
        passed = time.monotonic() - started
        if passed >= schedule.seconds:
            break
        progress = max(step / schedule.steps, passed / schedule.seconds)
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(progress) * group["factor"]
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of(progress)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach())
        history.steps = step + 1
        if (step + 1) % schedule.report == 0:
            report = {"step": step + 1.0, "seconds": time.monotonic() - started, "loss": total / schedule.report}
            total = 0.0
            if check is not None:
                network.eval()
                report.update(check())
                network.train()
            history.reports.append(report)
            log.info(" ".join(f"{key} {value:.4g}" for key, value in report.items()))
    network.eval()
    history.seconds = time.monotonic() - started
    return history


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 where a matrix product gains by it; the loss stays in float32."""
    return torch.autocast(device.type, torch.bfloat16)


def train_descriptor(
    network: HardNet,
    sampler: PairSampler,
    schedule: Schedule,
    *,
    warps: PairWarps = DESCRIPTOR_WARPS,
    light: Light | None = None,
    margin: float = 1.0,
    check: Callable[[], dict[str, float]] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> History:
    """Train a HardNet in place with the hardest-in-batch triplet loss.

    Negatives that show the same place as the anchor are left out. Both patches of a pair are mirrored or transposed
    alike; each has its own jitter of frame and light.
    """
    where, light = torch.device(device), light or Light()
    rng, generator = np.random.default_rng(seed), torch.Generator(where).manual_seed(seed)
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def loss_of(progress: float) -> Tensor:
        first, second = sampler.pairs(schedule.batch, rng)
        same = torch.from_numpy(sampler.same_place(first, second)).to(where)
        itself = torch.from_numpy(first == second).to(where)
        stored = torch.from_numpy(sampler.set.patches[np.concatenate([first, second])]).to(where)
        frames = torch.cat([paired_frames(itself, warps, generator) for _ in range(2)])
        patches = crop(stored, frames)
        patches = flip_or_transpose(patches.reshape(2, -1, *patches.shape[1:]), generator).flatten(0, 1)
        patches = relight(patches, light, generator)
        with autocast(where):
            out = network(patches)
        anchors, positives = out.float().chunk(2)
        return hardnet_loss(anchors, positives, margin, ignore=same)

    return _run(network, loss_of, schedule, check)


def train_shape(
    network: AffNet,
    descriptor: nn.Module,
    sampler: PairSampler,
    schedule: Schedule,
    *,
    tilt: float = 3.0,
    consistency: float = 1.0,
    modesty: float = 0.02,
    matching: float = 1.0,
    guided: float = 0.6,
    light: Light | None = None,
    check: Callable[[], dict[str, float]] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> History:
    """Train an AffNet in place so that a frozen descriptor matches through the shapes it gives.

    Each patch of a pair is turned at random and then seen through a random upright stretch; ellipses are compared as
    they lie in the unturned patch. Were both turned alike, one and the same stretch put on every patch would go
    unpunished, and the orientation found later would be another one in each turn. The loss is `matching` times
    HardNegC on the descriptors of the adapted patches, plus `consistency` times the distance of the two adapted
    ellipses where both come from one patch (there they must be equal), plus `modesty` times the ellipses' distance
    from a circle, which keeps the freedom that is left from running off. With `matching` 0 the descriptor is not run.

    In the first `guided` share of the run the descriptor, the costly part, is left out: the adapted ellipse is drawn
    towards the second-moment ellipse of the same patch before it was stretched and its light was changed. That
    teaches covariance in a tenth of the time; the rest of the run teaches what matches.
    """
    where, light = torch.device(device), light or Light()
    rng, generator = np.random.default_rng(seed), torch.Generator(where).manual_seed(seed)
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    descriptor.to(where).eval().requires_grad_(False)
    teacher = Baumberg().to(where)

    def loss_of(progress: float) -> Tensor:
        first, second = sampler.pairs(schedule.batch, rng)
        # every second pair is a patch with itself, whatever the track offers: there the truth is known
        second = np.where(np.arange(len(first)) % 2 == 0, first, second)
        same = torch.from_numpy(sampler.same_place(first, second)).to(where)
        itself = torch.from_numpy(first == second).to(where)
        count = len(first)
        stored = torch.from_numpy(sampler.set.patches[np.concatenate([first, second])]).to(where)
        turn = rotation_matrix(2 * math.pi * torch.rand(2 * count, generator=generator, device=where))
        limit = 1 + (tilt - 1) * min(1.0, 0.3 + 2 * progress)
        stretch = random_tilt(2 * count, limit, generator)
        upright = torch.linalg.cholesky(stretch @ stretch.mT)
        shift = paired_frames(torch.cat([itself, torch.zeros_like(itself)]), SHAPE_WARPS, generator)[:, :, 2:]

        def seen_through(turn: Tensor, upright: Tensor) -> Tensor:
            return crop(stored, torch.cat([turn @ upright, shift], dim=2))

        with autocast(where):
            shapes = network(relight(seen_through(turn, upright), light, generator))
        adapted = upright @ shapes.float()
        circle = torch.eye(2, device=where).expand_as(adapted)
        one, other = (turn @ adapted).chunk(2)
        loss = consistency * (shape_distance(one, other) * itself).sum() / itself.sum().clamp(min=1)
        if progress < guided:
            target = teacher(seen_through(turn, circle))
            return loss + shape_distance(target, adapted).mean()
        if matching:
            # Both are described upright in the first one's turn: the second ellipse is brought there.
            there = turn[:count].mT @ other
            turn = turn[:count].repeat(2, 1, 1)
            adapted = torch.cat([adapted[:count], torch.linalg.cholesky(there @ there.mT)])
            with autocast(where):
                out = descriptor(relight(seen_through(turn, adapted), light, generator))
            anchors, positives = out.float().chunk(2)
            loss = loss + matching * hard_negative_constant_loss(anchors, positives, ignore=same)
        total: Tensor = loss + modesty * shape_distance(circle, adapted).mean()
        return total

    return _run(network, loss_of, schedule, check, head=(network.features[19], HEAD_RATE))


def train_orientation(
    network: OriNet,
    sampler: PairSampler,
    schedule: Schedule,
    *,
    warps: PairWarps = ORIENTATION_WARPS,
    light: Light | None = None,
    guided: float = 0.4,
    dropout: float = 0.0,
    check: Callable[[], dict[str, float]] | None = None,
    device: str = "cpu",
    seed: int = 0,
) -> History:
    """Train an OriNet in place: two views, each turned at random, must give angles that differ by the known turn.

    That alone leaves a new network on a plateau, where all angles are as good; so in the first `guided` share of the
    run each angle is also drawn towards the dominant gradient of the patch before its light was changed, with a
    weight that falls to zero. `dropout` takes the place of the original's 0.25: short runs underfit.
    """
    where, light = torch.device(device), light or Light()
    rng, generator = np.random.default_rng(seed), torch.Generator(where).manual_seed(seed)
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = Dominant().to(where)
    usual = _set_dropout(network, dropout)

    def loss_of(progress: float) -> Tensor:
        first, second = sampler.pairs(schedule.batch, rng)
        itself = torch.from_numpy(first == second).to(where)
        stored = torch.from_numpy(sampler.set.patches[np.concatenate([first, second])]).to(where)
        frames = torch.cat([paired_frames(itself, warps, generator) for _ in range(2)])
        angle = 2 * math.pi * torch.rand(len(stored), generator=generator, device=where)
        frames = torch.cat([frames[:, :, :2] @ rotation_matrix(angle), frames[:, :, 2:]], dim=2)
        patches = crop(stored, frames)
        with autocast(where):
            vectors = network.vectors(relight(patches, light, generator))
        one, other = vectors.float().chunk(2)
        # a frame turned by t sees its content turned by -t
        turn = angle[: len(first)] - angle[len(first) :]
        length = vectors.float().norm(dim=1)
        total: Tensor = angle_loss(one, other, turn) + 0.1 * (0.3 - length).clamp(min=0).mean()
        if progress < guided:
            target = teacher(patches)
            to_target = torch.stack([target.sin(), target.cos()], dim=1)
            total = total + (1 - progress / guided) * angle_loss(to_target, vectors.float(), torch.zeros_like(target))
        return total

    history = _run(network, loss_of, schedule, check, head=(network.features[19], HEAD_RATE))
    _set_dropout(network, usual)
    return history


def _set_dropout(network: nn.Module, share: float) -> float:
    """Set the share in every Dropout; returns the share that was there."""
    before = share
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            before, module.p = module.p, share
    return before
