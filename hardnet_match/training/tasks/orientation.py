"""Learning the orientation of patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...orientation import Dominant, OriNet
from ..augment import Augmentation, Light, Warp, crop, random_frames, relight, rotation_matrix
from ..losses import Loss, angle_loss, make_loss
from ..sampling import TensorBatch
from .moment import Moment, Stateless, at_least_float32, mine, rows_of

SECOND_VIEW, ITSELF = Warp(0, 0.2, 1.0, 1.2), Warp(0, 0.35, 2.0, 1.6)
TEACHERS = ("frame", "gradient")
LEAST_LENGTH = 0.3
"""Vectors shorter than this are drawn longer: the angle of a vector near zero is noise, and its gradient explodes."""


class OrientationTask(Stateless):
    """OriNet: two views, each turned at random, must give angles that differ by the known turn.

    That alone leaves a new network on a plateau, where all angles are as good; so in the first `guided` share of the
    run each angle is also drawn towards a `teacher`, with a weight that falls to zero: the orientation that the stored
    frame came with ("frame": minus the turn put on it), or the dominant gradient of the patch before its light was
    changed ("gradient").

    With `matching`, patches turned by their angles are described by a frozen descriptor under `loss`, which is
    what the original learns from. With `augment`, frames come from it, and that loss is the only one, as there.

    Args:
        network: learns.
        descriptor: for `matching`; does not learn.
        second_view, itself: random changes of frame: of true second views, and of a patch paired with itself.
        consistency, matching, guided, teacher, augment: see above.
        dropout: takes the place of the network's own share while it learns: short runs underfit with 0.25.
        light: changes of light put on every patch; None for none.
        loss: of the descriptors; HardNet's where None.

    Raises:
        OptionError: an unknown teacher, or no descriptor to match through.
    """

    def __init__(
        self,
        network: OriNet,
        descriptor: nn.Module | None = None,
        *,
        second_view: Warp = SECOND_VIEW,
        itself: Warp = ITSELF,
        consistency: float = 1.0,
        matching: float = 0.0,
        guided: float = 0.4,
        teacher: str = "frame",
        dropout: float | None = 0.0,
        light: Light | None = None,
        loss: Loss | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        self.network, self.descriptor = network, descriptor
        self.second_view, self.itself = second_view, itself
        self.consistency, self.matching, self.guided = consistency, matching, guided
        self.teacher = Dominant() if teacher == "gradient" else None
        self.light, self.dropout, self.loss_of, self.augment = light, dropout, loss or make_loss(), augment
        if teacher not in TEACHERS:
            raise OptionError(f"teacher {teacher!r} is unknown: choose one of {', '.join(TEACHERS)}")
        if (matching or augment is not None) and descriptor is None:
            raise OptionError("an orientation network learns to match through a descriptor: none was given")

    @property
    def head(self) -> nn.Module:
        """The last layer, which sums 4,096 inputs into a tanh."""
        return self.network.features[19]

    def prepare(self, device: torch.device) -> None:
        """See `Task`."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        for module in self.network.modules():
            if isinstance(module, nn.Dropout) and self.dropout is not None:
                module.p = self.dropout
        if self.teacher is not None:
            self.teacher.to(device)
        if self.descriptor is not None:
            self.descriptor.to(device).eval().requires_grad_(False)

    def loss(self, batch: TensorBatch, moment: Moment) -> Tensor:
        """See `Task`."""
        return self._own(batch, moment) if self.augment is None else self._as_the_original(batch, moment)

    def _as_the_original(self, batch: TensorBatch, moment: Moment) -> Tensor:
        assert self.augment is not None
        frames = self.augment.frames(batch, moment.generator, moment.epoch).flatten(0, 1)
        stored = batch.stored.flatten(0, 1)
        with moment.autocast():
            vectors = self.network.vectors(crop(stored, frames, margin=batch.margin))
        return self._matched(vectors.float(), stored, frames, batch, moment)

    def _matched(self, vectors: Tensor, stored: Tensor, frames: Tensor, batch: TensorBatch, moment: Moment) -> Tensor:
        assert self.descriptor is not None
        views = len(batch.stored)
        found = torch.atan2(vectors[:, 0] + 1e-8, vectors[:, 1] + 1e-8)
        with moment.autocast():
            out = self.descriptor(crop(stored, _turned(frames, found), margin=batch.margin))
        descriptors = moment.processes.gather(at_least_float32(out).reshape(views, len(out) // views, -1), dim=1)
        loss: Tensor = self.loss_of(descriptors, batch.label[:views], batch.same, moment.generator)
        return loss

    def _own(self, batch: TensorBatch, moment: Moment) -> Tensor:
        generator = moment.generator
        columns = 2 * batch.label.shape[1]
        mild, strong = (random_frames(columns, warp, generator) for warp in (self.second_view, self.itself))
        frames = mine(torch.where(batch.itself.repeat(2)[:, None, None], strong, mild), batch)
        angle = mine(2 * math.pi * torch.rand(columns, generator=generator, device=moment.device), batch)
        stored = batch.stored[:2].flatten(0, 1)
        turned = _turned(frames, angle)
        patches = crop(stored, turned, margin=batch.margin)
        lit = patches if self.light is None else relight(patches, self.light, generator, rows_of(batch))
        with moment.autocast():
            vectors = self.network.vectors(lit)
        vectors = vectors.float()
        one, other = vectors.chunk(2)
        turn, other_turn = angle.chunk(2)
        # a frame turned by t sees its content turned by -t
        loss: Tensor = self.consistency * angle_loss(one, other, turn - other_turn)
        loss = loss + 0.1 * (LEAST_LENGTH - vectors.norm(dim=1)).clamp(min=0).mean()
        if moment.progress < self.guided:
            target = -angle if self.teacher is None else self.teacher(patches)
            to_target = torch.stack([target.sin(), target.cos()], dim=1)
            weight = 1 - moment.progress / self.guided
            loss = loss + weight * angle_loss(to_target, vectors, torch.zeros_like(target))
        if self.matching:
            loss = loss + self.matching * self._matched(vectors, stored, turned, batch, moment)
        return loss


def _turned(frames: Tensor, angle: Tensor) -> Tensor:
    return torch.cat([frames[:, :, :2] @ rotation_matrix(angle), frames[:, :, 2:]], dim=2)
