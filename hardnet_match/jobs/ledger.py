"""Figures pair by pair in a file of lines, so that a long measurement goes on where it was stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .stages import fingerprint


def ledger_place(work: Path, what: str, label: str, *terms: Any) -> Path:
    """Where the figures of a label are kept: figures on other terms lie in a folder of their own beside."""
    return work / what / fingerprint(terms)[:8] / f"{label}.jsonl"


class Ledger:
    """Key to figures, kept for one set of settings; others begin the file anew.

    Args:
        path: the file; None keeps nothing.
        settings: all that the figures depend on, JSON values.
    """

    def __init__(self, path: Path | None, settings: Any) -> None:
        self._path = path
        self._head = fingerprint(settings)
        self.figures: dict[str, dict[str, Any]] = {}
        if path is None:
            return
        self.figures = self._read(path)
        if not self.figures:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"settings": self._head}) + "\n", encoding="utf-8")

    def _read(self, path: Path) -> dict[str, dict[str, Any]]:
        """The lines of an earlier run with these settings, up to the first that a killed process left unfinished."""
        if not path.is_file():
            return {}
        lines = path.read_bytes().splitlines(keepends=True)
        found: dict[str, dict[str, Any]] = {}
        whole = 0
        for number, line in enumerate(lines):
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                break
            if number == 0:
                if row.get("settings") != self._head:
                    return {}
            else:
                found[str(row.pop("key", ""))] = row
            whole += len(line)
        if found and whole < path.stat().st_size:
            with path.open("r+b") as file:
                file.truncate(whole)
        return found

    def add(self, key: str, figures: dict[str, Any]) -> None:
        """File the figures of a pair."""
        self.figures[key] = figures
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **figures}) + "\n")
