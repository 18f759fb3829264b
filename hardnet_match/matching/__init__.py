"""Matches between the features of two images: nearest neighbours, ratio tests, geometry-aware filters."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..devices import choose_device
from ..errors import OptionError
from ..features import Features, Matches
from .adalam import adalam
from .methods import Options, fginn, mnn, smnn, snn

Method = Callable[[Features, Features, torch.device, Options], Matches]

METHODS: dict[str, Method] = {"smnn": smnn, "mnn": mnn, "snn": snn, "fginn": fginn, "adalam": adalam}
"""The methods by name. One more is one function and one line here."""

__all__ = ["METHODS", "Options", "match"]


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
    """
    if method not in METHODS:
        raise OptionError(f"unknown matching method {method!r}; use one of {', '.join(METHODS)}")
    options = Options(ratio, spatial_threshold, mutual, min_inliers, min_confidence)
    with torch.inference_mode():
        return METHODS[method](a, b, choose_device(device), options)
