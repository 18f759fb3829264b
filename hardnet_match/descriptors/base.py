"""What the learned descriptors share: unit length, and a projection to fewer dimensions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..errors import DataError, OptionError
from ..inference import PatchNetwork

Self = TypeVar("Self", bound="DescriptorNetwork")


class DescriptorNetwork(PatchNetwork):
    """A network of `width` outputs, kept as they are or projected to `dim` of their principal directions.

    A projection is two buffers, named and shaped as in kornia's HardNet8: `components` (width, dim), columns the
    directions, and `mean` (width,). With it the descriptor is: unit length, minus mean, times components, unit length
    (no whitening). A descriptor with a projection is a unit vector even where the network's own output is not.
    """

    width: int = 128
    dim: int = 128
    unit: bool = True
    projected: bool = False
    components: Tensor
    mean: Tensor

    def project(self, components: Tensor | None, mean: Tensor | None = None) -> None:
        """Put a projection behind the network, in place of the one it may have; None takes it off.

        Args:
            components: (width, dim) float, orthonormal columns.
            mean: (width,) float; zeros if None.

        Raises:
            DataError: a shape does not fit the network.
        """
        if components is None:
            if self.projected:
                del self.components, self.mean
            self.projected, self.dim = False, self.width
            return
        if components.ndim != 2 or components.shape[0] != self.width or not 1 <= components.shape[1] <= self.width:
            raise DataError(
                f"a projection of {self.width} dimensions has components ({self.width}, 1 to {self.width}), "
                f"got {tuple(components.shape)}"
            )
        mean = torch.zeros(self.width) if mean is None else mean
        if tuple(mean.shape) != (self.width,):
            raise DataError(f"a projection of {self.width} dimensions has a mean ({self.width},), got {mean.shape}")
        device = next(iter(self.parameters())).device
        self.register_buffer("components", components.detach().to(device, torch.float32, copy=True))
        self.register_buffer("mean", mean.detach().to(device, torch.float32, copy=True))
        self.projected, self.dim = True, int(components.shape[1])

    def reserve(self, projection: int | None) -> None:
        """Room for a projection whose numbers a state dict brings; until then the first `projection` outputs."""
        if projection is None:
            self.project(None)
        elif not 1 <= projection <= self.width:
            raise OptionError(f"a projection of {self.width} dimensions keeps 1 to {self.width}, not {projection}")
        else:
            self.project(torch.eye(self.width, projection))

    @classmethod
    def for_state_dict(cls: type[Self], state: Mapping[str, Tensor]) -> Self:
        """An instance of the form (with a projection or not) that the given state dict fits; it is not loaded."""
        network = cls()
        components = state.get("components")
        network.reserve(None if components is None or components.ndim != 2 else int(components.shape[1]))
        return network

    def _finished(self, out: Tensor) -> Tensor:
        """The network's own output (N, width, ...) as the descriptor (N, dim) float32."""
        out = out.flatten(1).float()
        if self.unit or self.projected:
            out = normalize(out, dim=1)
        return normalize((out - self.mean) @ self.components, dim=1) if self.projected else out
