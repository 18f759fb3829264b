"""From a recipe to what trains: network, sampler, task, evaluation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch

from ..architectures import build, load_network
from ..errors import DataError, OptionError
from ..inference import PatchNetwork
from ..orientation import OriNet
from ..shape import AffNet
from ..weights import load_into, read_checkpoint, resolve
from .augment import Augmentation, AugmentationBySet, Light, make_augmentation
from .confusable import ConfusableSampler
from .evaluation import (
    FIGURES,
    LOWEST,
    EvaluationSet,
    descriptor_evaluation,
    orientation_evaluation,
    over_sets,
    shape_evaluation,
)
from .kept import Kept
from .losses import Loss, make_loss
from .patchset import PatchSet
from .recipe import Recipe
from .sampling import MixedSampler, PairSampler, Sampler, TupleSampler
from .schedules import Optimiser, Schedule
from .tasks import DescriptorTask, OrientationTask, ShapeTask, Task
from .trainer import Best
from .typed import one_of


def make_network(recipe: Recipe, *, started: bool = False) -> PatchNetwork:
    """The network with the originals' random start, which the recipe's seed decides, or with the weights to start from.

    Args:
        recipe: the recipe.
        started: a checkpoint will bring the weights; those to start from are not read.

    Raises:
        WeightsError: the weights to start from are missing or made for another network.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(recipe.seed)
        network = build(recipe.network.name)
    if recipe.network.start and not started:
        load_into(network, read_checkpoint(resolve(recipe.network.start)).state, recipe.network.start)
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout) and recipe.network.dropout >= 0:
            module.p = recipe.network.dropout
    return network


def make_sampler(recipe: Recipe, sets: Sequence[PatchSet]) -> Sampler:
    """What draws batches of the recipe's kind out of its sets, which are those of `data.train` in its order.

    Raises:
        OptionError, DataError: the sets and the way to mix them do not fit.
        WeightsError: the weights to start from, which say what looks alike, are missing.
    """
    data, negatives = recipe.data, recipe.loss.mining == "random_global"
    if data.confusable and (negatives or not recipe.network.start):
        raise OptionError("data.confusable needs network.start, and goes without loss.mining random_global")
    # of every sitting: what was learned since has no say, or a run that is resumed would draw other batches
    start = make_network(recipe) if data.confusable else None

    def one(name: str, observations: PatchSet) -> Sampler:
        if start is not None and name in data.confusable:
            return ConfusableSampler(observations, start)
        if data.views == 2 and not data.few_images:
            return PairSampler(observations, data.focus, wide=data.wide, negatives=negatives)
        if negatives:
            raise OptionError("loss.mining random_global draws pairs: data.views must be 2, without few_images")
        return TupleSampler(observations, data.views, few_images=data.few_images, focus=data.focus)

    samplers = [one(name, observations) for name, observations in zip(data.train, sets, strict=False)]
    if len(samplers) == 1:
        return samplers[0]
    if data.mix == "joined":  # in every batch each set's share of all classes; the patches stay where they are
        return MixedSampler(samplers, "within", [sampler.labels for sampler in samplers])
    return MixedSampler(samplers, data.mix, list(data.weights) or None)


def make_augmentations(recipe: Recipe) -> Augmentation | AugmentationBySet:
    """The recipe's augmentation; one for each training set where a piece names those it is put on (`sets`).

    Raises:
        OptionError: an unknown piece, option or set, or batches that are of several sets.
    """
    data, pieces = recipe.data, recipe.augment
    told = {name: options["sets"] for name, options in pieces.items() if "sets" in options}
    if not told:
        return make_augmentation(pieces)
    for piece, sets in told.items():
        unknown = [name for name in sets if name not in data.train] if isinstance(sets, list | tuple) else [sets]
        if unknown:
            raise OptionError(f"augment.{piece}.sets is a list of names of data.train, got {unknown[0]!r}")
    if recipe.task != "descriptor" or (len(data.train) > 1 and data.mix not in ("batch", "epoch")):
        raise OptionError("augment.*.sets is for descriptors, with data.mix batch or epoch: every batch is of one set")

    def of(name: str) -> Augmentation:
        mine = {piece: options for piece, options in pieces.items() if name in told.get(piece, (name,))}
        return make_augmentation({p: {k: v for k, v in o.items() if k != "sets"} for p, o in mine.items()})

    return AugmentationBySet(tuple(of(name) for name in data.train))


def make_task(recipe: Recipe, network: PatchNetwork, descriptor: PatchNetwork | None) -> Task:
    """The recipe's task.

    Args:
        recipe: the recipe.
        network: learns.
        descriptor: frozen, for shapes and orientations.

    Raises:
        OptionError: the parts do not go together.
    """
    loss: Loss = make_loss(**asdict(recipe.loss))
    augment = make_augmentations(recipe)
    if loss.views is not None and loss.views == 2 and recipe.data.views > 2:
        raise OptionError(f"the loss {recipe.loss.name} takes pairs, and data.views is {recipe.data.views}")
    if recipe.task == "descriptor":
        kept = recipe.network.normalisation == "kept"
        return DescriptorTask(Kept(network) if kept else network, loss, augment)
    assert isinstance(augment, Augmentation)
    if recipe.data.views > 2:
        raise OptionError(f"the task {recipe.task} takes pairs, and data.views is {recipe.data.views}")
    learn = recipe.learn
    light = Light() if learn.light else None
    own_way = augment if recipe.augment else None
    if isinstance(network, AffNet):
        return ShapeTask(
            network,
            descriptor,
            tilt=learn.tilt,
            itself=learn.itself,
            consistency=learn.consistency,
            modesty=learn.modesty,
            matching=learn.matching,
            guided=learn.guided,
            light=light,
            loss=loss,
            augment=own_way,
        )
    assert isinstance(network, OriNet)
    return OrientationTask(
        network,
        descriptor,
        consistency=learn.consistency,
        matching=learn.matching,
        guided=learn.guided,
        teacher=learn.teacher,
        dropout=None if recipe.network.dropout < 0 else recipe.network.dropout,
        light=light,
        loss=loss,
        augment=own_way,
    )


def frozen_descriptor(recipe: Recipe) -> PatchNetwork | None:
    """The descriptor that shapes and orientations are learned and judged through; None for descriptors."""
    if recipe.task == "descriptor":
        return None
    return load_network(recipe.network.descriptor, kind="descriptor").network


def make_evaluation(
    recipe: Recipe, network: PatchNetwork, descriptor: PatchNetwork | None, sets: list[EvaluationSet]
) -> Callable[[], dict[str, float]] | None:
    """Figures of the network as it is, on the recipe's evaluation sets; None where it has none."""
    if not sets:
        return None

    def judge(data: EvaluationSet) -> dict[str, float]:
        if descriptor is None:
            return descriptor_evaluation(network, data)
        if recipe.task == "shape":
            return shape_evaluation(network, descriptor, data)
        return orientation_evaluation(network, descriptor, data)

    return lambda: over_sets(judge, sets)


def best_figure(recipe: Recipe) -> Best | None:
    """Which figure the best weights are kept by; None without evaluation sets.

    Raises:
        OptionError: the recipe names one that is not measured.
    """
    if not recipe.data.evaluate:
        return None
    known = list(FIGURES[recipe.task])
    name = recipe.run.best or ("matching" if recipe.task == "descriptor" else "rank1")
    if len(recipe.data.evaluate) > 1:
        known += [f"{data}/{figure}" for data in recipe.data.evaluate for figure in known]
    one_of("run.best", name, known)
    return Best(name, lowest=name.rpartition("/")[2] in LOWEST)


def make_schedule(recipe: Recipe) -> Schedule:
    """The recipe's schedule in steps and seconds."""
    part = recipe.schedule
    return Schedule(
        part.steps, 60 * part.minutes, part.batch, recipe.optimiser.rate, part.warm_up, recipe.run.report, part.kind
    )


def make_optimiser(recipe: Recipe) -> Optimiser:
    """The recipe's optimiser; its rate is in the schedule."""
    part = {key: value for key, value in asdict(recipe.optimiser).items() if key not in ("rate", "precision")}
    return Optimiser(**part)


def fingerprint(observations: PatchSet) -> str:
    """Tells patch sets apart: labels, images, and some of the patches."""
    digest = hashlib.sha256(f"{observations.patches.shape} {observations.margin}".encode())
    digest.update(np.ascontiguousarray(observations.track).data)
    digest.update(np.ascontiguousarray(observations.image).data)
    rows = np.unique(np.linspace(0, max(len(observations) - 1, 0), min(64, len(observations))).astype(np.int64))
    digest.update(np.ascontiguousarray(observations.patches[rows]).data)
    return digest.hexdigest()[:16]


def check_apart(train: Mapping[str, PatchSet], evaluate: Mapping[str, PatchSet]) -> None:
    """Refuse to be measured on what is learned from.

    Raises:
        DataError: an evaluation set is one of the training sets, under another name.
    """
    learned = {fingerprint(observations): name for name, observations in train.items()}
    for name, observations in evaluate.items():
        twin = learned.get(fingerprint(observations))
        if twin is not None:
            raise DataError(
                f"the patch set {name} is the same as {twin}, which is trained on: figures would say nothing"
            )
