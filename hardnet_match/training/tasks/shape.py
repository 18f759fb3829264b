"""Learning the affine shape of patches."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...shape import AffNet, Baumberg
from ..augment import Light, Warp, crop, random_frames, random_tilt, relight, rotation_matrix
from ..losses import Loss, make_loss, shape_distance
from ..sampling import TensorBatch
from .moment import Moment, Stateless

SECOND_VIEW, ITSELF = Warp(shift=0.5), Warp(shift=1.0)


class ShapeTask(Stateless):
    """AffNet through a frozen descriptor (HardNegC or its like), and by what is known of stretches put on besides.

    Each patch of a pair is turned at random and then seen through a random upright stretch; ellipses are compared as
    they lie in the unturned patch. Were both turned alike (`alike`, as the original does), one and the same stretch
    put on every patch would go unpunished, and the orientation found later would be another one in each turn. The
    loss is `matching` times `loss` on the descriptors of the adapted patches, plus `consistency` times the distance
    of the two adapted ellipses where both come from one patch (there they must be equal), plus `modesty` times the
    ellipses' distance from a circle, which keeps the freedom that is left from running off. With `matching` 0 the
    descriptor is not run.

    In the first `guided` share of the run the descriptor, the costly part, is left out: the adapted ellipse is drawn
    towards the second-moment ellipse of the same patch before it was stretched and its light was changed. That
    teaches covariance in a tenth of the time; the rest of the run teaches what matches.

    Args:
        network: learns.
        descriptor: does not.
        tilt: most ratio of axes of the stretches, reached after a third of the run; or pairs (epoch, tilt), each tilt
            holding from its epoch on, as the original's.
        itself: share of the pairs that are a patch with itself, whatever else the track offers.
        consistency, modesty, matching, guided, alike: see above.
        light: changes of light put on every patch; None for none.
        loss: of the descriptors; `constant_negative` where None, the original's is `hardnegc`.
    """

    def __init__(
        self,
        network: AffNet,
        descriptor: nn.Module | None,
        *,
        tilt: float | Sequence[tuple[float, float]] = 3.0,
        itself: float = 0.5,
        consistency: float = 1.0,
        modesty: float = 0.02,
        matching: float = 1.0,
        guided: float = 0.6,
        alike: bool = False,
        light: Light | None = None,
        loss: Loss | None = None,
    ) -> None:
        self.network, self.descriptor, self.tilt, self.itself = network, descriptor, tilt, itself
        self.consistency, self.modesty, self.matching, self.guided = consistency, modesty, matching, guided
        self.alike, self.light, self.loss_of = alike, light, loss or make_loss("constant_negative")
        self.teacher = Baumberg()
        if matching and descriptor is None:
            raise OptionError("a shape network learns through a descriptor unless its loss's weight, matching, is 0")

    @property
    def head(self) -> nn.Module:
        """The last layer, which sums 4,096 inputs into a tanh."""
        return self.network.features[19]

    def prepare(self, device: torch.device) -> None:
        """See `Task`."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher.to(device)
        if self.descriptor is not None:
            self.descriptor.to(device).eval().requires_grad_(False)

    def tilt_at(self, moment: Moment) -> float:
        """Most ratio of axes of a stretch at a moment of the run."""
        if isinstance(self.tilt, int | float):
            return 1 + (self.tilt - 1) * min(1.0, 0.3 + 2 * moment.progress)
        return max((epoch, tilt) for epoch, tilt in self.tilt if epoch <= moment.epoch)[1]

    def loss(self, batch: TensorBatch, moment: Moment) -> Tensor:
        """See `Task`."""
        generator, where = moment.generator, moment.device
        count = batch.stored.shape[1]
        # spread evenly: of columns 0, 1, ... those where the share passes another whole number
        place = torch.arange(count, device=where)
        own = batch.itself[batch.columns or slice(None)] | (
            ((place + 1) * self.itself).floor() > (place * self.itself).floor()
        )
        second = torch.where(own[:, None, None], batch.stored[0], batch.stored[1])
        stored = torch.cat([batch.stored[0], second])
        angle = 2 * math.pi * torch.rand(2 * count, generator=generator, device=where)
        turn = rotation_matrix(angle[:count].repeat(2) if self.alike else angle)
        stretch = random_tilt(2 * count, self.tilt_at(moment), generator)
        upright = torch.linalg.cholesky(stretch @ stretch.mT)
        strong = torch.cat([own, torch.zeros_like(own)])[:, None, None]
        shift = torch.where(
            strong, random_frames(2 * count, ITSELF, generator), random_frames(2 * count, SECOND_VIEW, generator)
        )[:, :, 2:]

        def seen_through(turn: Tensor, upright: Tensor) -> Tensor:
            return crop(stored, torch.cat([turn @ upright, shift], dim=2))

        def lit(patches: Tensor) -> Tensor:
            return patches if self.light is None else relight(patches, self.light, generator)

        with moment.autocast():
            shapes = self.network(lit(seen_through(turn, upright)))
        adapted = upright @ shapes.float()
        circle = torch.eye(2, device=where).expand_as(adapted)
        one, other = (turn @ adapted).chunk(2)
        distance = moment.processes.gather(torch.where(own, shape_distance(one, other), 0.0))
        total = self.consistency * distance.sum() / moment.processes.gather(own.float()).sum().clamp(min=1)
        if moment.progress < self.guided:
            target = self.teacher(seen_through(turn, circle))
            return total + shape_distance(target, adapted).mean()
        if self.matching and self.descriptor is not None:
            # Both are described upright in the first one's turn: the second ellipse is brought there.
            there = turn[:count].mT @ other
            turn = turn[:count].repeat(2, 1, 1)
            adapted = torch.cat([adapted[:count], torch.linalg.cholesky(there @ there.mT)])
            with moment.autocast():
                out = self.descriptor(lit(seen_through(turn, adapted)))
            descriptors = moment.processes.gather(out.float().unflatten(0, (2, count)), dim=1)
            total = total + self.matching * self.loss_of(descriptors, batch.label[:2], batch.same, moment.shared)
        return total + self.modesty * shape_distance(circle, adapted).mean()
