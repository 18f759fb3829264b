"""Train a network by a recipe, in a folder of its own: resumed where it was stopped, until the recipe is done."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from ..devices import choose_device
from ..errors import DataError, OptionError, TrainingError
from ..training import assemble
from ..training import recipe as recipes
from ..training.checkpoint import BEST_WEIGHTS, LAST, LAST_WEIGHTS, resume_original
from ..training.evaluation import EvaluationSet, evaluation_set
from ..training.logs import FIGURES, read_rows
from ..training.parallel import Processes, processes
from ..training.patchset import PatchSet
from ..training.recipe import Recipe
from ..training.sources.brown import SETS
from ..training.trainer import Trainer
from ..whole import replacing

log = logging.getLogger(__name__)

RECIPE = "recipe.toml"


@dataclass(frozen=True)
class TrainSummary:
    """What `train` did: `steps` done of the recipe's, in `seconds` of training over all sittings.

    `figures` are the last evaluation's; `best` is the value of `best_figure` at `best_step`. `waiting` is the share of
    this sitting in which a step waited for its batch.
    """

    recipe: str
    output: str
    steps: int
    of: int
    resumed_at: int
    seconds: float
    pairs_a_second: float
    waiting: float
    last: str
    best: str
    best_figure: str
    best_value: float | None
    best_step: int | None
    figures: dict[str, float]

    def words(self) -> str:
        """The summary for a reader."""
        told = [f"{self.output}: {self.steps} of {self.of} steps in {self.seconds:.0f} s"]
        if self.resumed_at:
            told[0] += f" (this time from step {self.resumed_at})"
        if self.pairs_a_second:
            told.append(f"{self.pairs_a_second:.0f} pairs a second, {100 * self.waiting:.1f} % of it waiting for data")
        told.append(f"last weights: {self.last}")
        if self.best:
            told.append(
                f"best weights: {self.best} ({self.best_figure} {self.best_value:.4f} at step {self.best_step})"
            )
        rows: dict[str, list[str]] = {}
        for key, value in self.figures.items():
            data, _, figure = key.rpartition("/")
            if figure != "step":
                rows.setdefault(data or "figures", []).append(f"{figure} {value:.4f}")
        told += [f"{data}: {', '.join(row)}" for data, row in rows.items()]
        return "\n".join(told)


def train(
    recipe: str | Path | Recipe,
    output: str | Path,
    *,
    data: str | Path = ".",
    changes: Sequence[str] = (),
    device: str = "auto",
    minutes: float | None = None,
    start: str | Path | None = None,
    resume: str | Path | None = None,
    tensorboard: bool | None = None,
) -> TrainSummary:
    """Train by a recipe. Stopped at any moment, the same call goes on and gives the weights it would have given.

    Args:
        recipe: a shipped recipe's name, a TOML file, or a `Recipe`.
        output: folder of the run, made if need be: the recipe, logs, checkpoints, last and best weights.
        data: folder of the patch sets, NAME.h5.
        changes: `key=value` put over the recipe's.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, `mps`.
        minutes: in place of the recipe's `schedule.minutes`; may differ from sitting to sitting.
        start: weights to start from, a name or a file, in place of the recipe's `network.start`.
        resume: a checkpoint of the originals to go on from: its weights, momentum and epoch.
        tensorboard: write its events; None where it is installed.

    Raises:
        OptionError: the recipe cannot work, or the device is not there.
        DataError: a patch set is missing (the message says how to make it) or damaged.
        TrainingError: the folder holds another run, or one that is under way; too few classes; the loss is no number.
        WeightsError: the weights to start from cannot be.
        KeyboardInterrupt: Ctrl-C; a checkpoint is kept.
    """
    wanted = _changed(recipe, changes, minutes, start)
    out = Path(output)
    with processes(choose_device(device)) as (group, where):
        _check_same_recipe(out / RECIPE, wanted)
        train_sets = {name: _open(Path(data), name, wanted) for name in wanted.data.train}
        seen = {name: _open(Path(data), name, wanted) for name in wanted.data.evaluate}
        assemble.check_apart(train_sets, seen)
        evaluation = [evaluation_set(name, found, wanted.run.pairs) for name, found in seen.items()]
        with _alone(out, group):
            return _run(wanted, str(recipe), out, train_sets, evaluation, group, where, resume, tensorboard)


@contextmanager
def _alone(out: Path, group: Processes) -> Iterator[None]:
    """The folder, made if need be, to ourselves.

    Raises:
        TrainingError: another process trains there.
    """
    if not group.first:
        yield
        return
    out.mkdir(parents=True, exist_ok=True)
    try:
        from filelock import FileLock, Timeout
    except ModuleNotFoundError:  # a machine lent for training has torch, and little else
        yield
        return
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(f"{out}: another process is training there") from error
    try:
        yield
    finally:
        lock.release()
        if [entry.name for entry in out.iterdir()] == [".lock"]:  # it did not even begin
            (out / ".lock").unlink()
            out.rmdir()


def _changed(
    recipe: str | Path | Recipe, changes: Sequence[str], minutes: float | None, start: str | Path | None
) -> Recipe:
    if isinstance(recipe, Recipe):
        if changes:
            raise OptionError("changes go over a recipe's file; build the Recipe with them")
        wanted = recipe
    else:
        wanted = recipes.read(recipes.find(str(recipe)), changes)
    if minutes is not None:
        wanted = dataclasses.replace(wanted, schedule=dataclasses.replace(wanted.schedule, minutes=float(minutes)))
    if start is not None:
        wanted = dataclasses.replace(wanted, network=dataclasses.replace(wanted.network, start=str(start)))
    return wanted


def _run(
    recipe: Recipe,
    name: str,
    out: Path,
    train_sets: dict[str, PatchSet],
    seen: list[EvaluationSet],
    group: Processes,
    device: torch.device,
    resume: str | Path | None,
    tensorboard: bool | None,
) -> TrainSummary:
    # once there is a checkpoint it has the weights; those to start from may be gone by now
    network = assemble.make_network(recipe, started=(out / LAST).exists())
    descriptor = assemble.frozen_descriptor(recipe)
    task = assemble.make_task(recipe, network, descriptor)
    sampler = assemble.make_sampler(recipe, list(train_sets.values()))
    schedule, best = assemble.make_schedule(recipe), assemble.best_figure(recipe)
    steps_an_epoch = recipe.schedule.pairs_an_epoch // recipe.schedule.batch

    def go_on(optimiser: torch.optim.Optimizer) -> int:
        return resume_original(Path(str(resume)), network, optimiser) * steps_an_epoch

    identity = {f"data {key}": assemble.fingerprint(found) for key, found in train_sets.items()}
    trainer = Trainer(
        task,
        sampler,
        schedule,
        assemble.make_optimiser(recipe),
        out=out,
        evaluate=assemble.make_evaluation(recipe, network, descriptor, seen),
        evaluate_every=recipe.run.evaluate or steps_an_epoch,
        best=best,
        device=device,
        precision=recipe.optimiser.precision,
        seed=recipe.seed,
        processes=group,
        checkpoint_seconds=60 * recipe.run.checkpoint_minutes,
        pairs_an_epoch=recipe.schedule.pairs_an_epoch,
        identity=identity,
        start=None if resume is None else go_on,
        tensorboard=tensorboard,
    )
    if group.first and not (out / RECIPE).exists():
        # only now, so that a recipe that cannot work leaves no folder that refuses a mended one
        with replacing(out / RECIPE) as part:
            part.write_text(recipes.to_toml(recipe), encoding="utf-8")
    begun_at, started = trainer.state.step, time.monotonic()
    for key, found in train_sets.items():
        log.info("%s: %d patches of %d classes", key, len(found), len(set(found.track.tolist())))
    history = trainer.run()
    seconds = max(time.monotonic() - started, 1e-9)
    speeds = [row["pairs_a_second"] for row in history.reports if row["step"] > begun_at]
    figures = read_rows(out / FIGURES)
    return TrainSummary(
        recipe=name,
        output=str(out),
        steps=history.steps,
        of=schedule.steps,
        resumed_at=begun_at,
        seconds=round(history.seconds, 3),
        pairs_a_second=round(sum(speeds) / len(speeds), 1) if speeds else 0.0,
        waiting=round(history.waited / seconds, 4),
        last=str(out / LAST_WEIGHTS),
        best=str(out / BEST_WEIGHTS) if history.best is not None else "",
        best_figure=best.figure if best is not None else "",
        best_value=history.best,
        best_step=history.best_step,
        figures=figures[-1] if figures else {},
    )


def _check_same_recipe(path: Path, recipe: Recipe) -> None:
    """Refuse a folder that another recipe was begun in.

    Raises:
        TrainingError: with every key that differs, as it is there and as it is now.
    """
    if not path.exists():
        return
    then, now = recipes.identity(recipes.read(path)), recipes.identity(recipe)
    changed = [key for key in {**then, **now} if then.get(key) != now.get(key)]
    if changed:
        told = "; ".join(f"{key} = {then.get(key)} there, {now.get(key)} now" for key in changed)
        raise TrainingError(
            f"{path.parent} holds a run of another recipe: {told}. Use another folder, or leave the recipe as it was"
        )


def _open(folder: Path, name: str, recipe: Recipe) -> PatchSet:
    path = folder / f"{name}.h5"
    if not path.is_file():
        command = f"hardnet-match patches {name} -o {{file}}" if name in SETS else recipe.data.make.get(name)
        told = (
            f"make it with `{command.replace('{file}', str(path))}`" if command else "see hardnet-match patches --help"
        )
        raise DataError(f"there is no patch set {path}: {told}, or name its folder with --data")
    found = PatchSet.load(path)
    if not len(found):
        raise DataError(f"the patch set {path} is empty: there is nothing to train on")
    return found
