"""What a check finds, and how a list of them reads."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

OK, LOOK, BROKEN = "ok", "look", "broken"
WIDTH, INDENT = 100, 24


@dataclass(frozen=True)
class Check:
    """One finding.

    Args:
        name: of what was looked at.
        state: `ok`; `look`: it works, and could be better; `broken`: something will fail.
        text: what was found. do: what to do about it, where there is something to do.
    """

    name: str
    state: str
    text: str
    do: str = ""


@dataclass(frozen=True)
class Health:
    """All findings; `broken` counts those that will make something fail."""

    checks: list[Check]
    broken: int
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """The findings for a reader."""
        lines = []
        for check in self.checks:
            mark = "" if check.state == OK else f"{check.state.upper()}: "
            lines += _wrapped(f"{check.name + ':':{INDENT}}", f"{mark}{check.text}")
            if check.do:
                lines += _wrapped(f"{'':{INDENT}}", f"-> {check.do}")
        looks = sum(check.state == LOOK for check in self.checks)
        verdict = "nothing is broken" if not self.broken else f"{self.broken} broken"
        also = f", {looks} worth a look" if looks else ""
        return "\n".join([*lines, "", f"{verdict}{also} ({len(self.checks)} checks in {self.seconds:.1f} s)"])


def _wrapped(start: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=start, subsequent_indent=" " * INDENT, break_on_hyphens=False,
        break_long_words=False,
    )  # fmt: skip


def guarded(name: str, look: Callable[[], Check | Iterable[Check]]) -> list[Check]:
    """What a check finds; where it raises, that is what it found."""
    try:
        found = look()
        return [found] if isinstance(found, Check) else list(found)
    except Exception as error:  # of whatever kind: a doctor does not faint
        told = " ".join(str(error).split()) or "no reason given"
        return [Check(name, BROKEN, f"the check itself failed: {type(error).__name__}: {told}")]
