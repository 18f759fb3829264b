"""Blurs and pyramids: the image operations that detection and patch sampling share.

Images are (1, 1, H, W) float32 tensors. On the CPU the filters run in OpenCV, which is several times faster than a
one-channel convolution; on any other device, and wherever a gradient is wanted, the same filters run in torch. Both
borders mirror without repeating the edge pixel; the two agree to float rounding (tests/test_pyramid.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
_BAND_PIXELS = 1 << 17
"""Pixels of a band: half a megabyte, so that what one filter writes is in the cache when the next one reads it."""


def as_image(image: Tensor | NDArray[np.generic], device: torch.device | str = "cpu") -> Tensor:
    """Grey (1, 1, H, W) float32 in [0, 1] from an array (H, W) or (H, W, 3) RGB, uint8 or float, or such a tensor."""
    tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.require(image, requirements=("C", "W")))
    if not isinstance(image, Tensor) and tensor.ndim == 3:
        tensor = tensor.permute(2, 0, 1)
    tensor = tensor.reshape((1,) * (4 - tensor.ndim) + tuple(tensor.shape)).to(device)
    tensor = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor.float()
    if tensor.shape[1] == 3:  # Rec. 709, as COLMAP and `images.read_image` turn colour into grey
        tensor = tensor[:, :1] * 0.2126 + tensor[:, 1:2] * 0.7152 + tensor[:, 2:] * 0.0722
    return tensor.contiguous()


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur, cut off at 4 sigma; the identity where sigma is too small to change a pixel."""
    if sigma < 0.1:
        return image
    radius = min(max(1, math.ceil(4 * sigma)), min(image.shape[-2:]) - 1)
    if radius < 1:
        return image
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma) ** 2)
    return _separable(image, (taps / taps.sum()).tolist())


def double(image: Tensor) -> Tensor:
    """Twice the width and height, bilinear; pixel x of the result lies at (x + 0.5) / 2 - 0.5 of the image."""
    height, width = image.shape[-2:]
    return _resize(image, (2 * height, 2 * width))


def patch_pyramid(image: Tensor, patch_size: int = 32) -> list[Tensor]:
    """The levels that patches are sampled from: each blurred by a 5-tap binomial and halved, down to `patch_size`.

    Levels, sizes and values are those of `kornia.feature.extract_patches_from_pyramid`, so that one frame gives one
    patch here and there.
    """
    levels = [image]
    while min(levels[-1].shape[-2:]) // 2 >= patch_size:
        height, width = levels[-1].shape[-2:]
        levels.append(_resize(_separable(levels[-1], list(_BINOMIAL)), (height // 2, width // 2)))
    return levels


def bands(height: int, width: int) -> Iterator[tuple[slice, slice, slice]]:
    """Cut an image of that size into bands of rows, for filters that look one row up and down.

    Yields:
        the band's rows, the rows to read (one more on either side, where there is one), and the band within these.
    """
    step = max(_BAND_PIXELS // max(width, 1), 1)
    for start in range(0, height, step):
        stop = min(start + step, height)
        low, high = max(start - 1, 0), min(stop + 1, height)
        yield slice(start, stop), slice(low, high), slice(start - low, stop - low)


def plane(image: Tensor) -> NDArray[np.float32]:
    """The (H, W) numpy view of a CPU image."""
    array: NDArray[np.float32] = image[0, 0].numpy()
    return array


def image_of(array: NDArray[np.float32]) -> Tensor:
    """The (1, 1, H, W) tensor view of a numpy array."""
    return torch.from_numpy(array)[None, None]


def uses_opencv(image: Tensor) -> bool:
    """Whether the fast filters apply: a CPU tensor that no gradient is asked of."""
    return image.device.type == "cpu" and not (image.requires_grad and torch.is_grad_enabled())


def _separable(image: Tensor, taps: list[float]) -> Tensor:
    if uses_opencv(image):
        kernel = np.asarray(taps, dtype=np.float32)
        return image_of(cv2.sepFilter2D(plane(image), cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101))
    kernel_t = torch.tensor(taps, dtype=image.dtype, device=image.device)
    radius = len(taps) // 2
    padded = F.pad(image, (radius, radius, radius, radius), mode="reflect")
    return F.conv2d(F.conv2d(padded, kernel_t.view(1, 1, 1, -1)), kernel_t.view(1, 1, -1, 1))


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    if uses_opencv(image):
        return image_of(cv2.resize(plane(image), (size[1], size[0]), interpolation=cv2.INTER_LINEAR))
    return F.interpolate(image, size=size, mode="bilinear", align_corners=False)
