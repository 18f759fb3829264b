"""An image to `Features`: detect -> shape -> orientation -> describe."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .adaptation import elongated, shaped, turned, with_surplus
from .architectures import family_of
from .descriptors import DESCRIPTORS
from .devices import choose_device
from .errors import DataError, OptionError
from .features import Features
from .frames import as_lafs, laf_orientation, make_lafs
from .frames import laf_scale as scale_of
from .inference import PatchNetwork, run_tiled, tile_for
from .parts import Part, given_part, open_part
from .patches import extract_patches
from .presets import DEFAULT_PRESET, Composition, compose
from .pyramid import as_image, patch_pyramid
from .quantised import can_quantise, quantise

_PARTS = ("detector", "shape", "orientation", "descriptor")
_LEFT_OUT = {("shape", "none"), ("orientation", "upright")}
PRECISIONS = ("auto", "float32", "half", "int8")
# Patches there are at one time, so that memory does not grow with the features.
_CPU_PATCHES = 1024
_GPU_PATCHES = 16384


@dataclass
class _Frames:
    """An image on its way through the stages."""

    pyramid: list[Tensor]
    lafs: Tensor
    scores: Tensor
    size: tuple[int, int]

    def keep(self, rows: Tensor) -> None:
        self.lafs, self.scores = self.lafs[rows], self.scores[rows]


def _patches(batch: list[_Frames], size: int, most: int) -> Iterator[Tensor]:
    """The patches of all frames of all images in order, `most` at a time; once none where there are no frames."""
    parts: list[Tensor] = []
    room = most
    for item in batch:
        left = item.lafs
        while len(left):
            parts.append(extract_patches(item.pyramid, left[:room], size))
            left, room = left[room:], room - len(parts[-1])
            if not room:
                yield torch.cat(parts)
                parts, room = [], most
    if parts or not any(len(item.lafs) for item in batch):
        yield torch.cat(parts or [batch[0].pyramid[0].new_empty((0, 1, size, size))])


class FeatureExtractor:
    """Local affine features of images.

    Args:
        composition: which detector, shape, orientation and descriptor, by name (this package's, or a plugin's).
        parts: modules to take instead, by "detector", "shape", "orientation" and "descriptor": kornia's or your own,
            of a signature as `foreign` has them. They are copied, and only run, never trained.
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
        parts: Mapping[str, nn.Module] | None = None,
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
        self._opened: dict[str, Part] = {}
        given = dict(parts or {})
        if unknown := given.keys() - _PARTS:
            raise OptionError(f"an extractor has no part {min(unknown)!r}; its parts are {', '.join(_PARTS)}")
        sources = (detector_weights, shape_weights, orientation_weights, weights)
        made = [self._part(part, given.get(part), source) for part, source in zip(_PARTS, sources, strict=True)]
        self.detector, self.shape, self.orientation, self.descriptor = made
        self.composition = replace(self.composition, **{part: opened.name for part, opened in self._opened.items()})

    @classmethod
    def from_preset(cls, preset: str = DEFAULT_PRESET, **options: Any) -> FeatureExtractor:
        """The preset's extractor; `detector`, `shape`, `orientation` and `descriptor` replace a part of it, by name or
        by a module (as `parts` has it).

        Descriptor weights given without a descriptor bring their own: those of a HardNet8 make it `hardnet8`.
        """
        asked = {part: options.pop(part, None) for part in _PARTS}
        modules = {part: module for part, module in asked.items() if isinstance(module, nn.Module)}
        names = {part: name for part, name in asked.items() if part not in modules}
        if asked["descriptor"] is None and options.get("weights"):
            family = family_of(options["weights"])
            names["descriptor"] = family if family in DESCRIPTORS else None
        return cls(compose(preset, **names), **{**options, "parts": {**options.get("parts", {}), **modules}})

    @property
    def settings(self) -> dict[str, Any]:
        """All that the features depend on besides the image, as JSON has it: parts, weights' hashes, limits,
        precision; and where there are any, which packages bring parts (`plugins`), and what modules were given
        (`modules`)."""
        settings = {
            **dataclasses.asdict(self.composition),
            "weights": {part: opened.weights for part, opened in self._opened.items() if opened.weights},
            "max_keypoints": self.max_keypoints,
            "precision": self.precision,
        }
        if (weight := getattr(self.detector, "scale_weight", None)) is not None:
            settings["scale_weight"] = weight
        plugins = {part: dict(opened.plugin) for part, opened in self._opened.items() if opened.plugin}
        modules = {part: dict(opened.given) for part, opened in self._opened.items() if opened.given}
        return {**settings, **({"plugins": plugins} if plugins else {}), **({"modules": modules} if modules else {})}

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
                item.lafs = shaped(item.lafs, shapes)
                item.keep(torch.nonzero(~elongated(shapes))[:, 0])
        for item in batch:
            item.keep(torch.arange(min(len(item.lafs), self.max_keypoints), device=self.device))
        if self.orientation is not None:
            for item, angles in zip(batch, self._run(self.orientation, batch), strict=True):
                item.lafs = turned(item.lafs, angles)
        return self._described(batch)

    @torch.inference_mode()
    def describe(
        self,
        image: NDArray[Any] | Tensor,
        lafs: NDArray[np.float32],
        *,
        adapt: bool = False,
        orient: bool | NDArray[np.bool_] = False,
    ) -> Features:
        """Descriptors of frames that are there already, one for each, in their order.

        Args:
            image: as in `extract`.
            lafs: (N, 2, 3) in pixels of `image`.
            adapt: give each frame, taken as a circle of its area, the affine shape its patch shows; its orientation
                stays. A shape too elongated to be believed leaves the circle.
            orient: turn the frames to their patches' orientation; or (N,) bool, those for which it is set.

        Returns:
            Features with the frames as they were described; scores are 0.

        Raises:
            DataError: image or frames have another shape, or hold NaN.
        """
        pixels = self._grey(image)
        frames = as_lafs(lafs)
        height, width = pixels.shape[-2:]
        scores = torch.zeros(len(frames), device=self.device)
        item = _Frames(patch_pyramid(pixels), torch.from_numpy(frames).to(self.device), scores, (width, height))
        angles = torch.deg2rad(torch.from_numpy(laf_orientation(frames)).to(self.device))
        wanted = torch.from_numpy(np.broadcast_to(np.asarray(orient, dtype=bool), len(frames)).copy()).to(self.device)
        if adapt:
            circles = make_lafs(frames[:, :, 2], scale_of(frames))
            item.lafs = torch.from_numpy(circles).to(self.device)
            if self.shape is not None and len(frames):
                shapes = self._run(self.shape, [item])[0]
                shapes[elongated(shapes)] = torch.eye(2, device=self.device)
                item.lafs = shaped(item.lafs, shapes)
        else:
            angles = torch.zeros_like(angles)
        if self.orientation is not None and bool(wanted.any()):
            angles = torch.where(wanted, self._run(self.orientation, [item])[0], angles)
        item.lafs = turned(item.lafs, angles)
        return self._described([item])[0]

    # The stages
    # --------------------------------------------------------------------------------------------------------

    def _detect(self, pixels: NDArray[Any] | Tensor, mask: NDArray[np.bool_] | None) -> _Frames:
        image = self._grey(pixels)
        height, width = image.shape[-2:]
        allowed = None
        if mask is not None:
            if mask.shape != (height, width):
                raise DataError(f"the mask is {mask.shape}, the image ({height}, {width})")
            allowed = torch.from_numpy(np.ascontiguousarray(mask, dtype=bool)).to(self.device)
        wanted = self.max_keypoints if self.shape is None else with_surplus(self.max_keypoints)
        lafs, scores = self.detector(image, allowed, wanted)
        return _Frames(patch_pyramid(image), lafs, scores, (width, height))

    def _grey(self, pixels: NDArray[Any] | Tensor) -> Tensor:
        image = as_image(pixels, self.device)
        if image.ndim != 4 or image.shape[:2] != (1, 1):
            raise DataError(f"an image is (H, W) or (H, W, 3), got shape {tuple(pixels.shape)}")
        if not torch.isfinite(image).all():
            raise DataError("the image holds NaN or infinity")
        return image

    def _described(self, batch: list[_Frames]) -> list[Features]:
        descriptors = self._run(self.descriptor, batch, self._autocast())
        meta = {part: str(name) for part, name in dataclasses.asdict(self.composition).items()}
        return [
            Features(item.lafs.cpu().numpy(), item.scores.cpu().numpy(), rows.cpu().numpy(), item.size, meta)
            for item, rows in zip(batch, descriptors, strict=True)
        ]

    def _run(
        self, network: nn.Module, batch: list[_Frames], context: AbstractContextManager[Any] | None = None
    ) -> list[Tensor]:
        """The network's output for every frame of every image, tiles running across images."""
        if getattr(network, "of_frames", False):
            with context or nullcontext():
                return [network(item.pyramid[0], item.lafs) for item in batch]
        size = int(getattr(network, "patch_size", 32))
        tile = tile_for(self.device, self.tile)
        most = tile * max(1, (_CPU_PATCHES if self.device.type == "cpu" else _GPU_PATCHES) // tile)
        with context or nullcontext():
            out = torch.cat([run_tiled(network, patches, tile) for patches in _patches(batch, size, most)])
        return list(torch.split(out, [len(item.lafs) for item in batch]))

    def _autocast(self) -> AbstractContextManager[Any] | None:
        if self.precision != "half":
            return None
        return torch.autocast(self.device.type, torch.bfloat16 if self.device.type == "cpu" else torch.float16)

    def _part(self, part: str, module: nn.Module | None, weights: str | None) -> Any:
        """The part as it is run: with BatchNorm folded or in integers, on the device; None for a stage left out."""
        name = getattr(self.composition, part)
        if module is not None:
            if weights:
                raise OptionError(f"the {part} was given as a module, which has its weights; {weights!r} cannot be had")
            opened = given_part(part, module)
        elif (part, name) in _LEFT_OUT:
            if weights:
                raise OptionError(f"the {part} {name!r} has no weights to load, but {weights!r} was asked for")
            return None
        else:
            opened = open_part(part, name, weights)
        self._opened[part] = opened
        network = opened.module.eval().requires_grad_(False)
        # What has no convolutions (a histogram, second moments) is the same in every precision; a descriptor that
        # cannot be had in 8 bits is an error, for it is most of what the user asked to be faster.
        if isinstance(network, PatchNetwork):
            integers = self.precision == "int8" and (part == "descriptor" or can_quantise(network))
            network = quantise(network) if integers else network.fused()
        elif part == "descriptor" and self.precision == "int8":
            raise OptionError(f"the descriptor {opened.name!r} has no 8-bit form; take precision float32 or half")
        return network.to(self.device)
