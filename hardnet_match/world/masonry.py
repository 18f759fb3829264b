"""What walls, floors and boxes are made of: bricks, plaster, paving, field stones, planks.

Each function paints a `Canvas`; each brick, slab or stone gets a colour and wear of its own, so that no two places of
a sheet look alike at any scale.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas, Colour, Rng, f32


def _tinted(base: Colour, shade: NDArray[np.float32], tint: NDArray[np.float32]) -> NDArray[np.float32]:
    """(..., 3) colours around `base`: brightness by `shade`, red against blue by `tint`."""
    shift = np.stack([tint, 0.2 * tint, -tint], axis=-1)
    return np.asarray(np.asarray(base, np.float32) * (1 + shade)[..., None] + shift, np.float32)


def speckle(canvas: Canvas, rng: Rng, per_square_metre: float, radius: float, dark: float = 0.5) -> None:
    """Small pits, pebbles and flecks: the blobs that detectors live on. `dark` is the share of dark ones."""
    height, width = canvas.metres
    for _ in range(int(per_square_metre * height * width)):
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        r = radius * np.exp(rng.normal(0, 0.5))
        level = rng.uniform(0.05, 0.3) if rng.random() < dark else rng.uniform(0.7, 1.0)
        colour = np.clip(level + rng.normal(0, 0.05, 3), 0, 1)
        canvas.ellipse(x, y, (r, r * rng.uniform(0.4, 1)), colour.tolist(), rng.uniform(0, 180))


def weather(canvas: Canvas, rng: Rng, strength: float = 0.25, ground: float = 0.0) -> None:
    """Stains of every size, drips from above, and dirt towards the lower edge (`ground`, 0 to 1)."""
    canvas.multiply(1 + np.float32(strength * 0.5) * np.clip(canvas.fractal(rng, 2.5, 0.012, 0.75), -2.2, 2.2))
    height, width = canvas.metres
    drips = np.clip(canvas.noise(rng, 1.3) - 0.4, 0, 2)
    columns = cv2.resize(rng.standard_normal((3, int(width / 0.05) + 4)).astype(np.float32), canvas.shape[::-1])
    canvas.multiply(1 - np.float32(strength * 0.5) * np.clip(drips * np.clip(columns, 0, 2), 0, 1.2))
    if ground:
        _, y = canvas.grid()
        rise = np.exp((y - height) / 0.45) * (1 + 0.5 * canvas.fractal(rng, 1.0, 0.05))
        canvas.blend((0.20, 0.19, 0.15), np.asarray(ground * rise, np.float32))


def bricks(canvas: Canvas, rng: Rng, base: Colour, size: tuple[float, float] = (0.24, 0.08)) -> None:
    """A brick wall in running bond; bricks differ in colour, some are burnt or replaced."""
    x, y = canvas.grid()
    wobble = 0.006 * canvas.noise(rng, 0.15)
    row = (y + wobble) / size[1]
    row_index = np.clip(np.floor(row).astype(np.int32), 0, None)
    shift = rng.uniform(0, 1, row_index.max() + 1).astype(np.float32) * 0.2 + np.arange(row_index.max() + 1) % 2 * 0.5
    col = ((x + wobble) / size[0] + shift[row_index]).astype(np.float32)
    col_index = np.clip(np.floor(col).astype(np.int32), 0, None)
    table = (row_index.max() + 1, col_index.max() + 1)
    shade = rng.normal(0, 0.17, table) - 0.45 * (rng.random(table) < 0.06) + 0.35 * (rng.random(table) < 0.05)
    colours = _tinted(base, shade.astype(np.float32), rng.normal(0, 0.035, table).astype(np.float32))
    picture = colours[row_index, col_index]
    picture *= (1 + 0.10 * canvas.fractal(rng, 0.12))[:, :, None]
    to_edge = np.minimum(
        np.minimum(row - row_index, row_index + 1 - row) * size[1],
        np.minimum(col - col_index, col_index + 1 - col) * size[0],
    )
    mortar = np.clip((0.009 + 0.002 * canvas.noise(rng, 0.03) - to_edge) / 0.005, 0, 1)[:, :, None]
    lime = np.float32(0.62) + 0.06 * canvas.fractal(rng, 0.5)
    canvas.fill(picture * (1 - mortar) + (lime[:, :, None] * f32([1, 0.97, 0.9])) * mortar)


def plaster(canvas: Canvas, rng: Rng, base: Colour) -> NDArray[np.bool_]:
    """Old paint, cracked; returns where it has come off, (H, W) bool, for bricks to show through."""
    rough = canvas.fractal(rng, 0.4, 0.012, 0.8)
    canvas.fill(_tinted(base, 0.07 * rough, 0.012 * canvas.noise(rng, 0.8)))
    height, width = canvas.metres
    for _ in range(int(height * width / 2.2)):
        steps = rng.normal(0, 0.05, (rng.integers(8, 40), 2)) + rng.normal(0, 0.03, 2)
        path = rng.uniform(0, 1, 2) * (width, height) + np.cumsum(steps, axis=0)
        canvas.line(path, [0.45 * c for c in base], rng.uniform(0.002, 0.008))
    speckle(canvas, rng, 10, 0.007, 0.7)
    loss = canvas.fractal(rng, 1.6, 0.03, 0.6)
    rim = np.clip(1 - np.abs(loss - 1.25) / 0.12, 0, 1)
    canvas.blend((0.93, 0.91, 0.86), np.asarray(0.7 * rim, np.float32))
    return np.asarray(loss > 1.3)


def slabs(canvas: Canvas, rng: Rng, base: Colour, size: float = 0.55) -> None:
    """Paving of slabs of different lengths, with dark joints, cracks, stains and flecks."""
    x, y = canvas.grid()
    height, width = canvas.metres
    wobble = 0.008 * canvas.noise(rng, 0.25)
    edges = np.cumsum(rng.uniform(0.6, 1.3, int(height / size * 2) + 3) * size)
    row_index = np.searchsorted(edges, np.broadcast_to(y, canvas.shape) + wobble).astype(np.int32)
    top = np.concatenate([[0], edges])
    to_edge = np.minimum(y + wobble - top[row_index], top[row_index + 1] - y - wobble)
    label = np.zeros(canvas.shape, np.int32)
    for row in range(int(row_index.max()) + 1):
        cuts = np.cumsum(rng.uniform(0.5, 1.7, int(width / size * 2) + 3) * size) - rng.uniform(0, size)
        before = np.concatenate([[-9.0], cuts])
        first, last = np.searchsorted(y[:, 0], [top[row] - 0.06, top[row + 1] + 0.06])  # 0.06: more than the wobble
        here = row_index[first:last] == row
        along = np.broadcast_to(x, here.shape)[here] + wobble[first:last][here]
        index = np.searchsorted(cuts, along)
        label[first:last][here] = row * 1009 + index
        near = np.minimum(along - before[index], before[index + 1] - along)
        to_edge[first:last][here] = np.minimum(to_edge[first:last][here], near)
    shade = rng.normal(0, 0.13, int(label.max()) + 1).astype(np.float32)
    tint = rng.normal(0, 0.02, len(shade)).astype(np.float32)
    picture = _tinted(base, shade[label] + 0.11 * canvas.fractal(rng, 0.3, 0.012, 0.85), tint[label])
    joint = np.clip((0.010 + 0.004 * canvas.noise(rng, 0.05) - to_edge) / 0.006, 0, 1)[:, :, None]
    soil = f32([0.17, 0.16, 0.12]) + 0.05 * np.clip(canvas.noise(rng, 0.35), 0, 2)[:, :, None] * f32([0.2, 1.2, 0.1])
    canvas.fill(picture * (1 - joint) + soil * joint)
    speckle(canvas, rng, 40, 0.010, 0.7)
    for _ in range(int(height * width / 5)):
        steps = rng.normal(0, 0.03, (rng.integers(6, 22), 2)) + rng.normal(0, 0.05, 2)
        canvas.line(rng.uniform(0, 1, 2) * (width, height) + np.cumsum(steps, axis=0), (0.15, 0.14, 0.12), 0.006)


def stones(canvas: Canvas, rng: Rng, base: Colour, size: float = 0.3) -> NDArray[np.float32]:
    """Rounded field stones; returns how far each texel lies inside its stone, (H, W) float32 metres."""
    height, width = canvas.metres
    rows, cols = int(height / size) + 2, int(width / size) + 2
    centres = (
        np.stack(np.meshgrid(np.arange(cols), np.arange(rows)), -1) + rng.uniform(-0.1, 0.7, (rows, cols, 2))
    ).reshape(-1, 2)
    spots = np.floor(centres * size / canvas.texel).astype(int)
    inside = (spots >= 0).all(1) & (spots < canvas.shape[::-1]).all(1)
    spots = spots[inside]
    seeds = np.full(canvas.shape, 255, np.uint8)
    seeds[spots[:, 1], spots[:, 0]] = 0
    _, label = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    border = np.zeros(canvas.shape, bool)
    border[:, 1:] |= label[:, 1:] != label[:, :-1]
    border[1:] |= label[1:] != label[:-1]
    depth = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, 5) * np.float32(canvas.texel)
    shade = rng.normal(0, 0.2, len(spots) + 1).astype(np.float32)
    tint = rng.normal(0, 0.035, len(spots) + 1).astype(np.float32)
    grain = 0.16 * canvas.fractal(rng, 0.25, 0.012, 0.9)
    canvas.fill(_tinted(base, shade[label] + grain, tint[label]))
    joint = np.clip(1 - (depth + 0.004 * canvas.noise(rng, 0.06)) / 0.02, 0, 1)
    canvas.blend((0.22, 0.20, 0.16), np.asarray(0.85 * joint, np.float32))
    lichen = np.clip((canvas.fractal(rng, 0.5, 0.02, 0.8) - 1.0) * 2.5, 0, 0.8)
    canvas.blend((0.62, 0.63, 0.38), lichen * (rng.random(len(spots) + 1) < 0.5)[label])
    speckle(canvas, rng, 50, 0.010, 0.5)
    return np.asarray(depth, np.float32)


def planks(canvas: Canvas, rng: Rng, base: Colour, size: float = 0.16) -> None:
    """Weathered boards with grain, knots and nails, with a frame around them, as on a crate."""
    _, y = canvas.grid()
    height, width = canvas.metres
    index = np.floor(y / size).astype(np.int32)
    shade = rng.normal(0, 0.13, int(index.max()) + 1).astype(np.float32)
    rows, cols = canvas.shape
    fibres = rng.standard_normal((int(height / 0.006) + 4, int(width / 0.25) + 4)).astype(np.float32)
    grain = cv2.resize(fibres, (cols, rows), interpolation=cv2.INTER_CUBIC)
    to_edge = np.minimum(y - index * size, (index + 1) * size - y)
    picture = _tinted(base, np.broadcast_to(shade[index], canvas.shape) + 0.14 * grain, 0.02 * grain)
    picture *= np.clip(0.25 + to_edge / 0.012, 0.25, 1)[:, :, None]
    canvas.fill(picture)
    bar = min(0.11, 0.2 * min(width, height))
    for left, top, w, h in (
        (0, 0, width, bar),
        (0, height - bar, width, bar),
        (0, 0, bar, height),
        (width - bar, 0, bar, height),
    ):
        canvas.shadow(left, top, w, h, 0.5)
        board = Canvas(w, h, canvas.texel)
        board.fill(_tinted(base, -0.05 + 0.12 * board.fractal(rng, 0.3, 0.012, 0.9), 0.02 * board.noise(rng, 0.1)))
        canvas.paste(board, left, top)
    for cx in (bar / 2, width - bar / 2):
        for cy in np.arange(bar / 2, height, size / 2):
            canvas.ellipse(cx + rng.normal(0, 0.01), cy, (0.011, 0.011), (0.12, 0.11, 0.1))
    for _ in range(int(width * height * 9)):
        kx, ky, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.008, 0.022)
        canvas.ellipse(kx, ky, (1.6 * r, r), [0.55 * c for c in base])
        canvas.ellipse(kx, ky, (0.8 * r, 0.5 * r), [0.3 * c for c in base])


def show_through(canvas: Canvas, under: Canvas, where: NDArray[np.bool_] | NDArray[Any]) -> None:
    """Copy another sheet's texels where the mask is true."""
    canvas.pixels[where] = under.pixels[where]
