"""From stored patches to what a network is shown: random frames, crops, light; batched, on the patches' device."""

from .frames import (
    DESCRIPTOR_WARPS,
    MARGIN,
    PairWarps,
    Warp,
    compose,
    crop,
    paired_frames,
    random_frames,
    random_tilt,
    rotation_matrix,
)
from .light import Light, relight
from .make import PIECES, Augmentation, AugmentationBySet, make_augmentation
from .pieces import TILT_BY_EPOCH, tilt_at

__all__ = [
    "DESCRIPTOR_WARPS",
    "MARGIN",
    "PIECES",
    "TILT_BY_EPOCH",
    "Augmentation",
    "AugmentationBySet",
    "Light",
    "PairWarps",
    "Warp",
    "compose",
    "crop",
    "make_augmentation",
    "paired_frames",
    "random_frames",
    "random_tilt",
    "relight",
    "rotation_matrix",
    "tilt_at",
]
