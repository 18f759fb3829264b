"""What a fine-tuning came to, and whether the new weights are better than the old."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..training.measure import Figures

FEWER_MATCHES = 0.01
"""Share of the correct matches that new weights may lose where they gain in matching mAP."""


@dataclass(frozen=True)
class FinetuneSummary:
    """What `finetune` did.

    Args:
        output: the weights written; the new ones if `improved`, else those it started from.
        page: the HTML page. work: folder of all that was made on the way; `reused` names the stages done before.
        improved: whether the new weights did better on the held-out part.
        reason: why they were taken or not, a sentence.
        start: what the weights were at first. share: of the new weights in those taken. step: of the run they are from.
        photos, held: registered photos, and names of those held out.
        points, patches: learned from. steps: done in all.
        before, after: figures on the held-out part (see `training.measure.Figures`); `after` is of the new weights
            also where they were not taken, None where none did better on the points they are chosen by.
        errors: standard error of the change of mAP over the pairs.
        seconds: by stage.
        skipped: photos that could not be read.
    """

    output: str
    page: str
    work: str
    improved: bool
    reason: str
    start: str
    share: float
    step: int
    photos: int
    held: list[str]
    points: int
    patches: int
    steps: int
    before: dict[str, Any]
    after: dict[str, Any] | None
    error: float | None
    seconds: dict[str, float]
    reused: list[str]
    settings: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """The summary for a reader."""
        lines = [f"{self.output}: {self.reason}"]
        if self.after is not None:
            names = {"fpr95": "FPR95", "inlier_ratio": "inlier ratio"}
            shares = [f"{name} {100 * self.before[k]:.3f} -> {100 * self.after[k]:.3f} %" for k, name in names.items()]
            counts = [f"{k} matches {self.before[v]} -> {self.after[v]}" for k, v in _COUNTS.items()]
            lines.append(f"held out ({', '.join(self.held)}): {', '.join(shares + counts)}")
        lines.append(f"learned from {self.patches} patches of {self.points} points in {self.steps} steps")
        lines.append(f"page: {self.page}")
        return "\n".join(lines)


_COUNTS = {"tentative": "matches", "correct": "correct"}


def verdict(before: Figures, after: Figures | None) -> tuple[bool, str]:
    """Whether the new weights are better, and a sentence about it."""
    kept = "the file holds the weights it started from"
    if after is None:
        return False, f"not improved: nothing learned did better on the points it is chosen by; {kept}"
    error = change_error(before, after)
    spread = "" if error is None else f" (change ± {100 * error:.2f})"
    change = f"matching mAP {100 * before.matching_map:.2f} -> {100 * after.matching_map:.2f} %{spread}"
    matches = f"correct matches {before.correct} -> {after.correct}"
    if after.matching_map <= before.matching_map:
        return False, f"not improved: {change} on what was held out; {kept}"
    if after.correct < (1 - FEWER_MATCHES) * before.correct:
        return False, f"not improved: {matches} on what was held out, though {change}; {kept}"
    return True, f"improved: {change}, {matches} on what was held out"


def change_error(before: Figures, after: Figures) -> float | None:
    """Standard error of the change of the matching mAP over the pairs; None of one pair."""
    change = np.array(
        [b.average_precision - a.average_precision for a, b in zip(before.pairs, after.pairs, strict=True)]
    )
    return float(change.std(ddof=1) / np.sqrt(len(change))) if len(change) > 1 else None
