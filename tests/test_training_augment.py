"""Augmentations: what each piece may do to a patch, composed and alone, and that nothing else does."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from hardnet_match.errors import OptionError
from hardnet_match.training.augment import (
    PIECES,
    TILT_BY_EPOCH,
    AugmentationBySet,
    compose,
    crop,
    make_augmentation,
    tilt_at,
)
from hardnet_match.training.sampling import TensorBatch


def smooth(count: int, side: int, seed: int = 0) -> Tensor:
    """(count, side, side) float patches without fine detail."""
    rng = np.random.default_rng(seed)
    coarse = rng.random((count, 9, 9)).astype(np.float32)
    return torch.from_numpy(np.stack([cv2.resize(c, (side, side), interpolation=cv2.INTER_CUBIC) for c in coarse]))


def batch_of(
    views: int, columns: int, *, side: int = 64, margin: float = 2.0, itself: bool = False, part: slice | None = None
) -> TensorBatch:
    stored = (
        (smooth(views * columns, side).clamp(0, 1) * 255).round().to(torch.uint8).reshape(views, columns, side, side)
    )
    return TensorBatch(
        stored if part is None else stored[:, part],
        torch.arange(columns).expand(views, columns),
        torch.full((columns,), itself),
        None,
        margin,
        part,
    )


def frames_of(
    name: str, views: int = 2, columns: int = 3000, epoch: float = 0.0, itself: bool = False, **options: Any
) -> Tensor:
    label = torch.zeros(views, columns, dtype=torch.long)
    empty = torch.zeros(views, columns, 0, 0, dtype=torch.uint8)
    batch = TensorBatch(empty, label, torch.full((columns,), itself), None, 2.0)
    return make_augmentation({name: options}).frames(batch, torch.Generator().manual_seed(0), epoch)


def corners(frames: Tensor) -> Tensor:
    """(..., 2, 4) of the crop's corners in the measurement region."""
    square = torch.tensor([[-1.0, 1, 1, -1], [-1, -1, 1, 1]])
    return frames[..., :2] @ square + frames[..., 2:]


def angle(frames: Tensor) -> Tensor:
    return torch.rad2deg(torch.atan2(-frames[..., 1, 0], frames[..., 0, 0]))


# crops -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "margin"), [(64, 1.0), (64, 2.0), (96, 1.5), (128, 1.0)])
def test_the_unchanged_crop_is_the_mean_of_the_cells_it_covers(side: int, margin: float) -> None:
    stored = torch.randint(0, 256, (5, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    plain = torch.eye(2, 3).expand(5, 2, 3)
    inner = round(side / margin)
    start = (side - inner) // 2
    for patch, out in zip(stored.numpy(), crop(stored, plain, margin=margin), strict=True):
        region = patch[start : start + inner, start : start + inner].astype(np.float32)
        expected = cv2.resize(region, (32, 32), interpolation=cv2.INTER_AREA) / 255
        np.testing.assert_allclose(out[0].numpy(), expected, atol=2e-5)


def test_a_crop_is_what_opencv_warps() -> None:
    stored = smooth(20, 64)
    frames = frames_of("amos", columns=10).flatten(0, 1)
    ours = crop(stored, frames, margin=2.0, padding="reflection")[:, 0].numpy()
    for patch, frame, out in zip(stored.numpy(), frames.numpy(), ours, strict=True):
        # cell centres of the crop in [-1, 1], through the frame, to cells of the stored patch
        to_unit = np.array([[2 / 32, 0, 1 / 32 - 1], [0, 2 / 32, 1 / 32 - 1], [0, 0, 1]])
        to_cells = np.array([[16, 0, 31.5], [0, 16, 31.5], [0, 0, 1]])
        matrix = to_cells @ np.vstack([frame, [0, 0, 1]]) @ to_unit
        warped = cv2.warpAffine(
            patch, matrix[:2], (32, 32), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )
        np.testing.assert_allclose(out, warped, atol=0.02)


def test_beyond_the_stored_patch_there_is_its_border_or_its_reflection() -> None:
    ramp = torch.arange(64.0).expand(1, 64, 64) / 64
    away = torch.tensor([[[1.0, 0, 2.0], [0, 1, 0]]])  # centred on the right edge
    right = crop(ramp, away, padding="border")[0, 0, 0]
    assert (right[16:] == 63 / 64).all()
    mirrored = crop(ramp, away, padding="reflection")[0, 0, 0]
    torch.testing.assert_close(mirrored[16:], mirrored[:16].flip(0))


def test_what_one_crop_takes_out_of_another_is_one_crop() -> None:
    stored = smooth(30, 64)
    outer, inner = frames_of("small", columns=15).flatten(0, 1), frames_of("jitter", columns=15).flatten(0, 1)
    once = crop(stored, compose(outer, inner))
    # by hand: the first crop at twice the margin and four times the density, then the second out of it
    wide = crop(stored, compose(outer, 1.5 * torch.eye(2, 3).expand(30, 2, 3)), size=192)[:, 0]
    twice = crop(wide, inner, margin=1.5)
    assert (once - twice).abs().mean() < 0.004


# pieces ----------------------------------------------------------------------------------------------


def test_fliprot_is_a_transpose_then_a_mirror_alike_for_all_views() -> None:
    batch = batch_of(3, 200)
    plain = make_augmentation()(batch, torch.Generator())
    out = make_augmentation(["fliprot"])(batch, torch.Generator().manual_seed(1))
    forms = torch.stack([plain, plain.mT, plain.flip(-1), plain.mT.flip(-1)])
    error = (forms - out).abs().amax(dim=(3, 4, 5))  # (form, view, column)
    found = error.argmin(dim=0)
    assert error.min(dim=0).values.max() < 1e-5
    assert (found == found[0]).all()
    assert np.bincount(found[0].numpy(), minlength=4).min() > 30


def test_small_turns_by_five_degrees_and_keeps_nine_tenths() -> None:
    frames = frames_of("small")
    axes, turned = frames[..., :2], angle(frames)
    assert 4.9 < turned.abs().max() <= 5.001
    area = torch.linalg.det(axes)
    assert 0.9 - 1e-5 < area.min() < 0.905
    assert area.max() <= 1 + 1e-5
    sides = axes.norm(dim=-2)
    ratio = sides[..., 0] / sides[..., 1]
    assert 1 / 1.1 - 1e-5 < ratio.min() < 0.95
    assert 1.05 < ratio.max() < 1.1 + 1e-5
    # before the turn, the rectangle lies within the region
    back = torch.deg2rad(-turned)
    turn = torch.stack([back.cos(), back.sin(), -back.sin(), back.cos()], -1).unflatten(-1, (2, 2))
    assert (turn @ corners(frames)).abs().max() <= 1 + 1e-4
    # every view has its own
    assert (frames[0] - frames[1]).abs().amax(dim=(1, 2)).min() > 1e-5


def test_amos_does_what_its_source_says() -> None:
    alone = frames_of("amos", shear=0.0, area=1.0, ratio=1.0)  # turn and scale only
    assert 24.5 < angle(alone).abs().max() <= 25.001
    scale = 1 / torch.linalg.det(alone[..., :2]).sqrt()
    assert 0.8 - 1e-4 < scale.min() < 0.81
    assert 1.39 < scale.max() < 1.4 + 1e-4
    assert alone[..., 2].abs().max() < 1e-6  # about the centre
    slanted = frames_of("amos", rotation=0.0, smallest=1.0, largest=1.0, area=1.0, ratio=1.0)
    assert torch.equal(slanted[..., 0, 0], torch.ones_like(slanted[..., 0, 0]))
    slope = torch.rad2deg(torch.atan(slanted[..., 0, 1]))
    assert 24.5 < slope.abs().max() <= 25.001
    cut = frames_of("amos", rotation=0.0, smallest=1.0, largest=1.0, shear=0.0)
    share = torch.linalg.det(cut[..., :2])
    assert 0.7 - 1e-4 < share.min() < 0.71
    assert share.max() > 0.97
    assert corners(cut).abs().max() <= 1 + 1e-5
    assert corners(cut).abs().max() > 0.99


def test_tilt_grows_by_epoch_and_views_share_the_turn() -> None:
    for epoch in (0, 0.9, 1, 2, 3.5, 5, 6, 7, 8, 40):
        last = [tilt for start, tilt in sorted(TILT_BY_EPOCH.items()) if start <= epoch][-1]
        assert tilt_at(epoch) == last
        frames = frames_of("tilt", epoch=epoch)
        values = torch.linalg.svdvals(frames[..., :2])
        ratio = values[..., 0] / values[..., 1]
        assert 0.95 * last < ratio.max() <= last * 1.001
        torch.testing.assert_close(torch.linalg.det(frames[..., :2]), torch.ones(2, 3000), atol=1e-3, rtol=0)
    assert [tilt_at(epoch, {2: 1.5, 4: 3.0}) for epoch in (0, 2, 3, 4)] == [1.5, 1.5, 1.5, 3.0]
    # the polar part of each frame is the turn put on it, and the same in both
    left, _, right = torch.linalg.svd(frames[..., :2])
    turn = left @ right
    torch.testing.assert_close(turn[0], turn[1], atol=1e-3, rtol=0)
    assert angle(turn[0]).min() < -170
    assert angle(turn[0]).max() > 170
    steady = frames_of("tilt", epoch=9, most=2.0, rotation=0.0)
    values = torch.linalg.svdvals(steady[..., :2])
    assert (values[..., 0] / values[..., 1]).max() <= 2.001
    # uniform in the ratio: strong tilts are common
    assert (values[..., 0] / values[..., 1] > 1.5).float().mean() == pytest.approx(1 / 3 + 1 / 9, abs=0.04)


def test_turn_moves_the_first_view_alone() -> None:
    frames = frames_of("turn", shift=2.0)
    assert torch.equal(frames[1], torch.eye(2, 3).expand(3000, 2, 3))
    size = torch.linalg.det(frames[0, ..., :2]).sqrt()
    assert 0.9 - 1e-4 < size.min() < 0.91
    assert 1.19 < size.max() < 1.2 + 1e-4
    assert angle(frames[0]).abs().max() > 178
    assert 3.8 / 32 < frames[0, ..., 2].abs().max() <= 4 / 32


def test_jitter_is_stronger_for_a_patch_with_itself() -> None:
    mild, strong = frames_of("jitter"), frames_of("jitter", itself=True)
    size = [torch.linalg.det(frames[..., :2]).sqrt().log2().abs().max() for frames in (mild, strong)]
    assert 0.14 < size[0] <= 0.15 + 1e-4
    assert 0.33 < size[1] <= 0.35 + 1e-4
    still = frames_of("jitter", rotation=0, octaves=0, shift=0, tilt=1)
    torch.testing.assert_close(still, torch.eye(2, 3).expand(2, 3000, 2, 3))


def test_photometric_changes_light_and_leaves_the_place() -> None:
    batch = batch_of(2, 100)
    plain = make_augmentation()(batch, torch.Generator()).flatten(2)
    lit = make_augmentation(["photometric"])(batch, torch.Generator().manual_seed(0)).flatten(2)
    centred = [x - x.mean(-1, keepdim=True) for x in (plain, lit)]
    correlation = (centred[0] * centred[1]).sum(-1) / (centred[0].norm(dim=-1) * centred[1].norm(dim=-1))
    assert correlation.median() > 0.75
    assert (plain - lit).abs().mean() > 0.02
    off = make_augmentation({"photometric": {"gamma": 0, "shading": 0, "blur": 0, "noise": 0}})
    torch.testing.assert_close(off(batch, torch.Generator()).flatten(2), plain, atol=2e-3, rtol=0)


# together --------------------------------------------------------------------------------------------

EVERYTHING = ["jitter", "small", "amos", "tilt", "turn", "fliprot", "photometric"]


def test_pieces_are_applied_in_their_order() -> None:
    batch = batch_of(2, 50)
    chain = make_augmentation(["small", "fliprot"])
    generator = torch.Generator().manual_seed(4)
    one, two = (make_augmentation([name]).frames(batch, generator) for name in ("small", "fliprot"))
    torch.testing.assert_close(chain.frames(batch, torch.Generator().manual_seed(4)), compose(one, two))


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_piece_has_a_name_and_does_something(name: str) -> None:
    batch = batch_of(2, 20, itself=True)
    plain = make_augmentation()(batch, torch.Generator())
    assert plain.shape == (2, 20, 1, 32, 32)
    assert plain.dtype == torch.float32
    out = make_augmentation([name])(batch, torch.Generator().manual_seed(2))
    assert out.shape == plain.shape
    assert (out - plain).abs().amax(dim=(2, 3, 4)).max(dim=0).values.gt(0.01).float().mean() > 0.5
    again = make_augmentation([name])(batch, torch.Generator().manual_seed(2))
    assert torch.equal(out, again)
    assert set(EVERYTHING) == set(PIECES)


def test_a_part_of_a_batch_looks_as_it_does_within_the_whole() -> None:
    augment = make_augmentation(EVERYTHING)
    whole = augment(batch_of(2, 30), torch.Generator().manual_seed(3), epoch=2.5)
    for a, b in pairwise([0, 7, 8, 30]):
        part = augment(batch_of(2, 30, part=slice(a, b)), torch.Generator().manual_seed(3), epoch=2.5)
        torch.testing.assert_close(part, whole[:, a:b], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("side", "margin"), [(64, 1.0), (96, 1.5)])
def test_sets_of_other_sides_and_margins_are_shown_alike(side: int, margin: float) -> None:
    """A patch stored with less margin but more density: the same crop, wherever it does not leave the smaller one."""
    wide = smooth(16, 256).reshape(2, 8, 256, 256)  # margin 2 at 128 cells a region
    inner = round(256 * margin / 2)
    start = (256 - inner) // 2
    narrow = wide[..., start : start + inner, start : start + inner]
    narrow = torch.nn.functional.interpolate(narrow, (side, side), mode="area")
    label, itself = torch.arange(8).expand(2, 8), torch.zeros(8, dtype=torch.bool)
    shown = [
        make_augmentation({"small": {}, "fliprot": {}})(
            TensorBatch(stored, label, itself, None, m), torch.Generator().manual_seed(1)
        )
        for stored, m in ((wide, 2.0), (narrow, margin))
    ]
    inside = (slice(None), slice(None), slice(None), slice(3, 29), slice(3, 29))
    assert (shown[0][inside] - shown[1][inside]).abs().mean() < 0.01


def test_a_mix_has_an_augmentation_for_every_set() -> None:
    both = AugmentationBySet((make_augmentation(), make_augmentation(["amos"])))
    batch = batch_of(2, 10)
    other = TensorBatch(batch.stored, batch.label, batch.itself, None, 2.0, source=1)
    plain = both(batch, torch.Generator().manual_seed(0))
    assert torch.equal(plain, make_augmentation()(batch, torch.Generator()))
    assert torch.equal(
        both(other, torch.Generator().manual_seed(0)),
        make_augmentation(["amos"])(batch, torch.Generator().manual_seed(0)),
    )


def test_gradients_flow_through_a_crop() -> None:
    stored = smooth(3, 64).double()
    frames = frames_of("jitter", columns=3, itself=True)[0].double().requires_grad_()

    def brightness(given: Tensor) -> Tensor:
        pixels = stored[:, None]
        grid = torch.nn.functional.affine_grid(given / 2, [3, 1, 32, 32], align_corners=False)
        return torch.nn.functional.grid_sample(pixels, grid, padding_mode="border", align_corners=False).square().mean()

    expected = torch.autograd.grad(brightness(frames), frames)[0]
    single = frames.detach().float().requires_grad_()
    found = torch.autograd.grad(crop(stored.float(), single).square().mean(), single)[0]
    torch.testing.assert_close(found, expected.float(), atol=1e-4, rtol=1e-3)
    assert math.isfinite(float(found.sum()))
    assert found.abs().sum() > 0


def test_what_cannot_be_done_to_patches_is_refused() -> None:
    for pieces, word in (
        (["flip"], "fliprot"),
        ("fliprot", "list"),
        (["small", "small"], "once"),
        ({"small": {"angle": 3}}, "rotation"),
        ({"fliprot": {"share": 0.1}}, "none"),
        ({"small": {"rotation": "much"}}, "number"),
        ({"small": {"rotation": math.inf}}, "number"),
        ({"small": {"area": 0.0}}, "area"),
        ({"amos": {"smallest": 3.0}}, "largest"),
        ({"amos": {"shear": 90.0}}, "90"),
        ({"jitter": {"tilt": 0.5}}, "tilt"),
        ({"tilt": {"most": 0.5}}, "most"),
        ({"tilt": {"schedule": {}}}, "schedule"),
        ({"tilt": {"schedule": {"first": 3.0}}}, "schedule"),
        ({"tilt": {"schedule": 3.0}}, "schedule"),
    ):
        with pytest.raises(OptionError, match=word):
            make_augmentation(pieces)
    assert frames_of("tilt", schedule={"0": 1.0}).shape == (2, 3000, 2, 3)
