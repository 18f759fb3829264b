"""Matches between the features of two images: nearest neighbours, ratio tests, geometry-aware filters."""

from __future__ import annotations

import torch

from ..devices import choose_device
from ..features import Features, Matches
from .methods import Options
from .named import METHODS, Method, method_named, method_settings

__all__ = ["METHODS", "Method", "Options", "match", "method_named", "method_settings"]


def match(
    a: Features,
    b: Features,
    method: str = "smnn",
    ratio: float = 0.9,
    device: str | torch.device = "auto",
    *,
    spatial_threshold: float = 10.0,
    mutual: bool = True,
    min_inliers: int = 6,
    min_confidence: float = 200.0,
) -> Matches:
    """Match two images' features by the Euclidean distance of their descriptors.

    Args:
        method: `mnn` mutual nearest neighbours; `snn` ratio test; `smnn` mutual, ratio test both ways; `fginn` ratio
            test with a geometrically inconsistent second neighbour; `adalam` neighbours that agree with a local
            affine map.
        ratio: largest ratio of nearest to second nearest distance (`snn`, `smnn`, `fginn`), a ratio equal to it passes.
            Two equally near neighbours have ratio 1, also where both distances are 0. A set of one has no second
            neighbour: the ratio test then passes nothing.
        device: `auto`, `cpu`, `cuda`, `mps`.
        spatial_threshold: `fginn`: pixels in the second image from the nearest neighbour at which a second one counts.
        mutual: `fginn`: also ask that the two are each other's nearest.
        min_inliers, min_confidence: `adalam`: see `Options`.

    Returns:
        Matches in order of the first image's rows, at most one a row; scores larger is
        better: 1 / (1 + distance) for `mnn`, 1 - ratio for the ratio tests (the larger of the two ratios for
        `smnn`), 1 - inverse confidence for `adalam`. Equal distances: the lower row.

    Raises:
        OptionError: no such method or device, or a value that cannot work.
        DataError: the descriptors differ in dimension, or hold NaN or infinity.
        PluginError: another package's method cannot be loaded or fails.
    """
    chosen = method_named(method)
    options = Options(ratio, spatial_threshold, mutual, min_inliers, min_confidence)
    with torch.inference_mode():
        return chosen(a, b, choose_device(device), options)
