"""What people put on walls: windows, doors, posters, signs, graffiti, ivy. Each one different, drawn from the seed."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, Rng

WORDS = (
    *("CAFE", "MARKT", "KINO", "MUSIK", "BROT", "LIVRES", "FETE", "HOTEL", "TABAK", "RADIO", "OPERA", "FISCH", "VINO"),
    *("CIRCUS", "GARAGE", "BAZAR", "THEATER", "POST", "KERAMIK", "BLUMEN", "SCHUHE", "UHREN", "JAZZ", "TANZ"),
    *("MUSEUM", "HAFEN", "LUNA", "ORION", "VEGA", "MIRA", "ATLAS", "RIGEL", "NORD", "SUED", "WEST", "OST"),
)
INKS = (
    (0.78, 0.12, 0.13), (0.10, 0.24, 0.55), (0.95, 0.78, 0.15), (0.10, 0.42, 0.25), (0.88, 0.45, 0.10),
    (0.35, 0.14, 0.42), (0.93, 0.91, 0.85), (0.09, 0.09, 0.11), (0.15, 0.55, 0.62), (0.80, 0.35, 0.48),
)  # fmt: skip


def ink(rng: Rng) -> Colour:
    """A printing colour, a little off."""
    return np.clip(np.asarray(INKS[rng.integers(len(INKS))]) + rng.normal(0, 0.05, 3), 0, 1).tolist()  # type: ignore[no-any-return]


def words(rng: Rng, count: int) -> str:
    return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), count))


def poster(rng: Rng, width: float, height: float, texel: float) -> Canvas:
    """A printed bill: a ground, shapes or a landscape, a headline, lines of small print, wear."""
    sheet = Canvas(width, height, texel)
    ground, accent = ink(rng), ink(rng)
    x, y = sheet.grid()
    mix = np.clip((y / height) * rng.uniform(-1, 1) + (x / width) * rng.uniform(-1, 1) + 0.5, 0, 1)[:, :, None]
    sheet.fill(np.asarray(ground) * (1 - 0.4 * mix) + 0.4 * np.asarray(accent) * mix)
    kind = rng.integers(4)
    if kind == 0:  # sun over hills
        sheet.ellipse(rng.uniform(0.2, 0.8) * width, 0.35 * height, (0.2 * width, 0.2 * width), ink(rng))
        for level in (0.5, 0.6, 0.7):
            xs = np.linspace(0, width, 14)
            ridge = level * height - np.abs(np.cumsum(rng.normal(0, 0.03 * height, 14)))
            sheet.polygon(np.column_stack([np.r_[xs, width, 0], np.r_[ridge, height, height]]), ink(rng))
    elif kind == 1:  # discs
        for _ in range(rng.integers(8, 22)):
            r = rng.uniform(0.03, 0.2) * width
            sheet.ellipse(
                rng.uniform(0, width),
                rng.uniform(0, height),
                (r, r * rng.uniform(0.6, 1)),
                ink(rng),
                rng.uniform(0, 90),
            )
    elif kind == 2:  # cut paper
        for _ in range(rng.integers(6, 16)):
            corners = rng.uniform(0, 1, 2) * (width, height) + rng.normal(0, 0.16 * width, (rng.integers(3, 6), 2))
            sheet.polygon(corners, ink(rng))
    else:  # a face, more or less
        cx, cy, r = width * rng.uniform(0.4, 0.6), height * 0.45, 0.3 * width
        sheet.ellipse(cx, cy - 0.1 * r, (1.15 * r, 1.25 * r), ink(rng))
        sheet.ellipse(cx, cy, (0.85 * r, 1.1 * r), (0.85, 0.66, 0.53))
        for side in (-1, 1):
            sheet.ellipse(cx + side * 0.35 * r, cy - 0.15 * r, (0.13 * r, 0.09 * r), (0.1, 0.08, 0.08))
        sheet.ellipse(cx, cy + 0.5 * r, (0.3 * r, 0.08 * r), (0.7, 0.15, 0.18))
        sheet.polygon(
            [(cx, cy - 0.1 * r), (cx + 0.12 * r, cy + 0.25 * r), (cx - 0.1 * r, cy + 0.25 * r)], (0.72, 0.5, 0.4)
        )
    size = 0.85 * width / 5.2
    for line in range(rng.integers(1, 3)):
        sheet.text(words(rng, 1), 0.06 * width, 0.06 * height + size * (1.3 * line + 0.9), size, ink(rng), 0.18)
    for line in range(rng.integers(3, 6)):
        text = words(rng, 3)
        sheet.text(text, 0.06 * width, height * (0.97 - 0.045 * line), 0.028 * height, ink(rng), 0.1)
    sheet.multiply(1 + 0.10 * np.clip(sheet.fractal(rng, 0.4, 0.012, 0.8), -2, 2))
    torn = np.clip((sheet.fractal(rng, 0.3, 0.02, 0.7) - 1.7) * 6, 0, 1)
    sheet.blend((0.85, 0.83, 0.78), torn)
    return sheet


def window(rng: Rng, width: float, height: float, texel: float, frame: Colour) -> Canvas:
    """A window of two to six panes with curtains, things on the sill and the reflection of a sky."""
    sheet = Canvas(width, height, texel)
    x, y = sheet.grid()
    dark = 0.10 + 0.16 * np.clip(y / height * 0.5 + 0.3 * sheet.noise(rng, 0.9), 0, 1)
    sheet.fill(dark[:, :, None] * np.array([0.8, 1.0, 1.15]))
    sheet.blend(
        (0.72, 0.80, 0.88),
        np.asarray(0.5 * np.clip(sheet.fractal(rng, 0.9, 0.15) * (1 - y / height), 0, 1), np.float32),
    )
    if rng.random() < 0.7:
        cloth = ink(rng)
        fold = 0.8 + 0.2 * np.sin(x * rng.uniform(50, 90) + 2 * sheet.noise(rng, 0.4))
        left, right = rng.uniform(0.1, 0.4, 2) * width
        drawn = ((x < left) | (x > width - right)) & (y > 0)
        sheet.pixels[drawn] = (np.asarray(cloth) * fold[drawn][:, None] * 190).astype(np.uint8)
    for _ in range(rng.integers(1, 5)):
        px, r = rng.uniform(0.15, 0.85) * width, rng.uniform(0.04, 0.09)
        sheet.rectangle(px - r, height - 0.1 - 2 * r, 2 * r, 2 * r, ink(rng))
        for _ in range(12):
            dx, dy = rng.normal(0, 1.1 * r, 2)
            green = (rng.uniform(0.1, 0.4), rng.uniform(0.3, 0.6), 0.15)
            sheet.ellipse(px + dx, height - 0.12 - 3 * r - abs(dy), (0.03, 0.013), green, rng.uniform(0, 180))
    bar = 0.055
    columns, rows = rng.integers(1, 3) + 1, rng.integers(1, 4)
    for i in range(columns + 1):
        sheet.rectangle(i * (width - bar) / columns, 0, bar, height, frame)
    for j in range(rows + 1):
        sheet.rectangle(0, j * (height - bar) / rows, width, bar, frame)
    sheet.multiply(1 + 0.09 * sheet.fractal(rng, 0.3, 0.012, 0.8))
    return sheet


def put_window(wall: Canvas, rng: Rng, x: float, y: float, width: float, height: float, trim: Colour) -> None:
    """A window in the wall, with lintel, sill and perhaps shutters."""
    if rng.random() < 0.6:
        colour = np.asarray(ink(rng)) * 0.8
        for left in (x - 0.5 * width - 0.06, x + width + 0.06):
            wall.shadow(left, y, 0.5 * width, height)
            wall.rectangle(left, y, 0.5 * width, height, colour.tolist())
            for slat in np.arange(y + 0.08, y + height - 0.05, 0.075):
                wall.rectangle(left + 0.05, slat, 0.5 * width - 0.1, 0.03, (colour * rng.uniform(0.45, 0.75)).tolist())
    wall.shadow(x - 0.1, y - 0.14, width + 0.2, height + 0.26)
    wall.rectangle(x - 0.1, y - 0.14, width + 0.2, height + 0.26, trim)
    for block in np.arange(x - 0.1, x + width + 0.05, 0.27):
        wall.rectangle(block, y - 0.14, 0.008, 0.12, [0.6 * c for c in trim])
    wall.paste(window(rng, width, height, wall.texel, ink(rng)), x, y)
    wall.rectangle(x - 0.14, y + height + 0.02, width + 0.28, 0.08, [0.85 * c for c in trim])


def put_door(wall: Canvas, rng: Rng, x: float, width: float, height: float, trim: Colour) -> None:
    """A panelled door at the foot of the wall, with steps, a number plate and a letter box."""
    bottom = wall.metres[0]
    top = bottom - height
    wall.shadow(x - 0.15, top - 0.2, width + 0.3, height + 0.2, 0.5)
    wall.rectangle(x - 0.15, top - 0.2, width + 0.3, height + 0.2, trim)
    colour = np.asarray(ink(rng)) * 0.75
    door = Canvas(width, height, wall.texel)
    door.fill(colour * (1 + 0.12 * door.fractal(rng, 0.4, 0.012, 0.8))[:, :, None])
    for row in range(3):
        for column in range(2):
            px, py = (0.12 + 0.45 * column) * width, (0.06 + 0.31 * row) * height
            tint = (0.2, 0.28, 0.33) if row == 0 else (colour * rng.uniform(0.5, 0.7)).tolist()
            door.rectangle(px, py, 0.32 * width, 0.25 * height, (colour * 0.4).tolist())
            door.rectangle(px + 0.02, py + 0.02, 0.32 * width - 0.04, 0.25 * height - 0.04, tint)
    door.ellipse(0.9 * width, 0.52 * height, (0.03, 0.03), (0.85, 0.7, 0.3))
    door.rectangle(0.35 * width, 0.60 * height, 0.3 * width, 0.06, (0.75, 0.65, 0.35))
    wall.paste(door, x, top)
    wall.rectangle(x + width + 0.25, top + 0.5, 0.26, 0.2, (0.1, 0.2, 0.5))
    wall.text(str(rng.integers(11, 98)), x + width + 0.28, top + 0.66, 0.11, (0.95, 0.95, 0.95))


def graffiti(wall: Canvas, rng: Rng, x: float, y: float, size: float) -> None:
    """A sprayed scrawl about `size` metres wide around (x, y)."""
    for _ in range(rng.integers(2, 5)):
        colour, turns = ink(rng), rng.integers(3, 8)
        along = np.linspace(0, 1, 12 * turns)
        knots = rng.normal(0, 0.25, (2, turns + 1))
        path = np.stack([np.interp(along * turns, np.arange(turns + 1), k) for k in knots], axis=1)
        path[:, 0] += along - 0.5
        curl = 0.09 * np.stack([np.cos(along * turns * 6.3), np.sin(along * turns * 6.3)], axis=1)
        wall.line((path + curl) * (size, 0.6 * size) + (x, y), colour, rng.uniform(0.02, 0.06))
    wall.text(words(rng, 1), x - 0.4 * size, y + 0.2 * size, 0.2 * size, ink(rng), 0.2)


def ivy(wall: Canvas, rng: Rng, x: float, height: float, spread: float) -> None:
    """Leaves that climb from the foot of the wall at `x` up to `height` metres."""
    count = int(430 * height * spread)
    up = rng.uniform(0, 1, count) ** 1.3
    reach = spread * (0.35 + 0.65 * np.sin(np.pi * (0.15 + 0.8 * up)))
    xs = x + rng.normal(0, 0.42, count) * reach + 0.25 * np.sin(up * 5 + x)
    ys = wall.metres[0] - up * height
    order = rng.permutation(count)
    for i in order:
        length = rng.uniform(0.025, 0.06)
        light = rng.uniform(0.35, 1.15)
        colour = (0.22 * light + rng.normal(0, 0.03), 0.42 * light, 0.13 * light)
        wall.ellipse(xs[i] + 0.015, ys[i] + 0.02, (length, 0.6 * length), (0.05, 0.09, 0.04), rng.uniform(0, 180))
        wall.ellipse(xs[i], ys[i], (length, 0.55 * length), colour, rng.uniform(0, 180))


def sign(rng: Rng, width: float, height: float, texel: float) -> Canvas:
    """A shop sign."""
    board = Canvas(width, height, texel)
    ground, letters = np.asarray(ink(rng)) * 0.6, (0.95, 0.88, 0.68)
    board.fill(ground * (1 + 0.1 * board.fractal(rng, 0.5, 0.012, 0.8))[:, :, None])
    for inset in (0.03, 0.06):
        corners = np.array(
            [
                (inset, inset),
                (width - inset, inset),
                (width - inset, height - inset),
                (inset, height - inset),
                (inset, inset),
            ]
        )
        board.line(corners, letters, 0.012)
    text = words(rng, 2)
    size = min(0.5 * height, 1.05 * (width - 0.3) / len(text))
    board.text(text, 0.15, 0.5 * height + 0.45 * size, size, letters, 0.16)
    return board
