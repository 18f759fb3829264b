"""`hardnet-match inspect`: what is in a features file, a matches file or a patch set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match inspect features.h5
    hardnet-match inspect matches.h5 --all
    hardnet-match inspect features.h5 --json
    """
)
SHOWN = 10


@verb
def run(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Features file, matches file or patch set (.h5).", dir_okay=False)
    ],
    everything: Annotated[bool, typer.Option("--all", help=f"All of it, not the first {SHOWN} only.")] = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Say what a features file, a matches file or a patch set holds: counts, and the settings that made it."""
    common.set_logging(quiet)
    from ..jobs.inspect import inspect_file

    report = inspect_file(file)
    return common.finish(report, _words(report, everything), as_json=json)


def _words(report: Any, everything: bool) -> str:
    lines = [f"{report.file}: {report.kind}, {len(report.items)} {report.unit}, {report.total} {report.counted} in all"]
    if report.joined:
        lines.append(f"leads to {report.joined} files")
    if report.shard:
        lines.append(f"shard {report.shard}")
    if report.items:
        counts = sorted(item["count"] for item in report.items)
        unit, middle = report.unit.rstrip("s"), counts[len(counts) // 2]
        lines.append(f"{report.counted} per {unit}: {counts[0]} to {counts[-1]}, median {middle}")
    if report.descriptors:
        lines.append(f"descriptors: {report.descriptors}")
    lines.append("settings:" if report.settings else "settings: none written (a file of another program)")
    lines += [f"  {key}: {value}" for key, value in report.settings.items()]
    shown = report.items if everything else report.items[:SHOWN]
    lines += [f"  {item['name']}: {item['count']}{item['note']}" for item in shown]
    if len(shown) < len(report.items):
        lines.append(f"  ... and {len(report.items) - len(shown)} more (--all)")
    return "\n".join(lines)
