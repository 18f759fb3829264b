"""kornia's stock compositions, carrying this package's weights: the same networks in kornia's own pipeline.

Only what surrounds the networks differs from our presets of the like names: kornia's detectors, patches and order of
steps. Orientation is the dominant gradient's, as with ours.
"""

from __future__ import annotations

import inspect
import threading
from abc import abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ... import weights as weight_files
from ...errors import OptionError
from ...features import Features
from .base import Peer

_PATCH = 32


class _Composition(Peer):
    """`LocalFeature` of a detector with AffNet and the dominant orientation, and HardNet."""

    def __init__(self, max_keypoints: int) -> None:
        super().__init__(max_keypoints)
        self._local: Any = None
        self._making = threading.Lock()

    @property
    def settings(self) -> dict[str, Any]:
        used = {name: weight_files.file_hash(f"{name}-bundled") for name in ("affnet", "hardnet")}
        return {**super().settings, "weights": used}

    @abstractmethod
    def _detector(self, shape: Any, orientation: Any) -> Any:
        """kornia's detector, the affine shape and the orientation put into it."""

    @torch.inference_mode()
    def extract(self, image: NDArray[np.uint8]) -> Features:
        from kornia import feature

        with self._making:  # images may come in several threads
            if self._local is None:
                shape = _carrying(feature.LAFAffNetShapeEstimator(False), "affnet")
                describe = _carrying(feature.HardNet(False), "hardnet")
                detector = self._detector(shape, feature.LAFOrienter(_PATCH))
                self._local = feature.LocalFeature(detector, feature.LAFDescriptor(describe, _PATCH)).eval()
        tensor = torch.from_numpy(image).float()[None, None] / 255
        lafs, scores, descriptors = self._local(tensor)
        # What is missing of the number asked for comes as frames of zeros.
        real = lafs[0].ne(0).flatten(1).any(1)
        order = torch.argsort(scores[0][real], descending=True, stable=True)
        frames, strength, rows = (part[0][real][order].float().numpy() for part in (lafs, scores, descriptors))
        return Features(frames, strength, rows, (image.shape[1], image.shape[0]))


class KorniaHesAffNet(_Composition):
    """Hessian blobs of a doubled image's scale pyramid."""

    name, about = "kornia-hesaffnet-hardnet", "kornia's Hessian + AffNet + HardNet with our weights"

    def _detector(self, shape: Any, orientation: Any) -> Any:
        return _scale_space(self.max_keypoints, "BlobHessian", shape, orientation)


class KorniaDoGAffNet(_Composition):
    """Differences of Gaussians, set up as in kornia's own SIFTFeatureScaleSpace."""

    name, about = "kornia-dogaffnet-hardnet", "kornia's DoG + AffNet + HardNet with our weights"

    def _detector(self, shape: Any, orientation: Any) -> Any:
        from kornia.feature import ScaleSpaceDetector
        from kornia.geometry import ConvQuadInterp3d

        known = inspect.signature(ScaleSpaceDetector.__init__).parameters
        refinement = "subpix_module" if "subpix_module" in known else "nms_module"  # its name until kornia 0.9
        options: dict[str, Any] = {refinement: ConvQuadInterp3d()}
        return _scale_space(
            self.max_keypoints,
            "BlobDoG",
            shape,
            orientation,
            scale_space_response=True,
            minima_are_also_good=True,
            **options,
        )


class KorniaKeyNet(_Composition):
    """kornia's KeyNetAffNetHardNet.

    Args:
        detector_weights: of Key.Net, a registered name or a file; the class itself would download them.
    """

    name, about = "kornia-keynetaffnet-hardnet", "kornia's Key.Net (weights given) + AffNet + HardNet with our weights"

    def __init__(self, max_keypoints: int, detector_weights: str | None = None) -> None:
        super().__init__(max_keypoints)
        if detector_weights is None:
            raise OptionError(f"the peer {self.name} needs Key.Net's weights: give them as --detector-weights")
        self._weights = detector_weights

    @property
    def settings(self) -> dict[str, Any]:
        mine = super().settings
        return {**mine, "weights": {**mine["weights"], "keynet": weight_files.file_hash(self._weights)}}

    def _detector(self, shape: Any, orientation: Any) -> Any:
        from kornia import feature

        detector = feature.KeyNetDetector(False, self.max_keypoints, ori_module=orientation, aff_module=shape)
        detector.model.load_state_dict(weight_files.load_state_dict(self._weights, "keynet"))
        return detector


def _scale_space(count: int, response: str, shape: Any, orientation: Any, **options: Any) -> Any:
    from kornia import feature
    from kornia.geometry import ScalePyramid

    return feature.ScaleSpaceDetector(
        count,
        resp_module=getattr(feature, response)(),
        scale_pyr_module=ScalePyramid(3, 1.6, 32, double_image=True),
        ori_module=orientation,
        aff_module=shape,
        mr_size=6.0,
        **options,
    )


def _carrying(module: Any, name: str) -> Any:
    module.load_state_dict(weight_files.load_state_dict(f"{name}-bundled", name), strict=False)
    return module
