"""`hardnet-match match`: a features file to a matches file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import OptionError
from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match match features.h5 -o matches.h5
    hardnet-match match features.h5 -o matches.h5 --pairs pairs.txt --method smnn --ratio 0.9
    hardnet-match match features.h5 -o matches.h5 --method adalam
    hardnet-match match features.h5 -o match-shards/3.h5 --shard 3/8
    hardnet-match match features.h5 -o matches.h5 --ray auto
    hardnet-match match features.h5 -o matches.h5 --html matches.html --images photos/
    """
)


@verb
def run(
    features: options.FeaturesFile,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Matches file to write.")],
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs file; every image with every other without it.")
    ] = None,
    method: options.Method = "smnn",
    ratio: options.Ratio = 0.9,
    device: options.Device = "auto",
    cache: Annotated[
        int, typer.Option(min=1, metavar="MB", help="Memory for features that wait for their next pair.")
    ] = 2048,
    shard: options.ShardOf = None,
    ray: options.Ray = None,
    ray_workers: options.RayWorkers = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page that shows the matches.")] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Photos, for the page. [default: looked for]", file_okay=False),
    ] = None,
    overwrite: options.Overwrite = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Match the images of a features file. A second run goes on where the first was stopped."""
    common.output_place(output)
    if html is not None:
        common.output_place(html)
    elif images is not None:
        raise OptionError("--images says where the photos for --html FILE are; give both")
    common.set_logging(quiet)
    part = common.shard_of(shard)
    from ..jobs.match import match_features

    with common.crew_at(ray, ray_workers, device) as crew:
        summary = match_features(
            features,
            output,
            pairs,
            method=method,
            ratio=ratio,
            device=device if crew is None else "cpu",
            cache_bytes=cache << 20,
            shard=part,
            crew=crew,
            overwrite=overwrite,
            quiet=quiet,
        )
    if html is not None:
        from ..jobs.match_page import write_match_page

        write_match_page(html, features, output, summary, images)
    text = (
        f"{summary.matches_file}: {summary.matched} pairs matched, {summary.matches} matches, "
        f"{summary.reused} there already, in {summary.seconds:.1f} s"
        + (f"\npage to look at: {html}" if html is not None else "")
    )
    return common.finish(summary, text, as_json=json)
