"""What a run says of itself, and where it is."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """What training said on its way: a dict of numbers a report."""

    reports: list[dict[str, float]] = field(default_factory=list)
    steps: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None
    waited: float = 0.0
    """Seconds of this sitting in which the step waited for its batch."""


@dataclass(frozen=True)
class Best:
    """Which evaluation counts as the best: the name of the figure, and whether less of it is better."""

    figure: str
    lowest: bool = False


@dataclass
class State:
    step: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int | None = None


@dataclass
class Interval:
    """What happened since the last report."""

    started: float
    pairs: int = 0
    waited: float = 0.0
