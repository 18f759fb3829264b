"""Learning to describe patches."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..augment import Augmentation, AugmentationBySet
from ..losses import Loss
from ..sampling import TensorBatch
from .moment import Moment, at_least_float32


class DescriptorTask:
    """Descriptors of a batch, gathered from all processes, under a loss that mines in the whole of it.

    Args:
        network: any that takes (N, 1, 32, 32) patches.
        loss: see `losses.make_loss`.
        augment: what the network is shown of the stored patches.
    """

    head: nn.Module | None = None

    def __init__(self, network: nn.Module, loss: Loss, augment: Augmentation | AugmentationBySet) -> None:
        self.network, self.loss_of, self.augment = network, loss, augment

    def prepare(self, device: torch.device) -> None:
        """See `Task`."""
        self.network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss_of.to(device)

    def loss(self, batch: TensorBatch, moment: Moment) -> Tensor:
        """See `Task`."""
        patches = self.augment(batch, moment.generator, moment.epoch)
        with moment.autocast():
            out = self.network(patches.flatten(0, 1))
        descriptors = moment.processes.gather(at_least_float32(out).reshape(*patches.shape[:2], -1), dim=1)
        loss: Tensor = self.loss_of(descriptors, batch.label, batch.same, moment.generator)
        return loss

    def state_dict(self) -> dict[str, Tensor]:
        """See `Task`."""
        return self.loss_of.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See `Task`."""
        self.loss_of.load_state_dict(state)
