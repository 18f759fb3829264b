"""The pieces that an augmentation is made of, each with the values of the work it comes from as its defaults."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from ...errors import OptionError
from ..patchset import PATCH
from .frames import (
    DESCRIPTOR_WARPS,
    PairWarps,
    Warp,
    paired_frames,
    random_resized_crop,
    random_tilt,
    rotation_matrix,
    uniform,
)

TILT_BY_EPOCH = {0: 3.0, 1: 4.0, 3: 4.5, 5: 4.8, 6: 5.2, 8: 5.8}
"""AffNet's schedule: the most tilt from that epoch on."""


def tilt_at(epoch: float, schedule: dict[int, float] | None = None) -> float:
    """The most tilt in an epoch, counted from 0: that of the last entry of the schedule not beyond it.

    Args:
        epoch: may be fractional.
        schedule: epoch to most tilt; AffNet's when None.
    """
    schedule = schedule or TILT_BY_EPOCH
    begun = [start for start in schedule if start <= epoch]
    return schedule[max(begun)] if begun else schedule[min(schedule)]


@dataclass(frozen=True)
class Draw:
    """What a piece draws for: V views of B columns.

    Args:
        views: V.
        itself: (B,) bool, the second view is the same patch as the first.
        epoch: how far training is.
        generator: of all draws; its device is where frames come to be.
    """

    views: int
    itself: Tensor
    epoch: float
    generator: torch.Generator

    @property
    def count(self) -> int:
        """V * B."""
        return self.views * len(self.itself)


def _centred(axes: Tensor) -> Tensor:
    return torch.cat([axes, axes.new_zeros(len(axes), 2, 1)], dim=2)


@dataclass(frozen=True)
class FlipRot:
    """HardNet's `fliprot`: transpose with probability a half, then mirror with probability a half.

    Alike for all views of a column: a mirrored patch only matches its mirrored partner.
    """

    padding: ClassVar[str] = "border"

    def frames(self, draw: Draw) -> Tensor:
        """(V * B, 2, 3) frames, view by view."""
        columns = len(draw.itself)
        coins = torch.rand(2, columns, 1, 1, generator=draw.generator, device=draw.generator.device) < 0.5
        plain = torch.eye(2, device=draw.generator.device)
        axes = torch.where(coins[0], plain.flip(0), plain) @ torch.where(
            coins[1], plain * plain.new_tensor([-1, 1]), plain
        )
        return _centred(axes).repeat(draw.views, 1, 1)


@dataclass(frozen=True)
class Small:
    """HardNet's `augmentation`: a slight turn, then a random rectangle of nearly all that is left.

    Args:
        rotation: most degrees.
        area: least share of the region that the rectangle covers.
        ratio: most ratio of its sides.
    """

    rotation: float = 5.0
    area: float = 0.9
    ratio: float = 1.1
    padding: ClassVar[str] = "reflection"

    def __post_init__(self) -> None:
        _check(0 < self.area <= 1, "small", "area", self.area, "a share above 0 and up to 1")
        _check(self.ratio >= 1, "small", "ratio", self.ratio, "at least 1")

    def frames(self, draw: Draw) -> Tensor:
        """(V * B, 2, 3) frames, view by view."""
        angle = torch.deg2rad(uniform(draw.count, -self.rotation, self.rotation, draw.generator))
        rectangle = random_resized_crop(draw.count, (self.area, 1.0), (1 / self.ratio, self.ratio), draw.generator)
        return rotation_matrix(angle) @ rectangle


@dataclass(frozen=True)
class Amos:
    """The transform of HardNet8's AMOS patches: an affine change about the centre, then a random rectangle.

    Args:
        rotation: most degrees.
        smallest, largest: range of the scale that contents are shown at.
        shear: most degrees.
        area: least share of the region that the rectangle covers.
        ratio: most ratio of its sides.
    """

    rotation: float = 25.0
    smallest: float = 0.8
    largest: float = 1.4
    shear: float = 25.0
    area: float = 0.7
    ratio: float = 1.1
    padding: ClassVar[str] = "reflection"

    def __post_init__(self) -> None:
        _check(0 < self.smallest <= self.largest, "amos", "smallest", self.smallest, "above 0 and at most `largest`")
        _check(0 <= self.shear < 90, "amos", "shear", self.shear, "below 90 degrees")
        _check(0 < self.area <= 1, "amos", "area", self.area, "a share above 0 and up to 1")
        _check(self.ratio >= 1, "amos", "ratio", self.ratio, "at least 1")

    def frames(self, draw: Draw) -> Tensor:
        """(V * B, 2, 3) frames, view by view."""
        generator, count = draw.generator, draw.count
        angle = torch.deg2rad(uniform(count, -self.rotation, self.rotation, generator))
        shear = torch.deg2rad(uniform(count, -self.shear, self.shear, generator)).tan()
        scale = uniform(count, self.smallest, self.largest, generator)
        one, zero = torch.ones_like(shear), torch.zeros_like(shear)
        slant = torch.stack([one, shear, zero, one], dim=1).reshape(-1, 2, 2)
        # what is shown larger is seen through a smaller frame
        axes = slant @ rotation_matrix(angle) / scale[:, None, None]
        return axes @ random_resized_crop(count, (self.area, 1.0), (1 / self.ratio, self.ratio), generator)


@dataclass(frozen=True)
class Tilt:
    """AffNet's: a random turn, alike for all views of a column, and a stretch of each view's own, growing by epoch.

    Args:
        rotation: most degrees of the turn.
        schedule: epoch to most tilt.
        most: if above zero, the most tilt in every epoch, in place of the schedule.
    """

    rotation: float = 180.0
    schedule: dict[int, float] = field(default_factory=lambda: dict(TILT_BY_EPOCH))
    most: float = 0.0
    padding: ClassVar[str] = "border"

    def __post_init__(self) -> None:
        _check(self.most == 0 or self.most >= 1, "tilt", "most", self.most, "a ratio of at least 1, or 0")
        _check(
            bool(self.schedule) and all(tilt >= 1 for tilt in self.schedule.values()),
            "tilt",
            "schedule",
            self.schedule,
            "epochs with tilts of at least 1",
        )

    def frames(self, draw: Draw) -> Tensor:
        """(V * B, 2, 3) frames, view by view."""
        limit = self.most or tilt_at(draw.epoch, self.schedule)
        angle = torch.deg2rad(uniform(len(draw.itself), -self.rotation, self.rotation, draw.generator))
        turn = rotation_matrix(angle).repeat(draw.views, 1, 1)
        return _centred(turn @ random_tilt(draw.count, limit, draw.generator, logarithmic=False))


@dataclass(frozen=True)
class Turn:
    """OriNet's: the first view turned at will, scaled and shifted; the others stay.

    Args:
        rotation: most degrees.
        smallest, largest: range of the frame's size.
        shift: most cells of the 32x32 patch along each axis.
    """

    rotation: float = 180.0
    smallest: float = 0.9
    largest: float = 1.2
    shift: float = 2.0
    padding: ClassVar[str] = "border"

    def __post_init__(self) -> None:
        _check(0 < self.smallest <= self.largest, "turn", "smallest", self.smallest, "above 0 and at most `largest`")

    def frames(self, draw: Draw) -> Tensor:
        """(V * B, 2, 3) frames, view by view."""
        generator, columns = draw.generator, len(draw.itself)
        angle = torch.deg2rad(uniform(columns, -self.rotation, self.rotation, generator))
        size = uniform(columns, self.smallest, self.largest, generator)[:, None, None]
        shift = 2 / PATCH * self.shift * (2 * torch.rand(columns, 2, 1, generator=generator, device=size.device) - 1)
        first = torch.cat([size * rotation_matrix(angle), shift], dim=2)
        rest = _centred(torch.eye(2, device=size.device).expand(draw.count - columns, 2, 2))
        return torch.cat([first, rest])


@dataclass(frozen=True)
class Jitter:
    """The errors of a detector's frames: mild for true second views, strong for a patch paired with itself.

    Args:
        rotation, octaves, shift, tilt: of second views, see `Warp`.
        own_rotation, own_octaves, own_shift, own_tilt: where a patch is paired with itself.
    """

    rotation: float = DESCRIPTOR_WARPS.second_view.rotation
    octaves: float = DESCRIPTOR_WARPS.second_view.octaves
    shift: float = DESCRIPTOR_WARPS.second_view.shift
    tilt: float = DESCRIPTOR_WARPS.second_view.tilt
    own_rotation: float = DESCRIPTOR_WARPS.itself.rotation
    own_octaves: float = DESCRIPTOR_WARPS.itself.octaves
    own_shift: float = DESCRIPTOR_WARPS.itself.shift
    own_tilt: float = DESCRIPTOR_WARPS.itself.tilt
    padding: ClassVar[str] = "border"

    def __post_init__(self) -> None:
        _check(self.tilt >= 1 and self.own_tilt >= 1, "jitter", "tilt", min(self.tilt, self.own_tilt), "at least 1")

    @property
    def warps(self) -> PairWarps:
        """The same as `Warp`s."""
        return PairWarps(
            Warp(self.rotation, self.octaves, self.shift, self.tilt),
            Warp(self.own_rotation, self.own_octaves, self.own_shift, self.own_tilt),
        )

    def frames(self, draw: Draw) -> Tensor:
        """(V * B, 2, 3) frames, view by view."""
        return torch.cat([paired_frames(draw.itself, self.warps, draw.generator) for _ in range(draw.views)])


def _check(right: bool, piece: str, option: str, value: object, wanted: str) -> None:
    if not right or (isinstance(value, float) and not math.isfinite(value)):
        raise OptionError(f"{option} of the augmentation {piece} must be {wanted}, got {value}")
