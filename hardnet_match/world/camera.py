"""Pinhole cameras and the light of a rendered view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError

UP = np.array([0.0, -1.0, 0.0])  # the world is laid out like a camera: x right, y down, z away


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: `x_pixel ~ K (R X + t)`, R and t world-to-camera as in COLMAP.

    Args:
        K: (3, 3) float64; **pixel centres at integers** (add 0.5 to cx and cy for COLMAP).
        R: (3, 3) float64 rotation. t: (3,) float64, metres.
        size: (width, height) in pixels.
    """

    K: NDArray[np.float64]
    R: NDArray[np.float64]
    t: NDArray[np.float64]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise OptionError(f"a camera needs a size of at least 1x1 pixels, got {self.size}")

    @property
    def center(self) -> NDArray[np.float64]:
        """Where the camera stands, (3,) metres, world coordinates."""
        return np.asarray(-self.R.T @ self.t)

    @staticmethod
    def look_at(
        eye: Sequence[float],
        target: Sequence[float],
        size: tuple[int, int] = (640, 480),
        focal: float | None = None,
        roll_degrees: float = 0.0,
    ) -> Camera:
        """A camera at `eye` (metres) that looks at `target`, turned by `roll_degrees` around its axis.

        `focal` is in pixels; by default 0.85 of the longer side (a 30 mm lens on full frame).
        """
        width, height = size
        forward = np.asarray(target, float) - np.asarray(eye, float)
        if np.linalg.norm(np.cross(forward, UP)) < 1e-9:
            raise OptionError("a camera cannot look straight up or down, or at the point where it stands")
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, UP)
        right /= np.linalg.norm(right)
        down = np.cross(forward, right)
        roll = np.deg2rad(roll_degrees)
        turn = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
        rotation = turn @ np.stack([right, down, forward])
        f = 0.85 * max(size) if focal is None else focal
        K = np.array([[f, 0, (width - 1) / 2], [0, f, (height - 1) / 2], [0, 0, 1.0]])
        return Camera(K, rotation, -rotation @ np.asarray(eye, float), size)

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """World points (N, 3) to pixels (N, 2) and depths (N,), metres along the optical axis."""
        rays = (points @ self.R.T + self.t) @ self.K.T
        depth = rays[:, 2]
        return rays[:, :2] / np.where(depth == 0, 1e-12, depth)[:, None], depth

    def lift(self, pixels: NDArray[np.float64], depth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pixels (N, 2) at depths (N,) back to world points (N, 3)."""
        rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(self.K).T
        return np.asarray((rays * depth[:, None] - self.t) @ self.R)


@dataclass(frozen=True)
class Light:
    """Sun and exposure of one view.

    Args:
        azimuth: degrees; 0 is a sun behind the photographer who faces the house front, positive from the right.
        elevation: degrees above the horizon.
        sun, sky: strength of direct and of diffuse light (linear).
        warmth: -1 (bluish) to 1 (reddish).
        exposure: factor on linear light. gamma: extra contrast curve, 1 is neutral.
        noise: standard deviation of the sensor's noise, grey levels of 255.
    """

    azimuth: float = 35.0
    elevation: float = 48.0
    sun: float = 0.75
    sky: float = 0.45
    warmth: float = 0.0
    exposure: float = 1.0
    gamma: float = 1.0
    noise: float = 1.5

    @property
    def direction(self) -> NDArray[np.float64]:
        """Unit vector from the scene to the sun, (3,)."""
        a, e = np.deg2rad([self.azimuth, self.elevation])
        return np.array([np.sin(a) * np.cos(e), -np.sin(e), -np.cos(a) * np.cos(e)])


@dataclass(frozen=True, eq=False)
class View:
    """A rendered picture and all that is known about it.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera: where it was taken from.
        depth: (H, W) float32, metres along the optical axis at the pixel's centre; infinity is sky.
        plane: (H, W) int16, number of the surface seen there (`World.surfaces`), -1 is sky.
    """

    image: NDArray[np.uint8]
    camera: Camera
    depth: NDArray[np.float32]
    plane: NDArray[np.int16]
    light: Light = field(default_factory=Light)

    @property
    def K(self) -> NDArray[np.float64]:
        return self.camera.K

    @property
    def R(self) -> NDArray[np.float64]:
        return self.camera.R

    @property
    def t(self) -> NDArray[np.float64]:
        return self.camera.t
