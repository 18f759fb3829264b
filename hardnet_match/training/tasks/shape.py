"""Learning the affine shape of patches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ...errors import OptionError
from ...shape import AffNet, Baumberg
from ..augment import Augmentation, Light, Warp, crop, random_frames, random_tilt, relight, rotation_matrix
from ..losses import Loss, make_loss, shape_distance
from ..sampling import TensorBatch
from .moment import Moment, Stateless, at_least_float32, mine, rows_of

SECOND_VIEW, ITSELF = Warp(shift=0.5), Warp(shift=1.0)


class ShapeTask(Stateless):
    """AffNet through a frozen descriptor (HardNegC or its like), and by what is known of stretches put on besides.

    Each patch of a pair is turned at random and then seen through a random upright stretch; ellipses are compared as
    they lie in the unturned patch. Were both turned alike, one and the same stretch put on every patch would go
    unpunished, and the orientation found later would be another one in each turn. The loss is `matching` times `loss`
    on the descriptors of the adapted patches, plus `consistency` times the distance of the two adapted ellipses where
    both come from one patch (there they must be equal), plus `modesty` times the ellipses' distance from a circle,
    which keeps the freedom that is left from running off. With `matching` 0 the descriptor is not run.

    In the first `guided` share of the run the descriptor, the costly part, is left out: the adapted ellipse is drawn
    towards the second-moment ellipse of the same patch before it was stretched and its light was changed. That
    teaches covariance in a tenth of the time; the rest of the run teaches what matches.

    With `augment`, frames come from it, and the network learns from `loss` on the adapted patches alone: the
    original's way.

    Args:
        network: learns.
        descriptor: does not.
        tilt: most ratio of axes of the stretches, reached after a third of the run.
        itself: share of the pairs that are a patch with itself, whatever else the track offers.
        consistency, modesty, matching, guided, augment: see above.
        light: changes of light put on every patch; None for none.
        loss: of the descriptors; `constant_negative` where None, the original's is `hardnegc`.

    Raises:
        OptionError: there is no descriptor to match through.
    """

    def __init__(
        self,
        network: AffNet,
        descriptor: nn.Module | None,
        *,
        tilt: float = 3.0,
        itself: float = 0.5,
        consistency: float = 1.0,
        modesty: float = 0.02,
        matching: float = 1.0,
        guided: float = 0.6,
        light: Light | None = None,
        loss: Loss | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        self.network, self.descriptor, self.tilt, self.itself = network, descriptor, tilt, itself
        self.consistency, self.modesty, self.matching, self.guided = consistency, modesty, matching, guided
        self.light, self.loss_of, self.augment = light, loss or make_loss("constant_negative"), augment
        self.teacher = Baumberg()
        if (matching or augment is not None) and descriptor is None:
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

    def loss(self, batch: TensorBatch, moment: Moment) -> Tensor:
        """See `Task`."""
        return self._own(batch, moment) if self.augment is None else self._as_the_original(batch, moment)

    def _as_the_original(self, batch: TensorBatch, moment: Moment) -> Tensor:
        assert self.augment is not None
        frames = self.augment.frames(batch, moment.generator, moment.epoch).flatten(0, 1)
        stored = batch.stored.flatten(0, 1)
        with moment.autocast():
            shapes = self.network(crop(stored, frames, margin=batch.margin))
        adapted = torch.cat([frames[:, :, :2] @ shapes.float(), frames[:, :, 2:]], dim=2)
        return self._matched(crop(stored, adapted, margin=batch.margin), batch, moment)

    def _matched(self, patches: Tensor, batch: TensorBatch, moment: Moment) -> Tensor:
        assert self.descriptor is not None
        views = len(batch.stored)
        with moment.autocast():
            out = self.descriptor(patches)
        descriptors = moment.processes.gather(at_least_float32(out).reshape(views, len(out) // views, -1), dim=1)
        loss: Tensor = self.loss_of(descriptors, batch.label[:views], batch.same, moment.generator)
        return loss

    def _own(self, batch: TensorBatch, moment: Moment) -> Tensor:
        generator, where = moment.generator, moment.device
        columns = batch.label.shape[1]
        # spread evenly: of columns 0, 1, ... those where the share passes another whole number
        place = torch.arange(columns, device=where)
        chosen = ((place + 1) * self.itself).floor() > (place * self.itself).floor()
        every = (batch.itself | chosen).repeat(2)
        turn = mine(rotation_matrix(2 * math.pi * torch.rand(2 * columns, generator=generator, device=where)), batch)
        limit = 1 + (self.tilt - 1) * min(1.0, 0.3 + 2 * moment.progress)
        stretch = mine(random_tilt(2 * columns, limit, generator), batch)
        upright = torch.linalg.cholesky(stretch @ stretch.mT)
        mild, strong = (random_frames(2 * columns, warp, generator) for warp in (SECOND_VIEW, ITSELF))
        first_of_own = every & (torch.arange(2 * columns, device=where) < columns)
        shift = mine(torch.where(first_of_own[:, None, None], strong, mild), batch)[:, :, 2:]
        own = mine(every, batch).chunk(2)[0]
        count = len(own)
        stored = torch.cat([batch.stored[0], torch.where(own[:, None, None], batch.stored[0], batch.stored[1])])

        def seen_through(turn: Tensor, upright: Tensor) -> Tensor:
            return crop(stored, torch.cat([turn @ upright, shift], dim=2), margin=batch.margin)

        def lit(patches: Tensor) -> Tensor:
            return patches if self.light is None else relight(patches, self.light, generator, rows_of(batch))

        with moment.autocast():
            shapes = self.network(lit(seen_through(turn, upright)))
        adapted = upright @ shapes.float()
        circle = torch.eye(2, device=where).expand_as(adapted)
        one, other = (turn @ adapted).chunk(2)
        unlike = moment.processes.gather(torch.where(own, shape_distance(one, other), 0.0))
        total = self.consistency * unlike.sum() / moment.processes.gather(own.float()).sum().clamp(min=1)
        if moment.progress < self.guided:
            target = self.teacher(seen_through(turn, circle))
            return total + shape_distance(target, adapted).mean()
        if self.matching:
            # Both are described upright in the first one's turn: the second ellipse is brought there.
            there = turn[:count].mT @ other
            turn = turn[:count].repeat(2, 1, 1)
            adapted = torch.cat([adapted[:count], torch.linalg.cholesky(there @ there.mT)])
            total = total + self.matching * self._matched(lit(seen_through(turn, adapted)), batch, moment)
        return total + self.modesty * shape_distance(circle, adapted).mean()
