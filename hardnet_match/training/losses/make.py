"""Losses by name, with their mining and what is added to them."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import DataError, OptionError
from .dynamic import DynamicSoftMargin
from .mining import (
    distance_matrix,
    hardest,
    hardest_of_all,
    negatives_of,
    no_negatives,
    pair_distance,
    random_of_batch,
)
from .pairs import KINDS, average, compare, constant_negative_loss, hardnegc_loss, l2net_loss
from .regularisers import correlation_penalty, global_orthogonal, second_order
from .tuples import triplet_margin_tuples

MINING = ("hardest", "average", "random", "random_global", "hardest_of_all")
LOSSES = (
    *KINDS,
    "l2net",
    "triplet_margin++",
    "dynamic_soft_margin",
    "hardnegc",
    "constant_negative",
    "positive_distance",
)


@dataclass(frozen=True)
class LossOptions:
    """What a loss is made of.

    Args:
        name: one of `LOSSES`. `triplet_margin`, `softmax`, `contrastive` and `quadratic_hinge` (SOSNet's) go with any
            mining, `dynamic_soft_margin` with any but `average`; the others bring their own. `hardnegc` is AffNet's,
            `constant_negative` its stricter relative, `positive_distance` only pulls pairs together.
        mining: which negatives: the `hardest` of the batch, the `average` over all, a `random` one of the batch,
            `random_global`, the third row of the batch, or `hardest_of_all`, anchors among themselves included.
        margin: of hinges.
        anchor_swap: look for the negative from the positive's side, too.
        gor: weight of the global orthogonal regularisation.
        correlation: weight of L2-Net's correlation penalty.
        second_order: weight of SOSNet's second-order similarity.
        neighbours: K of the latter.
    """

    name: str = "triplet_margin"
    mining: str = "hardest"
    margin: float = 1.0
    anchor_swap: bool = True
    gor: float = 0.0
    correlation: float = 0.0
    second_order: float = 0.0
    neighbours: int = 8

    def __post_init__(self) -> None:
        if self.name not in LOSSES:
            raise OptionError(f"there is no loss {self.name!r}; there are {', '.join(LOSSES)}")
        if self.mining not in MINING:
            raise OptionError(f"there is no mining {self.mining!r}; there is {', '.join(MINING)}")
        own = self.name not in (*KINDS, "dynamic_soft_margin")
        if (own and self.mining != "hardest") or (self.name == "dynamic_soft_margin" and self.mining == "average"):
            raise OptionError(f"the loss {self.name} does not go with the mining {self.mining}")
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "float" and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{field.name} of a loss is a number of zero or more, got {value!r}")
        if self.neighbours < 1:
            raise OptionError(f"second-order similarity looks at one neighbour or more, got {self.neighbours}")


class Loss(nn.Module):
    """A loss over a batch of descriptors, see `make_loss`."""

    def __init__(self, options: LossOptions) -> None:
        super().__init__()
        self.options = options
        self.dynamic = DynamicSoftMargin() if options.name == "dynamic_soft_margin" else None

    @property
    def views(self) -> int | None:
        """How many rows a batch has; any number of two or more when None. GOR may have a third row besides."""
        if self.options.name == "triplet_margin++":
            return None
        return 3 if self.options.mining == "random_global" else 2

    def forward(
        self,
        descriptors: Tensor,
        label: Tensor,
        same: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The loss, a number.

        Args:
            descriptors: (V, B, D), of unit length; V is 2, or 3 with patches of other labels in the third row (for
                `random_global` and GOR), or any number for tripletMargin++.
            label: (V, B) integers.
            same: (B, B) bool, pairs (i, j) that are no negatives although their labels differ; or None.
            generator: of the `random` mining; torch's own when None.

        Raises:
            DataError: shapes that do not fit, or a third row missing.
        """
        options = self.options
        self._check(descriptors, label, same)
        anchors, positives = descriptors[0], descriptors[1]
        excluded = no_negatives(label[0], same)
        if options.name == "triplet_margin++":
            views = len(descriptors)
            spread = None if same is None else (same | same.T).repeat(views, views)
            loss = triplet_margin_tuples(descriptors.flatten(0, 1), label.flatten(), options.margin, same=spread)
        elif options.name == "l2net":
            loss = l2net_loss(anchors, positives, anchor_swap=options.anchor_swap, excluded=excluded)
        elif options.name == "hardnegc":
            loss = hardnegc_loss(anchors, positives, options.margin, excluded=excluded)
        elif options.name == "constant_negative":
            loss = constant_negative_loss(anchors, positives, options.margin, excluded=excluded)
        elif options.name == "positive_distance":
            loss = pair_distance(anchors, positives).mean()
        else:
            loss = self._mined(descriptors, excluded, generator)
        if options.gor:
            # without a third row, the next pair's positive is the stranger
            strangers = descriptors[2] if self._has_strangers(descriptors) else positives.roll(1, 0)
            loss = loss + options.gor * global_orthogonal(anchors, strangers)
        if options.correlation:
            loss = loss + options.correlation * correlation_penalty(anchors)
        if options.second_order:
            loss = loss + options.second_order * second_order(
                anchors, positives, options.neighbours, excluded=excluded | excluded.T
            )
        return loss

    def _has_strangers(self, descriptors: Tensor) -> bool:
        return self.views is not None and len(descriptors) == 3

    def _mined(self, descriptors: Tensor, excluded: Tensor, generator: torch.Generator | None) -> Tensor:
        options = self.options
        anchors, positives = descriptors[0], descriptors[1]
        if options.mining == "random_global":
            positive = pair_distance(anchors, positives)
            negative = pair_distance(anchors, descriptors[2])
            if options.anchor_swap:
                negative = torch.minimum(negative, pair_distance(positives, descriptors[2]))
        else:
            distances = distance_matrix(anchors, positives)
            positive, negatives = distances.diagonal(), negatives_of(distances, excluded)
            if options.mining == "average":
                counted = ~excluded & (negatives == distances)
                return average(
                    options.name, positive, negatives, counted, options.margin, anchor_swap=options.anchor_swap
                )
            if options.mining == "random":
                negative = random_of_batch(negatives, anchor_swap=options.anchor_swap, generator=generator)
            elif options.mining == "hardest_of_all":
                negative = hardest_of_all(anchors, positives, excluded)
            else:
                negative = hardest(negatives, anchor_swap=options.anchor_swap)
        if self.dynamic is not None:
            loss: Tensor = self.dynamic(positive, negative)
            return loss
        return compare(options.name, positive, negative, options.margin).mean()

    def _check(self, descriptors: Tensor, label: Tensor, same: Tensor | None) -> None:
        rows = len(descriptors)
        fits = rows == self.views or (rows == 3 and self.options.gor > 0) if self.views else rows >= 2
        if descriptors.ndim != 3 or descriptors.shape[:2] != label.shape or not fits:
            raise DataError(
                f"the loss {self.options.name} with mining {self.options.mining} takes descriptors "
                f"({self.views or 'V'}, B, D) and labels ({self.views or 'V'}, B); "
                f"got {tuple(descriptors.shape)} and {tuple(label.shape)}"
            )
        count = descriptors.shape[1]
        if same is not None and tuple(same.shape) != (count, count):
            raise DataError(f"pairs that are no negatives must be ({count}, {count}), got {tuple(same.shape)}")
        if count < 2:
            raise DataError(f"a loss over a batch needs two labels or more, got {count}")


def make_loss(name: str = "triplet_margin", **options: Any) -> Loss:
    """A loss by name; `loss(descriptors (V, B, D), label (V, B), same (B, B) or None) -> Tensor`.

    Args:
        name: see `LossOptions`.
        options: the other fields of `LossOptions`.

    Returns:
        A module. It has state, which belongs into a checkpoint, where the loss learns from batch to batch
        (`dynamic_soft_margin`); the state dict of the others is empty.

    Raises:
        OptionError: an unknown name or option, or a value that cannot be.
    """
    known = [field.name for field in fields(LossOptions)]
    for key in options:
        if key not in known:
            raise OptionError(f"a loss has no option {key!r}; it has {', '.join(known)}")
    return Loss(LossOptions(name=name, **options))
