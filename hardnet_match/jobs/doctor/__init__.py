"""Is this installation well? Every check in words, with what to do where it is not.

    report = examine()
    print(report.words())

No check needs another one to have passed, and none raises: what breaks inside one is its result.
"""

from __future__ import annotations

from .check import BROKEN, LOOK, OK, Check, Health
from .examine import examine

__all__ = ["BROKEN", "LOOK", "OK", "Check", "Health", "examine"]
