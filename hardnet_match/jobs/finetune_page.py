"""What the page of a fine-tuning shows, gathered from the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..images import read_image
from ..report.draw import draw_matches
from ..report.finetune import FinetunePage, Row, Strip, finetune_page
from ..report.page import write_page
from ..report.sheet import draw_sheet
from ..sfm.views import View
from ..training.adapt import CHOICE, Adapted
from ..training.holdout import CHOSEN_SHARE, MEASURED_SHARE, Split
from ..training.logs import FIGURES, read_rows
from ..training.measure import SLACK, Answers, Figures, view_patches
from ..training.patchset import PatchSet

if TYPE_CHECKING:
    from .finetune_summary import FinetuneSummary

STRIPS = 12
SHOWN_SIZE = 1200
SHOWN_HEIGHT = 480


@dataclass(frozen=True, eq=False)
class Scene:
    """A model's photos: their folder, the views, who is held out, and the longer side they are shrunk to."""

    photos: Path
    views: Sequence[View]
    split: Split
    max_size: int | None


def write_finetune_page(
    path: Path,
    summary: FinetuneSummary,
    scene: Scene,
    came: Adapted,
    learn: PatchSet,
    before: Figures,
    after: Figures | None,
    answers: Sequence[Answers],
    answers_after: Sequence[Answers],
) -> None:
    """Write the page of a run; what the arguments are is told by those who make them.

    Raises:
        ImageError: a photo cannot be read, or the page cannot be written.
    """
    new = before if after is None else after
    gained, found = _strips(scene, answers, answers_after)
    lost, missed = _strips(scene, answers_after, answers)
    choices = read_rows(Path(summary.work) / "training" / FIGURES)
    shown = FinetunePage(
        title=f"Fine-tuning on {scene.photos.resolve().name}",
        verdict=summary.reason[0].upper() + summary.reason[1:] + ".",
        improved=summary.improved,
        rows=_rows(before, new, summary.error),
        pairs=[
            (a.held, a.other, a.points, (a.average_precision, b.average_precision), (a.correct, b.correct))
            for a, b in zip(before.pairs, new.pairs, strict=True)
        ],
        curve=[(row["step"], row["loss"]) for row in came.history.reports],
        choices=[(0.0, came.before), *((row["step"], row[CHOICE]) for row in choices)],
        chosen=float(came.step),
        start=came.before,
        about=_about(summary),
        how=_how(summary),
        pictures=_pictures(scene, answers, answers_after),
        gained=gained,
        lost=lost,
        sheet=draw_sheet(learn.patches, learn.track, learn.scene, margin=learn.margin, rows=8, views=4, columns=3),
        counts={"gained": found, "lost": missed},
    )
    write_page(path, finetune_page(shown))


def _rows(before: Figures, after: Figures, error: float | None) -> list[Row]:
    return [
        Row("matching mAP", before.matching_map, after.matching_map, error=error),
        Row("nearest is right", before.rank1, after.rank1),
        Row("FPR95", before.fpr95, after.fpr95, lower=True),
        Row("inlier ratio", before.inlier_ratio, after.inlier_ratio),
        Row("matches", before.matches, after.matches, share=False, lower=None),
        Row("correct matches", before.correct, after.correct, share=False),
    ]


def _about(summary: FinetuneSummary) -> dict[str, str]:
    settings = summary.settings
    return {
        "started from": f"{summary.start} ({settings['start_hash']})",
        "photos": f"{summary.photos}, {len(summary.held)} held out: {', '.join(summary.held)}",
        "learned from": f"{summary.patches:,} patches of {summary.points:,} points",
        "training": f"{summary.steps} steps of {settings['batch']} pairs at most, peak rate {settings['rate']:g}, "
        f"{summary.seconds.get('train', 0):.0f} s this time",
        "taken": f"{summary.share:.0%} of the weights after step {summary.step}, the rest as they were"
        if summary.share
        else "nothing: no mixture did better on the choosing points",
        "seed": str(settings["seed"]),
    }


def _how(summary: FinetuneSummary) -> list[str]:
    return [
        f"Measured between a held-out photo and another one, on keypoints of the held-out photo that lie in the end of "
        f"the scene ({MEASURED_SHARE:.0%} of its points) of which nothing was learned, in any photo. The next "
        f"{CHOSEN_SHARE:.0%} of the points were used to choose the weights, without the held-out photos. Frames are "
        "the same before and after; only the descriptors differ.",
        "Matching mAP: every held-out keypoint goes to the nearest of all keypoints of the other photo (mean over the "
        f"{len(summary.before['pairs'])} pairs, ± its standard error). FPR95: false positives at 95 % recall among the "
        "held-out points. Matches: mutual nearest neighbours with ratio test .9; correct: within "
        f"{100 * SLACK:g} % of the photo's longer side of the epipolar line, and before both cameras.",
    ]


def _strips(scene: Scene, worse: Sequence[Answers], better: Sequence[Answers]) -> tuple[list[Strip], int]:
    """Points that `better` finds and `worse` does not; a sample of them, and how many there are."""
    found = [
        (pair, row)
        for pair, (one, other) in enumerate(zip(worse, better, strict=True))
        for row in np.flatnonzero(other.right & ~one.right)
    ]
    chosen = np.random.default_rng(0).permutation(len(found))[:STRIPS]
    wanted = sorted(found[place] for place in chosen)
    queries = [(worse[p].first, int(worse[p].queries[r])) for p, r in wanted]
    rights = [(worse[p].second, int(worse[p].answers[r])) for p, r in wanted]
    taken = [(worse[p].second, int(worse[p].nearest[r])) for p, r in wanted]
    patches = _cut(scene, {*queries, *rights, *taken})
    strips = [
        Strip([patches[q], patches[a], patches[t]], f"{scene.views[q[0]].name} and {scene.views[a[0]].name}")
        for q, a, t in zip(queries, rights, taken, strict=True)
    ]
    return strips, len(found)


def _cut(scene: Scene, wanted: set[tuple[int, int]]) -> dict[tuple[int, int], NDArray[np.uint8]]:
    """Patches by (view, keypoint)."""
    out: dict[tuple[int, int], NDArray[np.uint8]] = {}
    for place in sorted({place for place, _ in wanted}):
        rows = sorted(row for other, row in wanted if other == place)
        cut = view_patches(scene.views[place], np.array(rows), scene.photos, 48, scene.max_size)
        pixels = (cut[:, 0].numpy() * 255).round().clip(0, 255).astype(np.uint8)
        out.update({(place, row): patch for row, patch in zip(rows, pixels, strict=True)})
    return out


def _pictures(
    scene: Scene, answers: Sequence[Answers], answers_after: Sequence[Answers]
) -> list[tuple[str, NDArray[np.uint8]]]:
    """Matches of one pair before and after: of median difficulty, neither the easiest nor the hardest."""
    order = np.argsort([one.right.mean() for one in answers], kind="stable")
    number = int(order[len(order) // 2])
    out = []
    for when, one in (("before", answers[number]), ("after", answers_after[number])):
        views = [scene.views[one.first], scene.views[one.second]]
        read: list[Any] = [
            read_image(scene.photos / view.name, max_size=SHOWN_SIZE, color=True, apply_orientation=True)
            for view in views
        ]
        frames = [shown.from_original(view.lafs) for shown, view in zip(read, views, strict=True)]
        drawn = draw_matches(
            read[0].pixels,
            read[1].pixels,
            frames[0],
            frames[1],
            one.matches,
            one.allowed,
            height=SHOWN_HEIGHT,
            max_ellipses=150,
        )
        names = f"{views[0].name} (held out) and {views[1].name}"
        out.append((f"{names}, {when}: {int(one.allowed.sum())} of {len(one.matches)} matches correct", drawn))
    return out
