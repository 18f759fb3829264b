"""HardTFeat: TFeat's layers trained with HardNet's loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..inference import check_patches, standardise
from .base import DescriptorNetwork


class HardTFeat(DescriptorNetwork):
    """HardTFeat (Mishchuk et al., NIPS 2017; weights in ducha-aiki/affnet).

    Patches (N, 1, 32, 32) to unit vectors (N, 128). The original's file also holds buffers of a SIFT (`SIFT.*`);
    `load_state_dict` leaves them out. Neither original sets an initialisation: it is torch's own.
    """

    def __init__(self, projection: int | None = None) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 7), nn.Tanh(), nn.MaxPool2d(2, 2), nn.Conv2d(32, 64, 6), nn.Tanh()
        )
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Conv2d(64, 128, 8), nn.Tanh())
        self.reserve(projection)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        own = {key: value for key, value in state_dict.items() if not key.startswith("SIFT.")}
        return super().load_state_dict(own, strict=strict, assign=assign)

    def forward(self, patches: Tensor) -> Tensor:
        check_patches(patches, self.patch_size)
        return self._finished(self.classifier(self.features(standardise(patches, 1e-7))))
