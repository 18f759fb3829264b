"""Draw the pictures of docs/conventions.md.

    python scripts/conventions.py [--only svg] [-o FOLDER]

The drawings are SVG, written by hand: the same code gives the same bytes. The photos are of the rendered world, with
frames and patches as the extractor gives them. Numbers in the drawings come from the package's own functions.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from hardnet_match.frames import laf_orientation, laf_scale, make_lafs

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "images"

INK, SOFT, GRID, PAPER = "#1d2733", "#5c6b7a", "#c9d3dc", "#ffffff"
BLUE, RED, GREEN = "#1f6feb", "#c9372c", "#18794e"


class Drawing:
    """An SVG in the making; y runs down."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self.size = width, height
        self.title = title
        self.parts: list[str] = []

    def line(
        self, a: tuple[float, float], b: tuple[float, float], colour: str = INK, width: float = 1.5, dash: str = ""
    ) -> None:
        self.parts.append(
            f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" stroke="{colour}" '
            f'stroke-width="{width:g}"{f" stroke-dasharray={chr(34)}{dash}{chr(34)}" if dash else ""}/>'
        )

    def arrow(self, a: tuple[float, float], b: tuple[float, float], colour: str = INK, width: float = 2.5) -> None:
        start, end = np.array(a, float), np.array(b, float)
        along = (end - start) / np.linalg.norm(end - start)
        across = np.array([-along[1], along[0]])
        base = end - 11 * along
        self.line(a, (base[0], base[1]), colour, width)
        self.polygon([end, base + 5 * across, base - 5 * across], fill=colour, colour=colour, width=0)

    def polygon(
        self, points: object, *, colour: str = INK, fill: str = "none", width: float = 1.5, opacity: float = 1
    ) -> None:
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in np.asarray(points, float))
        self.parts.append(
            f'<polygon points="{corners}" fill="{fill}" fill-opacity="{opacity:g}" stroke="{colour}" '
            f'stroke-width="{width:g}"/>'
        )

    def dot(self, at: tuple[float, float], colour: str = INK, radius: float = 4) -> None:
        self.parts.append(f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}" fill="{colour}"/>')

    def text(
        self, at: tuple[float, float], words: str, *, colour: str = INK, size: int = 14, anchor: str = "start"
    ) -> None:
        words = words.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" fill="{colour}" font-size="{size}" '
            f'text-anchor="{anchor}">{words}</text>'
        )

    def svg(self) -> str:
        """The file's text; a white sheet lies below, so that it reads on dark pages too."""
        width, height = self.size
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                f'height="{height}" font-family="system-ui, Helvetica, Arial, sans-serif" role="img">',
                f"<title>{self.title}</title>",
                f'<rect width="{width}" height="{height}" rx="8" fill="{PAPER}"/>',
                *self.parts,
                "</svg>\n",
            ]
        )


def pixels() -> Drawing:
    """Where pixel (0, 0) is, here and in COLMAP."""
    drawing = Drawing(720, 250, "Pixel coordinates here and in COLMAP")
    side, left, top = 56, 60, 66
    for column in range(4):
        for row in range(3):
            x, y = left + column * side, top + row * side
            corners = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
            drawing.polygon(corners, colour=GRID, fill="#eef2f6" if (column + row) % 2 else PAPER)
    here = left + side / 2, top + side / 2
    far = here[0] + 2 * side, here[1] + side
    drawing.dot(here, BLUE)
    drawing.dot((left, top), RED)
    drawing.dot(far, INK)
    drawing.text((left - 6, top - 10), "COLMAP's (0, 0)", colour=RED, size=13)
    drawing.text((here[0] + 8, here[1] + 5), "(0, 0)", colour=BLUE, size=13)
    drawing.text((far[0] + 7, far[1] + 5), "p", size=13)
    words = [
        (BLUE, "Here, OpenCV, kornia, hloc:", "(0, 0) is the centre of the first pixel; p = (2, 1)"),
        (RED, "COLMAP:", "(0, 0) is its outer corner; p = (2.5, 1.5)"),
        (INK, "So:", "x in COLMAP = x here + 0.5, y likewise"),
    ]
    for index, (colour, head, rest) in enumerate(words):
        drawing.text((330, 90 + 52 * index), head, colour=colour, size=15)
        drawing.text((330, 110 + 52 * index), rest, size=14)
    return drawing


def _mapped(a: NDArray[np.float64], u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Frame (2, 3) and patch coordinates (N, 2) to drawing coordinates."""
    return u @ a[:, :2].T + a[:, 2]


SQUARE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], float)


def _circle(radius: float = 1.0) -> NDArray[np.float64]:
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    return radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)


def _pair(at: NDArray[np.float64]) -> tuple[float, float]:
    return float(at[0]), float(at[1])


def frame() -> Drawing:
    """A frame maps the unit square of a patch into the image."""
    drawing = Drawing(720, 330, "A local affine frame: from the patch to the image")
    unit = np.array([[90, 0, 150], [0, 90, 165]], float)
    image = np.array([[118, 38, 510], [-34, 74, 165]], float)
    for a, ends in ((unit, ("u", "v")), (image, ("a1", "a2"))):
        drawing.polygon(_mapped(a, SQUARE), fill="#eef2f6", colour=SOFT)
        drawing.polygon(_mapped(a, _circle()), colour=GREEN)
        drawing.polygon(_mapped(a, _circle(1 / 6)), colour=GREEN, fill=GREEN, opacity=0.25)
        centre = _pair(a[:, 2])
        first, second = _pair(_mapped(a, np.array([[1.0, 0]]))[0]), _pair(_mapped(a, np.array([[0.0, 1]]))[0])
        drawing.arrow(centre, first, BLUE)
        drawing.arrow(centre, second, RED)
        drawing.dot(centre)
        drawing.text((first[0] + 8, first[1] + 4), ends[0], colour=BLUE, size=16)
        drawing.text((second[0] + 8, second[1] + 16), ends[1], colour=RED, size=16)
    drawing.text((image[0, 2] - 22, image[1, 2] + 22), "c", size=16)
    drawing.text((150, 30), "the patch, [-1, 1] x [-1, 1]", size=15, anchor="middle")
    drawing.text((510, 30), "the image: x = A u + c,  A = [a1 a2]", size=15, anchor="middle")
    drawing.arrow((275, 165), (345, 165), SOFT)
    drawing.text(
        (360, 300),
        "filled: the blob, one standard deviation; the line around it: six, the unit circle",
        colour=GREEN,
        size=13,
        anchor="middle",
    )
    drawing.text((360, 320), "the parallelogram is what the descriptor sees", colour=SOFT, size=13, anchor="middle")
    return drawing


def angles() -> Drawing:
    """The sense of angles here, in OpenCV and in COLMAP."""
    drawing = Drawing(720, 260, "The sense of angles")
    for index, angle in enumerate((0, 30, 90, -45)):
        centre = 110 + 165 * index, 120
        laf = make_lafs([centre], 52.0, angle).astype(float)[0]
        drawing.polygon(_mapped(laf, SQUARE), fill="#eef2f6", colour=SOFT)
        drawing.arrow(centre, _pair(_mapped(laf, np.array([[1.0, 0]]))[0]), BLUE)
        drawing.arrow(centre, _pair(_mapped(laf, np.array([[0.0, 1]]))[0]), RED)
        drawing.dot(centre)
        here = round(float(laf_orientation(laf[None].astype(np.float32))[0]))
        drawing.text((centre[0], 222), f"here {here}\u00b0", size=14, anchor="middle")
        drawing.text((centre[0], 242), f"OpenCV {(-here) % 360}\u00b0", colour=SOFT, size=13, anchor="middle")
    drawing.text(
        (20, 24), "blue: the first axis a1 (the patch's right), red: the second, a2 (its down)", colour=SOFT, size=13
    )
    return drawing


DRAWINGS = {"pixels.svg": pixels, "frame.svg": frame, "angles.svg": angles}

COLOURS = ((230, 75, 60), (40, 130, 230), (30, 160, 90), (235, 160, 20), (150, 80, 200))


def same_places(count: int = 5, side: int = 96) -> NDArray[np.uint8]:
    """Two views of one wall: the same frames found in both, and the patches they cut, (H, W, 3) RGB."""
    import torch

    from hardnet_match import FeatureExtractor, match
    from hardnet_match.patches import extract_patches
    from hardnet_match.pyramid import as_image, patch_pyramid
    from hardnet_match.world import World

    world = World(seed=5)
    views = world.render(6, size=(480, 360))
    pair = views[0], views[5]
    extractor = FeatureExtractor.from_preset("hesaffnet-hardnet", max_keypoints=2000)
    both = extractor.extract_batch([view.image for view in pair])
    found = match(both[0], both[1]).pairs
    lafs = both[0].lafs[found[:, 0]], both[1].lafs[found[:, 1]]
    there = world.homography(*pair, "house")
    centres = cv2.perspectiveTransform(lafs[0][:, None, :, 2].astype(np.float64), there)[:, 0]
    right = np.linalg.norm(centres - lafs[1][:, :, 2], axis=1) < 1.5
    right &= (laf_scale(lafs[0]) > 14) & (laf_scale(lafs[0]) < 40)
    for frames in lafs:  # whole in the picture
        corners = np.abs(frames[:, :, :2]).sum(axis=2)
        right &= ((frames[:, :, 2] > corners) & (frames[:, :, 2] < np.array([479, 359]) - corners)).all(axis=1)
    chosen: list[int] = []
    for row in np.flatnonzero(right):  # apart from each other, so that the drawing stays clear
        apart = [np.linalg.norm(lafs[0][row, :, 2] - lafs[0][other, :, 2]) > 60 for other in chosen]
        if all(apart) and len(chosen) < count:
            chosen.append(int(row))
    panels = []
    for view, frames in zip(pair, lafs, strict=True):
        picked = frames[chosen]
        photo = view.image.copy()
        for colour, laf in zip(COLOURS, picked, strict=False):
            for shape in (SQUARE, _circle()):
                outline = np.rint(16 * _mapped(laf.astype(float), shape)).astype(np.int32)
                cv2.polylines(photo, [outline[:, None]], True, colour, 2, cv2.LINE_AA, 4)
            up = np.rint(16 * _mapped(laf.astype(float), np.array([(0.0, 0), (0, -1)]))).astype(np.int32)
            cv2.polylines(photo, [up[:, None]], False, colour, 2, cv2.LINE_AA, 4)
        cut = extract_patches(patch_pyramid(as_image(view.image)), torch.from_numpy(picked), 32)
        strip = np.full((side + 12, photo.shape[1], 3), 255, np.uint8)
        for index, patch in enumerate(cut.numpy()[:, 0]):
            grey = np.rint(patch.clip(0, 1) * 255).astype(np.uint8)
            tile = cv2.cvtColor(
                cv2.resize(grey, (side - 8, side - 8), interpolation=cv2.INTER_NEAREST), cv2.COLOR_GRAY2RGB
            )
            x = index * side
            strip[8 : 8 + side, x : x + side] = COLOURS[index]
            strip[12 : 4 + side, x + 4 : x + side - 4] = tile
        panels.append(np.vstack([photo, strip]))
    gap = np.full((panels[0].shape[0], 12, 3), 255, np.uint8)
    return np.hstack([panels[0], gap, panels[1]])


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["svg"], help="only the drawings")
    parser.add_argument("-o", "--output", type=Path, default=FOLDER, help="folder to draw into")
    options = parser.parse_args()
    folder: Path = options.output
    for name, draw in DRAWINGS.items():
        (folder / name).write_text(draw().svg(), encoding="utf-8")
    if not options.only:
        from PIL import Image

        Image.fromarray(same_places()).save(folder / "same-places.jpg", quality=80)


if __name__ == "__main__":
    main()
