"""What the comparisons of `hardnet-match eval` share: who takes part, on what terms, and where the tables go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import OptionError
from . import common

if TYPE_CHECKING:
    from ..jobs.contestants import Contest
    from ..report.scores import ScoreTable

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


def split(values: Names) -> list[str]:
    """Names given with commas, in one option or several."""
    return [name.strip() for value in values or () for name in value.split(",") if name.strip()]


def labelled(values: Names) -> dict[str, Path]:
    """Files given as LABEL=FILE."""
    found: dict[str, Path] = {}
    for value in values or ():
        label, equals, path = value.partition("=")
        if not equals or not label or not path or label in found:
            raise OptionError(f"{value!r}: files are given as LABEL=FILE, each label once")
        found[label] = Path(path)
    return found


def contest_of(preset: Names, peers: Names, features: Names, **rest: Any) -> Contest:
    """Who takes part; the default preset if none is named, and none of ours for `none`."""
    from ..jobs.contestants import Contest

    others = bool(peers or features)
    presets = split(preset) if preset is not None else ["hesaffnet-hardnet"]
    presets = [] if presets == ["none"] and others else presets
    return Contest(presets, split(peers), labelled(features), **rest)


def tell(
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


def about_of(settings: Mapping[str, Any]) -> dict[str, str]:
    """Settings for a reader."""
    return {
        name.replace("_", " "): ", ".join(map(str, value))
        if isinstance(value, list)
        else str(value or "as they are")
        if name == "max_size"
        else str(value)
        for name, value in settings.items()
    }
