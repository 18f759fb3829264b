"""What a step tells a task, and what it asks of one."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..parallel import Processes
from ..sampling import TensorBatch


@dataclass(frozen=True)
class Moment:
    """One step as a task sees it.

    Args:
        progress: in [0, 1] of the run.
        epoch: passes over `pairs_an_epoch` pairs so far, a fraction.
        generator: of everything random but dropout, on the device; the same in each process, which draws for the whole
            batch and takes its columns.
        device, precision: where to compute, and in what (None: float32).
        processes: those that train together; the batch's patches are those of this one's columns.
    """

    progress: float
    epoch: float
    generator: torch.Generator
    device: torch.device
    precision: torch.dtype | None
    processes: Processes

    def autocast(self) -> torch.autocast | nullcontext[None]:
        """The lower precision where it is asked for; losses stay outside of it."""
        return nullcontext() if self.precision is None else torch.autocast(self.device.type, self.precision)


class Task(Protocol):
    """What is learned: a network and the loss of a batch."""

    @property
    def network(self) -> nn.Module:
        """What learns."""

    @property
    def head(self) -> nn.Module | None:
        """The layer that learns at a rate of its own, if any."""

    def prepare(self, device: torch.device) -> None:
        """Move the network, and what stands beside it, to the device."""

    def loss(self, batch: TensorBatch, moment: Moment) -> Tensor:
        """Mean loss over the whole batch, as a scalar with gradient."""

    def state_dict(self) -> dict[str, Tensor]:
        """What the loss has learned from batch to batch, for the checkpoint; the network's weights aside."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state_dict` gave."""


class Stateless:
    """For tasks whose loss remembers nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """See `Task`."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Task`."""


def mine(drawn: Tensor, batch: TensorBatch) -> Tensor:
    """Of rows (2 * B, ...) drawn for a whole batch, view by view, those of the columns (2 * C, ...) it holds."""
    if batch.columns is None:
        return drawn
    return drawn.reshape(2, -1, *drawn.shape[1:])[:, batch.columns].flatten(0, 1)


def rows_of(batch: TensorBatch) -> Tensor | None:
    """(2 * B,) bool, the rows of a whole batch that belong to the columns it holds; None where it holds them all."""
    if batch.columns is None:
        return None
    rows = torch.zeros(2, batch.label.shape[1], dtype=torch.bool, device=batch.label.device)
    rows[:, batch.columns] = True
    return rows.flatten()


def at_least_float32(values: Tensor) -> Tensor:
    """Values as losses take them: float32, or float64 where they are."""
    return values if values.dtype == torch.float64 else values.float()
