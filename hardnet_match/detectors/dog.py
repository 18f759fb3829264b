"""Difference of Gaussians: the blobs of SIFT (Lowe, IJCV 2004)."""

from __future__ import annotations

import cv2
from torch import Tensor

from ..errors import DataError
from ..pyramid import image_of, plane, uses_opencv
from .scale_space import ScaleSpaceDetector


class DoG(ScaleSpaceDetector):
    """Extrema of the difference of neighbouring scales; arguments and shapes are those of `ScaleSpaceDetector`."""

    default_threshold = 0.002
    needs_finer = True

    def response(self, image: Tensor, finer: Tensor | None, sigma: float) -> Tensor:
        del sigma  # the difference is scale-normalised as it stands
        if finer is None:
            raise DataError("a difference of Gaussians needs two scales")
        if uses_opencv(image):
            return image_of(cv2.subtract(plane(image), plane(finer)))
        return image - finer
