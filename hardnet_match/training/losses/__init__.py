"""Losses over a batch of matching descriptors, by name (`make_loss`) and by themselves."""

from .dynamic import DynamicSoftMargin
from .geometry import angle_loss, shape_distance
from .make import LOSSES, MINING, Loss, LossOptions, make_loss
from .mining import distance_matrix
from .pairs import constant_negative_loss, hardnegc_loss, l2net_loss
from .regularisers import correlation_penalty, global_orthogonal, second_order
from .tuples import triplet_margin_tuples

__all__ = [
    "LOSSES",
    "MINING",
    "DynamicSoftMargin",
    "Loss",
    "LossOptions",
    "angle_loss",
    "constant_negative_loss",
    "correlation_penalty",
    "distance_matrix",
    "global_orthogonal",
    "hardnegc_loss",
    "l2net_loss",
    "make_loss",
    "second_order",
    "shape_distance",
    "triplet_margin_tuples",
]
