"""`hardnet-match eval brown | homography | pose | sfm`: our presets and their peers, measured in the same run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import common, comparison, options
from .common import verb

if TYPE_CHECKING:
    from ..jobs.contestants import Contest
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


@dataclass(frozen=True)
class Contestants:
    """Who takes part, and on what terms."""

    preset: comparison.Presets = None
    peers: comparison.Peers = None
    features: comparison.Features = None
    keypoints: comparison.Keypoints = 2048
    max_size: options.MaxSize = 0
    weights: options.Weights = None
    shape_weights: options.ShapeWeights = None
    detector_weights: options.DetectorWeights = None
    orientation: options.Orientation = None
    orientation_weights: options.OrientationWeights = None

    def contest(self, device: str) -> Contest:
        """As the jobs take it."""
        return comparison.contest_of(**{**vars(self), "max_size": self.max_size or None}, device=device)


@dataclass(frozen=True)
class SfmContestants(Contestants):
    """With what a reconstruction takes."""

    keypoints: comparison.Keypoints = 4096
    max_size: options.MaxSize = 1600


@dataclass(frozen=True)
class Output:
    """Where the tables go."""

    html: comparison.Page = None
    markdown: comparison.Markdown = None
    json: options.Json = False
    quiet: options.Quiet = False

    def begin(self) -> None:
        """Set the logging; OptionError unless all files can be written."""
        common.set_logging(self.quiet)
        comparison.check_places(self.html, self.markdown)

    def tell(self, found: Any, tables: list[ScoreTable], title: str, about: Mapping[str, str]) -> int:
        """Write and print them."""
        return comparison.tell(found, tables, title, about, self.html, self.markdown, self.json)


@verb
@options.grouped
def brown(
    *,
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER|ZIP|NAME", help="liberty, notredame, yosemite, ... of Brown.")
    ],
    descriptor: Annotated[
        comparison.Names, typer.Option(metavar="NAME,...", help="Networks with their own weights. [default: hardnet]")
    ] = None,
    weights: Annotated[
        comparison.Names, typer.Option(metavar="NAME|FILE,...", help="Descriptor weights, each a row of its own.")
    ] = None,
    peers: Annotated[
        comparison.Names, typer.Option(metavar="NAME,...", help="sift, rootsift-opencv (OpenCV's).")
    ] = None,
    descriptors: Annotated[
        comparison.Names,
        typer.Option(metavar="LABEL=FILE", help="Descriptors (N, D) of all patches as .npy, in order."),
    ] = None,
    device: options.Device = "auto",
    output: Output,
) -> int:
    """False positives at 95 % recall (FPR95) on the 100,000 published pairs of Brown's PhotoTour.

    The set is a folder or zip as published, with m50_100000_100000_0.txt, or the name of one, then downloaded.
    """
    output.begin()
    from ..jobs.brown import evaluate_brown
    from ..jobs.score_tables import brown_tables

    found = evaluate_brown(
        folder,
        comparison.split(descriptor),
        comparison.split(weights),
        comparison.split(peers),
        comparison.labelled(descriptors),
        device=device,
        quiet=output.quiet,
    )
    about = {"set": found.folder, "pairs": f"{found.pairs:,}, {found.matching:,} matching"}
    return output.tell(found, brown_tables(found), "FPR95 on Brown's patches", about)


@verb
@options.grouped
def homography(
    *,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Sequences (HPatches, Oxford, homogr), a subfolder each.")
    ],
    contestants: Contestants,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    estimator: Annotated[str, typer.Option(metavar="NAME", help="ransac, magsac or poselib.")] = "ransac",
    threshold: comparison.Threshold = 3.0,
    seed: comparison.Seed = 0,
    work: comparison.WorkFolder = None,
    device: options.Device = "auto",
    output: Output,
) -> int:
    """Matching and homographies on planar sequences: presets and peers on the same images, keypoints and matcher.

    Mean matching accuracy at 1 to 10 px, matching score and repeatability at 3 px, and the area under recall of the
    homography's corner error up to 3, 5 and 10 px. Binary descriptors are compared by Hamming distance.
    """
    output.begin()
    from ..jobs.homography import evaluate_homography
    from ..jobs.score_tables import homography_tables

    found = evaluate_homography(
        folder, contestants.contest(device), method=method, ratio=ratio, estimator=estimator, threshold=threshold,
        seed=seed, work=work, quiet=output.quiet,
    )  # fmt: skip
    about = {"folder": found.folder, "pairs": str(found.pairs), **comparison.about_of(found.settings)}
    return output.tell(found, homography_tables(found), "Homography benchmark", about)


@verb
@options.grouped
def pose(
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos with known cameras.")],
    cameras: comparison.Cameras = None,
    contestants: Contestants,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs file; those that share enough points without it.")
    ] = None,
    shared: Annotated[
        int, typer.Option(min=1, metavar="N", help="Known 3-D points that two photos of a pair both see, at least.")
    ] = 30,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    estimator: Annotated[
        comparison.Names,
        typer.Option(metavar="NAME,...", help="ransac, magsac, poselib. [default: magsac, poselib if installed]"),
    ] = None,
    threshold: comparison.Threshold = 1.0,
    seed: comparison.Seed = 0,
    work: comparison.WorkFolder = None,
    device: options.Device = "auto",
    output: Output,
) -> int:
    """Relative poses of photos with known cameras: area under recall of the pose error up to 5, 10 and 20 degrees.

    The error is the larger of the rotation's and of the translation's direction; a pair without a pose counts as
    failed. Beside it the share of matches within a pixel of the true epipolar lines.
    """
    output.begin()
    from ..jobs.pose import evaluate_pose
    from ..jobs.score_tables import pose_tables

    found = evaluate_pose(
        folder, contestants.contest(device), cameras=cameras, pairs=pairs, shared=shared, method=method, ratio=ratio,
        estimators=comparison.split(estimator), threshold=threshold, seed=seed, work=work, quiet=output.quiet,
    )  # fmt: skip
    about = {
        "folder": found.folder,
        "cameras": found.cameras,
        "pairs": str(found.pairs),
        **comparison.about_of(found.settings),
    }
    return output.tell(found, pose_tables(found), "Relative poses", about)


@verb
@options.grouped
def sfm(
    *,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Photos of one place.")],
    cameras: comparison.Cameras = None,
    contestants: SfmContestants,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    mapper: options.Mapper = "incremental",
    camera_mode: options.CameraMode = "auto",
    seed: comparison.Seed = 0,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="N", help="Mappings of the same matches; the one in the middle counts.")
    ] = 1,
    work: comparison.WorkFolder = None,
    device: options.Device = "auto",
    output: Output,
) -> int:
    """What COLMAP reconstructs from everyone's features: exhaustive pairs, one matcher, its verification and mapper.

    Registered images, points, track length and reprojection error of the largest model; against known cameras the
    median errors of rotation and position (per cent of the cameras' extent) after alignment.
    """
    output.begin()
    from ..jobs.score_tables import sfm_tables
    from ..jobs.sfm_scores import evaluate_sfm

    found = evaluate_sfm(
        folder, contestants.contest(device), cameras=cameras, method=method, ratio=ratio, mapper=mapper,
        camera_mode=camera_mode, seed=seed, repeats=repeats, work=work, quiet=output.quiet,
    )  # fmt: skip
    about = {"folder": found.folder, "images": str(found.images), "known cameras": found.cameras or "none"}
    return output.tell(found, sfm_tables(found), "Reconstruction", {**about, **comparison.about_of(found.settings)})
