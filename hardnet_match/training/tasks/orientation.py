"""Learning the orientation of patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...orientation import Dominant, OriNet
from ..augment import Light, Warp, crop, random_frames, relight, rotation_matrix
from ..losses import Loss, angle_loss, make_loss
from ..sampling import TensorBatch
from .moment import Moment, Stateless

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
    what the original learns from.

    Args:
        network: learns.
        descriptor: for `matching`; does not learn.
        second_view, itself: random changes of frame: of true second views, and of a patch paired with itself.
        consistency, matching, guided, teacher: see above.
        dropout: takes the place of the network's own share while it learns: short runs underfit with 0.25.
        light: changes of light put on every patch; None for none.
        loss: of the descriptors; HardNet's where None.
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
    ) -> None:
        self.network, self.descriptor = network, descriptor
        self.second_view, self.itself = second_view, itself
        self.consistency, self.matching, self.guided = consistency, matching, guided
        self.teacher = Dominant() if teacher == "gradient" else None
        self.light, self.dropout, self.loss_of = light, dropout, loss or make_loss()
        if teacher not in TEACHERS:
            raise OptionError(f"teacher {teacher!r} is unknown: choose one of {', '.join(TEACHERS)}")
        if matching and descriptor is None:
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
        generator = moment.generator
        count = batch.stored.shape[1]
        stored = batch.stored[:2].flatten(0, 1)
        own = batch.itself[batch.columns or slice(None)].repeat(2)[:, None, None]
        frames = torch.where(
            own,
            random_frames(2 * count, self.itself, generator),
            random_frames(2 * count, self.second_view, generator),
        )
        angle = 2 * math.pi * torch.rand(2 * count, generator=generator, device=moment.device)
        turned = _turned(frames, angle)
        patches = crop(stored, turned)
        lit = patches if self.light is None else relight(patches, self.light, generator)
        with moment.autocast():
            vectors = self.network.vectors(lit)
        vectors = vectors.float()
        one, other = vectors.chunk(2)
        # a frame turned by t sees its content turned by -t
        loss: Tensor = self.consistency * angle_loss(one, other, angle[:count] - angle[count:])
        loss = loss + 0.1 * (LEAST_LENGTH - vectors.norm(dim=1)).clamp(min=0).mean()
        if moment.progress < self.guided:
            target = -angle if self.teacher is None else self.teacher(patches)
            to_target = torch.stack([target.sin(), target.cos()], dim=1)
            weight = 1 - moment.progress / self.guided
            loss = loss + weight * angle_loss(to_target, vectors, torch.zeros_like(target))
        if self.matching and self.descriptor is not None:
            found = torch.atan2(vectors[:, 0] + 1e-8, vectors[:, 1] + 1e-8)
            oriented = crop(stored, _turned(turned, found))
            with moment.autocast():
                out = self.descriptor(oriented)
            descriptors = moment.processes.gather(out.float().unflatten(0, (2, count)), dim=1)
            loss = loss + self.matching * self.loss_of(descriptors, batch.label[:2], batch.same, moment.shared)
        return loss


def _turned(frames: Tensor, angle: Tensor) -> Tensor:
    return torch.cat([frames[:, :, :2] @ rotation_matrix(angle), frames[:, :, 2:]], dim=2)
