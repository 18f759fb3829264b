"""This package's parts as kornia modules, to be exchanged for kornia's own in its pipelines.

    from kornia.feature import DescriptorMatcher, LocalFeatureMatcher
    from hardnet_match.plugins.kornia import LocalFeature

    matcher = LocalFeatureMatcher(LocalFeature("hesaffnet-hardnet", num_features=2048), DescriptorMatcher("smnn", 0.9))

| here | kornia's | forward |
|---|---|---|
| `LocalFeature` | `LocalFeature` | (img, mask) -> lafs, responses, descriptors |
| `Detector` | `ScaleSpaceDetector`, `KeyNetDetector` | (img, mask) -> lafs, responses |
| `AffineShape` | `LAFAffineShapeEstimator` | (laf, img) -> laf |
| `Orientation` | `LAFOrienter` | (laf, img) -> laf |
| `Descriptor` | `LAFDescriptor` | (img, lafs) -> descriptors |

The networks inside (`.network`) are over patches and fit kornia's wrappers as they are. The other way round,
`FeatureExtractor` takes kornia's modules as its parts.
"""

from __future__ import annotations

from .features import Detector, LocalFeature
from .frames import AffineShape, Descriptor, Orientation

__all__ = ["AffineShape", "Descriptor", "Detector", "LocalFeature", "Orientation"]
