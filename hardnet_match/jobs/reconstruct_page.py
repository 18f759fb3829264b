"""What the page of a reconstruction shows, gathered from what the run left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError
from ..images import read_image, read_thumbnail
from ..report.bars import in_words
from ..report.frames import colours_of_use, draw_frames, drawable
from ..report.page import shrunk, write_page
from ..report.parts import Drawn
from ..report.photos import Photo
from ..report.reconstruction import ReconstructionPage, reconstruction_page
from ..report.space import Space
from ..sfm.inliers import inlier_matches
from ..sfm.pair_counts import PairCounts, pair_counts
from ..sfm.scene import Scene, observing_keypoints, read_scene
from ..store import FeatureReader
from .advice import Case, advice, outside
from .picture import draw_pair
from .sharpness import SIDE, sharpness

if TYPE_CHECKING:
    from .reconstruct import ReconstructSummary

PAIRS = {"best": "The best pair", "typical": "A typical pair", "worst": "The worst verified pair"}
PAIR_HEIGHT, WIDEST = 440, 1400
FRAMES_SIDE, MOST_FRAMES = 900, 500
WALL, WALL_OUT, WALL_SIDE = 36, 18, 220
LOOKED_AT, COMPARED = 30, 12
THREADS = 4


@dataclass(frozen=True)
class Places:
    """Where a run's files are: the photo folder, and what it left."""

    photos: Path
    features: Path
    matches: Path
    database: Path
    sparse: Path


def write_reconstruct_page(
    path: Path,
    summary: ReconstructSummary,
    places: Places,
    models: Sequence[Sequence[str]],
    options: Mapping[str, Any],
) -> None:
    """Write the page of a run. A photo that cannot be shown is left out; the page is written all the same.

    Args:
        summary: of the run.
        models: names of the images of each model, the largest first.
        options: of the run beyond the extraction's: `pairs`, `method`, `ratio`, `camera_mode`, `camera_model`,
            `mapper`.

    Raises:
        ReconstructionError, StoreError: a file of the run is missing or damaged.
        ImageError: the page cannot be written.
    """
    counts = pair_counts(places.database)
    scene = read_scene(places.sparse / "0") if models else None
    seen = dict(zip(scene.names, scene.seen.tolist(), strict=True)) if scene is not None else {}
    case = Case(
        counts=counts,
        models=models,
        skipped=summary.skipped,
        seen=seen,
        points=summary.points,
        track_length=summary.track_length,
        reprojection_error=summary.reprojection_error,
        settings=summary.settings,
        pairs=str(options["pairs"]),
        camera_model=str(options["camera_model"]),
        camera_mode=str(options["camera_mode"]),
    )
    out = outside(case)
    small = _thumbnails(places.photos, counts.names, out)
    case = Case(**{**case.__dict__, "sharpness": _sharpness(small, set(seen))})
    shown = ReconstructionPage(
        title=_title(places.photos),
        verdict=_verdict(summary, models),
        figures=_figures(summary, counts),
        warnings=advice(case),
        space=_space(scene) if scene is not None and len(scene.points) else None,
        pairs=_pairs(places, counts),
        keypoints=_keypoints(places, scene),
        names=counts.names,
        matrix_pairs=counts.pairs,
        inliers=counts.inliers,
        lengths=scene.lengths if scene is not None else np.zeros(0, np.int64),
        errors=scene.errors if scene is not None else np.zeros(0),
        photos=_photos(counts, seen, small),
        seconds={stage: seconds for stage, seconds in summary.seconds.items() if stage not in ("picture", "page")},
        reused=summary.reused,
        about=_about(summary, options),
    )
    write_page(path, reconstruction_page(shown))


def _title(photos: Path) -> str:
    """The folder's name; where that says nothing, with the one it is in."""
    path = photos.resolve()
    plain = path.name.lower() in ("images", "photos", "pictures", "frames")
    return f"{path.parent.name}/{path.name}" if plain and path.parent.name else path.name


def _verdict(summary: ReconstructSummary, models: Sequence[Sequence[str]]) -> str:
    if not models:
        return f"Nothing could be reconstructed of {summary.images} photos."
    if summary.registered == summary.images:
        return f"All {summary.images} photos are in one model."
    rest = summary.images - summary.registered
    return (
        f"{summary.registered} of {summary.images} photos are in the model; {rest} {'is' if rest == 1 else 'are'} not."
    )


def _figures(summary: ReconstructSummary, counts: PairCounts) -> list[tuple[str, str, str]]:
    verified = counts.inliers[counts.inliers > 0]
    middle = int(np.median(verified)) if len(verified) else 0
    each = summary.keypoints // max(len(counts.names), 1)
    figures = [
        ("photos in the model", f"{summary.registered:,}", f"of {summary.images:,}"),
        ("points", f"{summary.points:,}", ""),
        ("mean track length", f"{summary.track_length:.2f}", ""),
        ("reprojection error", f"{summary.reprojection_error:.3f}", "px"),
        ("pairs verified", f"{len(verified):,}", f"of {summary.pairs:,}"),
        ("inliers a pair, median", f"{middle:,}", ""),
        ("keypoints a photo", f"{each:,}", ""),
    ]
    if not summary.reused:
        figures.append(("in all", in_words(sum(summary.seconds.values())), ""))
    return figures if summary.points else [figures[0], *figures[4:]]


def _space(scene: Scene) -> Space:
    halves = scene.sizes / (2 * np.maximum(scene.focal, 1e-9))[:, None]
    return Space(scene.points, scene.colours, scene.names, scene.centres, scene.rotations, halves)


def _pairs(places: Places, counts: PairCounts) -> list[Drawn]:
    """The best, a typical and the worst of the verified pairs that can be shown."""
    order = [int(row) for row in np.argsort(-counts.inliers, kind="stable") if counts.inliers[row] > 0]
    wanted = {"best": 0, "typical": len(order) // 2, "worst": len(order) - 1}
    drawn, done = [], set()
    for kind, place in wanted.items():
        if not order or place in done:
            continue
        done.add(place)
        first, second = (counts.names[row] for row in counts.pairs[order[place]])
        try:
            kept = inlier_matches(places.database, first, second)
            one = draw_pair(places.features, places.matches, places.photos, (first, second), kept, height=PAIR_HEIGHT)
        except (ImageError, DataError):
            continue
        text = f"{first} and {second}: {one.inliers:,} of {one.matches:,} matches verified."
        label = f"{first} and {second} side by side, lines between {one.inliers} verified matches"
        drawn.append(Drawn(shrunk(one.pixels, WIDEST), f"{PAIRS[kind]}.", text, label))
    return drawn


def _keypoints(places: Places, scene: Scene | None) -> list[Drawn]:
    """Frames on the photos that see the most points, a typical number, and the fewest."""
    if scene is None:
        return []
    order = np.argsort(-scene.seen, kind="stable")
    wanted = dict.fromkeys(scene.names[order[place]] for place in (0, len(order) // 2, len(order) - 1))
    used = observing_keypoints(places.sparse / "0", list(wanted))
    drawn = []
    for name in wanted:
        try:
            photo = read_image(places.photos / name, max_size=FRAMES_SIDE, color=True, apply_orientation=True)
        except ImageError:
            continue
        with FeatureReader(places.features) as reader:
            lafs = photo.from_original(reader.lafs(name))
        mask = np.zeros(len(lafs), bool)
        mask[used[name][used[name] < len(lafs)]] = True
        rows = drawable(lafs, np.flatnonzero(mask), MOST_FRAMES, FRAMES_SIDE)
        others = drawable(lafs, np.flatnonzero(~mask), MOST_FRAMES // 2, FRAMES_SIDE)
        chosen = np.concatenate([rows, others])
        pixels = draw_frames(photo.pixels, lafs[chosen], colours_of_use(mask[chosen]))
        text = f"{int(mask.sum()):,} of {len(lafs):,} keypoints became points; {len(chosen):,} are drawn."
        drawn.append(Drawn(pixels, f"{name}.", text, f"{name} with the ellipses of its keypoints"))
    return drawn


def _thumbnails(folder: Path, names: Sequence[str], out: Sequence[str]) -> dict[str, NDArray[np.uint8]]:
    """Small pictures of some photos: of those outside the model, and of the others evenly."""
    left_out = set(out)
    inside = [name for name in names if name not in left_out]
    some = [out[place] for place in _evenly(len(out), max(LOOKED_AT, WALL_OUT))]
    rest = [inside[place] for place in _evenly(len(inside), max(WALL - min(len(out), WALL_OUT), COMPARED))]

    def read(name: str) -> NDArray[np.uint8] | None:
        try:
            return read_thumbnail(folder / name, SIDE)
        except ImageError:
            return None

    with ThreadPoolExecutor(THREADS) as pool:
        found = zip([*some, *rest], pool.map(read, [*some, *rest]), strict=True)
        return {name: pixels for name, pixels in found if pixels is not None}


def _sharpness(small: Mapping[str, NDArray[np.uint8]], inside: set[str]) -> dict[str, float]:
    """Sharpness of the small pictures over the median of those in the model."""
    found = {name: sharpness(pixels) for name, pixels in small.items()}
    usual = float(np.median([value for name, value in found.items() if name in inside] or [0.0]))
    return {name: value / usual for name, value in found.items()} if usual > 0 else {}


def _photos(counts: PairCounts, seen: Mapping[str, int], small: Mapping[str, NDArray[np.uint8]]) -> list[Photo]:
    matched = np.bincount(counts.pairs[counts.matches > 0].ravel(), minlength=len(counts.names))
    verified = np.bincount(counts.pairs[counts.inliers > 0].ravel(), minlength=len(counts.names))
    shown = _on_the_wall([name for name in counts.names if name in small], seen)
    photos = []
    for row, name in enumerate(counts.names):
        cells = {
            "keypoints": f"{counts.keypoints[row]:,}",
            "pairs with matches": f"{matched[row]:,}",
            "pairs verified": f"{verified[row]:,}",
            "points seen": f"{seen[name]:,}" if name in seen else "not in the model",
        }
        state = f"{seen[name]:,} points" if name in seen else "not in the model"
        pixels = shrunk(small[name], WALL_SIDE) if name in shown else None
        photos.append(Photo(name, cells, state, name not in seen, pixels))
    return photos


def _on_the_wall(names: Sequence[str], seen: Mapping[str, int]) -> set[str]:
    out = [name for name in names if name not in seen][:WALL_OUT]
    inside = [name for name in names if name in seen]
    return {*out, *(inside[place] for place in _evenly(len(inside), WALL - len(out)))}


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` rows of `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist() if count else []


def _about(summary: ReconstructSummary, options: Mapping[str, Any]) -> dict[str, str]:
    settings = {**summary.settings, **options}
    weights = settings.pop("weights", {})
    about = {key.replace("_", " "): str(value) for key, value in settings.items()}
    if weights:
        about["weights"] = ", ".join(f"{part} {value}" for part, value in weights.items())
    return about
