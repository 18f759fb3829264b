"""Rays, hits, texture filtering and light: the picture that a camera takes of the surfaces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .camera import Camera, Light
from .canvas import f32, fractal
from .scene import Surface

MARCH_STEPS, REFINE_STEPS = 40, 9
MAX_TAPS = 6
F32 = NDArray[np.float32]
_LINEAR = f32((np.arange(255 * 16 + 1) / (255 * 16)) ** 2.2)  # stored values in sixteenths to linear light


def plane_homography(surface: Surface, camera: Camera) -> NDArray[np.float64]:
    """(3, 3): (s, t, 1) on the surface's base plane to depth * (x, y, 1) in the picture."""
    columns = [camera.R @ surface.u, camera.R @ surface.v, camera.R @ surface.origin + camera.t]
    return np.asarray(camera.K @ np.stack(columns, axis=1))


def lookup(picture: NDArray[Any], x: F32, y: F32) -> NDArray[Any]:
    """Bilinear samples of `picture` at flat arrays of coordinates; pixel centres at integers, edges repeated."""
    count, width = len(x), 4096
    if not count:
        return np.zeros((0, *picture.shape[2:]), picture.dtype)
    rows = -(-count // width)
    maps = []
    for values in (x, y):
        padded = np.zeros(rows * width, np.float32)
        padded[:count] = values
        maps.append(padded.reshape(rows, width))
    samples = cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(samples.reshape(rows * width, *picture.shape[2:])[:count])


class Tracer:
    """Finds what each ray hits, and keeps the mip levels of the textures."""

    def __init__(self, surfaces: Sequence[Surface]) -> None:
        self.surfaces = list(surfaces)
        self.mips = [_mip_levels(surface.texture) for surface in surfaces]

    def trace(self, camera: Camera, rays: int) -> tuple[F32, NDArray[np.int16], F32, F32]:
        """Inverse depth, surface number (-1 is sky) and the hit's s and t; each (rays * H, rays * W).

        `rays` a pixel side: the centres of rays x rays equal cells of each pixel.
        """
        width, height = camera.size[0] * rays, camera.size[1] * rays
        x = (np.arange(width) + 0.5) / rays - 0.5
        y = (np.arange(height) + 0.5) / rays - 0.5
        nearness = np.zeros((height, width), np.float32)
        number = np.full((height, width), -1, np.int16)
        hit_s, hit_t = np.zeros_like(nearness), np.zeros_like(nearness)
        for index, surface in enumerate(self.surfaces):
            if (camera.center - surface.origin) @ surface.normal <= 0:
                continue  # seen from behind: all surfaces are closed walls of something
            columns, rows = _window(surface, camera, x, y)
            if columns.start >= columns.stop or rows.start >= rows.stop:
                continue
            finder = _hit_plane if surface.heights is None else _hit_relief
            s, t, near = finder(surface, camera, x[columns], y[rows])
            old = nearness[rows, columns]
            closer = near > old
            old[closer] = near[closer]
            number[rows, columns][closer] = index
            hit_s[rows, columns][closer] = s[closer]
            hit_t[rows, columns][closer] = t[closer]
        return nearness, number, hit_s, hit_t

    def picture(self, camera: Camera, light: Light, seed: int, rays: int = 2) -> NDArray[np.uint8]:
        """What the camera sees, (H, W, 3) uint8 RGB."""
        nearness, number, hit_s, hit_t = self.trace(camera, rays)
        linear = sky(camera, light, rays, seed)
        flat = linear.reshape(-1, 3)
        labels = number.ravel()
        warm = f32([1 + 0.12 * light.warmth, 1.0, 1 - 0.14 * light.warmth])
        order = np.argsort(labels, kind="stable")
        bounds = np.searchsorted(labels[order], np.arange(len(self.surfaces) + 1))
        for index, surface in enumerate(self.surfaces):
            here = order[bounds[index] : bounds[index + 1]]
            if not len(here):
                continue
            s, t = hit_s.ravel()[here], hit_t.ravel()[here]
            colour = self._filtered(index, camera, s, t, nearness.ravel()[here], rays)
            points, normals = _points_and_normals(surface, s, t)
            facing = np.clip(normals @ light.direction.astype(np.float32), 0, None)
            lit = facing > 0
            lit[lit] = ~self._in_shadow(index, points[lit], light)
            openness = 0.72 + 0.28 * np.clip(-normals[:, 1] + 0.3 * normals[:, 0] ** 2, -1, 1)
            beam = np.float32(light.sun) * (facing * lit)[:, None] * warm
            cool = np.float32(light.sky) * openness[:, None] * (2 - warm)
            flat[here] = _LINEAR[(colour * 16).astype(np.uint16)] * (beam + cool)
        cells = [linear[i::rays, j::rays] for i in range(rays) for j in range(rays)]
        linear = np.asarray(sum(cells[1:], start=cells[0]), np.float32) / np.float32(rays**2)
        out = np.clip(linear * light.exposure * 1.25, 0, None) ** (light.gamma / 2.2) * 255
        out += np.random.default_rng([seed, 99]).normal(0, 1, out.shape).astype(np.float32) * np.float32(light.noise)
        return np.asarray(np.clip(out + 0.5, 0, 255), np.uint8)

    def _filtered(self, index: int, camera: Camera, s: F32, t: F32, near: F32, rays: int) -> F32:
        """Texture colours at hits, (N, 3) float32 of 255: several taps along the long side of each ray's footprint."""
        surface, levels = self.surfaces[index], self.mips[index]
        rows, cols = surface.texture.shape[:2]
        inverse = np.linalg.inv(plane_homography(surface, camera)).astype(np.float32)
        scale = f32([[cols], [rows]]) / np.maximum(near, 1e-6) / rays
        dx = np.stack([inverse[0, 0] - s * inverse[2, 0], inverse[1, 0] - t * inverse[2, 0]]) * scale
        dy = np.stack([inverse[0, 1] - s * inverse[2, 1], inverse[1, 1] - t * inverse[2, 1]]) * scale
        # singular values and the long axis of the 2x2 footprint [dx dy], in texels
        a, b, c = dx[0] ** 2 + dy[0] ** 2, dx[0] * dx[1] + dy[0] * dy[1], dx[1] ** 2 + dy[1] ** 2
        spread = np.sqrt((a - c) ** 2 / 4 + b**2)
        long = np.sqrt((a + c) / 2 + spread)
        short = np.sqrt(np.maximum((a + c) / 2 - spread, 1e-8))
        angle = np.float32(0.5) * np.arctan2(2 * b, a - c)
        taps = np.clip(np.ceil(long / np.maximum(short, 1)), 1, MAX_TAPS).astype(np.int32)
        level = np.clip(np.log2(np.maximum(np.maximum(short, long / taps), 1)), 0, len(levels) - 1)
        x, y = s * cols - np.float32(0.5), t * rows - np.float32(0.5)
        total = np.zeros((len(s), 3), np.float32)
        for count in range(1, MAX_TAPS + 1):
            group = np.flatnonzero(taps == count)
            if not len(group):
                continue
            for tap in range(count):
                step = long[group] * np.float32((tap + 0.5) / count - 0.5)
                tx, ty = x[group] + step * np.cos(angle[group]), y[group] + step * np.sin(angle[group])
                total[group] += _between_levels(levels, tx, ty, level[group]) / np.float32(count)
        return total

    def _in_shadow(self, index: int, points: F32, light: Light) -> NDArray[np.bool_]:
        """Which points other surfaces' base planes hide from the sun. A box hides with the faces the sun sees."""
        sun = light.direction
        rows, offsets = [], []
        for other, surface in enumerate(self.surfaces):
            along = float(sun @ surface.normal)
            walls = surface.name in ("side-wall", "stone-wall")
            if other == index or surface.name in ("house", "ground", "rockery") or abs(along) < 1e-3:
                continue
            if along < 0 and not walls:
                continue
            away = -surface.normal / along  # distance to the plane along the sun's direction, affine in the point
            rows.append(away)
            offsets.append(-surface.origin @ away)
            for side in (surface.u, surface.v):
                slide = (side + (side @ sun) * away) / (side @ side)
                rows.append(slide)
                offsets.append(-surface.origin @ slide)
        hidden = np.zeros(len(points), bool)
        if not rows or not len(points):
            return hidden
        slopes, shifts = f32(rows), f32(offsets)
        low, high = points.min(axis=0), points.max(axis=0)
        middle, spread = slopes @ ((low + high) / 2) + shifts, np.abs(slopes) @ ((high - low) / 2)
        for first in range(0, len(rows), 3):
            part = slice(first, first + 3)
            least, most = middle[part] - spread[part], middle[part] + spread[part]
            if most.min() <= 0 or least[1:].max() >= 1:
                continue  # its shadow falls beside all of these points
            distance, s, t = slopes[part] @ points.T + shifts[part][:, None]
            hidden |= (distance > 1e-3) & (s > 0) & (s < 1) & (t > 0) & (t < 1)
        return hidden


def _mip_levels(texture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    levels = [texture]
    while min(levels[-1].shape[:2]) > 8:
        rows, cols = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], ((cols + 1) // 2, (rows + 1) // 2), interpolation=cv2.INTER_AREA))
    return levels


def _between_levels(levels: list[NDArray[np.uint8]], x: F32, y: F32, level: F32) -> F32:
    """Trilinear samples: bilinear in the two nearest mip levels, mixed."""
    out = np.zeros((len(x), 3), np.float32)
    low = np.floor(level).astype(np.int32)
    for number in range(int(low.min()), min(int(low.max()) + 2, len(levels))):
        weight = np.clip(1 - np.abs(level - np.float32(number)), 0, 1)
        here = np.flatnonzero(weight > 0)
        if not len(here):
            continue
        rows, cols = levels[number].shape[:2]
        fx, fy = np.float32(cols / levels[0].shape[1]), np.float32(rows / levels[0].shape[0])
        half = np.float32(0.5)
        samples = lookup(levels[number], (x[here] + half) * fx - half, (y[here] + half) * fy - half)
        out[here] += samples * weight[here][:, None]
    return out


def _window(surface: Surface, camera: Camera, x: NDArray[Any], y: NDArray[Any]) -> tuple[slice, slice]:
    """The part of the picture in which a surface (with its relief) can be seen; all of it when in doubt."""
    top = 0.0 if surface.heights is None else float(surface.heights.max())
    corners = [
        surface.origin + s * surface.u + t * surface.v + h * surface.normal
        for s in (0, 1) for t in (0, 1) for h in (0.0, top)
    ]  # fmt: skip
    pixels, depth = camera.project(np.array(corners))
    if depth.min() < 0.05:
        return slice(0, len(x)), slice(0, len(y))
    low, high = pixels.min(axis=0) - 1, pixels.max(axis=0) + 1
    first, last = np.searchsorted(x, [low[0], high[0]]), np.searchsorted(y, [low[1], high[1]])
    return slice(int(first[0]), int(first[1])), slice(int(last[0]), int(last[1]))


def _hit_plane(surface: Surface, camera: Camera, x: NDArray[Any], y: NDArray[Any]) -> tuple[F32, F32, F32]:
    """s, t and inverse depth (0: no hit) for the rays of a grid of pixels: (s, t, 1) / depth = H^-1 (x, y, 1)."""
    inverse = np.linalg.inv(plane_homography(surface, camera))
    planes = [row[0] * x[None, :] + row[1] * y[:, None] + row[2] for row in inverse]
    near = planes[2]
    safe = np.where(near > 1e-9, near, 1)
    s, t = planes[0] / safe, planes[1] / safe
    hit = (near > 1e-9) & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    return s.astype(np.float32), t.astype(np.float32), np.where(hit, near, 0).astype(np.float32)


def _hit_relief(surface: Surface, camera: Camera, x: NDArray[Any], y: NDArray[Any]) -> tuple[F32, F32, F32]:
    """As `_hit_plane`, for a height field: march through its box, then halve the step that went below."""
    assert surface.heights is not None
    heights = surface.heights
    rows, cols = heights.shape
    top = float(heights.max())
    to_local = np.linalg.inv(np.stack([surface.u, surface.v, surface.normal], axis=1))
    start = to_local @ (camera.center - surface.origin)
    turn = to_local @ camera.R.T @ np.linalg.inv(camera.K)
    step = [row[0] * x[None, :] + row[1] * y[:, None] + row[2] for row in turn]  # local direction at unit depth
    begin, end = np.full(step[0].shape, 0.05), np.full(step[0].shape, 1e3)
    for value, direction, high in zip(start, step, (1.0, 1.0, top), strict=True):
        safe = np.where(np.abs(direction) < 1e-12, 1e-12, direction)
        one, two = -value / safe, (high - value) / safe
        np.maximum(begin, np.minimum(one, two), out=begin)
        np.minimum(end, np.maximum(one, two), out=end)
    candidates = np.flatnonzero((end > begin).ravel())
    lo, hi = begin.ravel()[candidates], end.ravel()[candidates]
    ds, dt, dh = (component.ravel()[candidates] for component in step)

    def above(depth: NDArray[Any]) -> NDArray[Any]:
        s, t = start[0] + depth * ds, start[1] + depth * dt
        ground = lookup(heights, (s * (cols - 1)).astype(np.float32), (t * (rows - 1)).astype(np.float32))
        return np.asarray(start[2] + depth * dh - ground)

    before, after = lo.copy(), hi.copy()
    found = np.zeros(len(candidates), bool)
    for k in range(1, MARCH_STEPS + 1):
        depth = lo + (hi - lo) * (k / MARCH_STEPS)
        below = (above(depth) <= 1e-6) & ~found
        after[below] = depth[below]
        found |= below
        before[~found] = depth[~found]
    for _ in range(REFINE_STEPS):
        middle = (before + after) / 2
        below = above(middle) <= 1e-6
        after, before = np.where(below, middle, after), np.where(below, before, middle)
    s, t, near = (np.zeros(step[0].size, np.float32) for _ in range(3))
    s[candidates], t[candidates] = start[0] + after * ds, start[1] + after * dt
    near[candidates] = np.where(found, 1 / after, 0)
    return s.reshape(step[0].shape), t.reshape(step[0].shape), near.reshape(step[0].shape)


def _points_and_normals(surface: Surface, s: F32, t: F32) -> tuple[F32, F32]:
    """World points and unit normals at hits, (N, 3) each."""
    base = surface.origin + s[:, None] * surface.u + t[:, None] * surface.v
    normal = surface.normal.astype(np.float32)
    if surface.heights is None:
        return base.astype(np.float32), np.broadcast_to(normal, base.shape).astype(np.float32)
    rows, cols = surface.heights.shape
    lengths = np.linalg.norm(surface.u), np.linalg.norm(surface.v)
    slope_t, slope_s = np.gradient(surface.heights)
    x, y = s * (cols - 1), t * (rows - 1)
    up = lookup(surface.heights, x, y)
    along_s = lookup((slope_s * (cols - 1) / lengths[0]).astype(np.float32), x, y)
    along_t = lookup((slope_t * (rows - 1) / lengths[1]).astype(np.float32), x, y)
    normals = normal - along_s[:, None] * surface.u / lengths[0] - along_t[:, None] * surface.v / lengths[1]
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return (base + up[:, None] * normal).astype(np.float32), normals.astype(np.float32)


def sky(camera: Camera, light: Light, rays: int, seed: int) -> F32:
    """A sky with soft clouds that drift from view to view, (rays * H, rays * W, 3), linear light."""
    width, height = camera.size[0] * rays, camera.size[1] * rays
    clouds = fractal(np.random.default_rng([seed, 3]), (1.0, 1.6), (height, width), 0.9, 0.1, 0.5)
    cover = np.clip(0.35 + 0.25 * clouds, 0, 1)[:, :, None]
    blue, white = f32([0.35, 0.55, 0.85]), f32([0.85, 0.86, 0.88])
    return np.asarray((blue * (1 - cover) + white * cover) * np.float32(0.5 * (light.sun + light.sky)), np.float32)
