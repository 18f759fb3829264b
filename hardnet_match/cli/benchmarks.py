"""`hardnet-match eval brown | homography | pose | sfm`: our presets and their peers, measured in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

if TYPE_CHECKING:
    from ..jobs.contestants import Field
    from ..report.scores import ScoreTable

BROWN = common.examples(
    """
    hardnet-match eval brown liberty/ --descriptor hardnet,rootsift --peers sift
    hardnet-match eval brown liberty/ --weights mine.safetensors,hardnet++ --json
    """
)
HOMOGRAPHY = common.examples(
    """
    hardnet-match eval homography hpatches-sequences-release/ --peers sift,rootsift,orb
    hardnet-match eval homography sequences/ --preset dog-hardnet --work work/ --html table.html
    hardnet-match eval homography sequences/ --weights mine.safetensors --features superpoint=feats.h5 --json
    """
)
POSE = common.examples(
    """
    hardnet-match eval pose scene/ --peers rootsift --max-size 1024
    hardnet-match eval pose photos/ --cameras model/ --estimator ransac,poselib --work work/
    """
)
SFM = common.examples(
    """
    hardnet-match eval sfm photos/ --peers colmap-sift --work work/
    hardnet-match eval sfm photos/ --cameras model/ --preset hesaffnet-hardnet,dog-hardnet --html sfm.html
    """
)

Names = list[str] | None
Presets = Annotated[Names, typer.Option(metavar="NAME,...", help="Our presets that take part; none for peers alone.")]
Peers = Annotated[
    Names,
    typer.Option(
        metavar="NAME,...",
        help="sift, rootsift, akaze, orb (OpenCV), colmap-sift, colmap-sift-affine-dsp, kornia-hesaffnet-hardnet, "
        "kornia-dogaffnet-hardnet, kornia-keynetaffnet-hardnet.",
    ),
]
Features = Annotated[
    Names,
    typer.Option(metavar="LABEL=FILE", help="Anybody's features in hloc's HDF5, images named relative to the folder."),
]
Keypoints = Annotated[int, typer.Option(min=1, metavar="N", help="Keypoints per image at most, of everyone.")]
WorkFolder = Annotated[
    Path | None,
    typer.Option("--work", metavar="FOLDER", help="Keep features and figures here; a second run goes on from them."),
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Of everything random.")]
Page = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write all tables as a page.")]
Markdown = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write the tables over all pairs as Markdown.")
]
Cameras = Annotated[
    Path | None,
    typer.Option(
        metavar="PATH",
        help="Known cameras: a COLMAP model, a folder with intrinsics.txt and poses.txt, or a Bundler file. "
        "[default: found in the folder]",
    ),
]
Threshold = Annotated[float, typer.Option(metavar="PIXELS", help="Inlier threshold of the estimator.")]


def _split(values: Names) -> list[str]:
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def _labelled(values: Names) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for value in values or ():
        label, equals, path = value.partition("=")
        if not equals or not label or not path or label in found:
            raise OptionError(f"{value!r}: files are given as LABEL=FILE, each label once")
        found[label] = Path(path)
    return found


def _field(preset: Names, peers: Names, features: Names, **rest: Any) -> Field:
    from ..jobs.contestants import Field

    others = bool(peers or features)
    presets = _split(preset) if preset is not None else ["hesaffnet-hardnet"]
    presets = [] if presets == ["none"] and others else presets
    return Field(presets, _split(peers), _labelled(features), **rest)


def _tell(
    found: Any,
    tables: list[ScoreTable],
    title: str,
    about: Mapping[str, str],
    html: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> int:
    """Write the pages asked for, print the main table or the JSON summary."""
    from ..report.page import write_page
    from ..report.scores import as_markdown, as_text

    if html is not None:
        write_scores(html, title, about, tables)
    if markdown is not None:
        parts = [f"{table.title}:\n\n{as_markdown(table)}\n" for table in tables if table.head != "pair"]
        write_page(markdown, "\n".join(parts))
    text = f"{title}: {tables[0].title}\n{as_text(tables[0])}" + (f"\n{html} has all tables" if html else "")
    return common.finish(found, text, as_json=as_json)


def write_scores(html: Path, title: str, about: Mapping[str, str], tables: list[ScoreTable]) -> None:
    """The page of a measurement."""
    from ..report.page import write_page
    from ..report.scores import scores_page

    write_page(html, scores_page(title, about, tables))


def check_places(*places: Path | None) -> None:
    """OptionError unless each can be written."""
    for place in places:
        if place is not None:
            common.output_place(place)


def _about(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings for a reader."""
    return {
        name.replace("_", " "): ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value or "as they are")
        if name == "max_size"
        else str(value)
        for name, value in settings.items()
    }


@verb
def brown(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER|ZIP|NAME", help="liberty, notredame, yosemite, ... of Brown.")
    ],
    descriptor: Annotated[
        Names, typer.Option(metavar="NAME,...", help="Networks with their own weights. [default: hardnet]")
    ] = None,
    weights: Annotated[
        Names, typer.Option(metavar="NAME|FILE,...", help="Descriptor weights, each a row of its own.")
    ] = None,
    peers: Annotated[Names, typer.Option(metavar="NAME,...", help="sift, rootsift-opencv (OpenCV's).")] = None,
    descriptors: Annotated[
        Names, typer.Option(metavar="LABEL=FILE", help="Descriptors (N, D) of all patches as .npy, in order.")
    ] = None,
    device: options.Device = "auto",
    html: Page = None,
    markdown: Markdown = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """False positives at 95 % recall (FPR95) on the 100,000 published pairs of Brown's PhotoTour.

    The set is a folder or zip as published, with m50_100000_100000_0.txt, or the name of one, then downloaded.
    """
    common.set_logging(quiet)
    check_places(html, markdown)
    from ..jobs.brown import evaluate_brown
    from ..jobs.score_tables import brown_tables

    found = evaluate_brown(
        folder, _split(descriptor), _split(weights), _split(peers), _labelled(descriptors), device=device, quiet=quiet
    )
    about = {"set": found.folder, "pairs": f"{found.pairs:,}, {found.matching:,} matching"}
    return _tell(found, brown_tables(found), "FPR95 on Brown's patches", about, html, markdown, json)


@verb
def homography(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Sequences (HPatches, Oxford, homogr), a subfolder each.")
    ],
    preset: Presets = None,
    peers: Peers = None,
    features: Features = None,
    keypoints: Keypoints = 2048,
    max_size: options.MaxSize = 0,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    estimator: Annotated[str, typer.Option(metavar="NAME", help="ransac, magsac or poselib.")] = "ransac",
    threshold: Threshold = 3.0,
    weights: options.Weights = None,
    shape_weights: options.ShapeWeights = None,
    detector_weights: options.DetectorWeights = None,
    orientation: options.Orientation = None,
    orientation_weights: options.OrientationWeights = None,
    seed: Seed = 0,
    work: WorkFolder = None,
    device: options.Device = "auto",
    html: Page = None,
    markdown: Markdown = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Matching and homographies on planar sequences: presets and peers on the same images, keypoints and matcher.

    Mean matching accuracy at 1 to 10 px, matching score and repeatability at 3 px, and the area under recall of the
    homography's corner error up to 3, 5 and 10 px. Binary descriptors are compared by Hamming distance.
    """
    common.set_logging(quiet)
    check_places(html, markdown)
    from ..jobs.homography import evaluate_homography
    from ..jobs.score_tables import homography_tables

    field = _field(
        preset, peers, features, keypoints=keypoints, max_size=max_size or None, weights=weights,
        shape_weights=shape_weights, detector_weights=detector_weights, orientation=orientation,
        orientation_weights=orientation_weights, device=device,
    )  # fmt: skip
    found = evaluate_homography(
        folder, field, method=method, ratio=ratio, estimator=estimator, threshold=threshold, seed=seed, work=work,
        quiet=quiet,
    )  # fmt: skip
    about = {"folder": found.folder, "pairs": str(found.pairs), **_about(found.settings)}
    return _tell(found, homography_tables(found), "Homography benchmark", about, html, markdown, json)


@verb
def pose(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos with known cameras.")],
    cameras: Cameras = None,
    preset: Presets = None,
    peers: Peers = None,
    features: Features = None,
    keypoints: Keypoints = 2048,
    max_size: options.MaxSize = 0,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs file; those that share enough points without it.")
    ] = None,
    shared: Annotated[
        int, typer.Option(min=1, metavar="N", help="Known 3-D points that two photos of a pair both see, at least.")
    ] = 30,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    estimator: Annotated[
        Names, typer.Option(metavar="NAME,...", help="ransac, magsac, poselib. [default: magsac, poselib if installed]")
    ] = None,
    threshold: Threshold = 1.0,
    weights: options.Weights = None,
    shape_weights: options.ShapeWeights = None,
    detector_weights: options.DetectorWeights = None,
    orientation: options.Orientation = None,
    orientation_weights: options.OrientationWeights = None,
    seed: Seed = 0,
    work: WorkFolder = None,
    device: options.Device = "auto",
    html: Page = None,
    markdown: Markdown = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Relative poses of photos with known cameras: area under recall of the pose error up to 5, 10 and 20 degrees.

    The error is the larger of the rotation's and of the translation's direction; a pair without a pose counts as
    failed. Beside it the share of matches within a pixel of the true epipolar lines.
    """
    common.set_logging(quiet)
    check_places(html, markdown)
    from ..jobs.pose import evaluate_pose
    from ..jobs.score_tables import pose_tables

    field = _field(
        preset, peers, features, keypoints=keypoints, max_size=max_size or None, weights=weights,
        shape_weights=shape_weights, detector_weights=detector_weights, orientation=orientation,
        orientation_weights=orientation_weights, device=device,
    )  # fmt: skip
    found = evaluate_pose(
        folder, field, cameras=cameras, pairs=pairs, shared=shared, method=method, ratio=ratio,
        estimators=_split(estimator), threshold=threshold, seed=seed, work=work, quiet=quiet,
    )  # fmt: skip
    about = {"folder": found.folder, "cameras": found.cameras, "pairs": str(found.pairs), **_about(found.settings)}
    return _tell(found, pose_tables(found), "Relative poses", about, html, markdown, json)


@verb
def sfm(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos of one place.")],
    cameras: Cameras = None,
    preset: Presets = None,
    peers: Peers = None,
    features: Features = None,
    keypoints: Keypoints = 4096,
    max_size: options.MaxSize = 1600,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    mapper: options.Mapper = "incremental",
    camera_mode: options.CameraMode = "auto",
    weights: options.Weights = None,
    shape_weights: options.ShapeWeights = None,
    detector_weights: options.DetectorWeights = None,
    orientation: options.Orientation = None,
    orientation_weights: options.OrientationWeights = None,
    seed: Seed = 0,
    work: WorkFolder = None,
    device: options.Device = "auto",
    html: Page = None,
    markdown: Markdown = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """What COLMAP reconstructs from everyone's features: exhaustive pairs, one matcher, its verification and mapper.

    Registered images, points, track length and reprojection error of the largest model; against known cameras the
    median errors of rotation and position (per cent of the cameras' extent) after alignment.
    """
    common.set_logging(quiet)
    check_places(html, markdown)
    from ..jobs.score_tables import sfm_tables
    from ..jobs.sfm_scores import evaluate_sfm

    field = _field(
        preset, peers, features, keypoints=keypoints, max_size=max_size or None, weights=weights,
        shape_weights=shape_weights, detector_weights=detector_weights, orientation=orientation,
        orientation_weights=orientation_weights, device=device,
    )  # fmt: skip
    found = evaluate_sfm(
        folder, field, cameras=cameras, method=method, ratio=ratio, mapper=mapper, camera_mode=camera_mode, seed=seed,
        work=work, quiet=quiet,
    )  # fmt: skip
    about = {"folder": found.folder, "images": str(found.images), "known cameras": found.cameras or "none"}
    return _tell(found, sfm_tables(found), "Reconstruction", {**about, **_about(found.settings)}, html, markdown, json)
