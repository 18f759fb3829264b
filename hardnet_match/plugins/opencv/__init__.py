"""This package's features with the interface of OpenCV's `Feature2D`: in place of `cv2.SIFT_create()`.

    from hardnet_match.plugins.opencv import Feature2D

    finder = Feature2D.create(nfeatures=2000)
    keypoints, descriptors = finder.detectAndCompute(image, None)

OpenCV's own bindings cannot be derived from in Python, so what asks for a C++ `Feature2D` (`cv2.detail.
computeImageFeatures2`) cannot take this object; `image_features` gives what that function would have given.
"""

from __future__ import annotations

from .feature2d import Feature2D

__all__ = ["Feature2D"]
