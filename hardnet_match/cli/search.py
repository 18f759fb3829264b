"""`hardnet-match search`: which images of an index show what a photo shows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match search index/ query.jpg
    hardnet-match search index/ query.jpg --box 120 80 560 430 --verify 100 --html found.html
    hardnet-match search index/ query.jpg --expand --top 50 --json
    hardnet-match search index/ castle/100_7100.jpg          an image of the index: no photo needed
    """
)
Index = Annotated[
    Path, typer.Argument(metavar="INDEX", help="Folder that `hardnet-match index` made.", exists=True, file_okay=False)
]
Verify = Annotated[
    int, typer.Option(min=0, metavar="N", help="Verify the first N by the geometry of their features; 0 does not.")
]
Expand = Annotated[
    bool, typer.Option("--expand", help="Ask again with what was verified (query expansion; verifies 100 by default).")
]
Upright = Annotated[bool, typer.Option("--upright", help="All photos were held upright: stricter verification.")]
StoredFeatures = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE", help="Features file of images in the index, if it has moved; may be given several times."
    ),
]
Photos = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Folder of the index's photos, if it does not know.", exists=True, file_okay=False
    ),
]
QueryWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--weights",
        metavar="NAME|FILE",
        help="Weights the index was made with, where they are your own; may be given several times.",
    ),
]


@verb
def run(
    index: Index,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A photo, or the name of an image in the index.")],
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Results at most.")] = 20,
    box: Annotated[
        tuple[float, float, float, float] | None,
        typer.Option(metavar="X0 Y0 X1 Y1", help="Search for this part of the query, in pixels of its file."),
    ] = None,
    verify: Verify = 0,
    expand: Expand = False,
    upright: Upright = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Page of the results with matches drawn.")] = None,
    images: Photos = None,
    features: StoredFeatures = None,
    weights: QueryWeights = None,
    device: options.Device = "auto",
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Search an index for images of what a photo shows.

    The photo is described with the settings stored in the index. With --html at least 20 images are verified.
    """
    if html is not None:
        common.output_place(html)
        verify = verify or (0 if expand else max(top, 20))  # expansion has a number of its own
    common.set_logging(quiet)
    from ..jobs.search import search_index

    summary = search_index(
        index,
        query,
        top=top,
        box=box,
        verify=verify,
        expand=expand,
        upright=upright,
        html=html,
        images=images,
        features=features or (),
        weights=weights or (),
        device=device,
    )
    lines = [
        f"{summary.query}: {len(summary.results)} of {summary.images} images, in {sum(summary.seconds.values()):.2f} s"
    ]
    width = max((len(result.image) for result in summary.results), default=0)
    for place, result in enumerate(summary.results, 1):
        seen = "" if result.inliers is None else f"  {result.inliers} inliers"
        lines.append(f"{place:4d}  {result.image:<{width}}  {result.score:.4f}{seen}")
    if html is not None:
        lines.append(f"{html}: the page")
    told = {"query": summary.query, "results": summary.results}
    return common.finish(told, "\n".join(lines), as_json=json, skipped={})
