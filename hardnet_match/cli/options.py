"""The options that several verbs have, each with one name and one help text, and groups of them.

A group is a dataclass whose fields are options; a verb that is `grouped` takes it as one parameter.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from ..presets import CHOICES, compose

ImagesFolder = Annotated[
    Path, typer.Argument(metavar="PHOTOS", help="Folder of images, subfolders included.", exists=True, file_okay=False)
]
FeaturesFile = Annotated[Path, typer.Argument(metavar="FEATURES", help="Features file (.h5).", dir_okay=False)]
MatchesFile = Annotated[Path, typer.Argument(metavar="MATCHES", help="Matches file (.h5).", dir_okay=False)]
Preset = Annotated[
    str, typer.Option(metavar="NAME", help="Detector, shape and descriptor in one name; options below change parts.")
]
Detector = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"{', '.join(CHOICES['detector'])}; parts of plugins: `hardnet-match list`."),
]
Shape = Annotated[str | None, typer.Option(metavar="NAME", help=f"Affine shape: {', '.join(CHOICES['shape'])}.")]
Orientation = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"{', '.join(CHOICES['orientation'])} (for photos all held upright)."),
]
Descriptor = Annotated[str | None, typer.Option(metavar="NAME", help=f"{', '.join(CHOICES['descriptor'])}.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Descriptor weights: a name (see `hardnet-match weights`) or a file."),
]
DetectorWeights = Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Likewise of the detector (keynet).")]
ShapeWeights = Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Likewise of the affine shape.")]
OrientationWeights = Annotated[str | None, typer.Option(metavar="NAME|FILE", help="Likewise of the orientation.")]
Precision = Annotated[
    str, typer.Option(metavar="NAME", help="float32, half, int8 (fastest on a CPU; needs the extra int8), or auto.")
]
MaxKeypoints = Annotated[int, typer.Option(min=1, metavar="N", help="Keypoints per image at most, the strongest.")]
MaxSize = Annotated[
    int, typer.Option(min=0, metavar="PIXELS", help="Shrink images to this longer side; 0 keeps them as they are.")
]
Store = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Descriptors as float16, half the room, or float32. [default: float16, or as in the file]"
    ),
]
Masks = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Masks, NAME.png for image NAME; 0 hides.", exists=True, file_okay=False),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or mps.")]
Workers = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Threads that decode images. [default: fits the processor]")
]
ShardOf = Annotated[
    str | None,
    typer.Option("--shard", metavar="I/N", help="Only part I of N (I from 0), in a file of its own; see `join`."),
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Work on a Ray cluster: auto, local or HOST:PORT (extra ray)."),
]
RayWorkers = Annotated[
    int | None,
    typer.Option("--ray-workers", min=1, metavar="N", help="Workers there at most. [default: one a GPU, or a core]"),
]
Method = Annotated[
    str,
    typer.Option(metavar="NAME", help="mnn (mutual), snn (ratio), smnn (both), fginn, adalam, or a plugin's."),
]
Ratio = Annotated[float, typer.Option(min=0.0, max=1.0, metavar="R", help="Ratio test threshold.")]
CameraMode = Annotated[
    str,
    typer.Option(metavar="MODE", help="Who shares a camera: auto (EXIF), single, per-folder or per-image."),
]
CameraModel = Annotated[str, typer.Option(metavar="MODEL", help="COLMAP camera model.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Start anew instead of going on with what is there.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON summary on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors on stderr, no progress bar.")]
PairMode = Annotated[str, typer.Option(metavar="MODE", help="exhaustive, sequential or spatial.")]
Overlap = Annotated[int, typer.Option(min=1, metavar="N", help="Sequential: each image with the N that follow it.")]
Quadratic = Annotated[
    bool, typer.Option("--quadratic", help="Sequential: also with those 2, 4, 8, ... further on, against drift.")
]
MaxDistance = Annotated[float, typer.Option(metavar="METRES", help="Spatial: metres apart at most.")]
Neighbours = Annotated[int, typer.Option(min=1, metavar="N", help="Spatial: each image with its N nearest at most.")]
Mapper = Annotated[str, typer.Option(metavar="NAME", help="incremental or global.")]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What an extractor is made of, and where the weights of its parts are."""

    preset: Preset = "hesaffnet-hardnet"
    detector: Detector = None
    shape: Shape = None
    orientation: Orientation = None
    descriptor: Descriptor = None
    weights: Weights = None
    detector_weights: DetectorWeights = None
    shape_weights: ShapeWeights = None
    orientation_weights: OrientationWeights = None

    def check(self) -> None:
        """OptionError if there is no such preset or part; nothing heavy is imported for it."""
        parts = {part: getattr(self, part) for part in ("detector", "shape", "orientation", "descriptor")}
        compose(self.preset, **parts)

    def weights_given(self) -> list[str]:
        """Names and files of weights, of whichever part."""
        given = (self.weights, self.detector_weights, self.shape_weights, self.orientation_weights)
        return [name for name in given if name is not None]


def grouped(function: Callable[..., int]) -> Callable[..., int]:
    """Let the command line show each parameter that is a group as the group's options, in its place.

    typer reads the signature; what it sees has an option a field. The function gets the group, filled from them.
    """
    own = inspect.signature(function, eval_str=True).parameters.values()
    groups: dict[str, Any] = {each.name: each.annotation for each in own if dataclasses.is_dataclass(each.annotation)}

    @functools.wraps(function)
    def run(**values: Any) -> int:
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group) if field.name in values]
            values[name] = group(**{field: values.pop(field) for field in fields})
        return function(**values)

    shown: list[inspect.Parameter] = []
    for parameter in own:
        shown += _fields(parameter.annotation) if parameter.name in groups else [parameter]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in shown], return_annotation=int
    )
    return run


def _fields(group: Any) -> list[inspect.Parameter]:
    """The fields of a group as parameters."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in dataclasses.fields(group)
    ]
