"""Figures of the three networks on pairs that were kept from training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..inference import PatchNetwork, run_tiled
from ..metrics.patches import pair_figures
from .augment import Light, Warp, crop, random_frames, random_tilt, relight, rotation_matrix
from .losses import shape_distance
from .patchset import PatchSet
from .sampling import PairSampler

SECOND_VIEW_ERROR = Warp(rotation=12, octaves=0.25, shift=2.0, tilt=1.4)
"""Put on the second views when descriptors are judged, on top of the true change of view: detectors err."""


@dataclass(frozen=True, eq=False)
class Held:
    """Pairs of a set kept from training: (N, 64, 64) uint8 twice, and which others are no negatives, (N, N) bool."""

    first: Tensor
    second: Tensor
    ignore: Tensor


def hold_out(observations: PatchSet, count: int = 1000, seed: int = 0) -> Held:
    """Pairs of different views, the wider of two drawn, at most `count`, always the same ones."""
    sampler = PairSampler(observations, focus=0)
    first, second = sampler.pairs(count, np.random.default_rng(seed))
    return Held(
        torch.from_numpy(observations.patches[first]),
        torch.from_numpy(observations.patches[second]),
        torch.from_numpy(sampler.same_place(first, second)),
    )


def _ready(network: PatchNetwork | None) -> PatchNetwork | None:
    return None if network is None else network.eval().fused()


def descriptor_figures(
    descriptor: PatchNetwork, held: Held, warp: Warp | None = None, light: Light | None = None, seed: int = 0
) -> dict[str, float]:
    """`fpr95` and `rank1` of a descriptor on held-out pairs.

    Args:
        descriptor: on the processor.
        held: the pairs.
        warp, light: put on the second view as well; nothing where None.
        seed: of those changes.
    """
    network = descriptor.eval().fused()
    generator = torch.Generator().manual_seed(seed)
    count = len(held.first)
    with torch.inference_mode():
        anchors = crop(held.first, random_frames(count, Warp(), generator))
        positives = crop(held.second, random_frames(count, warp or Warp(), generator))
        if light is not None:
            positives = relight(positives, light, generator)
        return pair_figures(run_tiled(network, anchors), run_tiled(network, positives), held.ignore)


def shape_figures(
    shape: PatchNetwork | None, descriptor: PatchNetwork, held: Held, tilt: float = 3.0, seed: int = 0
) -> dict[str, float]:
    """How well patches match through estimated shapes when the second view is stretched besides.

    Args:
        shape: AffNet or the like; None for no adaptation.
        descriptor: describes the adapted patches.
        held: the pairs; both views are turned alike at random, so that stretches meet contents of every direction.
        tilt: most ratio of axes put on the second view.
        seed: of the stretches and turns.

    Returns:
        `fpr95`, `rank1`, and `covariance`: mean `losses.shape_distance` of the adapted ellipses of one patch seen
        plainly, and seen stretched and in another turn (0 is perfect; a network that says nothing gives the stretches
        themselves). In one turn only, a stretch common to all patches would not be seen.
    """
    estimate, describe = _ready(shape), descriptor.eval().fused()
    generator = torch.Generator().manual_seed(seed)
    count = len(held.first)
    turn, other_turn = (rotation_matrix(2 * math.pi * torch.rand(count, generator=generator)) for _ in range(2))
    stretch = random_tilt(count, tilt, generator)
    stretched = torch.linalg.cholesky(stretch @ stretch.mT)
    plain = torch.eye(2).expand(count, 2, 2)
    centre = torch.zeros(count, 2, 1)

    def adapted(stored: Tensor, upright: Tensor, turn: Tensor = turn) -> Tensor:
        if estimate is None:
            return upright
        return upright @ run_tiled(estimate, crop(stored, torch.cat([turn @ upright, centre], dim=2)))

    def described(stored: Tensor, frame: Tensor) -> Tensor:
        return run_tiled(describe, crop(stored, torch.cat([turn @ frame, centre], dim=2)))

    with torch.inference_mode():
        first, second = adapted(held.first, plain), adapted(held.second, stretched)
        figures = pair_figures(described(held.first, first), described(held.second, second), held.ignore)
        again = adapted(held.first, stretched, other_turn)
        return {**figures, "covariance": float(shape_distance(turn @ first, other_turn @ again).mean())}


def orientation_figures(
    orientation: PatchNetwork | None, descriptor: PatchNetwork, held: Held, warp: Warp | None = None, seed: int = 0
) -> dict[str, float]:
    """How well patches match through estimated orientations when both views are turned at random.

    Args:
        orientation: OriNet or the like; None for the frames as turned.
        descriptor: describes the oriented patches.
        held: the pairs; their own frames agree in orientation but for the detector's error.
        warp: further errors of frame of the second view.
        seed: of the turns.

    Returns:
        `fpr95`, `rank1`, and `within20`: share of pairs whose angles are right within 20 degrees.
    """
    estimate, describe = _ready(orientation), descriptor.eval().fused()
    generator = torch.Generator().manual_seed(seed)
    count = len(held.first)
    angles = 2 * math.pi * torch.rand(2, count, generator=generator)
    other = random_frames(count, warp or Warp(), generator)

    def oriented(stored: Tensor, frame: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        turned = torch.cat([frame[:, :, :2] @ rotation_matrix(angle), frame[:, :, 2:]], dim=2)
        if estimate is not None:
            angle = angle + run_tiled(estimate, crop(stored, turned))
            turned = torch.cat([frame[:, :, :2] @ rotation_matrix(angle), frame[:, :, 2:]], dim=2)
        return run_tiled(describe, crop(stored, turned)), angle

    with torch.inference_mode():
        anchors, one = oriented(held.first, random_frames(count, Warp(), generator), angles[0])
        positives, two = oriented(held.second, other, angles[1])
        figures = pair_figures(anchors, positives, held.ignore)
        right = float(((one - two).cos() > math.cos(math.radians(20))).double().mean())
        return {**figures, "within20": right}
