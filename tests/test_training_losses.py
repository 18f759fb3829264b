"""Losses against plain loops, gradients included."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from hardnet_match.training.losses import (
    angle_loss,
    distance_matrix,
    hard_negative_constant_loss,
    hardest_in_batch,
    hardnet_loss,
    shape_distance,
)


def descriptors(count: int, seed: int, dim: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.randn(count, dim, generator=generator, dtype=torch.float64)
    positives = anchors + 0.8 * torch.randn(count, dim, generator=generator, dtype=torch.float64)
    return normalize(anchors, dim=1), normalize(positives, dim=1)


def plain_loss(
    anchors: Tensor, positives: Tensor, margin: float, constant: bool, ignore: set[tuple[int, int]]
) -> Tensor:
    """The published formulas, a pair at a time."""
    count = len(anchors)

    def distance(i: int, j: int) -> Tensor:
        a, p = anchors[i], positives[j]
        return torch.sqrt(a @ a + p @ p - 2 * a @ p + 1e-6) + 1e-8

    total = torch.zeros((), dtype=anchors.dtype)
    for i in range(count):
        candidates = []
        for j in range(count):
            for one, other in ((i, j), (j, i)):  # the second is the anchor swap
                value = distance(one, other) + 10 if j == i else distance(one, other)
                value = value + 10 if float(value.detach()) < 0.008 else value
                value = value + 10 if (one, other) in ignore else value
                candidates.append(value)
        negative = min(candidates, key=lambda value: float(value.detach()))
        hinge = margin + distance(i, i) - (negative.detach() if constant else negative)
        total = total + torch.clamp(hinge, min=0)
    return total / count


@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("ignored", [set(), {(0, 3), (3, 0), (2, 7)}])
def test_the_loss_and_its_gradient_are_those_of_a_plain_loop(
    constant: bool, seed: int, ignored: set[tuple[int, int]]
) -> None:
    anchors, positives = descriptors(12, seed)
    positives[5] = anchors[4]  # met twice: no negative
    inputs = [tensor.clone().requires_grad_() for tensor in (anchors, positives, anchors, positives)]
    mask = torch.zeros(12, 12, dtype=torch.bool)
    for i, j in ignored:
        mask[i, j] = True
    loss = hard_negative_constant_loss if constant else hardnet_loss
    ours = loss(inputs[0], inputs[1], 0.9, ignore=mask)
    slow = plain_loss(inputs[2], inputs[3], 0.9, constant, ignored)
    torch.testing.assert_close(ours, slow, atol=1e-9, rtol=0)
    ours.backward()
    slow.backward()
    for fast_grad, slow_grad in ((inputs[0].grad, inputs[2].grad), (inputs[1].grad, inputs[3].grad)):
        torch.testing.assert_close(fast_grad, slow_grad, atol=1e-9, rtol=0)
    assert float(ours.detach()) > 0.1


def test_without_anchor_swap_only_the_positives_are_searched() -> None:
    anchors, positives = descriptors(9, 3)
    _, closest = hardest_in_batch(anchors, positives, anchor_swap=False)
    distances = distance_matrix(anchors, positives) + 10 * torch.eye(9)
    torch.testing.assert_close(closest, distances.min(dim=1).values)


def test_equal_descriptors_have_a_finite_gradient() -> None:
    anchors = normalize(torch.ones(4, 8), dim=1).requires_grad_()
    hardnet_loss(anchors, anchors.detach().clone()).backward()
    assert anchors.grad is not None
    assert anchors.grad.isfinite().all()


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
