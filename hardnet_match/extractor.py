"""An image to `Features`: detect -> shape -> orientation -> describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from . import weights as weight_files
from .architectures import family_of, load_network
from .descriptors import DESCRIPTORS
from .detectors import DETECTORS
from .devices import choose_device
from .errors import DataError, OptionError
from .features import Features
from .inference import PatchNetwork, run_tiled
from .orientation import ORIENTATIONS
from .patches import extract_patches
from .presets import DEFAULT_PRESET, Composition, compose
from .pyramid import as_image, patch_pyramid
from .quantised import can_quantise, quantise
from .shape import SHAPES

MAX_AXIS_RATIO = 6.0
"""Frames at least this elongated are dropped, as in AffNet's paper: what they show does not repeat."""

_SURPLUS = 1.05
"""Frames detected for each one wanted, so that dropping the elongated ones still leaves the number asked for."""

PRECISIONS = ("auto", "float32", "half", "int8")


@dataclass
class _Frames:
    """An image on its way through the stages."""

    pyramid: list[Tensor]
    lafs: Tensor
    scores: Tensor
    size: tuple[int, int]

    def keep(self, rows: Tensor) -> None:
        self.lafs, self.scores = self.lafs[rows], self.scores[rows]


class FeatureExtractor:
    """Local affine features of images.

    Args:
        composition: which detector, shape, orientation and descriptor, by name.
        max_keypoints: strongest features kept of an image.
        weights: the descriptor's weights, a registered name or a file; None for the composition's default.
        detector_weights, shape_weights, orientation_weights: likewise for the other networks.
        device: "auto" (CUDA, else Apple's MPS, else CPU) or what torch calls it.
        precision: "float32"; "half": the descriptor in bfloat16 on a CPU and in float16 on a GPU (on a CPU with
            bfloat16 instructions about twice as fast; descriptors' cosine to float32 at least 0.99); "int8": AffNet,
            OriNet and the descriptor in 8-bit integers through OpenVINO, on a CPU (about three times as fast; mean
            cosine .9997); "auto": "half" on CUDA and "float32" elsewhere.
        tile: patches per network call; None for what suits the device.

    Raises:
        OptionError: a name or number that cannot work.
        WeightsError: weights missing, damaged or of another network.

    Example:
        >>> extractor = FeatureExtractor.from_preset("hesaffnet-hardnet", max_keypoints=2048)
        >>> features = extractor.extract(image)  # (H, W) or (H, W, 3) uint8
    """

    def __init__(
        self,
        composition: Composition | None = None,
        *,
        max_keypoints: int = 4096,
        weights: str | None = None,
        detector_weights: str | None = None,
        shape_weights: str | None = None,
        orientation_weights: str | None = None,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
    ) -> None:
        self.composition = composition or compose()
        if max_keypoints < 1:
            raise OptionError(f"max_keypoints must be at least 1, got {max_keypoints}")
        if precision not in PRECISIONS:
            raise OptionError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.max_keypoints, self.tile = max_keypoints, tile
        self.device = choose_device(device)
        if precision == "int8" and self.device.type != "cpu":
            raise OptionError(f"precision int8 is for the CPU, not for {self.device}; take half there")
        self.precision = ("half" if self.device.type == "cuda" else "float32") if precision == "auto" else precision
        self._weights: dict[str, str] = {}
        parts = self.composition
        self.detector = self._part("detector", *_entry(DETECTORS, "detector", parts.detector), detector_weights)
        self.shape = None
        if parts.shape != "none":
            self.shape = self._part("shape", *_entry(SHAPES, "shape", parts.shape), shape_weights)
        entry = _entry(ORIENTATIONS, "orientation", parts.orientation)
        self.orientation = (
            None if parts.orientation == "upright" else self._part("orientation", *entry, orientation_weights)
        )
        self.descriptor = self._part("descriptor", *_entry(DESCRIPTORS, "descriptor", parts.descriptor), weights)

    @classmethod
    def from_preset(cls, preset: str = DEFAULT_PRESET, **options: Any) -> FeatureExtractor:
        """The preset's extractor; `detector`, `shape`, `orientation` and `descriptor` replace a part of it by name.

        Descriptor weights given without a descriptor bring their own: those of a HardNet8 make it `hardnet8`.
        """
        parts = {part.name: options.pop(part.name, None) for part in dataclasses.fields(Composition)}
        if parts["descriptor"] is None and options.get("weights"):
            family = family_of(options["weights"])
            parts["descriptor"] = family if family in DESCRIPTORS else None
        return cls(compose(preset, **parts), **options)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the features depend on besides the image, as JSON has it: parts, weights' hashes, limits,
        precision."""
        return {
            **dataclasses.asdict(self.composition),
            "weights": dict(self._weights),
            "max_keypoints": self.max_keypoints,
            "precision": self.precision,
        }

    def extract(self, image: NDArray[Any] | Tensor, mask: NDArray[np.bool_] | None = None) -> Features:
        """Features of one image.

        Args:
            image: (H, W) grey or (H, W, 3) RGB array, uint8 or float in [0, 1]; or a tensor (..., C, H, W).
            mask: (H, W) bool, False where no keypoint may lie.

        Returns:
            Features in pixels of `image`, strongest first; none (N = 0) for a picture without structure.

        Raises:
            DataError: the image or mask has another shape, or the image holds NaN.
        """
        return self.extract_batch([image], [mask])[0]

    @torch.inference_mode()
    def extract_batch(
        self, images: Sequence[NDArray[Any] | Tensor], masks: Sequence[NDArray[np.bool_] | None] | None = None
    ) -> list[Features]:
        """Features of several images, of any sizes, described together; each the same as `extract` gives it."""
        masks = masks or [None] * len(images)
        batch = [self._detect(image, mask) for image, mask in zip(images, masks, strict=True)]
        if self.shape is not None:
            for item, shapes in zip(batch, self._run(self.shape, batch), strict=True):
                item.keep(_adapt(item, shapes))
        for item in batch:
            item.keep(torch.arange(min(len(item.lafs), self.max_keypoints), device=self.device))
        if self.orientation is not None:
            for item, angles in zip(batch, self._run(self.orientation, batch), strict=True):
                item.lafs = torch.cat([item.lafs[:, :, :2] @ _rotation(angles), item.lafs[:, :, 2:]], dim=2)
        descriptors = self._run(self.descriptor, batch, self._autocast())
        meta = {part: str(name) for part, name in dataclasses.asdict(self.composition).items()}
        return [
            Features(item.lafs.cpu().numpy(), item.scores.cpu().numpy(), rows.cpu().numpy(), item.size, meta)
            for item, rows in zip(batch, descriptors, strict=True)
        ]

    # The stages
    # --------------------------------------------------------------------------------------------------------

    def _detect(self, pixels: NDArray[Any] | Tensor, mask: NDArray[np.bool_] | None) -> _Frames:
        image = as_image(pixels, self.device)
        if image.ndim != 4 or image.shape[:2] != (1, 1):
            raise DataError(f"an image is (H, W) or (H, W, 3), got shape {tuple(pixels.shape)}")
        height, width = image.shape[-2:]
        if not torch.isfinite(image).all():
            raise DataError("the image holds NaN or infinity")
        allowed = None
        if mask is not None:
            if mask.shape != (height, width):
                raise DataError(f"the mask is {mask.shape}, the image ({height}, {width})")
            allowed = torch.from_numpy(np.ascontiguousarray(mask, dtype=bool)).to(self.device)
        wanted = self.max_keypoints if self.shape is None else int(self.max_keypoints * _SURPLUS) + 1
        lafs, scores = self.detector(image, allowed, wanted)
        return _Frames(patch_pyramid(image), lafs, scores, (width, height))

    def _run(
        self, network: nn.Module, batch: list[_Frames], context: AbstractContextManager[Any] | None = None
    ) -> list[Tensor]:
        """The network's output for every frame of every image, tiles running across images."""
        size = int(getattr(network, "patch_size", 32))
        patches = [extract_patches(item.pyramid, item.lafs, size) for item in batch]
        joined = patches[0] if len(patches) == 1 else torch.cat(patches)
        with context or nullcontext():
            out = run_tiled(network, joined, self.tile)
        return list(torch.split(out, [len(item.lafs) for item in batch]))

    def _autocast(self) -> AbstractContextManager[Any] | None:
        if self.precision != "half":
            return None
        return torch.autocast(self.device.type, torch.bfloat16 if self.device.type == "cpu" else torch.float16)

    def _part(self, part: str, make: Any, default: str | None, asked: str | None) -> Any:
        name, source = getattr(self.composition, part), asked or default
        if asked and default is None:
            raise OptionError(f"the {part} {name!r} has no weights to load, but {asked!r} was asked for")
        if source is None:
            network = make()
        elif part == "detector":
            network = make()
            weight_files.load_into(network, weight_files.load_state_dict(source, name), source)
            self._weights[part] = weight_files.file_hash(source)
        else:
            # One name stands for several widths and projections; the weights say which.
            network = load_network(source, name, part).network
            self._weights[part] = weight_files.file_hash(source)
        network = network.eval().requires_grad_(False)
        if isinstance(network, PatchNetwork):
            # What has no convolutions (a histogram, second moments) is the same in every precision; a descriptor that
            # cannot be had in 8 bits is an error, for it is most of what the user asked to be faster.
            integers = self.precision == "int8" and (part == "descriptor" or can_quantise(network))
            network = quantise(network) if integers else network.fused()
        return network.to(self.device)


def _entry(registry: dict[str, tuple[Any, str | None]], part: str, name: str) -> tuple[Any, str | None]:
    if name not in registry:
        raise OptionError(f"there is no {part} {name!r}; there are {', '.join(registry)}")
    return registry[name]


def _adapt(item: _Frames, shapes: Tensor) -> Tensor:
    """Give upright circular frames their affine shapes; returns the rows worth keeping."""
    item.lafs = torch.cat([item.lafs[:, :, :2] @ shapes, item.lafs[:, :, 2:]], dim=2)
    # Of a matrix of determinant one: squared Frobenius norm = r + 1 / r for the axis ratio r.
    spread = shapes.square().sum(dim=(1, 2))
    return torch.nonzero(spread < MAX_AXIS_RATIO + 1 / MAX_AXIS_RATIO)[:, 0]


def _rotation(angles: Tensor) -> Tensor:
    cos, sin = torch.cos(angles), torch.sin(angles)
    return torch.stack([cos, sin, -sin, cos], dim=1).reshape(-1, 2, 2)
