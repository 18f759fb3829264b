"""Pyramids and patches against kornia, and the two roads of the filters against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kornia import feature

from hardnet_match import frames
from hardnet_match.patches import extract_patches
from hardnet_match.pyramid import as_image, double, gaussian_blur, patch_pyramid


def picture(height: int = 301, width: int = 417, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return gaussian_blur(as_image(rng.uniform(0, 1, (height, width)).astype(np.float32)), 1.0)


def some_lafs(count: int, width: int, height: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    xy = rng.uniform(-5, 5, (count, 2)) + rng.uniform(0, 1, (count, 2)) * [width, height]
    return torch.from_numpy(frames.make_lafs(xy, 2 ** rng.uniform(1, 8, count), rng.uniform(-180, 180, count)))


@pytest.mark.parametrize("size", [(301, 417), (64, 64), (33, 200), (20, 20)])
def test_patches_are_kornias(size: tuple[int, int]) -> None:
    image, lafs = picture(*size), some_lafs(1100, size[1], size[0])
    ours = extract_patches(patch_pyramid(image), lafs)
    theirs = feature.extract_patches_from_pyramid(image, lafs[None], 32)[0]
    torch.testing.assert_close(ours, theirs, atol=3e-4, rtol=0)


def test_a_frame_on_a_pixel_gives_the_crop_around_it() -> None:
    image = picture()
    lafs = torch.from_numpy(frames.make_lafs([[100, 80]], 31 / 2))
    crop = extract_patches(patch_pyramid(image), lafs, 31)
    torch.testing.assert_close(crop, image[:, :, 65:96, 85:116], atol=1e-5, rtol=0)


def test_no_frames_no_patches() -> None:
    assert extract_patches(patch_pyramid(picture()), torch.zeros(0, 2, 3)).shape == (0, 1, 32, 32)


@pytest.mark.parametrize("sigma", [0.05, 0.5, 1.7, 9.0])
def test_both_roads_of_the_blur_agree(sigma: float) -> None:
    image = picture(61, 83)
    by_torch = gaussian_blur(image.clone().requires_grad_(), sigma).detach()
    torch.testing.assert_close(gaussian_blur(image, sigma), by_torch, atol=2e-6, rtol=0)


def test_both_roads_of_resizing_agree() -> None:
    image = picture(61, 83)
    tracked = image.clone().requires_grad_()
    torch.testing.assert_close(double(image), double(tracked).detach(), atol=2e-6, rtol=0)
    for ours, theirs in zip(patch_pyramid(image, 8), patch_pyramid(tracked, 8), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), atol=5e-5, rtol=0)


def test_a_gradient_flows_through_pyramid_and_patches() -> None:
    image = picture(64, 64).requires_grad_()
    extract_patches(patch_pyramid(image), some_lafs(5, 64, 64)).sum().backward()
    assert image.grad is not None
    assert float(image.grad.abs().sum()) > 0


def test_images_of_every_kind_become_one() -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    grey = as_image(colour)
    assert grey.shape == (1, 1, 20, 30)
    expected = (colour / 255.0) @ [0.2126, 0.7152, 0.0722]
    np.testing.assert_allclose(grey[0, 0], expected, atol=1e-5)
    torch.testing.assert_close(as_image(torch.from_numpy(colour).permute(2, 0, 1)), grey)
    torch.testing.assert_close(as_image(colour.astype(np.float32) / 255), grey, atol=1e-6, rtol=0)
