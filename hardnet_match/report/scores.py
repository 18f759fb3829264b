"""Tables of figures, a row a contestant: as text for a terminal, as Markdown for a page, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from .page import facts, page

STYLE = """
.wide { overflow-x: auto; margin-bottom: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem .3rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
th { color: var(--faint); font-weight: normal; vertical-align: bottom; }
td.best { font-weight: 700; }
@media (max-width: 30rem) { table { font-size: .85rem; } th, td { padding-right: .4rem; } }
"""
NONE = "-"


@dataclass(frozen=True)
class Column:
    """What a column holds.

    Args:
        name: plain text.
        digits: behind the point.
        higher: more is better; False: less is; None: neither, so that nobody is best.
        share: values in [0, 1], shown in per cent.
    """

    name: str
    digits: int = 1
    higher: bool | None = True
    share: bool = False

    def shown(self, value: float | None) -> str:
        """The cell's text."""
        if value is None:
            return NONE
        return f"{100 * value if self.share else value:,.{self.digits}f}"


@dataclass(frozen=True)
class ScoreTable:
    """Figures by contestant; None where there is none."""

    title: str
    columns: Sequence[Column]
    rows: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    head: str = "features"

    def best(self) -> set[tuple[str, int]]:
        """Cells that are the best of their column, as shown; none in a column where all are equal."""
        found = set()
        for k, column in enumerate(self.columns):
            there = {
                label: round(value * (100 if column.share else 1), column.digits)
                for label, row in self.rows.items()
                if (value := row[k]) is not None
            }
            if column.higher is None or len(set(there.values())) < 2:
                continue
            top = (max if column.higher else min)(there.values())
            found |= {(label, k) for label, value in there.items() if value == top}
        return found


def as_text(table: ScoreTable) -> str:
    """Aligned columns."""
    lines = [[table.head, *(column.name for column in table.columns)]]
    lines += [[label, *_cells(table, label)] for label in table.rows]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    )


def as_markdown(table: ScoreTable) -> str:
    """A Markdown table, the best of each column bold."""
    best = table.best()
    lines = [
        "| " + " | ".join([table.head, *(column.name for column in table.columns)]) + " |",
        "|---|" + "---:|" * len(table.columns),
    ]
    for label in table.rows:
        cells = [f"**{c}**" if (label, k) in best else c for k, c in enumerate(_cells(table, label))]
        lines.append("| " + " | ".join([label, *cells]) + " |")
    return "\n".join(lines)


def as_html(table: ScoreTable) -> str:
    """A heading and a table element."""
    best = table.best()
    head = "".join(f"<th>{escape(name)}</th>" for name in (table.head, *(column.name for column in table.columns)))
    body = []
    for label in table.rows:
        cells = "".join(
            f'<td class="best">{escape(c)}</td>' if (label, k) in best else f"<td>{escape(c)}</td>"
            for k, c in enumerate(_cells(table, label))
        )
        body.append(f"<tr><td>{escape(label)}</td>{cells}</tr>")
    return (
        f'<h2>{escape(table.title)}</h2>\n<div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(body)}\n</tbody></table></div>"
    )


def scores_page(title: str, about: Mapping[str, str], tables: Sequence[ScoreTable]) -> str:
    """A whole page: what was measured and how, and the tables.

    Args:
        title: plain text. about: names and values shown above, plain text.
    """
    body = f'<h1>{escape(title)}</h1>\n<div class="card">{facts(about)}</div>\n'
    return page(title, body + "\n".join(as_html(table) for table in tables), STYLE)


def _cells(table: ScoreTable, label: str) -> list[str]:
    return [column.shown(value) for column, value in zip(table.columns, table.rows[label], strict=True)]
