"""A sheet to paint a texture on, measured in metres, and the noise that everything natural is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Colour = Sequence[float]  # RGB, 0 to 1


def f32(values: Any) -> NDArray[np.float32]:
    """The values as a float32 array."""
    return np.asarray(values, np.float32)


def noise(rng: Rng, metres: tuple[float, float], pixels: tuple[int, int], wavelength: float) -> NDArray[np.float32]:
    """Smooth noise, (H, W) float32 of about unit deviation, for a sheet of (height, width) `metres`.

    Drawn on a grid set by `wavelength` alone, so that a sheet looks the same at every resolution.
    """
    grid = [max(4, int(np.ceil(side / wavelength)) + 3) for side in metres]
    values = rng.standard_normal(grid).astype(np.float32)
    return np.asarray(cv2.resize(values, (pixels[1], pixels[0]), interpolation=cv2.INTER_CUBIC))


def fractal(
    rng: Rng,
    metres: tuple[float, float],
    pixels: tuple[int, int],
    longest: float,
    shortest: float,
    gain: float = 0.7,
) -> NDArray[np.float32]:
    """Sum of noises from `longest` to `shortest` wavelength (metres), each `gain` as strong as the one before."""
    total = np.zeros(pixels, np.float32)
    weight, wavelength, power = 1.0, longest, 0.0
    while wavelength >= shortest:
        total += np.float32(weight) * noise(rng, metres, pixels, wavelength)
        power += weight**2
        weight, wavelength = weight * gain, wavelength / 2
    return np.asarray(total / np.float32(np.sqrt(max(power, 1e-12))))


class Canvas:
    """A sheet of `width` x `height` metres with `texel` metres a pixel; `pixels` is (H, W, 3) uint8 RGB."""

    def __init__(self, width: float, height: float, texel: float) -> None:
        self.metres = (height, width)
        self.texel = texel
        self.shape = (max(8, round(height / texel)), max(8, round(width / texel)))
        self.pixels: NDArray[np.uint8] = np.full((*self.shape, 3), 128, np.uint8)

    def grid(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Metres from the left, (1, W), and from the top, (H, 1), of every texel's centre."""
        rows, cols = self.shape
        x = (np.arange(cols, dtype=np.float32) + 0.5) * np.float32(self.metres[1] / cols)
        y = (np.arange(rows, dtype=np.float32) + 0.5) * np.float32(self.metres[0] / rows)
        return x[None, :], y[:, None]

    def noise(self, rng: Rng, wavelength: float) -> NDArray[np.float32]:
        return noise(rng, self.metres, self.shape, wavelength)

    def fractal(self, rng: Rng, longest: float, shortest: float = 0.012, gain: float = 0.7) -> NDArray[np.float32]:
        return fractal(rng, self.metres, self.shape, longest, shortest, gain)

    def fill(self, colours: NDArray[np.floating[Any]]) -> None:
        """Paint the whole sheet with (H, W, 3) or (3,) colours, 0 to 1."""
        self.pixels[:] = np.clip(np.asarray(colours, np.float32) * 255 + 0.5, 0, 255).astype(np.uint8)

    def multiply(self, factor: NDArray[np.float32]) -> None:
        """Darken or brighten by a factor, (H, W) or (H, W, 3)."""
        factor = factor if factor.ndim == 3 else factor[:, :, None]
        self.pixels[:] = np.clip(self.pixels * factor + 0.5, 0, 255).astype(np.uint8)

    def blend(self, colour: Colour, amount: NDArray[np.float32]) -> None:
        """Mix in a colour by an amount of 0 to 1 a texel, (H, W)."""
        a = np.clip(amount, 0, 1)[:, :, None].astype(np.float32)
        paint = np.asarray(colour, np.float32) * 255
        self.pixels[:] = np.clip(self.pixels + a * (paint - self.pixels) + 0.5, 0, 255).astype(np.uint8)

    def _points(self, points: NDArray[np.floating[Any]]) -> NDArray[np.int32]:
        return np.round(np.asarray(points, float) / self.texel * 16 - 8).astype(np.int32)

    def _thickness(self, metres: float) -> int:
        return max(1, round(metres / self.texel))

    def polygon(self, points: Sequence[Sequence[float]] | NDArray[np.floating[Any]], colour: Colour) -> None:
        """A filled polygon, corners in metres."""
        cv2.fillPoly(self.pixels, [self._points(np.asarray(points))], _bytes(colour), cv2.LINE_AA, 4)

    def rectangle(self, x: float, y: float, width: float, height: float, colour: Colour) -> None:
        self.polygon([(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour)

    def ellipse(self, x: float, y: float, radii: tuple[float, float], colour: Colour, angle: float = 0.0) -> None:
        centre = self._points(np.array([x, y]))
        axes = [max(1, round(r / self.texel * 16)) for r in radii]
        cv2.ellipse(self.pixels, centre.tolist(), axes, angle, 0, 360, _bytes(colour), -1, cv2.LINE_AA, 4)

    def line(self, points: NDArray[np.floating[Any]], colour: Colour, thickness: float) -> None:
        """A polyline of `thickness` metres."""
        corners = [self._points(points)]
        cv2.polylines(self.pixels, corners, False, _bytes(colour), self._thickness(thickness), cv2.LINE_AA, 4)

    def text(self, words: str, x: float, y: float, height: float, colour: Colour, bold: float = 0.15) -> None:
        """Words with their baseline at (x, y), capitals `height` metres high."""
        scale = height / self.texel / 21.0
        origin = (round(x / self.texel), round(y / self.texel))
        thick = self._thickness(height * bold)
        cv2.putText(self.pixels, words, origin, cv2.FONT_HERSHEY_DUPLEX, scale, _bytes(colour), thick, cv2.LINE_AA)

    def paste(self, other: Canvas, x: float, y: float) -> None:
        """Lay another sheet on this one, its top-left corner at (x, y); what hangs over the edge is cut off."""
        row, col = round(y / self.texel), round(x / self.texel)
        r0, c0 = max(row, 0), max(col, 0)
        r1, c1 = min(row + other.shape[0], self.shape[0]), min(col + other.shape[1], self.shape[1])
        if r1 > r0 and c1 > c0:
            self.pixels[r0:r1, c0:c1] = other.pixels[r0 - row : r1 - row, c0 - col : c1 - col]

    def shadow(self, x: float, y: float, width: float, height: float, strength: float = 0.45) -> None:
        """A soft dark rim around a rectangle, as under a thing that stands out of the wall."""
        gx, gy = self.grid()
        outside_x = np.maximum(np.maximum(x - gx, gx - x - width), 0)
        outside_y = np.maximum(np.maximum(y - gy, gy - y - height), 0)
        c0, c1 = np.searchsorted(gx[0], [x - 0.3, x + width + 0.3])
        r0, r1 = np.searchsorted(gy[:, 0], [y - 0.3, y + height + 0.3])
        rim = np.exp(-np.hypot(outside_x[:, c0:c1], outside_y[r0:r1]) / 0.06)
        patch = self.pixels[r0:r1, c0:c1]
        patch[:] = (patch * (1 - np.float32(strength) * rim)[:, :, None]).astype(np.uint8)


def _bytes(colour: Colour) -> tuple[int, int, int]:
    r, g, b = (int(np.clip(c, 0, 1) * 255 + 0.5) for c in colour)
    return r, g, b
