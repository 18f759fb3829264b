"""The place itself: which surfaces stand where. A seed is a place; another seed is another place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from . import decoration, masonry
from .canvas import Canvas, Rng, f32

WIDTH, DEPTH, HEIGHT = 11.0, 9.0, 6.6  # of the square and of the house front, metres


@dataclass(frozen=True, eq=False)
class Surface:
    """A rectangle `origin + s u + t v`, s and t in [0, 1], perhaps with a relief on it.

    Args:
        name: what it is. origin, u, v: (3,) metres; u runs along the texture's rows, v down its columns.
        texture: (H, W, 3) uint8 RGB.
        normal: (3,) unit vector to the side it is seen from.
        heights: None for a plane; otherwise (h, w) float32 metres above the plane, zero along the edge.
    """

    name: str
    origin: NDArray[np.float64]
    u: NDArray[np.float64]
    v: NDArray[np.float64]
    texture: NDArray[np.uint8]
    normal: NDArray[np.float64]
    heights: NDArray[np.float32] | None = None


def _surface(
    name: str, origin: tuple[float, float, float], u: tuple[float, float, float], v: tuple[float, float, float],
    texture: Canvas, heights: NDArray[np.float32] | None = None,
) -> Surface:  # fmt: skip
    uu, vv = np.asarray(u, float), np.asarray(v, float)
    normal = np.cross(vv, uu)
    return Surface(name, np.asarray(origin, float), uu, vv, texture.pixels, normal / np.linalg.norm(normal), heights)


def _house_front(rng: Rng, texel: float) -> Canvas:
    wall = Canvas(WIDTH, HEIGHT, texel)
    base = [(0.58, 0.29, 0.21), (0.62, 0.45, 0.30), (0.50, 0.33, 0.30), (0.66, 0.56, 0.44)][rng.integers(4)]
    masonry.bricks(wall, rng, base)
    if rng.random() < 0.5:  # plaster on the upper floor
        skin = Canvas(WIDTH, HEIGHT, texel)
        gone = masonry.plaster(skin, rng, [(0.80, 0.72, 0.55), (0.75, 0.60, 0.52), (0.70, 0.74, 0.70)][rng.integers(3)])
        _, y = wall.grid()
        masonry.show_through(wall, skin, ~gone & (y < 0.48 * HEIGHT))
        wall.rectangle(0, 0.48 * HEIGHT, WIDTH, 0.12, (0.62, 0.58, 0.50))
    masonry.weather(wall, rng, 0.3, 0.7)
    trim = [(0.80, 0.76, 0.66), (0.66, 0.63, 0.58), (0.85, 0.83, 0.80)][rng.integers(3)]
    bays = int(rng.integers(4, 6))
    pitch = WIDTH / bays
    door_bay = int(rng.integers(0, bays))
    for bay in range(bays):
        width = rng.uniform(0.9, 1.15)
        x = (bay + 0.5) * pitch - width / 2 + rng.normal(0, 0.08)
        decoration.put_window(wall, rng, x, 0.75 + rng.normal(0, 0.05), width, rng.uniform(1.45, 1.7), trim)
        if bay == door_bay:
            decoration.put_door(wall, rng, x, 1.1, 2.25, trim)
        elif rng.random() < 0.75:
            decoration.put_window(wall, rng, x, 3.75, width * 1.1, rng.uniform(1.2, 1.5), trim)
        else:
            wall.paste(decoration.poster(rng, 0.9, 1.25, texel), x, 3.9 + float(rng.normal(0, 0.1)))
    board = decoration.sign(rng, 3.6, 0.55, texel)
    left = rng.uniform(0.5, WIDTH - 4.5)
    wall.shadow(left, 2.83, 3.6, 0.55)
    wall.paste(board, left, 2.83)
    for _ in range(rng.integers(5, 9)):
        width = rng.uniform(0.35, 0.6)
        bill = decoration.poster(rng, width, 1.4 * width, texel)
        wall.paste(bill, rng.uniform(0.2, WIDTH - 0.8), HEIGHT - rng.uniform(1.15, 1.7))
    for _ in range(rng.integers(1, 4)):
        decoration.graffiti(wall, rng, rng.uniform(1, WIDTH - 1), HEIGHT - rng.uniform(0.5, 1.1), rng.uniform(0.8, 1.6))
    decoration.ivy(wall, rng, rng.choice([0.5, WIDTH - 0.5]), rng.uniform(3.0, 5.2), rng.uniform(0.7, 1.2))
    masonry.speckle(wall, rng, 5, 0.008, 0.6)
    return wall


def _side_wall(rng: Rng, texel: float) -> Canvas:
    wall, under = Canvas(DEPTH, 4.2, texel), Canvas(DEPTH, 4.2, texel)
    masonry.bricks(under, rng, (0.55, 0.36, 0.28))
    gone = masonry.plaster(wall, rng, [(0.72, 0.70, 0.62), (0.78, 0.67, 0.48), (0.60, 0.66, 0.68)][rng.integers(3)])
    masonry.show_through(wall, under, gone)
    masonry.weather(wall, rng, 0.35, 0.8)
    x = rng.uniform(0.1, 0.5)
    while x < DEPTH - 1.0:
        width = rng.uniform(0.55, 1.0)
        if rng.random() < 0.8:
            wall.paste(decoration.poster(rng, width, 1.4 * width, texel), x, rng.uniform(1.2, 2.2))
        x += width * rng.uniform(0.95, 1.5)
    for _ in range(3):
        decoration.graffiti(wall, rng, rng.uniform(1, DEPTH - 1), rng.uniform(2.6, 3.7), rng.uniform(0.9, 1.9))
    return wall


def _ground(rng: Rng, texel: float) -> Canvas:
    floor = Canvas(WIDTH, DEPTH, texel)
    masonry.slabs(
        floor, rng, [(0.56, 0.54, 0.50), (0.60, 0.52, 0.44), (0.50, 0.52, 0.54)][rng.integers(3)], rng.uniform(0.4, 0.6)
    )
    masonry.weather(floor, rng, 0.35)
    for _ in range(rng.integers(4, 8)):  # chalk drawings
        decoration.graffiti(floor, rng, rng.uniform(1, WIDTH - 1), rng.uniform(1, DEPTH - 1), rng.uniform(0.7, 1.5))
    cx, cy = rng.uniform(2.5, WIDTH - 2.5), rng.uniform(2.5, 5)
    floor.ellipse(cx, cy, (0.36, 0.36), (0.20, 0.19, 0.18))
    for ring in range(0, 360, 20):
        a = np.deg2rad(ring)
        floor.ellipse(cx + 0.24 * np.cos(a), cy + 0.24 * np.sin(a), (0.03, 0.03), (0.42, 0.40, 0.38))
    for _ in range(420):  # fallen leaves
        colour = (rng.uniform(0.5, 0.85), rng.uniform(0.25, 0.6), rng.uniform(0.05, 0.2))
        length = rng.uniform(0.02, 0.05)
        floor.ellipse(rng.uniform(0, WIDTH), rng.uniform(0, DEPTH), (length, 0.5 * length), colour, rng.uniform(0, 180))
    return floor


def _box(
    rng: Rng,
    name: str,
    centre: tuple[float, float],
    size: tuple[float, float, float],
    turn: float,
    sheets: list[Canvas],
) -> list[Surface]:
    """The top and four sides of a box that stands on the ground, turned by `turn` degrees."""
    width, depth, height = size
    a = np.deg2rad(turn)
    ex, ez = np.array([np.cos(a), 0, np.sin(a)]), np.array([-np.sin(a), 0, np.cos(a)])
    middle = np.array([centre[0], 0, centre[1]])
    down = np.array([0, height, 0.0])
    top = middle - down
    corners = [top + sx * ex * width / 2 + sz * ez * depth / 2 for sx, sz in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    faces = []
    for i, side in enumerate(("front", "right", "back", "left")):
        start, end = corners[i], corners[(i + 1) % 4]
        faces.append(_surface(f"{name}-{side}", tuple(start), tuple(end - start), tuple(down), sheets[i]))
    faces.append(_surface(f"{name}-top", tuple(corners[3]), tuple(ex * width), tuple(-ez * depth), sheets[4]))
    return faces


def _crate(
    rng: Rng, name: str, centre: tuple[float, float], size: tuple[float, float, float], texel: float
) -> list[Surface]:
    width, depth, height = size
    base = [(0.58, 0.44, 0.28), (0.50, 0.42, 0.34), (0.62, 0.50, 0.36)][rng.integers(3)]
    sheets = []
    for w, h in ((width, height), (depth, height), (width, height), (depth, height), (width, depth)):
        sheet = Canvas(w, h, texel)
        masonry.planks(sheet, rng, base)
        sheet.text(decoration.words(rng, 1), 0.18 * w, rng.uniform(0.4, 0.6) * h, 0.11 * w, decoration.ink(rng), 0.17)
        sheet.text(str(rng.integers(100, 999)), 0.3 * w, 0.8 * h, 0.1 * w, (0.1, 0.1, 0.1), 0.15)
        masonry.weather(sheet, rng, 0.25)
        sheets.append(sheet)
    return _box(rng, name, centre, size, rng.uniform(-40, 40), sheets)


def _kiosk(rng: Rng, centre: tuple[float, float], texel: float) -> list[Surface]:
    size = (0.9, 0.9, 2.1)
    sheets = []
    for w, h in ((0.9, 2.1), (0.9, 2.1), (0.9, 2.1), (0.9, 2.1), (0.9, 0.9)):
        sheet = Canvas(w, h, texel)
        masonry.plaster(sheet, rng, (0.45, 0.50, 0.47))
        for row in range(3):
            width = rng.uniform(0.5, 0.78)
            sheet.paste(
                decoration.poster(rng, width, rng.uniform(0.55, 0.66), texel),
                rng.uniform(0.03, 0.85 - width),
                0.04 + 0.68 * row,
            )
        masonry.weather(sheet, rng, 0.15)
        sheets.append(sheet)
    return _box(rng, "kiosk", centre, size, rng.uniform(15, 75), sheets)


def _relief(
    inside: NDArray[np.float32], rng: Rng, metres: tuple[float, float], bulge: float, dome: float
) -> NDArray[np.float32]:
    """Heights of a bed of stones: each one rounded, on a dome; zero along the edge. 2 cm a sample."""
    height, width = metres
    size = (max(8, round(width / 0.02)), max(8, round(height / 0.02)))
    depth = cv2.resize(inside, size, interpolation=cv2.INTER_AREA)
    stones = bulge * (1 - np.exp(-depth / 0.07))
    y, x = np.mgrid[0 : size[1], 0 : size[0]].astype(np.float32) / f32([[[size[1] - 1]], [[size[0] - 1]]])
    rise = np.clip(16 * x * (1 - x) * y * (1 - y), 0, 1)
    edge = np.clip(np.minimum(np.minimum(x, 1 - x) * width, np.minimum(y, 1 - y) * height) / 0.25, 0, 1)
    heights = (dome * rise ** np.float32(0.8) + stones) * edge
    heights = cv2.GaussianBlur(heights.astype(np.float32), (0, 0), 1.2)
    heights[[0, -1]] = 0
    heights[:, [0, -1]] = 0
    return np.asarray(heights, np.float32)


def build(seed: int, texel: float) -> list[Surface]:
    """The surfaces of one place; `texel` is the size of a texture's pixel in metres."""
    rng = np.random.default_rng([seed, 7])
    left = -WIDTH / 2
    front = _surface("house", (left, -HEIGHT, 0), (WIDTH, 0, 0), (0, HEIGHT, 0), _house_front(rng, texel))
    ground = _surface("ground", (left, 0, 0), (WIDTH, 0, 0), (0, 0, -DEPTH), _ground(rng, texel))
    side = _surface("side-wall", (left, -4.2, -DEPTH), (0, 0, DEPTH), (0, 4.2, 0), _side_wall(rng, texel))
    rubble = Canvas(DEPTH, 3.0, texel)
    inside = masonry.stones(
        rubble, rng, [(0.55, 0.52, 0.46), (0.50, 0.48, 0.50), (0.60, 0.54, 0.42)][rng.integers(3)], 0.34
    )
    masonry.weather(rubble, rng, 0.25, 0.5)
    heights = _relief(inside, rng, (3.0, DEPTH), 0.16, 0.3)
    wall = _surface("stone-wall", (-left, -3.0, 0), (0, 0, -DEPTH), (0, 3.0, 0), rubble, heights)
    heap = Canvas(2.8, 2.2, texel)
    inside = masonry.stones(heap, rng, (0.50, 0.46, 0.40), 0.26)
    masonry.weather(heap, rng, 0.3)
    heights = _relief(inside, rng, (2.2, 2.8), 0.13, 0.75)
    corner = rng.uniform(-2.4, -1.2)
    mound = _surface("rockery", (corner, 0, -1.0), (2.8, 0, 0), (0, 0, -2.2), heap, heights)
    surfaces = [front, ground, side, wall, mound]
    surfaces += _crate(rng, "crate", (rng.uniform(2.0, 2.9), rng.uniform(-2.6, -1.9)), (1.05, 0.85, 0.85), texel)
    surfaces += _crate(rng, "small-crate", (rng.uniform(0.9, 1.3), rng.uniform(-3.9, -3.4)), (0.6, 0.55, 0.5), texel)
    surfaces += _kiosk(rng, (rng.uniform(-4.2, -3.4), rng.uniform(-3.4, -2.4)), texel)
    return surfaces
