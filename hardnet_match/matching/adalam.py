"""AdaLAM: keep matches that agree with an affine map of their neighbourhood (Cavalli et al., ECCV 2020)."""

from __future__ import annotations

import torch

from ..errors import DataError
from ..features import Features, Matches
from ..frames import laf_orientation, laf_scale
from .methods import Options, as_matches, descriptors_of
from .nearest import mutual, two_nearest


def adalam(a: Features, b: Features, device: torch.device, options: Options) -> Matches:
    """Nearest neighbours filtered by kornia's AdaLAM with the frames' centres, orientations and scales.

    Seeds are mutual nearest neighbours; a match stays where at least `options.min_inliers` others around a seed
    agree with it. Score 1 - inverse confidence of the local RANSAC that accepted it. Fewer than two features on a
    side, and pairs of images in which no seed finds support, give no matches.

    Raises:
        DataError: descriptors cannot be matched, or a frame has no area.
    """
    from kornia.feature.adalam.adalam import AdalamFilter, get_adalam_default_config

    first, second = descriptors_of(a, b, device)
    if len(first) < 2 or len(second) < 2:
        empty = torch.empty(0, dtype=torch.int64)
        return as_matches(empty, empty, torch.empty(0))
    forward, backward = two_nearest(first, second)
    squared = forward.distance.square()
    config = get_adalam_default_config()
    config.update(device=device, min_inliers=options.min_inliers, min_confidence=options.min_confidence)
    geometry = []
    for features in (a, b):
        scale = laf_scale(features.lafs)
        if not (scale > 0).all():
            raise DataError("a frame has no area; AdaLAM needs real frames (a foreign file with zero `scales`?)")
        arrays = (features.keypoints, laf_orientation(features.lafs), scale)
        geometry.append([torch.as_tensor(array, device=device) for array in arrays])
    (k1, o1, s1), (k2, o2, s2) = geometry
    index, inverse = AdalamFilter(config).filter_matches(
        k1,
        k2,
        forward.index[:, 0],
        squared[:, 0] / squared[:, 1].clamp(min=1e-3),
        mutual(forward.index[:, 0], backward.index[:, 0]),
        a.image_size,
        b.image_size,
        o1,
        o2,
        s1,
        s2,
        return_dist=True,
    )
    inverse = inverse.reshape(-1)
    # Where no seed survives kornia falls back to a plain ratio test and gives the ratios: these have no support.
    supported = inverse <= 1 / options.min_confidence
    order = torch.argsort(index[supported, 0])
    rows, columns = index[supported][order].unbind(dim=1)
    return as_matches(rows, columns, 1 - inverse[supported][order])
