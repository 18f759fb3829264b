"""Losses over angles and ellipses, against what geometry says."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hardnet_match.training.losses import angle_loss, shape_distance


def vectors(angle: Tensor, length: float = 1.0) -> Tensor:
    return length * torch.stack([angle.sin(), angle.cos()], dim=1)


@given(st.floats(-7, 7), st.floats(-7, 7), st.floats(0.1, 5))
@settings(max_examples=50, deadline=None)
def test_angle_loss_is_one_minus_the_cosine_of_the_error(first: float, turn: float, length: float) -> None:
    one = torch.tensor([first], dtype=torch.float64)
    for error in (0.0, 0.4, math.pi):
        loss = angle_loss(vectors(one, length), vectors(one + turn + error), torch.tensor([turn], dtype=torch.float64))
        assert float(loss) == pytest.approx(1 - math.cos(error), abs=1e-9)


def test_shape_distance_knows_nothing_of_rotation_and_area_and_all_of_stretch() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = torch.eye(2, dtype=torch.float64) + 0.3 * torch.randn(20, 2, 2, generator=generator, dtype=torch.float64)
    angle = 6 * torch.rand(20, generator=generator, dtype=torch.float64)
    turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).reshape(-1, 2, 2)
    assert shape_distance(shapes, 3 * shapes @ turn).abs().max() < 1e-9
    stretch = torch.diag(torch.tensor([2.0, 0.5], dtype=torch.float64)).expand(20, 2, 2)
    expected = torch.full((20,), math.log((4 + 0.25) / 2), dtype=torch.float64)
    torch.testing.assert_close(shape_distance(shapes, shapes @ turn @ stretch), expected)
    # common affine changes of both do not matter
    change = torch.tensor([[1.3, 0.4], [-0.2, 0.8]], dtype=torch.float64)
    other = shapes.flip(0)
    torch.testing.assert_close(shape_distance(change @ shapes, change @ other), shape_distance(shapes, other))
