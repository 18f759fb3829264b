"""Stitch two photos of a flat thing, or taken from one place, the way OpenCV's samples do it with SIFT.

    python examples/panorama.py left.jpg right.jpg -o panorama.jpg

Only the line that makes the finder differs from such a sample.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np

from hardnet_match.plugins.opencv import Feature2D


def homography(left: np.ndarray, right: np.ndarray, finder: Feature2D) -> tuple[np.ndarray, int]:
    """The (3, 3) map of the right photo into the left one's pixels, and how many matches support it."""
    keypoints, descriptors = zip(*(finder.detectAndCompute(image, None) for image in (left, right)), strict=True)
    if any(rows is None for rows in descriptors):
        raise SystemExit("a photo without any structure cannot be stitched")
    trees = cv2.FlannBasedMatcher({"algorithm": 1, "trees": 5}, {"checks": 64})
    two = [pair for pair in trees.knnMatch(descriptors[1], descriptors[0], k=2) if len(pair) == 2]
    good = [nearest for nearest, second in two if nearest.distance < 0.85 * second.distance]
    if len(good) < 8:
        raise SystemExit(f"only {len(good)} matches: do the photos overlap?")
    source = np.float32([keypoints[1][match.queryIdx].pt for match in good])
    target = np.float32([keypoints[0][match.trainIdx].pt for match in good])
    found, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, 3.0)
    if found is None:
        raise SystemExit("no homography fits the matches: the photos show something deep from two places")
    return found, int(inliers.sum())


def stitch(left: np.ndarray, right: np.ndarray, to_left: np.ndarray) -> np.ndarray:
    """Both photos in one picture large enough for them; where both are, their mean."""
    corners = [
        np.float32([[[0, 0], [image.shape[1], 0], [image.shape[1], image.shape[0]], [0, image.shape[0]]]])
        for image in (left, right)
    ]
    everywhere = np.concatenate([corners[0][0], cv2.perspectiveTransform(corners[1], to_left)[0]])
    low, high = np.floor(everywhere.min(axis=0)), np.ceil(everywhere.max(axis=0))
    width, height = (high - low).astype(int).tolist()
    if width * height > 20 * (left.size + right.size):
        raise SystemExit("the photos' planes lie too differently for one picture")
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
    total, weight = np.zeros((height, width, 3), np.float32), np.zeros((height, width, 1), np.float32)
    for image, place in ((left, shift), (right, shift @ to_left)):
        seen = cv2.warpPerspective(np.ones(image.shape[:2], np.float32), place, (width, height))[:, :, None]
        total += cv2.warpPerspective(image, place, (width, height)).astype(np.float32) * seen
        weight += seen
    return np.rint(total / np.maximum(weight, 1e-6)).clip(0, 255).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description="Stitch two photos.")
    parser.add_argument("left")
    parser.add_argument("right")
    parser.add_argument("-o", "--output", default="panorama.jpg")
    parser.add_argument("--keypoints", type=int, default=2000)
    options = parser.parse_args()
    photos = [cv2.imread(path) for path in (options.left, options.right)]
    for path, photo in zip((options.left, options.right), photos, strict=True):
        if photo is None:
            raise SystemExit(f"{path}: cannot be read")
    finder = Feature2D.create(nfeatures=options.keypoints)  # in OpenCV's samples: cv2.SIFT_create()
    to_left, inliers = homography(*photos, finder)
    cv2.imwrite(options.output, stitch(*photos, to_left))
    print(f"{options.output}: {inliers} matches agree")


if __name__ == "__main__":
    main()
