"""How often and how exactly detectors find the same place again: two synthetic views of each photo, exact homographies.

    python scripts/bench_detectors.py PHOTO... [--keypoints 4600]

Each photo is seen through two random homographies (turned up to 5 and 15 degrees, zoomed up to 1.28 times, tilted),
rendered at 800 x 600 from three samples a pixel and axis, with noise of 2 grey levels. Keypoints correspond where they
are each other's nearest after projection, within 2.5 px and half an octave of scale. Printed per detector: keypoints,
correspondences, those within 0.5 px, their median distance, root mean square of those within 1.5 px, seconds a view.
COLMAP's SIFT (one orientation a place) is the peer; it keeps all that it finds, so give the others as many.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from hardnet_match.detectors import DETECTORS, Hessian
from hardnet_match.frames import MR_SIZE
from hardnet_match.images import read_image
from hardnet_match.pyramid import as_image
from hardnet_match.sfm.colmap import pycolmap, quietly

Array = NDArray[np.float64]
SIZE = (800, 600)
SAMPLES = 3


def view(image: NDArray[np.uint8], homography: Array, noise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1.0]])  # zooming is about pixel corners
    zoom = np.linalg.inv(centre) @ np.diag([SAMPLES, SAMPLES, 1.0]) @ centre
    large = (SIZE[0] * SAMPLES, SIZE[1] * SAMPLES)
    fine = cv2.warpPerspective(image, zoom @ homography, large, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    pixels = cv2.resize(fine, SIZE, interpolation=cv2.INTER_AREA) + rng.normal(0, noise, SIZE[::-1])
    return np.asarray(np.clip(np.rint(pixels), 0, 255), dtype=np.uint8)


def random_homography(shape: tuple[int, ...], degrees: float, rng: np.random.Generator) -> Array:
    height, width = shape
    turn, zoom = (
        np.deg2rad(rng.uniform(-degrees, degrees)),
        SIZE[0] / max(height, width) * np.exp(rng.uniform(-0.25, 0.25)),
    )
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    out = np.eye(3)
    out[:2, :2] = rotation @ np.diag([zoom, zoom * rng.uniform(0.75, 1)])
    out[:2, 2] = np.array(SIZE) / 2 - out[:2, :2] @ np.array([width, height]) / 2
    out[2, :2] = rng.uniform(-1e-4, 1e-4, 2)
    return out


def compare(a: Array, b: Array, homography: Array) -> Array:
    """Distances in pixels between corresponding rows (x, y, sigma) of two views."""
    lifted = np.concatenate([a[:, :2], np.ones((len(a), 1))], axis=1) @ homography.T
    places = lifted[:, :2] / lifted[:, 2:]
    scale = a[:, 2] * np.sqrt(np.abs(np.linalg.det(homography) / lifted[:, 2] ** 3))
    distance = np.linalg.norm(places[:, None] - b[None, :, :2], axis=2)
    distance += 10 * (np.abs(np.log2(scale[:, None] / b[None, :, 2])) > 0.5)
    there, back = distance.argmin(axis=1), distance.argmin(axis=0)
    nearest = distance[np.arange(len(a)), there]
    inside = ((places > 8) & (places < np.array(SIZE) - 9)).all(axis=1)
    return np.asarray(nearest[(back[there] == np.arange(len(a))) & inside & (nearest < 2.5)])


def finders(keypoints: int) -> dict[str, Callable[[NDArray[np.uint8]], Array]]:
    options = pycolmap.FeatureExtractionOptions()
    options.sift.max_num_orientations = 1
    extractor = pycolmap.FeatureExtractor.create(options)

    def colmap(image: NDArray[np.uint8]) -> Array:
        with quietly():
            bitmap = pycolmap.Bitmap.from_array(image)
            found, _ = extractor.extract(bitmap)
        rows = np.array([[k.x - 0.5, k.y - 0.5, k.compute_scale()] for k in found])
        return rows.reshape(-1, 3)

    def detector(module: torch.nn.Module) -> Callable[[NDArray[np.uint8]], Array]:
        def find(image: NDArray[np.uint8]) -> Array:
            lafs = module(as_image(image), None, keypoints)[0].double().numpy()
            return np.stack([lafs[:, 0, 2], lafs[:, 1, 2], lafs[:, 0, 0] / MR_SIZE], axis=1)

        return find

    ours = {name: make() for name, (make, weights) in DETECTORS.items() if weights is None}
    ours["hessian with saddles"] = Hessian(saddles=True)
    return {"COLMAP SIFT": colmap, **{name: detector(module) for name, module in ours.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--keypoints", type=int, default=4600)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    scenes = []
    for photo in options.photos:
        image = np.asarray(read_image(photo, max_size=2400).pixels, dtype=np.uint8)
        first, second = (random_homography(image.shape, degrees, rng) for degrees in (5, 15))
        views = view(image, first, 2, rng), view(image, second, 2, rng)
        scenes.append((*views, second @ np.linalg.inv(first)))
    print("| detector | keypoints | correspondences | within 0.5 px | median px | rms px | s |\n|" + "---|" * 7)
    for name, find in finders(options.keypoints).items():
        counts, errors, start = [], [], time.perf_counter()
        for a, b, homography in scenes:
            first_rows, second_rows = find(a), find(b)
            counts.append((len(first_rows) + len(second_rows)) / 2)
            errors.append(compare(first_rows, second_rows, homography))
        seconds = (time.perf_counter() - start) / len(scenes) / 2
        every = np.concatenate(errors)
        print(
            f"| {name} | {np.mean(counts):.0f} | {len(every) / len(scenes):.0f} | "
            f"{(every < 0.5).sum() / len(scenes):.0f} | {np.median(every):.3f} | "
            f"{np.sqrt((every[every < 1.5] ** 2).mean()):.3f} | {seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
