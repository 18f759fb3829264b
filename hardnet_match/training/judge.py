"""Figures of the three networks on pairs that were kept from training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..inference import PatchNetwork, run_tiled
from ..metrics.patches import pair_figures
from .augment import MARGIN, Light, Warp, crop, random_frames, random_tilt, relight, rotation_matrix
from .losses import shape_distance
from .patchset import PatchSet
from .sampling import PairSampler

SECOND_VIEW_ERROR = Warp(rotation=12, octaves=0.25, shift=2.0, tilt=1.4)
"""Put on the second views when descriptors are judged, on top of the true change of view: detectors err."""


@dataclass(frozen=True, eq=False)
class Held:
    """Pairs of a set kept from training.

    Args:
        first, second: (N, S, S) uint8.
        ignore: (N, N) bool, which others are no negatives.
        margin: side of a stored patch over the side of the measurement region.
        track: (N,) int64, the classes.
    """

    first: Tensor
    second: Tensor
    ignore: Tensor
    margin: float = MARGIN
    track: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def to(self, device: torch.device) -> Held:
        """The same on a device."""
        first, second, ignore = (tensor.to(device) for tensor in (self.first, self.second, self.ignore))
        return replace(self, first=first, second=second, ignore=ignore)


def hold_out(observations: PatchSet, count: int = 1000, seed: int = 0) -> Held:
    """Pairs of different views, the wider of two drawn, at most `count`, always the same ones."""
    sampler = PairSampler(observations, focus=0)
    first, second = sampler.pairs(count, np.random.default_rng(seed))
    return Held(
        torch.from_numpy(observations.patches[first]),
        torch.from_numpy(observations.patches[second]),
        torch.from_numpy(sampler.same_place(first, second)),
        observations.margin,
        observations.track[first],
    )


def _device(*networks: nn.Module | None) -> torch.device:
    """Where the first network with weights has them."""
    for network in networks:
        for tensor in network.state_dict().values() if network is not None else ():
            return torch.device(tensor.device)
    return torch.device("cpu")


def _ready(network: PatchNetwork | None) -> PatchNetwork | None:
    return None if network is None else network.eval().fused()


def descriptor_figures(
    descriptor: PatchNetwork, held: Held, warp: Warp | None = None, light: Light | None = None, seed: int = 0
) -> dict[str, float]:
    """`fpr95` and `rank1` of a descriptor on held-out pairs.

    Args:
        descriptor: on any device.
        held: the pairs.
        warp, light: put on the second view as well; nothing where None.
        seed: of those changes.
    """
    network = descriptor.eval().fused()
    # drawn on the processor whatever the device, so that figures of two devices are of the same changes
    generator = torch.Generator().manual_seed(seed)
    count, device = len(held.first), _device(descriptor)
    with torch.inference_mode():
        anchors = crop(held.first, random_frames(count, Warp(), generator), margin=held.margin)
        positives = crop(held.second, random_frames(count, warp or Warp(), generator), margin=held.margin)
        if light is not None:
            positives = relight(positives, light, generator)
        first, second = (run_tiled(network, patches.to(device)) for patches in (anchors, positives))
        return pair_figures(first, second, held.ignore.to(device))


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
    device = _device(shape, descriptor)
    held = held.to(device)
    turns = (rotation_matrix(2 * math.pi * torch.rand(count, generator=generator)) for _ in range(2))
    turn, other_turn = (one.to(device) for one in turns)
    stretch = random_tilt(count, tilt, generator).to(device)
    stretched = torch.linalg.cholesky(stretch @ stretch.mT)
    plain = torch.eye(2, device=device).expand(count, 2, 2)
    centre = torch.zeros(count, 2, 1, device=device)

    def adapted(stored: Tensor, upright: Tensor, turn: Tensor = turn) -> Tensor:
        if estimate is None:
            return upright
        patches = crop(stored, torch.cat([turn @ upright, centre], dim=2), margin=held.margin)
        return upright @ run_tiled(estimate, patches)

    def described(stored: Tensor, frame: Tensor) -> Tensor:
        return run_tiled(describe, crop(stored, torch.cat([turn @ frame, centre], dim=2), margin=held.margin))

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
    count, device = len(held.first), _device(orientation, descriptor)
    held = held.to(device)
    angles = (2 * math.pi * torch.rand(2, count, generator=generator)).to(device)
    other = random_frames(count, warp or Warp(), generator).to(device)
    plain = random_frames(count, Warp(), generator).to(device)

    def oriented(stored: Tensor, frame: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
        turned = torch.cat([frame[:, :, :2] @ rotation_matrix(angle), frame[:, :, 2:]], dim=2)
        if estimate is not None:
            angle = angle + run_tiled(estimate, crop(stored, turned, margin=held.margin))
            turned = torch.cat([frame[:, :, :2] @ rotation_matrix(angle), frame[:, :, 2:]], dim=2)
        return run_tiled(describe, crop(stored, turned, margin=held.margin)), angle

    with torch.inference_mode():
        anchors, one = oriented(held.first, plain, angles[0])
        positives, two = oriented(held.second, other, angles[1])
        figures = pair_figures(anchors, positives, held.ignore)
        right = float(((one - two).cos() > math.cos(math.radians(20))).double().mean())
        return {**figures, "within20": right}
