"""How fast a network learns, and when: optimisers and the course of their rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import OptionError

KINDS = ("cosine", "linear", "one-cycle")
OPTIMISERS = ("adam", "adamw", "sgd")
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-5
"""Rate of a one-cycle run at its start and end, as shares of its peak: fastai's, which HardNet8 was trained with."""
ONE_CYCLE_MOMENTUM = (0.95, 0.85)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Args:
        steps: batches, at most.
        seconds: wall-clock time after which training stops; the schedule follows whichever runs out first. A run that
            is stopped and resumed counts the time it trained, not the time between.
        batch: pairs (or tuples), over all processes together.
        rate: peak learning rate.
        warm_up: share of the run in which the rate rises; `linear` has none.
        report: steps between two lines of the log.
        kind: `cosine`: up in a line, down to nothing as a cosine; `linear`: from the peak down to zero in a line, as
            DagnyT/hardnet does; `one-cycle`: from 1/25 of the peak up and down to 1e-5 of it, both as cosines, while
            the momentum goes from .95 to .85 and back (Smith 2018, in fastai's form).
    """

    steps: int = 1000
    seconds: float = math.inf
    batch: int = 512
    rate: float = 2e-3
    warm_up: float = 0.05
    report: int = 50
    kind: str = "cosine"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"schedule {self.kind!r} is unknown: choose one of {', '.join(KINDS)}")
        if self.steps < 1 or self.batch < 2 or self.report < 1 or not self.seconds > 0:
            raise OptionError("a schedule needs 1 step, a batch of 2, a report every 1 step and some time, at least")
        if not 0 <= self.warm_up < 1:
            raise OptionError(f"the warm-up is a share of the run below 1, got {self.warm_up}")

    def at(self, progress: float) -> float:
        """Learning rate at `progress` in [0, 1] of the run."""
        progress = min(max(progress, 0.0), 1.0)
        if self.kind == "linear":
            return self.rate * (1 - progress)
        rising = progress < self.warm_up
        if self.kind == "one-cycle":
            if rising:
                return self.rate * _eased(ONE_CYCLE_START, 1.0, progress / self.warm_up)
            return self.rate * _eased(1.0, ONE_CYCLE_END, self._rest(progress))
        if rising:
            return self.rate * min((progress + 1e-3) / self.warm_up, 1.0)
        return self.rate * _eased(1.0, 0.0, self._rest(progress)) + 1e-6

    def momentum(self, progress: float) -> float | None:
        """Momentum (Adam's first beta) at `progress`; None where the schedule leaves it alone."""
        if self.kind != "one-cycle":
            return None
        high, low = ONE_CYCLE_MOMENTUM
        if progress < self.warm_up:
            return _eased(high, low, progress / self.warm_up)
        return _eased(low, high, self._rest(progress))

    def _rest(self, progress: float) -> float:
        return min((progress - self.warm_up) / (1 - self.warm_up), 1.0)


def _eased(start: float, end: float, share: float) -> float:
    return end + (start - end) * (0.5 + 0.5 * math.cos(math.pi * share))


@dataclass(frozen=True)
class Optimiser:
    """Which optimiser, and its constants; the rate is the schedule's.

    Args:
        name: `adam`, `adamw` (decoupled weight decay) or `sgd`.
        momentum: of SGD, or Adam's first beta.
        dampening: of SGD; the originals' 0.9 makes the momentum a mean of gradients, hence their rate of 10.
        second: Adam's second beta.
        eps: Adam's.
        weight_decay: of every parameter.
        head_rate: share of the rate for a network's last layer.
    """

    name: str = "adam"
    momentum: float = 0.9
    dampening: float = 0.0
    second: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    head_rate: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in OPTIMISERS:
            raise OptionError(f"optimiser {self.name!r} is unknown: choose one of {', '.join(OPTIMISERS)}")


def build(network: nn.Module, optimiser: Optimiser, head: nn.Module | None = None) -> torch.optim.Optimizer:
    """The optimiser over a network's parameters that learn; those of `head` in a group of their own.

    Each group has a `factor`, its share of the schedule's rate, which `set_rate` applies.
    """
    held_back = {id(parameter) for parameter in (head.parameters() if head is not None else ())}
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if (id(p) in held_back) == back], "factor": factor}
        for back, factor in ((False, 1.0), (True, optimiser.head_rate))
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise OptionError(f"{type(network).__name__} has no parameter that learns")
    decay = optimiser.weight_decay
    if optimiser.name == "sgd":
        return torch.optim.SGD(
            groups, lr=0.0, momentum=optimiser.momentum, dampening=optimiser.dampening, weight_decay=decay
        )
    kind = torch.optim.Adam if optimiser.name == "adam" else torch.optim.AdamW
    betas = (optimiser.momentum, optimiser.second)
    return kind(groups, lr=0.0, betas=betas, eps=optimiser.eps, weight_decay=decay)


def set_rate(groups: Iterable[dict[str, object]], schedule: Schedule, progress: float) -> float:
    """Put the schedule's rate and momentum at `progress` into an optimiser's groups; returns the rate."""
    rate, momentum = schedule.at(progress), schedule.momentum(progress)
    for group in groups:
        factor = group.get("factor", 1.0)
        assert isinstance(factor, float)
        group["lr"] = rate * factor
        if momentum is None:
            continue
        betas = group.get("betas")
        if isinstance(betas, tuple):
            group["betas"] = (momentum, betas[1])
        else:
            group["momentum"] = momentum
    return rate
