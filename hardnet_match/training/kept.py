"""A network that learns while its normalisation stays as it is."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..inference import PatchNetwork


class Kept(nn.Module):
    """A network whose normalisation stays in evaluation mode, and which drops nothing out, while it learns."""

    def __init__(self, module: PatchNetwork) -> None:
        super().__init__()
        self.module = module

    def forward(self, patches: Tensor) -> Tensor:
        out: Tensor = self.module(patches)
        return out

    def train(self, mode: bool = True) -> Kept:
        super().train(mode)
        for part in self.modules():
            if isinstance(part, _BatchNorm | nn.Dropout):
                part.eval()
        return self
