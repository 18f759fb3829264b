"""A small world to take pictures of: known cameras, depth and homographies for `demo` and for the tests.

A little square between a house front, a plastered wall with posters, a dry stone wall and a heap of stones (both with
real relief), with crates and a kiosk on it. Everything is drawn from the seed: the same seed gives the same pictures,
another seed another place. Units are metres; x runs right, y down, z away from the photographer.

    world = World(seed=3)
    first, second = world.render(2, size=(640, 480))
    H = world.homography(first, second, "house")      # pixels of the first to pixels of the second
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .camera import Camera, Light, View
from .render import Tracer, plane_homography
from .scene import DEPTH, HEIGHT, WIDTH, Surface, build

__all__ = ["Camera", "Light", "Surface", "View", "World", "write_scene"]


class World:
    """One place.

    Args:
        seed: which place.
        texel: size of a texture's pixel in metres; smaller is sharper close by and takes longer to build.
    """

    def __init__(self, seed: int = 0, texel: float = 0.007) -> None:
        if seed < 0 or not 0.001 <= texel <= 0.1:
            raise OptionError(f"need seed >= 0 and a texel of 0.001 to 0.1 metres, got {seed} and {texel}")
        self.seed = seed
        self.surfaces = build(seed, texel)
        self._tracer = Tracer(self.surfaces)

    @property
    def extent(self) -> float:
        """Diagonal of the scene in metres."""
        return float(np.linalg.norm([WIDTH, DEPTH, HEIGHT]))

    def surface(self, name: str | int) -> int:
        """Number of a surface, by name ("house", "ground", "crate-front", ...) or number."""
        names = [surface.name for surface in self.surfaces]
        if isinstance(name, int) and 0 <= name < len(names):
            return name
        if name not in names:
            raise OptionError(f"no surface {name!r} in this world; there are {', '.join(names)}")
        return names.index(str(name))

    def cameras(self, n_views: int, size: tuple[int, int] = (640, 480)) -> list[Camera]:
        """A walk across the square in an arc: each camera sees much of what the one before it saw. One K for all."""
        if n_views < 1:
            raise OptionError(f"n_views must be at least 1, got {n_views}")
        rng = np.random.default_rng([self.seed, 11])
        cameras = []
        for angle in np.deg2rad(np.linspace(-28, 28, n_views) if n_views > 1 else [0.0]):
            radius = 8.4 + rng.uniform(-0.5, 0.5)
            eye = [radius * np.sin(angle), -1.7 + rng.uniform(-0.5, 0.3), -radius * np.cos(angle) - 0.6]
            target = [0.35 * eye[0] + rng.normal(0, 0.3), -1.9 + rng.normal(0, 0.15), 0.0]
            cameras.append(Camera.look_at(eye, target, size, roll_degrees=rng.normal(0, 2.0)))
        return cameras

    def lights(self, n_views: int, changes: float = 1.0) -> list[Light]:
        """One light a view: the sun moves on, exposure and white balance vary. `changes` 0 keeps the first one."""
        rng = np.random.default_rng([self.seed, 13])
        lights = []
        for _ in range(n_views):
            drift, lift, warm, expose, curve = rng.normal(0, changes, 5)
            lights.append(
                Light(
                    azimuth=30 + 6 * drift,
                    elevation=float(np.clip(46 + 3 * lift, 20, 70)),
                    warmth=float(np.clip(0.4 * warm, -1, 1)),
                    exposure=float(np.exp(0.15 * expose)),
                    gamma=float(np.exp(0.06 * curve)),
                )
            )
        return lights

    def view(self, camera: Camera, light: Light | None = None, *, seed: int = 0) -> View:
        """The picture one camera takes; `seed` draws its noise and clouds. Depth and surface are of pixel centres."""
        light = light or Light()
        near, number, _, _ = self._tracer.trace(camera, 1)
        with np.errstate(divide="ignore"):
            depth = np.where(near > 0, 1 / near, np.inf).astype(np.float32)
        return View(self._tracer.picture(camera, light, seed), camera, depth, number, light)

    def render(self, n_views: int, size: tuple[int, int] = (640, 480), light_changes: float = 1.0) -> list[View]:
        """`n_views` pictures from `cameras` under `lights`."""
        pairs = zip(self.cameras(n_views, size), self.lights(n_views, light_changes), strict=True)
        return [self.view(camera, light, seed=1000 * self.seed + i) for i, (camera, light) in enumerate(pairs)]

    def homography(self, first: View | Camera, second: View | Camera, plane: str | int) -> NDArray[np.float64]:
        """Pixels of the first view to pixels of the second, (3, 3), for points of one plane; exact.

        Raises:
            OptionError: there is no such surface, or it has a relief.
        """
        surface = self.surfaces[self.surface(plane)]
        if surface.heights is not None:
            raise OptionError(f"{surface.name} is a relief: it has no homography; use depth and cameras")
        a, b = (view.camera if isinstance(view, View) else view for view in (first, second))
        H = plane_homography(surface, b) @ np.linalg.inv(plane_homography(surface, a))
        return np.asarray(H / H[2, 2])


def write_scene(
    folder: str | Path,
    n_views: int = 12,
    size: tuple[int, int] = (960, 720),
    seed: int = 0,
    *,
    light_changes: float = 1.0,
    extension: str = ".jpg",
) -> dict[str, Any]:
    """Render a scene into `folder`/images and its truth into `folder`/cameras.json; returns the truth.

    The truth: `size` (w, h), `K` (pixel centres at integers), `extent` (metres) and `images`: name -> `R` (3x3) and
    `t` (3), world-to-camera. Files are JPEG at quality 95, or PNG with `extension=".png"`.
    """
    from PIL import Image

    world = World(seed, texel=float(np.clip(0.007 * 960 / max(size), 0.002, 0.012)))
    images = Path(folder) / "images"
    images.mkdir(parents=True, exist_ok=True)
    truth: dict[str, Any] = {"seed": seed, "size": list(size), "extent": world.extent, "images": {}}
    for i, view in enumerate(world.render(n_views, size, light_changes)):
        name = f"view_{i:03d}{extension}"
        Image.fromarray(view.image).save(images / name, quality=95)
        truth["K"] = view.K.tolist()
        truth["images"][name] = {"R": view.R.tolist(), "t": view.t.tolist()}
    (Path(folder) / "cameras.json").write_text(json.dumps(truth, indent=1))
    return truth
