"""Detection with kornia's signatures, and the whole: image to frames, responses and descriptors."""

from __future__ import annotations

import kornia.feature
import torch
from torch import Tensor, nn

from ...adaptation import elongated, with_surplus
from ...errors import OptionError
from ...parts import open_part
from ...presets import DEFAULT_PRESET, compose
from ...pyramid import as_image
from .frames import AffineShape, Descriptor, Orientation


class Detector(nn.Module):
    """Frames of images of any content, `num_features` slots an image.

    Args:
        name: `hessian`, `dog`, `keynet`, ..., or a plugin's.
        num_features: slots; those that nothing fills hold a zero frame and a zero response, as kornia has it.
        aff_module, ori_module: of kornia's signature (laf, img) -> laf: `AffineShape`, `Orientation`, kornia's own.
            Frames that the first makes longer than 6 times their width are dropped.
        weights: of a learned detector.

    Shape:
        - img (B, 1 or 3, H, W) in [0, 1]; mask (1 or B, 1, H, W), no frame has its centre where it is 0.
        - lafs (B, num_features, 2, 3) float32, strongest first, and responses (B, num_features).
    """

    def __init__(
        self,
        name: str = "hessian",
        num_features: int = 2048,
        aff_module: nn.Module | None = None,
        ori_module: nn.Module | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if num_features < 1:
            raise OptionError(f"num_features must be at least 1, got {num_features}")
        self.num_features = num_features
        self.detector = open_part("detector", name, weights).module
        self.aff, self.ori = aff_module, ori_module

    def forward(self, img: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found = []
        for index, image in enumerate(img):
            allowed = None if mask is None else mask[min(index, len(mask) - 1)].reshape(img.shape[-2:]) > 0
            found.append(self._one(as_image(image[None], image.device), allowed))
        return torch.stack([lafs for lafs, _ in found]), torch.stack([responses for _, responses in found])

    def _one(self, image: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        wanted = self.num_features if self.aff is None else with_surplus(self.num_features)
        lafs, responses = self.detector(image, mask, wanted)
        if self.aff is not None and len(lafs):
            lafs = self.aff(lafs[None], image)[0]
            kept = ~elongated(lafs.detach()[:, :, :2])
            lafs, responses = lafs[kept], responses[kept]
        lafs, responses = lafs[: self.num_features], responses[: self.num_features]
        if self.ori is not None and len(lafs):
            lafs = self.ori(lafs[None], image)[0]
        missing = self.num_features - len(lafs)
        return torch.cat([lafs, lafs.new_zeros(missing, 2, 3)]), torch.cat([responses, responses.new_zeros(missing)])


class LocalFeature(kornia.feature.LocalFeature):  # type: ignore[misc]
    """A preset of this package as kornia's `LocalFeature`: what `FeatureExtractor` gives, as tensors with gradients.

    Args:
        preset: as everywhere in this package.
        num_features: slots an image (`Detector`).
        detector, shape, orientation, descriptor: names that replace the preset's.
        weights, detector_weights, shape_weights, orientation_weights: names or files, instead of the parts' own.

    Shape:
        - img (B, 1 or 3, H, W) in [0, 1]; mask (1 or B, 1, H, W).
        - lafs (B, N, 2, 3), responses (B, N), descriptors (B, N, D), N = num_features; slots that hold no feature have
          a zero frame (kornia 0.9's `laf_is_filled` tells them).

    Raises:
        OptionError, WeightsError, PluginError: as `FeatureExtractor`.
    """

    def __init__(
        self,
        preset: str = DEFAULT_PRESET,
        num_features: int = 2048,
        *,
        detector: str | None = None,
        shape: str | None = None,
        orientation: str | None = None,
        descriptor: str | None = None,
        weights: str | None = None,
        detector_weights: str | None = None,
        shape_weights: str | None = None,
        orientation_weights: str | None = None,
    ) -> None:
        parts = compose(preset, detector=detector, shape=shape, orientation=orientation, descriptor=descriptor)
        affine = None if parts.shape == "none" else AffineShape(parts.shape, shape_weights)
        turned = None if parts.orientation == "upright" else Orientation(parts.orientation, orientation_weights)
        super().__init__(
            Detector(parts.detector, num_features, affine, turned, detector_weights),
            Descriptor(parts.descriptor, weights),
        )
