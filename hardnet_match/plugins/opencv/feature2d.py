"""OpenCV's Feature2D, in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, OptionError
from ...extractor import FeatureExtractor
from ...frames import from_opencv, to_opencv
from ...presets import DEFAULT_PRESET

Keypoints = tuple[cv2.KeyPoint, ...]
Descriptors = NDArray[np.float32] | None

_SIZE = 32
"""Side of the patches that a descriptor of unknown width is asked about."""


class Feature2D:
    """Detector and descriptor as OpenCV has them.

    Images are grey (H, W) or (H, W, 1), BGR (H, W, 3) or BGRA (H, W, 4), uint8 (uint16 and float in [0, 1] too), as
    numpy arrays or `cv2.UMat`; masks (H, W) uint8, keypoints only where they are not 0. A keypoint has `pt` in pixels
    (the centre of the first pixel is (0, 0)), `size` the diameter of its blob in pixels (two standard deviations; with
    an affine shape the circle of the same area), `angle` in degrees, clockwise, and `response`. It has no room for the
    affine shape: `compute` finds it again from the image, so that `compute` after `detect` gives what
    `detectAndCompute` gives. Descriptors are rows of float32, compared by `cv2.NORM_L2`; None where there are none.

    Args:
        extractor: what to compute with.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        self.extractor = extractor

    @classmethod
    def create(cls, nfeatures: int = 4096, preset: str = DEFAULT_PRESET, **options: Any) -> Feature2D:
        """As `cv2.SIFT_create`.

        Args:
            nfeatures: strongest keypoints kept of an image.
            preset, options: as in `FeatureExtractor.from_preset`.

        Raises:
            OptionError, WeightsError: as there.
        """
        return cls(FeatureExtractor.from_preset(preset, max_keypoints=nfeatures, **options))

    def detect(self, image: Any, mask: Any = None) -> Any:
        """Keypoints of an image, strongest first; of a list of images (and one of masks), a tuple of such tuples.

        Raises:
            DataError: not an image, or the mask is of another size.
        """
        if isinstance(image, list | tuple):
            masks = mask if mask is not None else [None] * len(image)
            return tuple(self.detect(one, allowed) for one, allowed in zip(image, masks, strict=True))
        return self.detectAndCompute(image, mask)[0]

    def compute(self, image: Any, keypoints: Any, descriptors: Any = None) -> Any:
        """Descriptors of given keypoints, of any detector: one row each, in their order, none is dropped.

        The patch is sized by the keypoint's `size`, affine where the extractor has an affine shape, and turned by its
        `angle`; where that is -1 the orientation is found and set in the keypoint that is given back.

        Args:
            image, keypoints: an image and its keypoints; or lists of images and of their keypoints.
            descriptors: OpenCV's place for the result; not used.

        Returns:
            (keypoints, descriptors).

        Raises:
            DataError: not an image, or a keypoint without size.
        """
        if isinstance(image, list | tuple):
            both = [self.compute(one, points) for one, points in zip(image, keypoints, strict=True)]
            return tuple(points for points, _ in both), tuple(rows for _, rows in both)
        given: Keypoints = tuple(keypoints)
        pixels = _pixels(image)
        if not given or not pixels.size:
            return given if pixels.size else (), None
        bad = next((index for index, point in enumerate(given) if not point.size > 0), None)
        if bad is not None:
            raise DataError(f"keypoint {bad} has size {given[bad].size}: the patch to describe is sized by it")
        unoriented = np.array([point.angle < 0 for point in given])
        features = self.extractor.describe(pixels, from_opencv(given), adapt=True, orient=unoriented)
        if unoriented.any():
            angles = [turned.angle for turned in to_opencv(features.lafs)]
            given = tuple(
                _turned(point, angle) if new else point
                for point, angle, new in zip(given, angles, unoriented, strict=True)
            )
        return given, _rows(features.descriptors)

    def detectAndCompute(
        self,
        image: Any,
        mask: Any = None,
        descriptors: Any = None,
        useProvidedKeypoints: bool = False,
    ) -> tuple[Keypoints, Descriptors]:
        """Keypoints and their descriptors; ((), None) where there are none.

        Raises:
            DataError: not an image, or the mask is of another size.
        """
        del descriptors
        if useProvidedKeypoints:
            raise DataError("Python cannot hand keypoints to detectAndCompute; use compute(image, keypoints)")
        pixels = _pixels(image)
        if not pixels.size:
            return (), None
        features = self.extractor.extract(pixels, _mask(mask, pixels.shape[:2]))
        if not len(features):
            return (), None
        return tuple(to_opencv(features.lafs, features.scores)), _rows(features.descriptors)

    def image_features(self, image: Any, mask: Any = None) -> Any:
        """A `cv2.detail.ImageFeatures` for OpenCV's stitching pipeline, as `cv2.detail.computeImageFeatures2` makes
        one.

        Raises:
            OptionError: OpenCV is older than 5: there, giving such an object descriptors from Python ends the process.
        """
        if int(cv2.__version__.partition(".")[0]) < 5:
            raise OptionError(
                f"OpenCV {cv2.__version__} crashes where Python sets the descriptors of an ImageFeatures; "
                'install "opencv-python-headless>=5" for the stitching pipeline'
            )
        keypoints, descriptors = self.detectAndCompute(image, mask)
        features = cv2.detail.ImageFeatures()
        height, width = _pixels(image).shape[:2]
        features.img_size = (width, height)
        features.keypoints = keypoints
        rows: Any = np.zeros((0, self.descriptorSize()), np.float32) if descriptors is None else descriptors
        features.descriptors = cv2.UMat(rows)
        return features

    def descriptorSize(self) -> int:
        """Numbers a descriptor."""
        known = getattr(self.extractor.descriptor, "dim", None)
        if known:
            return int(known)
        picture = np.zeros((_SIZE, _SIZE), np.uint8)
        return int(self.extractor.describe(picture, from_opencv([cv2.KeyPoint(16, 16, 8, 0)])).descriptors.shape[1])

    def descriptorType(self) -> int:
        """`cv2.CV_32F`."""
        return int(cv2.CV_32F)

    def defaultNorm(self) -> int:
        """`cv2.NORM_L2`."""
        return int(cv2.NORM_L2)

    def getDefaultName(self) -> str:
        """`Feature2D.` and the names of the extractor's parts."""
        parts = self.extractor.composition
        return f"Feature2D.{parts.detector}+{parts.shape}+{parts.orientation}+{parts.descriptor}"

    def empty(self) -> bool:
        """False: it can be used as it is."""
        return False


def _turned(point: cv2.KeyPoint, angle: float) -> cv2.KeyPoint:
    x, y = point.pt
    return cv2.KeyPoint(x, y, point.size, angle, point.response, point.octave, point.class_id)


def _rows(descriptors: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(descriptors, dtype=np.float32)


def _pixels(image: Any) -> NDArray[Any]:
    """The image as the extractor takes it: (H, W) or (H, W, 3) RGB, uint8 or float in [0, 1]."""
    if isinstance(image, cv2.UMat):
        image = image.get()
    if image is None:
        raise DataError("the image is None: cv2.imread gives that for a file it cannot read")
    pixels = np.asarray(image)
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / 65535
    elif pixels.dtype != np.uint8 and pixels.dtype.kind != "f":
        raise DataError(f"an image is uint8, uint16 or float in [0, 1], not {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] in (1, 3, 4):
        # BGR ends here: all else in this package has RGB.
        return pixels[:, :, 0] if pixels.shape[2] == 1 else np.ascontiguousarray(pixels[:, :, 2::-1])
    if pixels.ndim != 2 and pixels.size:
        raise DataError(f"an image is (H, W), or (H, W, C) with 1, 3 or 4 channels, not {pixels.shape}")
    return pixels


def _mask(mask: Any, size: Sequence[int]) -> NDArray[np.bool_] | None:
    if isinstance(mask, cv2.UMat):
        mask = mask.get()
    if mask is None or not np.asarray(mask).size:
        return None
    array = np.asarray(mask)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.shape != tuple(size):
        raise DataError(f"the mask is {array.shape}, the image {tuple(size)}")
    allowed: NDArray[np.bool_] = array != 0
    return allowed
