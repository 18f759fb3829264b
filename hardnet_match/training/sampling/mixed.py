"""Several patch sets in one training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, OptionError
from .batch import Batch, Place, Sampler

WAYS = ("batch", "epoch", "within")


class MixedSampler:
    """Draws from several samplers; labels, images and scenes of different sets never meet.

    Args:
        samplers: of the same number of views.
        by: "batch": every batch is of one set, drawn by weight; "epoch": the sets come one after another, each for its
            share of the epoch; "within": every batch holds its share of every set.
        weights: of the sets; equal when None.

    Raises:
        OptionError: no set, an unknown way, weights that do not fit, or different numbers of views.
    """

    def __init__(self, samplers: Sequence[Sampler], by: str = "batch", weights: Sequence[float] | None = None) -> None:
        if not samplers:
            raise OptionError("a mix needs at least one patch set")
        if by not in WAYS:
            raise OptionError(f"sets are mixed by {', '.join(WAYS)}; not by {by!r}")
        share = np.asarray([1.0] * len(samplers) if weights is None else list(weights), dtype=np.float64)
        if len(share) != len(samplers) or not np.isfinite(share).all() or (share < 0).any() or share.sum() <= 0:
            raise OptionError(
                f"a mix of {len(samplers)} sets needs as many weights, none negative, some positive; got {weights}"
            )
        if len({sampler.views for sampler in samplers}) > 1:
            raise OptionError(
                f"sets that are mixed need as many views a label; got {[sampler.views for sampler in samplers]}"
            )
        self.samplers = list(samplers)
        self.by = by
        self.share = share / share.sum()

    @property
    def views(self) -> int:
        """V of its batches."""
        return self.samplers[0].views

    @property
    def labels(self) -> int:
        """The largest batch that every draw can fill."""
        used = [(sampler.labels, share) for sampler, share in zip(self.samplers, self.share, strict=True) if share > 0]
        if self.by != "within":
            return min(labels for labels, _ in used)
        most = sum(labels for labels, _ in used)
        while any(part > sampler.labels for part, sampler in zip(self.parts(most), self.samplers, strict=True)):
            over = min(
                sampler.labels / part
                for part, sampler in zip(self.parts(most), self.samplers, strict=True)
                if part > sampler.labels
            )
            most = min(most - 1, int(most * over) + 1)
        return most

    def parts(self, count: int) -> list[int]:
        """How many labels of each set a batch of `count` holds: by weight, rounded so that the sum is right."""
        exact = self.share * count
        parts = np.floor(exact).astype(int)
        parts[np.argsort(parts - exact, kind="stable")[: count - parts.sum()]] += 1
        return [int(part) for part in parts]

    def batch(
        self,
        count: int,
        rng: np.random.Generator,
        *,
        progress: float | None = None,
        columns: slice | None = None,
    ) -> Batch:
        """See `Sampler.batch`.

        Raises:
            OptionError: mixed by epoch, and not told how much of it is done.
            DataError: too few labels, or patches of different side or margin mixed within a batch.
        """
        if self.by == "within":
            return self._within(count, rng, progress, columns)
        if self.by == "epoch":
            if progress is None or not 0 <= progress <= 1:
                raise OptionError(f"sets mixed by epoch need the share of the epoch that is done, got {progress}")
            last = int(np.flatnonzero(self.share)[-1])
            which = min(int(np.searchsorted(np.cumsum(self.share), progress, side="right")), last)
        else:
            which = int(rng.choice(len(self.samplers), p=self.share))
        return replace(self.samplers[which].batch(count, rng, progress=progress, columns=columns), source=which)

    def _within(self, count: int, rng: np.random.Generator, progress: float | None, columns: slice | None) -> Batch:
        start, stop, step = (columns or slice(None)).indices(count)
        if step != 1:
            raise OptionError("columns of a batch are a range without gaps")
        parts: list[Batch] = []
        offset = 0
        for sampler, part in zip(self.samplers, self.parts(count), strict=True):
            if part:
                own = slice(min(max(start - offset, 0), part), min(max(stop - offset, 0), part))
                parts.append(sampler.batch(part, rng, progress=progress, columns=own))
            offset += part
        kinds = {(part.stored.shape[-1], part.margin) for part in parts}
        if len(kinds) > 1:
            raise DataError(
                f"patches of different side and margin, {sorted(kinds)}, do not go into one batch: mix these sets by "
                "batch or by epoch"
            )
        return Batch(
            np.concatenate([part.stored for part in parts], axis=1),
            _apart([part.label for part in parts]),
            _apart([part.image for part in parts]).astype(np.int32),
            np.concatenate([part.itself for part in parts]),
            parts[0].margin,
            _places(parts),
            _collisions(parts),
            columns,
        )


def _apart(numbers: Sequence[NDArray[np.generic]]) -> NDArray[np.int64]:
    """Numbers of several sets side by side, so that none of one set equals one of another."""
    out, offset = [], 0
    for array in numbers:
        values = array.astype(np.int64)
        out.append(values - values.min() + offset)
        offset = int(out[-1].max()) + 1
    return np.concatenate(out, axis=-1)


def _collisions(parts: Sequence[Batch]) -> NDArray[np.int64] | None:
    starts = np.cumsum([0, *map(len, parts)])
    found = [part.collisions + start for part, start in zip(parts, starts, strict=False) if part.collisions is not None]
    return np.concatenate(found) if found else None


def _places(parts: Sequence[Batch]) -> Place | None:
    if all(part.place is None for part in parts):
        return None
    nowhere = [
        part.place
        or Place(
            np.full((2, len(part), 3), np.nan, dtype=np.float32),
            np.zeros((2, len(part)), dtype=np.float32),
            np.zeros((2, len(part)), dtype=np.int32),
        )
        for part in parts
    ]
    return Place(
        np.concatenate([place.position for place in nowhere], axis=1),
        np.concatenate([place.size for place in nowhere], axis=1),
        _apart([place.scene for place in nowhere]).astype(np.int32),
    )
