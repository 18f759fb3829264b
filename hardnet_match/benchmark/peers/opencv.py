"""OpenCV's own: SIFT and RootSIFT, AKAZE, ORB."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError
from ...features import Features
from ...frames import from_opencv
from .base import Peer, as_bits

_SIFT_CONTRAST = 0.01  # OpenCV's own 0.04 leaves most photos short of a few thousand keypoints
_AKAZE_THRESHOLD = 1e-4  # likewise, instead of 1e-3


def _features(keypoints: Any, descriptors: NDArray[Any] | None, image: NDArray[np.uint8], count: int) -> Features:
    """The strongest `count`; none where OpenCV gives None."""
    response = np.array([point.response for point in keypoints], dtype=np.float32)
    best = np.sort(np.argsort(-response, kind="stable")[:count])
    rows = np.zeros((0, 1), np.uint8) if descriptors is None else descriptors
    size = (image.shape[1], image.shape[0])
    return Features(from_opencv(keypoints)[best], response[best], rows[: len(response)][best], size)


class Sift(Peer):
    """SIFT (Lowe, IJCV 2004) as OpenCV has it, the doubled image without its shift of a quarter pixel."""

    name, about = "sift", "OpenCV's SIFT, contrast threshold .01, precise upscaling"

    def extract(self, image: NDArray[np.uint8]) -> Features:
        import cv2

        detector = cv2.SIFT.create(self.max_keypoints, 3, _SIFT_CONTRAST, 10, 1.6, True)
        keypoints, descriptors = detector.detectAndCompute(image, None)
        rows = None if descriptors is None else self._described(descriptors)
        found = _features(keypoints, rows, image, self.max_keypoints)
        return found if rows is not None else Features(
            found.lafs, found.scores, np.zeros((0, 128), np.uint8), found.image_size
        )  # fmt: skip

    def _described(self, descriptors: NDArray[np.float32]) -> NDArray[Any]:
        return descriptors.astype(np.uint8)  # whole numbers up to 255 as they are


class RootSift(Sift):
    """The square root of L1-normalised SIFT (Arandjelović and Zisserman, CVPR 2012)."""

    name, about = "rootsift", "the same keypoints, the root of L1-normalised descriptors"

    def _described(self, descriptors: NDArray[np.float32]) -> NDArray[Any]:
        return np.asarray(np.sqrt(descriptors / np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)), np.float32)


class Akaze(Peer):
    """AKAZE (Alcantarilla et al., BMVC 2013): binary descriptors of 486 bits."""

    name, about = "akaze", "OpenCV's AKAZE, threshold 1e-4, the strongest; Hamming distance"

    def extract(self, image: NDArray[np.uint8]) -> Features:
        import cv2

        home: Any = cv2 if hasattr(cv2, "AKAZE_create") else getattr(cv2, "xfeatures2d", None)
        if not hasattr(home, "AKAZE_create"):
            raise OptionError(
                f"OpenCV {cv2.__version__} has no AKAZE: version 5 moved it to the package "
                "opencv-contrib-python-headless; install that one, or OpenCV 4, or leave akaze out"
            )
        keypoints, descriptors = home.AKAZE_create(threshold=_AKAZE_THRESHOLD).detectAndCompute(image, None)
        packed = np.zeros((0, 61), np.uint8) if descriptors is None else descriptors
        return _features(keypoints, as_bits(packed), image, self.max_keypoints)


class Orb(Peer):
    """ORB (Rublee et al., ICCV 2011): binary descriptors of 256 bits."""

    name, about = "orb", "OpenCV's ORB with its defaults; Hamming distance"

    def extract(self, image: NDArray[np.uint8]) -> Features:
        import cv2

        keypoints, descriptors = cv2.ORB.create(self.max_keypoints).detectAndCompute(image, None)
        packed = np.zeros((0, 32), np.uint8) if descriptors is None else descriptors
        return _features(keypoints, as_bits(packed), image, self.max_keypoints)
