"""`hardnet-match eval ...`: figures of the literature, measured on one's own data or on the benchmarks'."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import benchmarks, common, comparison, options, search
from .common import verb

NAME = "eval"
EXAMPLES = common.examples(
    """
    hardnet-match eval retrieval index/ --ground-truth photos/ --distractors singles
    hardnet-match eval retrieval oxford/ --ground-truth gnd_roxford5k.pkl --images jpg/ --verify 1000
    hardnet-match eval retrieval oxford/ --ground-truth gt_files/ --images jpg/ --expand --json
    """
)
HPATCHES = common.examples(
    """
    hardnet-match describe hpatches-release/ -o descriptors/mine --weights mine.safetensors
    hardnet-match eval hpatches descriptors/mine --tasks hpatches-benchmark/tasks --split a
    hardnet-match eval hpatches descriptors/mine --json
    """
)
group = typer.Typer(
    help="Figures of the literature, measured: retrieval, patches, homographies, poses, reconstructions; peers beside.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@group.command("retrieval", short_help="mAP and mP@k of an index on a ground truth.", epilog=EXAMPLES)
@verb
def retrieval(
    index: search.Index,
    ground_truth: Annotated[
        Path,
        typer.Option(
            metavar="FILE|FOLDER",
            help="gnd_*.pkl or .json, a folder of *_query.txt files, or a folder of photos, each subfolder a group.",
        ),
    ],
    distractors: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Subfolder that is no group; may be given several times."),
    ] = None,
    verify: search.Verify = 0,
    expand: search.Expand = False,
    upright: search.Upright = False,
    images: search.Photos = None,
    features: search.StoredFeatures = None,
    weights: search.QueryWeights = None,
    device: options.Device = "auto",
    html: comparison.Page = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Score an index: mean average precision and mean precision at 1, 5 and 10, by protocol.

    Classic Oxford5k / Paris6k (junk left out, trapezoidal average precision), the revisited easy, medium and hard,
    one's own JSON, or a folder of groups. Queries that are boxes are cut out of their photos (--images).
    """
    common.set_logging(quiet)
    comparison.check_places(html)
    from ..jobs.evaluate import evaluate_retrieval

    scores = evaluate_retrieval(
        index,
        ground_truth,
        distractors=distractors or (),
        images=images,
        features=features or (),
        weights=weights or (),
        verify=verify,
        expand=expand,
        upright=upright,
        device=device,
        quiet=quiet,
    )
    lines = [
        f"{scores.index}: {scores.method}, {scores.images} images, {len(scores.queries)} queries of "
        f"{scores.ground_truth}, {1000 * scores.seconds:.1f} ms a search"
    ]
    for protocol, found in scores.protocols.items():
        precision = "  ".join(f"mP@{k} {_percent(value)}" for k, value in found.precision.items())
        lines.append(f"{protocol:8s} mAP {_percent(found.map)}  {precision}  ({found.queries} queries)")
    if scores.missing:
        lines.append(f"{len(scores.missing)} images of the ground truth are not in the index: counted as not found")
    if html is not None:
        from ..jobs.score_tables import retrieval_tables

        about = {"index": scores.index, "ground truth": scores.ground_truth, "method": scores.method}
        comparison.write_scores(html, "Retrieval", about, retrieval_tables(scores))
    return common.finish(scores, "\n".join(lines), as_json=json)


@group.command("hpatches", short_help="Verification, matching and retrieval mAP of descriptors.", epilog=HPATCHES)
@verb
def hpatches(
    descriptors: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="SEQUENCE/ref.csv, e1.csv, ...: what `describe` writes.")
    ],
    tasks: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The task files of the hpatches-benchmark; without them, matching alone."),
    ] = None,
    split: Annotated[str, typer.Option(metavar="NAME", help="a, b, c, full, illum or view.")] = "full",
    device: options.Device = "auto",
    csv: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Also write FOLDER/NAME/matching.csv, ... as the hpatches-benchmark has them."
        ),
    ] = None,
    html: comparison.Page = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> int:
    """Score descriptors of the HPatches sequences by the benchmark's own definitions.

    Verification (one positive to five negatives), matching and retrieval, each mean average precision over easy, hard
    and tough patches; --json has every part of them.
    """
    common.set_logging(quiet)
    comparison.check_places(html)
    if csv is not None:
        common.output_place(csv, folder=True)
    from ..jobs.hpatches import evaluate_hpatches, write_hpatches_csv

    found = evaluate_hpatches(descriptors, tasks, split, device=device, quiet=quiet)
    if csv is not None:
        write_hpatches_csv(found, csv)
    if html is not None:
        from ..jobs.score_tables import hpatches_tables

        about = {"descriptors": found.descriptors, "dimensions": str(found.dim), "sequences": str(found.sequences)}
        comparison.write_scores(html, "HPatches benchmark", about, hpatches_tables(found))
    parts = {
        "verification": found.figures.verification,
        "matching": found.figures.matching,
        "retrieval": found.figures.retrieval,
    }
    told = f"split {found.split}" if found.split else "all there are"
    lines = [f"{found.descriptors}: {found.sequences} sequences ({told}), {found.dim} dimensions"]
    lines += [f"{name:12s} mAP {100 * values['mean']:.2f}" for name, values in parts.items() if values]
    return common.finish(found, "\n".join(lines), as_json=json)


for command, short, epilog in (
    (benchmarks.brown, "FPR95 of descriptors on Brown's pairs.", benchmarks.BROWN),
    (benchmarks.homography, "Matching and homographies on planar sequences.", benchmarks.HOMOGRAPHY),
    (benchmarks.pose, "Relative poses of photos with known cameras.", benchmarks.POSE),
    (benchmarks.sfm, "What COLMAP reconstructs from each one's features.", benchmarks.SFM),
):
    group.command(command.__name__, short_help=short, epilog=epilog)(command)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
