"""The 3-D view of a page: points and cameras in a canvas that mouse, fingers and keys turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from .page import data, packed, script, shortened

MOST_POINTS = 50_000
MOST_CAMERAS = 2_000
# Points farther than this many typical distances from the middle are strays, and would shrink the rest.
FAR = 8.0
LYING = 1.5
STYLE = """
.space { --space: #eceef0; --space-line: #0b63b5; --space-strong: #c2410c; display: flex; flex-direction: column; }
@media (prefers-color-scheme: dark) { .space { --space: #0e1012; --space-line: #5fa8ea; --space-strong: #ffb454; } }
.space canvas { width: 100%; height: clamp(16rem, min(62vh, 105vw), 34rem); display: block;
  border-radius: .5rem; cursor: grab; touch-action: none; background: var(--space); border: 1px solid var(--line); }
.space canvas:active { cursor: grabbing; }
.space .told { min-height: 1.45em; margin: .4rem 0; font-size: .92rem; color: var(--faint); }
.space .do { display: flex; flex-wrap: wrap; gap: .4rem; }
.space .do { margin-bottom: .5rem; }
.space button[aria-pressed=false] { opacity: .55; }
.space button:disabled { opacity: .45; cursor: default; }
"""
HINT = "Drag to turn, shift-drag to move, pinch or click and wheel to zoom. A camera tells its photo."
KEYS = (
    "Arrow keys turn, with shift they move, + and - zoom, n and p go through the photos, Enter looks from where the "
    "photo was taken, [ and ] change the dots, Home resets."
)
BUTTONS = (
    ("reset", "Reset", "Reset the view"), ("farther", "\u2212", "Zoom out"), ("closer", "+", "Zoom in"),
    ("smaller", "·", "Smaller dots"), ("larger", "●", "Larger dots"), ("before", "\u2039", "Previous photo"),
    ("after", "\u203a", "Next photo"), ("stand", "Stand there", "Look from where the chosen photo was taken"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Space:
    """What is to be seen; world coordinates are any.

    Args:
        points: (N, 3). colours: (N, 3) uint8 RGB.
        names: of M cameras. centres: (M, 3). rotations: (M, 3, 3) world to camera, x right, y down, z ahead.
        halves: (M, 2) half the picture's width and height over the focal length.
    """

    points: NDArray[np.float64]
    colours: NDArray[np.uint8]
    names: Sequence[str]
    centres: NDArray[np.float64]
    rotations: NDArray[np.float64]
    halves: NDArray[np.float64]


def space_view(space: Space) -> str:
    """The view as HTML; the page has to run `space_script()`.

    At most `MOST_POINTS` points, drawn by chance, and `MOST_CAMERAS` cameras are in it, about 0.8 MB; the text below it
    says how many of how many.
    """
    turn = _upright(space)
    points, eyes = space.points @ turn.T, space.centres @ turn.T
    middle = np.median(points, axis=0)
    away = np.linalg.norm(points - middle, axis=1)
    unit = max(float(np.quantile(away, 0.8)), 1e-9)
    points, eyes = (points - middle) / unit, (eyes - middle) / unit
    near = np.flatnonzero(away <= FAR * unit)
    rng = np.random.default_rng(0)
    kept = np.sort(rng.choice(near, MOST_POINTS, replace=False)) if len(near) > MOST_POINTS else near
    cameras = np.unique(np.linspace(0, len(eyes) - 1, min(len(eyes), MOST_CAMERAS)).round().astype(int))
    low, high = points[kept].min(axis=0), points[kept].max(axis=0)
    step = np.maximum(high - low, 1e-9) / 65535
    axes = space.rotations[cameras] @ turn.T
    rows = np.concatenate(
        [eyes[cameras], axes[:, 0], axes[:, 1], axes[:, 2], space.halves[cameras]], axis=1, dtype=np.float64
    )
    told = {
        "points": packed(np.round((points[kept] - low) / step).astype(np.uint16)),
        "colours": packed(_visible(space.colours[kept])),
        "low": low.tolist(),
        "step": step.tolist(),
        "cameras": packed(rows.astype(np.float32)),
        "names": [shortened(space.names[place]) for place in cameras],
        "yaw": 0.35,
        "pitch": 0.3,
        "reach": _reach(eyes[cameras]),
        "hint": HINT,
    }
    buttons = "".join(
        f'<button type="button" data-do="{action}" title="{title}" aria-label="{title}">{text}</button>'
        for action, text, title in BUTTONS
    )
    toggle = '<button type="button" data-do="cameras" aria-pressed="true">Cameras</button>'
    numbers = counted(len(kept), len(points), "point") + ", " + counted(len(cameras), len(eyes), "camera")
    label = f"3-D view of {numbers}. {KEYS}"
    return (
        f'<div class="space" data-space><canvas tabindex="0" role="img" aria-label="{escape(label, quote=True)}">'
        f'</canvas><p class="told" data-told aria-live="polite"></p><div class="do">{buttons}{toggle}</div>'
        f'<details class="numbers"><summary>{numbers}</summary>{escape(KEYS)}</details>'
        f"<noscript>The view needs scripts.</noscript>{data(told)}</div>"
    )


def space_script() -> str:
    """What makes the view live."""
    return script("space.js")


def counted(shown: int, whole: int, unit: str) -> str:
    """`3 points`, or `50,000 of 1,000,000 points`."""
    plural = "" if whole == 1 else "s"
    return f"{whole:,} {unit}{plural}" if shown == whole else f"{shown:,} of {whole:,} {unit}{plural}"


def _upright(space: Space) -> NDArray[np.float64]:
    """(3, 3): world to x right, y ahead, z up, by how the photos were held and where they look.

    Photos of a camera held upright may lie on their side in their files. Then it is the other axis that all agree on.
    """
    up, sideways = -space.rotations[:, 1].sum(axis=0), space.rotations[:, 0].sum(axis=0)
    if np.linalg.norm(sideways) > LYING * np.linalg.norm(up):
        up = sideways
    ahead = space.rotations[:, 2].sum(axis=0)
    if np.linalg.norm(up) < 1e-6:
        up = np.array([0.0, -1.0, 0.0])
    up /= np.linalg.norm(up)
    for guess in (ahead, np.median(space.points, axis=0) - space.centres.mean(axis=0), np.eye(3)[np.abs(up).argmin()]):
        flat = guess - up * (guess @ up)
        if np.linalg.norm(flat) > 0.2 * max(float(np.linalg.norm(guess)), 1e-12):
            break
    flat /= np.linalg.norm(flat)
    return np.stack([np.cross(flat, up), flat, up])


def _reach(eyes: NDArray[np.float64]) -> float:
    """How long a camera is drawn: such that neighbours stay apart."""
    if len(eyes) < 2:
        return 0.2
    some = eyes[:: max(1, len(eyes) // 300)]
    apart = np.linalg.norm(some[:, None] - some[None], axis=2)
    nearest = np.sort(apart, axis=1)[:, 1]
    return float(np.clip(0.7 * np.median(nearest), 0.03, 0.35))


def _visible(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colours a little stronger and neither black nor white, to stand out from a light and from a dark ground."""
    values = colours.astype(np.float64)
    grey = values.mean(axis=1, keepdims=True)
    return np.asarray(np.clip(28 + (grey + 1.25 * (values - grey)) * 0.76, 0, 255), np.uint8)
