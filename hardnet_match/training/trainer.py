"""The loop: batches, steps, checkpoints, evaluation; killed and resumed, a run gives what it would have given."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path

import torch

from ..errors import OptionError, TrainingError
from . import schedules
from .checkpoint import BEST_WEIGHTS, LAST, LAST_WEIGHTS, load_checkpoint, save_checkpoint, save_weights
from .history import Best, History, Interval, State
from .logs import RunLog
from .parallel import Processes
from .sampling import Batch, Sampler, batches
from .schedules import Optimiser, Schedule
from .sitting import choose_precision, noticing_interrupt, seed_of
from .tasks import Moment, Task

__all__ = ["Best", "History", "Trainer", "choose_precision"]

log = logging.getLogger(__name__)

DECISIONS_EVERY = 10
"""Steps between two agreements of several processes on the time and on stopping; each costs them a wait."""


class Trainer:
    """Trains a task's network in place.

    Randomness of step k comes from (seed, k) alone, so there is no state of random generators to lose: a run that is
    killed and goes on from its checkpoint draws what it would have drawn.

    Args:
        task: what is learned.
        sampler: where batches come from; drawn in threads, ahead of the steps.
        schedule, optimiser: how fast.
        out: folder (made) for checkpoints and logs; None to keep nothing. A checkpoint there is gone on from.
        evaluate: figures by name of the network as it is, called every `evaluate_every` steps and at the end; the
            network is in evaluation mode then.
        evaluate_every: steps; the schedule's `report` where None.
        best: the figure of which the best state is kept as `best.safetensors`.
        device, precision: where, and in what (see `choose_precision`).
        seed: of everything random.
        processes: those that train together.
        checkpoint_seconds: time between two checkpoints; there is one after every evaluation and at the end besides.
        pairs_an_epoch: for losses and augmentations that change by epoch, and for the checkpoint's `epoch`.
        identity: strings kept in the checkpoint; resuming with others is refused, naming them.
        start: changes a fresh run before its first step (weights, momentum) and returns the step it is at; called
            with the optimiser.
        tensorboard: as `logs.RunLog`.

    Raises:
        OptionError: a setting cannot work here.
        TrainingError: too few classes for the batch; the checkpoint is of another run; the loss is no number.
    """

    def __init__(
        self,
        task: Task,
        sampler: Sampler,
        schedule: Schedule,
        optimiser: Optimiser | None = None,
        *,
        out: Path | None = None,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        evaluate_every: int | None = None,
        best: Best | None = None,
        device: str | torch.device = "cpu",
        precision: str = "auto",
        seed: int = 0,
        processes: Processes | None = None,
        checkpoint_seconds: float = 60.0,
        pairs_an_epoch: int | None = None,
        identity: Mapping[str, str] | None = None,
        start: Callable[[torch.optim.Optimizer], int] | None = None,
        tensorboard: bool | None = None,
    ) -> None:
        self.task, self.sampler, self.schedule, self.out = task, sampler, schedule, out
        self.evaluate, self.evaluate_every, self.best = evaluate, evaluate_every or schedule.report, best
        self.device, self.seed = torch.device(device), seed
        self.precision = choose_precision(precision, self.device)
        self.processes = processes or Processes()
        self.checkpoint_seconds, self.tensorboard = checkpoint_seconds, tensorboard
        self.pairs_an_epoch = pairs_an_epoch or schedule.steps * schedule.batch
        self.identity = dict(identity or {})
        self.processes.share(schedule.batch)
        if sampler.labels < schedule.batch:
            raise TrainingError(
                f"the patches are of {sampler.labels} classes, too few for a batch of {schedule.batch} different ones: "
                f"lower schedule.batch to {sampler.labels} or less, or train on more"
            )
        task.prepare(self.device)
        self.optimiser = schedules.build(task.network, optimiser or Optimiser(), task.head)
        self.scaler = torch.amp.GradScaler("cuda", enabled=self.precision == torch.float16)
        self.state = State()
        self.history = History()
        # float64, so that the mean loss of a report does not depend on where a run was stopped
        self.total = torch.zeros((), dtype=torch.float32 if self.device.type == "mps" else torch.float64)
        self.total = self.total.to(self.device)
        self.totalled = 0
        self.log: RunLog | None = None
        self._resume(start)

    # going on ---------------------------------------------------------------------------------------------

    def _resume(self, start: Callable[[torch.optim.Optimizer], int] | None) -> None:
        path = self.out / LAST if self.out is not None else None
        if path is None or not path.exists():
            if start is not None:
                self.state.step = start(self.optimiser)
                if self.state.step >= self.schedule.steps:
                    raise TrainingError(
                        f"the checkpoint to resume is at step {self.state.step}, the recipe ends at "
                        f"{self.schedule.steps}: nothing is left to train"
                    )
        else:
            content = load_checkpoint(path)
            then = content["identity"]
            changed = [name for name in {**then, **self.identity} if then.get(name) != self.identity.get(name)]
            if changed:
                told = "; ".join(f"{name}: {then.get(name)} then, {self.identity.get(name)} now" for name in changed)
                raise TrainingError(f"{self.out} holds a run of something else ({told}); use another folder")
            self.task.network.load_state_dict(content["state_dict"])
            self.optimiser.load_state_dict(content["optimizer"])
            self.scaler.load_state_dict(content["scaler"])
            self.task.load_state_dict(content["task"])
            self.state = State(content["step"], content["seconds"], content["best"], content["best_step"])
            self.total.fill_(content["loss_total"])
            self.totalled = content["loss_steps"]
        if self.out is not None and self.processes.first:
            self.out.mkdir(parents=True, exist_ok=True)
            self.log = RunLog(self.out, self.state.step, self.tensorboard)
            self.history.reports = [dict(row) for row in self.log.reports.rows]

    def _save(self) -> None:
        if self.out is None or not self.processes.first:
            return
        self._check_finite()
        state = self.state
        save_checkpoint(
            self.out / LAST,
            self.task.network,
            self.optimiser,
            int(self._epoch(state.step)),
            {
                "step": state.step,
                "seconds": state.seconds,
                "best": state.best,
                "best_step": state.best_step,
                "loss_total": float(self.total),
                "loss_steps": self.totalled,
                "scaler": self.scaler.state_dict(),
                "task": self.task.state_dict(),
                "identity": self.identity,
            },
        )

    def _epoch(self, step: int) -> float:
        return step * self.schedule.batch / self.pairs_an_epoch

    def _check_finite(self) -> None:
        if not math.isfinite(float(self.total)):
            raise TrainingError(
                f"the loss became {float(self.total)} by step {self.state.step}: the rate ({self.schedule.rate:g}) is "
                "too high, or the precision too low; the last checkpoint is from before"
            )

    # the loop ---------------------------------------------------------------------------------------------

    def run(self) -> History:
        """Train to the end of the schedule.

        Returns:
            the history; its reports include those of earlier sittings where there is a folder.

        Raises:
            KeyboardInterrupt: Ctrl-C; the step under way was finished, and a checkpoint is there.
            TrainingError: as the class; processes that train together found different checkpoints.
        """
        network = self.task.network
        devices = [self.device] if self.device.type == "cuda" else []
        try:
            with (
                torch.random.fork_rng(devices, device_type="cuda"),
                self.processes.synchronised(network),
                noticing_interrupt() as stop,
            ):
                self._check_together()
                network.train()
                self._steps(stop)
        finally:
            network.eval()
            if self.log is not None:
                self.log.close()
        self.history.steps, self.history.seconds = self.state.step, self.state.seconds
        self.history.best, self.history.best_step = self.state.best, self.state.best_step
        return self.history

    def _check_together(self) -> None:
        """A folder that is another on each machine, or is seen late, would let the processes' weights part unseen."""
        step = float(self.state.step)
        most, least = self.processes.agree([step, -step], self.device)
        if most != -least:
            raise TrainingError(
                f"the processes would go on from different steps, {-least:.0f} to {most:.0f} (this one from "
                f"{step:.0f}): {self.out} must be one folder that all machines see"
            )

    def _steps(self, stop: threading.Event) -> None:
        state, schedule = self.state, self.schedule
        before, sitting = state.seconds, time.monotonic()
        saved = sitting
        interval = Interval(sitting)
        passed, stopping = before, False
        # a run already at its end when it is called again evaluates and saves nothing
        finished = self.out is not None and (self.out / LAST_WEIGHTS).exists()
        begun, evaluated = state.step, state.step if finished else -1
        with closing(self._batches()) as drawn:
            while state.step < schedule.steps:
                state.seconds = before + time.monotonic() - sitting
                if self.processes.world == 1 or state.step % DECISIONS_EVERY == 0:
                    passed, wish = self.processes.agree([state.seconds, float(stop.is_set())], self.device)
                    stopping = bool(wish)
                if stopping or passed >= schedule.seconds:
                    break
                asked = time.monotonic()
                batch = next(drawn)
                interval.waited += time.monotonic() - asked
                self._step(batch, max(state.step / schedule.steps, passed / schedule.seconds))
                state.step += 1
                interval.pairs += schedule.batch
                if state.step % schedule.report == 0 or state.step == schedule.steps:
                    state.seconds = before + time.monotonic() - sitting
                    self._report(interval)
                    interval = Interval(time.monotonic())
                if self.evaluate is not None and state.step % self.evaluate_every == 0:
                    self._evaluate()
                    evaluated = state.step
                now = time.monotonic()
                if evaluated == state.step or now - saved >= self.checkpoint_seconds:
                    state.seconds, saved = before + now - sitting, now
                    self._save()
            if stopping:
                self._save()
                self.processes.wait()
                raise KeyboardInterrupt
            if evaluated != state.step or self.totalled:
                if self.totalled:  # out of time
                    self._report(interval)
                if self.evaluate is not None and evaluated != state.step:
                    self._evaluate()
                state.seconds = before + time.monotonic() - sitting
                self._save()
        self._check_finite()
        if self.out is not None and self.processes.first and not (finished and state.step == begun):
            save_weights(self.out / LAST_WEIGHTS, self.task.network, {"steps": str(state.step)})
        self.processes.wait()

    def _batches(self) -> Generator[Batch, None, None]:
        schedule = self.schedule
        yield from batches(
            self.sampler,
            schedule.batch,
            self.seed,
            start=self.state.step,
            stop=schedule.steps,
            epoch=max(self.pairs_an_epoch // schedule.batch, 1),
            columns=None if self.processes.world == 1 else self.processes.share(schedule.batch),
        )

    def _step(self, batch: Batch, progress: float) -> None:
        step, processes = self.state.step, self.processes
        self.rate = schedules.set_rate(self.optimiser.param_groups, self.schedule, progress)
        torch.manual_seed(seed_of(self.seed, step, processes.rank))  # dropout
        generator = torch.Generator(self.device).manual_seed(seed_of(self.seed, step, -1))
        moment = Moment(progress, self._epoch(step), generator, self.device, self.precision, processes)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.task.loss(batch.on(self.device), moment)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        processes.average_gradients(p for group in self.optimiser.param_groups for p in group["params"])
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.total += loss.detach()
        self.totalled += 1

    def _report(self, interval: Interval) -> None:
        self._check_finite()
        seconds = time.monotonic() - interval.started
        self.history.waited += interval.waited
        row = {
            "step": float(self.state.step),
            "epoch": self._epoch(self.state.step),
            "seconds": self.state.seconds,
            "rate": self.rate,
            "loss": self.processes.mean(self.total) / self.totalled,
            "pairs_a_second": interval.pairs / max(seconds, 1e-9),
            "waiting": interval.waited / max(seconds, 1e-9),
        }
        self.total.zero_()
        self.totalled = 0
        self.history.reports.append(row)
        if self.processes.first:
            log.info("%s", " ".join(f"{key} {value:.4g}" for key, value in row.items()))
            if self.log is not None:
                self.log.report(row)

    def _evaluate(self) -> None:
        assert self.evaluate is not None
        network, state = self.task.network, self.state
        if self.processes.first:
            network.eval()
            figures = {"step": float(state.step), **self.evaluate()}
            network.train()
            if self.history.reports and self.history.reports[-1]["step"] == state.step:
                self.history.reports[-1].update(figures)
            log.info("%s", " ".join(f"{key} {value:.4g}" for key, value in figures.items()))
            if self.log is not None:
                self.log.evaluated(figures)
            self._keep_best(figures)
        self.processes.wait()

    def _keep_best(self, figures: Mapping[str, float]) -> None:
        if self.best is None:
            return
        if self.best.figure not in figures:
            raise OptionError(f"there is no figure {self.best.figure!r}; the evaluation has {', '.join(figures)}")
        value, state = figures[self.best.figure], self.state
        better = state.best is None or (value < state.best if self.best.lowest else value > state.best)
        if better:
            state.best, state.best_step = value, state.step
            if self.out is not None:
                about = {"steps": str(state.step), self.best.figure: f"{value:.6g}"}
                save_weights(self.out / BEST_WEIGHTS, self.task.network, about)
