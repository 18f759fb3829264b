"""Fine-tune on several scenes and print what it did to each of them, those it hurt included.

    python scripts/bench_finetune.py SCENE [SCENE ...] --work WORK [--minutes 5] [--max-size 1024]

A scene is a folder of photos of one place (or one with them in `images/`). Everything is kept in WORK, weights and
pages too; what is there already is not done again. Figures are of held-out photos and points, as `hardnet-match
finetune` measures them; the weights taken are the new ones, as the share of them in the mixture, or the old ones.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import fields, replace
from pathlib import Path

import torch

from hardnet_match.errors import HardnetMatchError
from hardnet_match.jobs.finetune import finetune
from hardnet_match.jobs.finetune_summary import FinetuneSummary
from hardnet_match.training.adapt import Plan

HEADER = [
    "scene", "photos (held out)", "learned: points / patches", "steps", "matching mAP, %", "change ± s.e.", "FPR95, %",
    "inlier ratio, %", "matches", "correct", "weights taken", "train / measure s",
]  # fmt: skip


def cells(scene: str, done: FinetuneSummary) -> list[str]:
    """A line of the table."""
    before, after = done.before, done.after or done.before

    def share(key: str, digits: int = 2) -> str:
        return f"{100 * before[key]:.{digits}f} -> {100 * after[key]:.{digits}f}"

    def count(key: str) -> str:
        return f"{before[key]} -> {after[key]}"

    change = 100 * (after["matching_map"] - before["matching_map"])
    error = f" ± {100 * done.error:.2f}" if done.error is not None else ""
    return [
        scene, f"{done.photos} ({len(done.held)})", f"{done.points} / {done.patches}", str(done.steps),
        share("matching_map"), f"{change:+.2f}{error}", share("fpr95", 3), share("inlier_ratio"), count("matches"),
        count("correct"), f"new, {done.share:.0%}" if done.improved else "old",
        f"{done.seconds.get('train', 0):.0f} / {done.seconds.get('measure', 0):.0f}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--start", default="hardnet", help="descriptor, weights' name or file")
    parser.add_argument("--minutes", type=float, default=30.0, help="training time of a scene, at most")
    parser.add_argument("--max-size", type=int, default=1024)
    parser.add_argument("--max-keypoints", type=int, default=4096)
    parser.add_argument("--hold-out", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--overwrite", action="store_true")
    for field in fields(Plan):
        if field.name in ("passes", "batch", "rate", "evaluations"):
            parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default)
    parser.add_argument("--steps", type=int, help="exactly so many, instead of by passes")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    plan = Plan(passes=options.passes, batch=options.batch, rate=options.rate, evaluations=options.evaluations)
    if options.steps:
        plan = replace(plan, steps=(options.steps, options.steps))
    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER), flush=True)
    for scene in options.scenes:
        photos = scene / "images" if (scene / "images").is_dir() else scene
        try:
            done = finetune(
                photos, options.work / f"{scene.name}.safetensors", {"max_keypoints": options.max_keypoints},
                start=options.start, work=options.work / scene.name, minutes=options.minutes,
                hold_out=options.hold_out, max_size=options.max_size, plan=plan, device=options.device,
                seed=options.seed, overwrite=options.overwrite, quiet=True,
            )  # fmt: skip
            line = cells(scene.name, done)
        except HardnetMatchError as error:
            line = [scene.name, str(error)]
        print("| " + " | ".join(line) + " |", flush=True)


if __name__ == "__main__":
    main()
