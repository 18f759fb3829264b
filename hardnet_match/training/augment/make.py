"""Augmentations by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ...errors import OptionError
from ..patchset import PATCH
from ..sampling import TensorBatch
from .frames import compose, crop
from .light import Light, relight
from .pieces import Amos, Draw, FlipRot, Jitter, Small, Tilt, Turn

FramePiece: TypeAlias = FlipRot | Small | Amos | Tilt | Turn | Jitter
PIECES: dict[str, type[FramePiece] | type[Light]] = {
    "fliprot": FlipRot,
    "small": Small,
    "amos": Amos,
    "tilt": Tilt,
    "turn": Turn,
    "jitter": Jitter,
    "photometric": Light,
}


@dataclass(frozen=True)
class Augmentation:
    """Stored patches to what the network is shown: changes of frame composed into one, one sampling, then the light.

    Args:
        geometry: applied in this order.
        light: or None.
    """

    geometry: tuple[FramePiece, ...] = ()
    light: Light | None = None

    def frames(self, batch: TensorBatch, generator: torch.Generator, epoch: float = 0.0) -> Tensor:
        """(V, C, 2, 3) frames of the columns that the batch holds; drawn for all columns of it."""
        views, columns = batch.label.shape
        draw = Draw(views, batch.itself.to(generator.device), epoch, generator)
        total = torch.eye(2, 3, device=generator.device).repeat(draw.count, 1, 1)
        for piece in self.geometry:
            total = compose(total, piece.frames(draw))
        total = total.reshape(views, columns, 2, 3)
        return total if batch.columns is None else total[:, batch.columns]

    def __call__(self, batch: TensorBatch, generator: torch.Generator, epoch: float = 0.0, size: int = PATCH) -> Tensor:
        """What the network is shown.

        Args:
            batch: stored patches of V views; on the generator's device.
            generator: everything drawn depends on it alone; what a part of a batch (`columns`) is given, is what that
                part is given within the whole.
            epoch: how far training is, for what grows with it.
            size: side of the patches.

        Returns:
            (V, C, 1, size, size) float32; within [0, 1] but for the noise of `photometric`.
        """
        frames = self.frames(batch, generator, epoch)
        padding = "reflection" if any(piece.padding == "reflection" for piece in self.geometry) else "border"
        out = crop(batch.stored.flatten(0, 1), frames.flatten(0, 1), size, batch.margin, padding=padding)
        if self.light is not None:
            rows = None
            if batch.columns is not None:
                rows = torch.zeros(batch.label.shape, dtype=torch.bool, device=out.device)
                rows[:, batch.columns] = True
                rows = rows.flatten()
            out = relight(out, self.light, generator, rows)
        return out.reshape(*batch.stored.shape[:2], 1, size, size)


@dataclass(frozen=True)
class AugmentationBySet:
    """Another augmentation for every set of a mix, where each batch is of one set.

    Args:
        each: in the order of the mix.
    """

    each: tuple[Augmentation, ...]

    def __call__(self, batch: TensorBatch, generator: torch.Generator, epoch: float = 0.0, size: int = PATCH) -> Tensor:
        """See `Augmentation`."""
        return self.each[batch.source](batch, generator, epoch, size)


def make_augmentation(pieces: Sequence[str] | Mapping[str, Mapping[str, Any]] = ()) -> Augmentation:
    """An augmentation of named pieces.

    Args:
        pieces: names, or names with their options; changes of frame are applied in this order, `photometric` always
            comes last. `fliprot`, `small` (HardNet's), `amos` (HardNet8's), `tilt` (AffNet's), `turn` (OriNet's),
            `jitter` (a detector's errors), `photometric` (light, sharpness, noise).

    Raises:
        OptionError: an unknown piece or option, a piece named twice, or a value that cannot be.
    """
    if isinstance(pieces, str):
        raise OptionError(f"an augmentation is a list of pieces, got {pieces!r}")
    named = dict(pieces) if isinstance(pieces, Mapping) else {name: {} for name in pieces}
    if len(named) < len(pieces):
        raise OptionError(f"an augmentation names each piece once, got {', '.join(pieces)}")
    geometry: list[FramePiece] = []
    light = None
    for name, options in named.items():
        if name not in PIECES:
            raise OptionError(f"there is no augmentation {name!r}; there are {', '.join(PIECES)}")
        piece = _made(name, PIECES[name], options)
        if isinstance(piece, Light):
            light = piece
        else:
            geometry.append(piece)
    return Augmentation(tuple(geometry), light)


def _made(name: str, kind: type[FramePiece] | type[Light], options: Mapping[str, Any]) -> FramePiece | Light:
    known = [field.name for field in fields(kind)]
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known:
            raise OptionError(f"the augmentation {name} has no option {key!r}; it has {', '.join(known) or 'none'}")
        values[key] = _schedule(value) if key == "schedule" else _number(name, key, value)
    return kind(**values)


def _number(name: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise OptionError(f"{key} of the augmentation {name} must be a number of zero or more, got {value!r}")
    return float(value)


def _schedule(value: object) -> dict[int, float]:
    """Epochs to numbers; in a file, the epochs are names."""
    try:
        if isinstance(value, Mapping):
            return {int(epoch): float(tilt) for epoch, tilt in value.items()}
    except (TypeError, ValueError):
        pass
    raise OptionError(f"schedule of the augmentation tilt must be epochs with their most tilt, got {value!r}")
