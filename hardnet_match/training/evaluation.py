"""Figures of the network in training, on patch sets that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import DataError
from ..inference import PatchNetwork, run_tiled
from ..metrics.patches import fpr95, matching_ap, retrieval_map, verification_map
from .augment import Light, Warp, crop
from .judge import SECOND_VIEW_ERROR, Held, descriptor_figures, hold_out, orientation_figures, shape_figures
from .patchset import PatchSet

TURNED_VIEW_ERROR = Warp(octaves=0.2, shift=1.0, tilt=1.3)
"""Put on the second views when orientations are judged."""
FIGURES = {
    "descriptor": ("fpr95", "rank1", "verification", "matching", "retrieval", "fpr95_hard", "rank1_hard"),
    "shape": ("fpr95", "rank1", "covariance"),
    "orientation": ("fpr95", "rank1", "within20"),
}
"""What is measured, by task."""
LOWEST = ("fpr95", "fpr95_hard", "covariance")
"""Figures of which less is better."""
_MOST_MATCHES = 20_000


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """What figures of one set are taken on.

    Args:
        name: of the set.
        held: pairs, one a class.
        distractors: (N, S, S) uint8 patches of other classes, to retrieve among.
        matches: (K, 3) test pairs that came with the data, rows into `tested`; or None.
        tested: (M, S, S) uint8 patches of the test pairs.
    """

    name: str
    held: Held
    distractors: Tensor
    matches: Tensor | None = None
    tested: Tensor | None = None


def evaluation_set(name: str, observations: PatchSet, pairs: int = 1000, seed: int = 0) -> EvaluationSet:
    """Choose what is measured on a set, always the same for the same numbers.

    Args:
        name: of the set.
        observations: with two patches or more of some classes; classes of one patch are distractors.
        pairs: classes to measure on, at most.
        seed: of the choice.

    Raises:
        DataError: it has no two classes of two patches each.
    """
    starts = np.flatnonzero(np.r_[True, np.diff(observations.track) > 0])
    counts = np.diff(np.r_[starts, len(observations)])
    several = np.repeat(counts > 1, counts)
    if np.count_nonzero(counts > 1) < 2:
        raise DataError(f"the patch set {name} has no two classes of two patches each: nothing can be measured on it")
    rng = np.random.default_rng(seed)
    # part of a large set: enough classes to draw from, without reading all of it
    chosen = np.sort(rng.permutation(np.flatnonzero(counts > 1))[: 2 * pairs])
    rows = np.flatnonzero(np.isin(np.repeat(np.arange(len(counts)), counts), chosen) & several)
    part = observations.select(rows)
    held = hold_out(part, min(pairs, len(chosen)), seed)
    other = np.flatnonzero(~np.isin(observations.track, held.track))
    if len(other):
        other = np.sort(rng.permutation(other)[: 4 * pairs])
    distractors = torch.from_numpy(np.ascontiguousarray(observations.patches[other]))
    matches = observations.matches
    if matches is None or not len(matches):
        return EvaluationSet(name, held, distractors)
    some = matches[np.sort(rng.permutation(len(matches))[:_MOST_MATCHES])]
    used, place = np.unique(some[:, :2], return_inverse=True)
    rows_of_pairs = np.c_[place.reshape(-1, 2), some[:, 2]]
    tested = torch.from_numpy(np.ascontiguousarray(observations.patches[used]))
    return EvaluationSet(name, held, distractors, torch.from_numpy(rows_of_pairs), tested)


def descriptor_evaluation(network: PatchNetwork, data: EvaluationSet) -> dict[str, float]:
    """Figures of a descriptor, in [0, 1].

    Returns:
        `fpr95`: on the set's own test pairs, or else over all other held-out patches as negatives; `rank1`: how often
        the own second view is the nearest; `fpr95_hard`, `rank1_hard`: with errors of frame and light on the second
        view; `verification`, `matching`, `retrieval`: mAP of the three tasks of HPatches, on these pairs (its own
        images and pools are the benchmark's; here the set is one sequence).
    """
    figures = descriptor_figures(network, data.held)
    hard = descriptor_figures(network, data.held, SECOND_VIEW_ERROR, Light())
    device = _device(network)
    ready = network.eval().fused()

    def described(stored: Tensor) -> Tensor:
        plain = torch.eye(2, 3, device=device)
        parts = []
        for part in torch.split(stored, 8192):
            patches = crop(part.to(device), plain.expand(len(part), 2, 3), network.patch_size, data.held.margin)
            parts.append(run_tiled(ready, patches))
        return torch.cat(parts) if parts else torch.empty(0)

    with torch.inference_mode():
        if data.matches is not None and data.tested is not None:
            tested = described(data.tested)
            pairs = data.matches.to(device)
            distance = (tested[pairs[:, 0]] - tested[pairs[:, 1]]).norm(dim=1)
            same = pairs[:, 2] == 1
            if bool(same.any()) and not bool(same.all()):
                figures["fpr95"] = fpr95(distance[same], distance[~same])
        first, second = described(data.held.first), described(data.held.second)
        far = described(data.distractors) if len(data.distractors) else second
        figures.update(_tasks(first, second, far, data))
    return {**figures, **{f"{name}_hard": value for name, value in hard.items()}}


def _tasks(first: Tensor, second: Tensor, far: Tensor, data: EvaluationSet) -> dict[str, float]:
    """The three tasks; a set is one sequence, so negatives within it stand for both kinds of verification."""
    ignore = data.held.ignore.to(first.device).clone()
    ignore.fill_diagonal_(False)
    own = (first - second).norm(dim=1)
    shift = 1 + len(first) // 2
    other = (first - second.roll(shift, 0)).norm(dim=1)
    place = torch.arange(len(first), device=first.device)
    kept = ~ignore[place, (place - shift) % len(first)]
    among = (first - far[place % len(far)]).norm(dim=1)
    verification = verification_map(own, other[kept], among if len(data.distractors) else other[kept])
    pool = len(far) + 1
    retrieval = retrieval_map(first, second[:, None], far, pools=(max(pool, 2),))
    return {
        "verification": verification.imbalanced,
        "matching": matching_ap(first, second, ignore),
        "retrieval": next(iter(retrieval.values())),
    }


def shape_evaluation(network: PatchNetwork, descriptor: PatchNetwork, data: EvaluationSet) -> dict[str, float]:
    """See `judge.shape_figures`."""
    return shape_figures(network, descriptor, data.held)


def orientation_evaluation(network: PatchNetwork, descriptor: PatchNetwork, data: EvaluationSet) -> dict[str, float]:
    """See `judge.orientation_figures`; the second view has errors of scale, place and shape."""
    return orientation_figures(network, descriptor, data.held, TURNED_VIEW_ERROR)


def over_sets(judge: Callable[[EvaluationSet], dict[str, float]], sets: list[EvaluationSet]) -> dict[str, float]:
    """Figures of every set as `SET/FIGURE`, and their means over the sets as `FIGURE`."""
    found = {data.name: judge(data) for data in sets}
    out = {f"{name}/{key}": value for name, row in found.items() for key, value in row.items()} if len(sets) > 1 else {}
    names = dict.fromkeys(key for row in found.values() for key in row)
    return {**{key: _mean([row[key] for row in found.values() if key in row]) for key in names}, **out}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _device(network: torch.nn.Module) -> torch.device:
    first: Mapping[str, Tensor] = network.state_dict()
    return next(iter(first.values())).device if first else torch.device("cpu")
