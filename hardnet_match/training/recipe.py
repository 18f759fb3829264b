"""Recipes: what a training run is, as a TOML file; every key is known, typed and has a meaning of its own."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from ..errors import OptionError
from .typed import flat, one_of, put, to_toml, typed

__all__ = ["Recipe", "find", "from_values", "identity", "names", "read", "to_toml"]

FOLDER = Path(__file__).parent / "recipes"
TASKS = ("descriptor", "shape", "orientation")
NETWORKS = {
    "hardnet": "descriptor",
    "h8": "descriptor",
    "h8E512": "descriptor",
    "hardtfeat": "descriptor",
    "tfeat": "descriptor",
    "affnet": "shape",
    "orinet": "orientation",
}
"""Networks that can be trained, and the task each is for. h8 and h8E512 are HardNet8 of 256 and 512 outputs."""
MIXES = ("joined", "batch", "epoch", "within")


@dataclass(frozen=True)
class NetworkPart:
    """`[network]`

    Args:
        name: one of `NETWORKS`.
        start: weights to start from, a name or a file; empty: the original's random start.
        descriptor: weights of the frozen HardNet that shapes and orientations are learned and judged through.
        dropout: share in place of the network's own; negative: its own.
        normalisation: `learned` from the batches, or `kept` as the weights to start from have it, and no dropout; for
            batches that are no fair sample of patches (`data.confusable`). Descriptors only.
    """

    name: str
    start: str = ""
    descriptor: str = "hardnet-bundled"
    dropout: float = -1.0
    normalisation: str = "learned"

    def __post_init__(self) -> None:
        one_of("network.name", self.name, NETWORKS)
        one_of("network.normalisation", self.normalisation, ("learned", "kept"))
        if self.normalisation == "kept" and NETWORKS[self.name] != "descriptor":
            raise OptionError(f"network.normalisation kept is for descriptors, not for {self.name}")
        if self.dropout >= 1:
            raise OptionError(f"network.dropout is a share below 1, got {self.dropout}")


@dataclass(frozen=True)
class DataPart:
    """`[data]`

    Args:
        train: names of patch sets, NAME.h5 in the folder of patch sets.
        evaluate: names of those that figures are taken on while training; none may be trained on.
        mix: `joined`: as one set, labels numbered on; `batch`: every batch of one set; `epoch`: the sets one after
            another in every epoch; `within`: every batch holds a share of every set.
        weights: of the sets, where they are mixed; equal when empty.
        views: patches of a class in a batch.
        few_images: fill a batch from few images (the original's fewcams).
        focus: share of a batch that comes from one scene, where negatives are hardest; pairs only.
        wide: of two second views drawn, take the one seen from the more different direction; pairs only.
        confusable: training sets of which batches are groups of points that the weights to start from take for each
            other, the nearest negatives there are; pairs only, in place of `focus`.
        make: set to the command that makes it, for sets that `hardnet-match patches NAME` does not.
    """

    train: tuple[str, ...]
    evaluate: tuple[str, ...] = ()
    mix: str = "joined"
    weights: tuple[float, ...] = ()
    views: int = 2
    few_images: bool = False
    focus: float = 0.0
    wide: bool = False
    confusable: tuple[str, ...] = ()
    make: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one_of("data.mix", self.mix, MIXES)
        if not self.train:
            raise OptionError("data.train names no patch set")
        both = sorted(set(self.train) & set(self.evaluate))
        if both:
            raise OptionError(f"data: {', '.join(both)} is trained on and evaluated on; figures would say nothing")
        if self.weights and len(self.weights) != len(self.train):
            raise OptionError(f"data.weights has {len(self.weights)} numbers for {len(self.train)} sets")
        strange = sorted(set(self.confusable) - set(self.train))
        if strange:
            raise OptionError(f"data.confusable names {', '.join(strange)}, which is not in data.train")
        if self.confusable and (self.views > 2 or self.few_images or self.wide):
            raise OptionError("data.confusable draws pairs: it goes with neither views above 2, few_images nor wide")
        if self.views < 2 or not 0 <= self.focus <= 1:
            raise OptionError("data needs 2 views or more, and a focus between 0 and 1")


@dataclass(frozen=True)
class LossPart:
    """`[loss]`: see `losses.LossOptions`."""

    name: str = "triplet_margin"
    mining: str = "hardest"
    margin: float = 1.0
    anchor_swap: bool = True
    gor: float = 0.0
    correlation: float = 0.0
    second_order: float = 0.0
    neighbours: int = 8


@dataclass(frozen=True)
class LearnPart:
    """`[learn]`: what shape and orientation networks are told besides; see `tasks.ShapeTask`, `tasks.OrientationTask`.

    Args:
        tilt: shape: most ratio of axes put on a patch.
        itself: shape: share of pairs that are a patch with itself.
        consistency, modesty, matching: weights.
        guided: share of the run in which a teacher helps.
        teacher: orientation: `frame` or `gradient`.
        light: put changes of light on the patches.
    """

    tilt: float = 3.0
    itself: float = 0.5
    consistency: float = 1.0
    modesty: float = 0.02
    matching: float = 1.0
    guided: float = 0.4
    teacher: str = "frame"
    light: bool = True

    def __post_init__(self) -> None:
        one_of("learn.teacher", self.teacher, ("frame", "gradient"))
        if self.tilt < 1:
            raise OptionError(f"learn.tilt is 1 or more, got {self.tilt}")


@dataclass(frozen=True)
class OptimiserPart:
    """`[optimiser]`: see `schedules.Optimiser`; `rate` is the peak of the schedule."""

    name: str = "adam"
    rate: float = 2e-3
    momentum: float = 0.9
    dampening: float = 0.0
    second: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    head_rate: float = 1.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise OptionError(f"optimiser.rate must be above 0, got {self.rate}")


@dataclass(frozen=True)
class SchedulePart:
    """`[schedule]`

    Args:
        kind: `cosine`, `linear` or `one-cycle`, see `schedules.Schedule`.
        batch: classes, over all processes together.
        epochs, pairs_an_epoch: length of the run; `pairs` are tuples where `data.views` is more than 2.
        minutes: wall-clock limit, inf for none; the rate falls to its end by whichever comes first.
        warm_up: share of the run.
    """

    kind: str = "cosine"
    batch: int = 1024
    epochs: int = 10
    pairs_an_epoch: int = 5_000_000
    minutes: float = math.inf
    warm_up: float = 0.05

    def __post_init__(self) -> None:
        if self.batch < 2 or self.epochs < 1 or not self.minutes > 0:
            raise OptionError("a schedule needs a batch of 2, an epoch, and some minutes, at least")
        if self.pairs_an_epoch < self.batch:
            raise OptionError(f"an epoch of {self.pairs_an_epoch} pairs is less than a batch of {self.batch}")

    @property
    def steps(self) -> int:
        """Steps of the whole run: whole batches only."""
        return self.epochs * (self.pairs_an_epoch // self.batch)


@dataclass(frozen=True)
class RunPart:
    """`[run]`: what is written and measured on the way; none of it changes the weights.

    Args:
        report: steps between two rows of the log.
        evaluate: steps between two evaluations; 0: once an epoch.
        checkpoint_minutes: between two checkpoints.
        pairs: held-out pairs a set that figures are taken on.
        best: figure of which the best weights are kept, its mean over the sets, or SET/FIGURE of one of several; empty:
            `matching` of descriptors, `rank1` of the others.
    """

    report: int = 50
    evaluate: int = 0
    checkpoint_minutes: float = 2.0
    pairs: int = 1000
    best: str = ""

    def __post_init__(self) -> None:
        if self.report < 1 or self.evaluate < 0 or self.pairs < 2 or self.checkpoint_minutes < 0:
            raise OptionError("run: report needs 1 step, pairs 2, evaluate and checkpoint_minutes nothing below 0")


@dataclass(frozen=True)
class Recipe:
    """A training run, whole.

    Args:
        task: `descriptor`, `shape` or `orientation`.
        about: in words.
        augment: pieces put on the patches, in order, with their options, see `augment.make_augmentation`; a list of
            names where none has any. `sets` of a piece are the training sets it is put on, all by default. Shapes and
            orientations have turns and stretches of their own without it; with it, they learn from `loss` alone, as
            the originals do.
        seed: of everything random.
    """

    task: str
    network: NetworkPart
    data: DataPart
    about: str = ""
    augment: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed: int = 0
    loss: LossPart = field(default_factory=LossPart)
    learn: LearnPart = field(default_factory=LearnPart)
    optimiser: OptimiserPart = field(default_factory=OptimiserPart)
    schedule: SchedulePart = field(default_factory=SchedulePart)
    run: RunPart = field(default_factory=RunPart)

    def __post_init__(self) -> None:
        one_of("task", self.task, TASKS)
        fitting = [name for name, task in NETWORKS.items() if task == self.task]
        if self.network.name not in fitting:
            raise OptionError(
                f"network.name {self.network.name!r} is for the task {NETWORKS[self.network.name]}, not {self.task}; "
                f"for it there is {', '.join(fitting)}"
            )


def names() -> list[str]:
    """Recipes that the package brings."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name_or_path: str) -> Path:
    """The file of a shipped recipe, or one's own.

    Raises:
        OptionError: there is neither.
    """
    if name_or_path in names():
        return FOLDER / f"{name_or_path}.toml"
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(name_or_path, names(), 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise OptionError(f"{name_or_path}: no such recipe file, nor a shipped one ({', '.join(names())}){hint}")


def read(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe out of a TOML file.

    Args:
        path: the file.
        changes: `key=value` each, put over the file's: `schedule.batch=256`. Values are TOML; what is none is a word.

    Raises:
        OptionError: it is no TOML, a key is unknown (the nearest known one is named), a value has the wrong type or
            cannot work.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise OptionError(f"{path}: cannot be read as a recipe: {error}") from error
    for change in changes:
        put(values, change)
    return from_values(values, str(path))


def from_values(values: Mapping[str, Any], source: str = "recipe") -> Recipe:
    """A recipe out of nested mappings; errors as `read`."""
    try:
        return typed(Recipe, values)
    except OptionError as error:
        raise OptionError(f"{source}: {error}") from None


FREE = ("about", "schedule.minutes", "run.")
"""Keys that may differ when a run is resumed: they decide how long it goes on and what is written down."""


def identity(recipe: Recipe) -> dict[str, str]:
    """The keys that make a run what it is."""
    return {key: value for key, value in flat(recipe).items() if not key.startswith(FREE)}
