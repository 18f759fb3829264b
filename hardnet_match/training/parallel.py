"""Training in several processes that act as one: `torchrun --nproc-per-node N -m hardnet_match train ...`.

Every process draws the same batch and computes its own share of the columns. Descriptors are gathered with their
gradient, so that negatives are mined in the whole batch and the weights move as they would in one process with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from ..errors import OptionError, TrainingError
from .meeting import fresh_store


class _Gather(torch.autograd.Function):
    """Concatenate the processes' tensors along `dim`; the gradient of all processes' losses flows back to each."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, dim: int) -> Tensor:
        ctx.dim, ctx.size = dim, own.shape[dim]
        parts = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own.contiguous())
        return torch.cat(parts, dim)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total.narrow(ctx.dim, dist.get_rank() * ctx.size, ctx.size), None


class _Sum(torch.autograd.Function):
    """Sum over the processes, the gradient likewise."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total


class SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics in training are those of all processes' batches together.

    torch's own SyncBatchNorm runs on CUDA alone. Every process must bring as many patches.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.numel() // x.shape[1] * dist.get_world_size()
        mean: Tensor = _Sum.apply(wide.sum((0, 2, 3))) / count  # type: ignore[no-untyped-call]
        centred = wide - mean[:, None, None]
        variance: Tensor = _Sum.apply(centred.square().sum((0, 2, 3))) / count  # type: ignore[no-untyped-call]
        with torch.no_grad():
            share = self.momentum if self.momentum is not None else 0.1
            if self.running_mean is not None and self.running_var is not None:
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
                unbiased = variance * (count / max(count - 1, 1))
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        out = centred * (variance + self.eps).rsqrt()[:, None, None]
        if self.affine:
            out = out * self.weight[:, None, None] + self.bias[:, None, None]
        normed: Tensor = out.to(x.dtype)
        return normed


@dataclass(frozen=True)
class Processes:
    """This process among those that train together; alone by default."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Columns of a batch that this process computes.

        Raises:
            OptionError: the batch does not split evenly.
        """
        if batch % self.world:
            raise OptionError(f"a batch of {batch} does not split over {self.world} processes; make it a multiple")
        part = batch // self.world
        return slice(self.rank * part, (self.rank + 1) * part)

    def gather(self, own: Tensor, dim: int = 0) -> Tensor:
        """All processes' tensors, of one shape, behind one another along `dim`; differentiable."""
        if self.world == 1:
            return own
        out: Tensor = _Gather.apply(own, dim)  # type: ignore[no-untyped-call]
        return out

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their mean over the processes, in one message."""
        if self.world == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        flat /= self.world
        pieces = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, piece in zip(gradients, pieces, strict=True):
            gradient.copy_(piece.view(gradient.shape))

    def mean(self, value: Tensor) -> float:
        """Mean of a number over the processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return float(value) / self.world

    def agree(self, values: list[float], device: torch.device) -> list[float]:
        """The largest of each value over the processes, so that all of them decide alike."""
        if self.world == 1:
            return values
        most = torch.tensor(values, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return [float(value) for value in most]

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def synchronised(self, network: nn.Module) -> Iterator[None]:
        """Let a network's BatchNorms take the statistics of the whole batch while this lasts."""
        norms = [m for m in network.modules() if type(m) is nn.BatchNorm2d] if self.world > 1 else []
        # The class is changed in place: parameters, buffers and their names stay what the optimiser and files know.
        for norm in norms:
            norm.__class__ = SynchronisedBatchNorm2d
        try:
            yield
        finally:
            for norm in norms:
                norm.__class__ = nn.BatchNorm2d


def is_first() -> bool:
    """Whether this process is alone, or the one of several that speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def started_by_torchrun() -> bool:
    """Whether several processes were started to train together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def processes(device: torch.device) -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started; alone without it.

    Yields:
        this process's place, and its device (of several CUDA devices, the one of its local rank).

    Raises:
        TrainingError: the others are not to be found.
    """
    if not started_by_torchrun():
        yield Processes(), device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    try:
        store, rank, world = next(rendezvous("env://"))
        dist.init_process_group(backend, store=fresh_store(store, rank, world), rank=rank, world_size=world)
    except (ValueError, RuntimeError) as error:  # a variable that is missing or no number; nobody at the address
        raise TrainingError(
            f"the processes that are to train together do not find each other ({str(error).partition(chr(10))[0]}); "
            "start them with torchrun, or without WORLD_SIZE in the environment to train in one process"
        ) from error
    try:
        yield Processes(dist.get_rank(), dist.get_world_size()), device
    finally:
        dist.destroy_process_group()
