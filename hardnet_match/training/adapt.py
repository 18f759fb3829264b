"""A descriptor that is good already, taught a scene without unlearning the rest.

Batches are of points that the descriptor confuses. BatchNorm keeps the statistics it came with and nothing is dropped
out: a few hundred small batches of one scene are too few to learn statistics from. What comes out is mixed with what
went in, weight by weight (Wortsman et al.: Robust fine-tuning of zero-shot models, CVPR 2022); how much of the new goes
into the mixture, and after which step, is decided on points that nothing is learned from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..inference import PatchNetwork, run_tiled
from ..metrics.patches import matching_ap
from ..weights import load_into, read_checkpoint
from .augment import DESCRIPTOR_WARPS, Augmentation, Light, Warp
from .augment.frames import crop, random_frames
from .augment.pieces import FlipRot, Jitter
from .checkpoint import LAST_WEIGHTS
from .confusable import ConfusableSampler
from .judge import Held, hold_out
from .kept import Kept
from .losses import make_loss
from .patchset import PatchSet
from .schedules import Schedule
from .tasks import DescriptorTask
from .trainer import History, Trainer

SECOND_VIEW = Warp(1.6, 0.03, 0.16, 1.03)
LIGHT = Light(0.07, 0.06, 0.2, 0.05)
"""Changes put on true second views while learning: little, for what they err by is there in the patches already."""
FEWEST_POINTS = 40
"""Points below which a batch has no hard negatives."""
CHOICE, SHARE = "chosen_ap", "share"
"""What a mixture is chosen by, and its share of the new weights; the names they have in the log."""
_PAIRS = 1000


@dataclass(frozen=True)
class Plan:
    """How long, how fast, and how much.

    Args:
        passes: times each point is shown, on average; within `steps`.
        steps: fewest and most batches.
        seconds: wall-clock time after which training stops.
        batch: pairs; fewer where there are fewer points.
        rate: peak of Adam's rate.
        shares: of the new weights in the mixtures that are tried; of more than half, what was known before is lost.
        evaluations: how often mixtures are tried, to show how it goes; the last time decides.
    """

    passes: float = 12.0
    steps: tuple[int, int] = (60, 2000)
    seconds: float = math.inf
    batch: int = 128
    rate: float = 2e-3
    shares: tuple[float, ...] = (0.25, 0.5)
    evaluations: int = 4

    def schedule(self, points: int) -> Schedule:
        """The schedule for so many points."""
        batch = min(self.batch, points)
        steps = int(np.clip(math.ceil(self.passes * points / batch), *self.steps))
        report = max(steps // 40, 1)
        return Schedule(steps=steps, seconds=self.seconds, batch=batch, rate=self.rate, report=report)


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    Args:
        network: the mixture; the one that went in where `share` is 0.
        share: of the new weights in it; 0 where nothing that was learned did better on the choosing points.
        step: after which the new weights were taken.
        before, after: average precision on the choosing points.
        history: of the training.
    """

    network: PatchNetwork
    share: float
    step: int
    before: float
    after: float
    history: History


def mixed(old: Mapping[str, Tensor], new: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weight by weight, `share` of the new and the rest of the old; whole numbers are the new's."""
    return {
        name: torch.lerp(old[name], value, share) if value.is_floating_point() else value for name, value in new.items()
    }


def chosen_precision(network: PatchNetwork, held: Held) -> float:
    """Average precision of matching held-out pairs: true second views, as detectors frame them."""
    ready = network.eval().fused()
    plain = random_frames(len(held.first), Warp(), torch.Generator())
    with torch.inference_mode():
        anchors = run_tiled(ready, crop(held.first, plain, network.patch_size))
        second = run_tiled(ready, crop(held.second, plain, network.patch_size))
    same = held.ignore.clone()
    same.fill_diagonal_(False)
    return matching_ap(anchors, second, same)


def adapt(
    network: PatchNetwork,
    learn: PatchSet,
    choose: PatchSet,
    plan: Plan | None = None,
    *,
    out: Path,
    device: str = "cpu",
    seed: int = 0,
    identity: Mapping[str, str] | None = None,
) -> Adapted:
    """Teach a descriptor the patches of a scene.

    Args:
        network: what to start from; it is not changed.
        learn: what to learn from.
        choose: what to choose by; of other points.
        plan: how.
        out: folder (made) for checkpoints and logs; a run that was stopped goes on from there.
        device: where to train.
        seed: of everything random.
        identity: see `Trainer`.

    Raises:
        DataError: there are too few points to learn from or to choose by.
        TrainingError: the loss is no number, or `out` holds another run.
    """
    plan = plan or Plan()
    points = len(np.unique(learn.track))
    if points < FEWEST_POINTS or len(choose) < 2:
        raise DataError(
            f"too few points to learn from: {points}, with {len(choose)} patches to choose by; at least "
            f"{FEWEST_POINTS} are needed. Take more photos, more keypoints, or hold out less"
        )
    held = hold_out(choose, _PAIRS, seed)
    old = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
    trial = copy.deepcopy(network).cpu()
    before = chosen_precision(trial, held)
    learner = Kept(copy.deepcopy(network).requires_grad_(True))
    schedule = plan.schedule(points)

    def try_mixtures() -> dict[str, float]:
        new = {name: value.detach().cpu() for name, value in learner.module.state_dict().items()}
        share, precision = _best_mixture(trial, old, new, plan.shares, held)
        return {CHOICE: precision, SHARE: share}

    mild, strong = SECOND_VIEW, DESCRIPTOR_WARPS.itself
    jitter = Jitter(
        *(mild.rotation, mild.octaves, mild.shift, mild.tilt),
        *(strong.rotation, strong.octaves, strong.shift, strong.tilt),
    )
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(
        DescriptorTask(learner, make_loss(), Augmentation((FlipRot(), jitter), LIGHT)),
        ConfusableSampler(learn, trial),
        schedule,
        out=out,
        evaluate=try_mixtures,
        evaluate_every=max(math.ceil(schedule.steps / plan.evaluations), 1),
        device=device,
        seed=seed,
        identity=identity,
        tensorboard=False,
    )
    history = trainer.run()
    path = out / LAST_WEIGHTS
    load_into(trial, read_checkpoint(path).state, str(path))  # the names' prefix is taken off in reading
    new = {name: value.clone() for name, value in trial.state_dict().items()}
    share, after = _best_mixture(trial, old, new, plan.shares, held)
    if after <= before:
        share, after = 0.0, before
    taken = copy.deepcopy(network).cpu().eval()
    if share:
        taken.load_state_dict(mixed(old, new, share))
    return Adapted(taken, share, history.steps if share else 0, before, after, history)


def _best_mixture(
    trial: PatchNetwork, old: Mapping[str, Tensor], new: Mapping[str, Tensor], shares: Sequence[float], held: Held
) -> tuple[float, float]:
    """Share and precision of the mixture that does best on the choosing points; the smaller share of equals. `trial`
    is left with the weights of one of them."""
    found = {}
    for share in shares:
        trial.load_state_dict(mixed(old, new, share))
        found[share] = chosen_precision(trial, held)
    best = max(found, key=lambda share: (found[share], -share))
    return best, found[best]
