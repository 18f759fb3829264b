"""Which stage of a reconstruction is done, from which input, and how long it took."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..whole import replacing


class Stages:
    """A record beside the results: stage -> fingerprint of its input, and what it reported.

    A stage is reused if its fingerprint is the recorded one. The record is written after the stage's results are in
    their place, so an interrupted stage is done again.
    """

    def __init__(self, path: Path, fresh: bool) -> None:
        self._path = path
        self._done: dict[str, dict[str, Any]] = {} if fresh else _load(path)
        self.seconds: dict[str, float] = {}
        self.reused: list[str] = []

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.perf_counter() - started, 3)

    def result(self, stage: str, fingerprint: str) -> Any:
        """What the stage reported if it is done from that input, else None."""
        record = self._done.get(stage, {})
        if record.get("fingerprint") != fingerprint:
            return None
        self.reused.append(stage)
        return record.get("result")

    def recorded(self, stage: str) -> tuple[str | None, Any]:
        """Fingerprint and report of a stage as they are recorded; None, None if it was never done."""
        record = self._done.get(stage, {})
        return record.get("fingerprint"), record.get("result")

    def record(self, stage: str, fingerprint: str, result: Any) -> None:
        """Write down that a stage is done."""
        self._done[stage] = {"fingerprint": fingerprint, "result": result}
        with replacing(self._path) as part:
            part.write_text(json.dumps(self._done, indent=1), encoding="utf-8")


def fingerprint(*parts: Any) -> str:
    """Short SHA-256 of JSON-able values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _load(path: Path) -> dict[str, dict[str, Any]]:
    """The record; empty if there is none or it is damaged: the stages are then done again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(record, dict) or not all(isinstance(entry, dict) for entry in record.values()):
        return {}
    return record
