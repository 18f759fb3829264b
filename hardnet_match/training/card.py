"""Cards: what a file of weights was made of, how, and how good it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

Figures = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Title of a table to name of a row to name of a column to a number."""
HEADING = "## Figures"


def markdown_tables(figures: Figures) -> str:
    """The tables as Markdown, shares in per cent."""
    parts = []
    for title, rows in figures.items():
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        lines = [f"**{title}**", "", f"| | {' | '.join(map(_heading, columns))} |", f"|{'---|' * (len(columns) + 1)}"]
        for name, row in rows.items():
            lines.append(f"| {name} | {' | '.join(_number(column, row.get(column)) for column in columns)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _heading(column: str) -> str:
    names = {
        "fpr95": "FPR95, %",
        "rank1": "rank 1, %",
        "within20": "within 20 degrees, %",
        "covariance": "ellipse error",
    }
    return names.get(column, column)


def _number(column: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if column == "covariance" else f"{100 * value:.2f}"


def write_card(path: Path, title: str, run: str, figures: Figures) -> None:
    """Write the figures into a card, in place of those it had; a new card is begun where there is none.

    Args:
        path: the Markdown file. What a person wrote outside the section of figures stays.
        title: of a new card.
        run: how the weights were made, for a new card.
        figures: the tables.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n\n{run}\n\n{HEADING}\n"
    section = f"{HEADING}\n\n{markdown_tables(figures)}\n"
    if HEADING not in text:
        text = f"{text.rstrip()}\n\n{HEADING}\n"
    found = re.search(rf"{HEADING}\n.*?(?=\n## |\Z)", text, re.DOTALL)
    assert found is not None
    path.write_text(text[: found.start()] + section + text[found.end() :], encoding="utf-8")
