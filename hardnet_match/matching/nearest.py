"""Exact two nearest neighbours in both directions from one pass over the distances, in bounded memory.

The distances are made block by block by one matrix product whose operands carry the norms as two more columns, so that
a block holds -d^2 / 2. Both directions are reduced from the same block. Taking the two largest of long rows with
`topk` or `max` costs more than the product itself on a processor; maxima of short groups are cheap and vectorised, and
the two largest are then looked for inside the winning groups alone. The distances given back are computed again
from the differences, so that near-duplicates are not at the mercy of cancellation.

Memory beyond the descriptors' float32 copies: one block of 1,024 x 8,192 similarities and its group maxima (45 MB) on a
processor, 8,192 x 16,384 (640 MB) elsewhere, and 32 bytes a descriptor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError

_ROW_GROUP = 64  # columns whose maximum is taken at once, for the row direction
_COLUMN_GROUP = 16  # rows whose maximum is taken at once, for the column direction
_NONE = -1e30  # similarity of padding; real ones are above
_CPU_BLOCK = (1024, 8192)
_GPU_BLOCK = (8192, 16384)
_EXACT_ROWS = 8192  # rows at a time when distances are computed again


@dataclass(frozen=True)
class Neighbours:
    """The two nearest of another set for each descriptor of one set; equal distances: the lower row first.

    Args:
        index: (N, 2) int64 rows in the other set, -1 where it has no such row.
        distance: (N, 2) float32 Euclidean, infinity where there is none.
    """

    index: Tensor
    distance: Tensor

    def ratio(self) -> Tensor:
        """Nearest over second nearest distance, (N,); 1 where both are 0, NaN where there is no second."""
        first, second = self.distance[:, 0], self.distance[:, 1]
        ratio = torch.where(second > 0, first / second, torch.ones_like(first))
        return torch.where(self.index[:, 1] >= 0, ratio, torch.full_like(first, torch.nan))


def as_tensor(descriptors: NDArray[Any] | Tensor, device: torch.device, name: str = "descriptors") -> Tensor:
    """(N, D) float32 on the device from float32, float16 or uint8.

    Raises:
        DataError: wrong shape, or NaN or infinity.
    """
    tensor = torch.as_tensor(descriptors)
    if tensor.ndim != 2:
        raise DataError(f"{name} must be (N, D), got {tuple(tensor.shape)}")
    tensor = tensor.to(device=device, dtype=torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        bad = int((~torch.isfinite(tensor)).any(dim=1).nonzero()[0])
        raise DataError(f"{name} hold NaN or infinity (first in row {bad}); extract the image again")
    return tensor


def check_same_space(a: Tensor, b: Tensor) -> None:
    """DataError unless both sets have descriptors of one dimension."""
    if a.shape[1] != b.shape[1] and len(a) and len(b):
        raise DataError(
            f"descriptors of {a.shape[1]} and {b.shape[1]} dimensions cannot be matched; use one descriptor"
        )


def two_nearest(a: Tensor, b: Tensor) -> tuple[Neighbours, Neighbours]:
    """The two nearest neighbours of each row of `a` in `b`, and of each row of `b` in `a`.

    Args:
        a: (N, D) float32, finite.
        b: (M, D) float32 on the same device, finite.
    """
    rows, columns = _best_two(a, b)
    return _exact(a, b, rows), _exact(b, a, columns)


def _augment(x: Tensor, norm_first: bool, multiple: int) -> Tensor:
    """[x, -|x|^2 / 2, 1] (or the last two swapped), padded with rows that are far from everything."""
    count, dim = x.shape
    out = x.new_zeros((-(-count // multiple) * multiple, dim + 2))
    norm, one = (dim, dim + 1) if norm_first else (dim + 1, dim)
    out[:count, :dim] = x
    out[:count, norm] = x.square().sum(dim=1) * -0.5
    out[count:, norm] = _NONE
    out[:, one] = 1
    return out


class _Running:
    """The two best similarities and their rows so far, for each row of one side."""

    def __init__(self, count: int, like: Tensor) -> None:
        self.value = torch.full((2, count), _NONE, device=like.device)
        self.index = torch.full((2, count), -1, dtype=torch.int64, device=like.device)

    def merge(self, at: slice, value: Tensor, index: Tensor) -> None:
        """Take in two more candidates of each; those already there win where equal."""
        old, old_index = self.value[:, at], self.index[:, at]
        wins = value[0] > old[0]
        # The loser of the two firsts meets both seconds.
        lost, lost_index = torch.where(wins, old[0], value[0]), torch.where(wins, old_index[0], index[0])
        other, other_index = torch.where(wins, value[1], old[1]), torch.where(wins, index[1], old_index[1])
        lost_wins = torch.where(wins, lost >= other, lost > other)
        second = torch.where(lost_wins, lost, other)
        second_index = torch.where(lost_wins, lost_index, other_index)
        self.value[0, at], self.index[0, at] = (
            torch.where(wins, value[0], old[0]),
            torch.where(wins, index[0], old_index[0]),
        )
        self.value[1, at], self.index[1, at] = second, second_index


def _best_two(a: Tensor, b: Tensor) -> tuple[_Running, _Running]:
    on_cpu = a.device.type == "cpu"
    height, width = _CPU_BLOCK if on_cpu else _GPU_BLOCK
    left, right = _augment(a, True, _COLUMN_GROUP), _augment(b, False, _ROW_GROUP)
    rows, columns = _Running(len(left), a), _Running(len(right), a)
    space = a.new_empty(min(height, len(left)) * min(width, len(right)))
    # Columns outside, so that row candidates arrive in order of their index and so do column candidates.
    for start in range(0, len(right), width):
        block_right = right[start : start + width].t()
        at_columns = slice(start, start + block_right.shape[1])
        for top in range(0, len(left), height):
            block_left = left[top : top + height]
            at_rows = slice(top, top + len(block_left))
            block = space[: len(block_left) * block_right.shape[1]].view(len(block_left), block_right.shape[1])
            torch.mm(block_left, block_right, out=block)
            value, index = _two_of_groups(block.view(len(block_left), -1, _ROW_GROUP), dim=1)
            rows.merge(at_rows, value, index + start)
            value, index = _two_of_groups(block.view(-1, _COLUMN_GROUP, block.shape[1]), dim=0)
            columns.merge(at_columns, value, index + top)
    for side, count in ((rows, len(a)), (columns, len(b))):
        side.value, side.index = side.value[:, :count], side.index[:, :count]
        side.index[side.value <= _NONE / 2] = -1
    return rows, columns


def _two_of_groups(grouped: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """The two largest values and their places along the dimension that was split into (groups, members).

    Args:
        grouped: (N, groups, members) with dim=1, or (groups, members, N) with dim=0.

    Returns:
        values and places, (2, N) each.
    """
    members = grouped.shape[dim + 1]
    maxima = grouped.amax(dim=dim + 1)
    if dim == 0:  # small by now: turned, so that what is looked through lies together
        maxima = maxima.t().contiguous()
    best, group = maxima.max(dim=1)
    inside = _members(grouped, group, dim)
    place = inside.argmax(dim=1)
    inside.scatter_(1, place.unsqueeze(1), -torch.inf)
    inner, inner_place = inside.max(dim=1)
    maxima.scatter_(1, group.unsqueeze(1), -torch.inf)
    outer, outer_group = maxima.max(dim=1)
    outer_place = outer_group * members + _members(grouped, outer_group, dim).argmax(dim=1)
    # Of equal values the lower place: the inner one, unless the other group lies before.
    take_inner = (inner > outer) | ((inner == outer) & (group < outer_group))
    second = torch.where(take_inner, inner, outer)
    second_place = torch.where(take_inner, group * members + inner_place, outer_place)
    return torch.stack([best, second]), torch.stack([group * members + place, second_place])


def _members(grouped: Tensor, group: Tensor, dim: int) -> Tensor:
    """The members of one chosen group each, (N, members). A copy."""
    each = torch.arange(len(group), device=group.device)
    return grouped[each, group] if dim == 1 else grouped[group, :, each]


def _exact(x: Tensor, other: Tensor, found: _Running) -> Neighbours:
    """Distances from the differences, the nearer first."""
    index = found.index.t().contiguous()
    distance = torch.full(index.shape, torch.inf, device=x.device)
    for start in range(0, len(x) if len(other) else 0, _EXACT_ROWS):
        at = slice(start, start + _EXACT_ROWS)
        for column in range(2):
            apart = (x[at] - other[index[at, column].clamp(min=0)]).square_().sum(dim=1).sqrt()
            distance[at, column] = torch.where(index[at, column] >= 0, apart, torch.inf)
    nearer, farther = distance.unbind(dim=1)
    swap = (farther < nearer) | ((farther == nearer) & (index[:, 1] < index[:, 0]) & (index[:, 1] >= 0))
    index[swap], distance[swap] = index[swap].flip(1), distance[swap].flip(1)
    return Neighbours(index, distance)


def k_nearest(a: Tensor, b: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` nearest rows of `b` for each row of `a`, one direction, nearest first.

    Returns:
        index (N, K) int64 and Euclidean distance (N, K) float32, K = min(count, M).
    """
    count = min(count, len(b))
    right = _augment(b, False, 1).t()
    height = max(1, (_CPU_BLOCK if a.device.type == "cpu" else _GPU_BLOCK)[0] * 8192 // max(len(b), 8192))
    index = torch.empty((len(a), count), dtype=torch.int64, device=a.device)
    distance = torch.empty((len(a), count), device=a.device)
    for top in range(0, len(a) if count else 0, height):
        part = a[top : top + height]
        chosen = torch.topk(_augment(part, True, 1) @ right, count, dim=1).indices
        exact = (part[:, None] - b[chosen]).square_().sum(dim=2).sqrt()
        order = torch.argsort(exact, dim=1, stable=True)
        index[top : top + height] = chosen.gather(1, order)
        distance[top : top + height] = exact.gather(1, order)
    return index, distance


def mutual(forward: Tensor, backward: Tensor) -> Tensor:
    """Which rows of the first set are the nearest neighbour of their own nearest neighbour, (N,) bool.

    Args:
        forward: (N,) nearest row of the second set, -1 for none.
        backward: (M,) nearest row of the first set, -1 for none.
    """
    own = torch.arange(len(forward), device=forward.device)
    if not len(backward):
        return torch.zeros_like(own, dtype=torch.bool)
    return (forward >= 0) & (backward[forward.clamp(min=0)] == own)


def to_numpy(index: Tensor) -> NDArray[np.int32]:
    """int32 on the host."""
    return index.to(device="cpu", dtype=torch.int32).numpy()
