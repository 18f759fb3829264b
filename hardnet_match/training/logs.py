"""What a run writes down on its way: two CSV files and, where tensorboard is installed, its events."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..whole import replacing

REPORTS, FIGURES = "log.csv", "figures.csv"
Row = Mapping[str, float]


def read_rows(path: Path) -> list[dict[str, float]]:
    """Rows of a log, those whole; a process killed while it wrote leaves half a line at the end."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        lines = csv.reader(line.replace("\0", "") for line in file)
        rows = []
        while True:
            try:
                rows.append(next(lines))
            except StopIteration:
                break
            except csv.Error:  # half a line, or damaged
                continue
    header, out = rows[0] if rows else [], []
    for row in rows[1:]:
        try:
            out.append({name: float(value) for name, value in zip(header, row, strict=True) if value != ""})
        except ValueError:
            continue
    return out


def _line(values: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()


class _Table:
    """One CSV file; `step` comes first, whole numbers are written as such."""

    def __init__(self, path: Path, last_step: int) -> None:
        self.path = path
        self.rows = [row for row in read_rows(path) if row.get("step", 0) <= last_step]
        self.columns = list(dict.fromkeys(name for row in self.rows for name in row))
        if path.exists():
            self._rewrite()

    def _rewrite(self) -> None:
        lines = [_line(self.columns)] + [_line(self._values(row)) for row in self.rows]
        with replacing(self.path) as part:
            part.write_text("".join(lines), encoding="utf-8")

    def _values(self, row: Row) -> list[str]:
        return [_number(row[name]) if name in row else "" for name in self.columns]

    def add(self, row: Row) -> None:
        again = bool(self.rows) and self.rows[-1].get("step") == row["step"]
        if again:  # written by a process that was killed before its checkpoint
            self.rows.pop()
        self.rows.append(dict(row))
        new = [name for name in row if name not in self.columns]
        self.columns += new
        if new or again:
            self._rewrite()
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_line(self._values(row)))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


class RunLog:
    """The logs of a run's folder, cut back to the step it goes on from.

    Args:
        folder: of the run.
        last_step: rows beyond it were written after the checkpoint and are made again.
        tensorboard: write its events as well; None where it is installed.

    Raises:
        OptionError: tensorboard is asked for and not installed.
    """

    def __init__(self, folder: Path, last_step: int = 0, tensorboard: bool | None = None) -> None:
        installed = find_spec("tensorboard") is not None
        if tensorboard and not installed:
            raise OptionError('tensorboard is not installed: pip install "hardnet-match[training]"')
        self.reports = _Table(folder / REPORTS, last_step)
        self.figures = _Table(folder / FIGURES, last_step)
        self._events: Any = None
        if installed and tensorboard is not False:
            from torch.utils.tensorboard import SummaryWriter

            # Events of steps beyond the checkpoint stay in the files; the purge tells tensorboard not to show them.
            self._events = SummaryWriter(folder / "tensorboard", purge_step=last_step + 1 if last_step else None)

    def report(self, row: Row) -> None:
        """Rate, loss, speed at a step."""
        self.reports.add(row)
        self._scalars("training", row)

    def evaluated(self, row: Row) -> None:
        """Figures of the evaluation sets at a step."""
        self.figures.add(row)
        self._scalars("figures", row)

    def _scalars(self, place: str, row: Row) -> None:
        if self._events is None:
            return
        for name, value in row.items():
            if name != "step":
                self._events.add_scalar(f"{place}/{name}", value, int(row["step"]))
        self._events.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self._events is not None:
            self._events.close()
