"""Pieces that the pages of a run share: figures in tiles, warnings, tables, figures with a caption."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from .page import picture, shortened

STYLE = """
:root { --good: #15803d; --bad: #b4320a; }
@media (prefers-color-scheme: dark) { :root { --good: #4ade80; --bad: #fb923c; } }
header { margin-bottom: 1.25rem; }
header h1 { margin: 0 0 .35rem; }
.eyebrow { color: var(--faint); font-size: .9rem; margin: 0 0 .3rem; }
.verdict { font-size: 1.1rem; margin: 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; margin-top: .6rem; font-size: .95rem; }
nav a { padding: .2rem 0; }
h2 { scroll-margin-top: 1rem; margin-top: 2.5rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(46%, 7.2rem), 1fr)); gap: .6rem; margin: 0; }
.tiles div { display: flex; flex-direction: column-reverse; justify-content: flex-end; }
.tiles dt { font-size: .85rem; line-height: 1.25; }
.tiles dd { font-size: 1.35rem; line-height: 1.25; font-variant-numeric: tabular-nums;
  letter-spacing: -.01em; }
.tiles small { font-size: .85rem; color: var(--faint); letter-spacing: 0; }
.warnings { list-style: none; margin: 0; padding: 0; display: grid; gap: .6rem; }
.warnings > li { border-left: .3rem solid var(--bad); }
.warnings > li.note { border-left-color: var(--accent); }
.warnings > li.fine { border-left-color: var(--good); }
.warnings b { display: block; font-weight: 600; }
.warnings p { margin: .15rem 0 0; font-size: .95rem; }
.warnings details { margin-top: .3rem; font-size: .95rem; }
.warnings ul { margin: .3rem 0 0; padding-left: 1.1rem; }
summary { cursor: pointer; color: var(--accent); }
figure { margin: 0 0 1.25rem; }
figcaption { color: var(--faint); font-size: .9rem; margin-top: .35rem; }
figcaption b { color: var(--ink); font-weight: 600; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem 1.5rem; }
.three { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 0 1rem; }
.wide { overflow: auto; max-height: 30rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .28rem .8rem .28rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { color: var(--faint); font-weight: normal; position: sticky; top: 0; background: var(--ground); }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
tr.out td { color: var(--bad); }
button { font: inherit; font-size: .9rem; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: .4rem; padding: .3rem .7rem; min-height: 2.1rem; cursor: pointer; }
button:hover { border-color: var(--accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
"""


@dataclass(frozen=True)
class Warn:
    """Something a user should know.

    Args:
        what: the fact, one sentence; plain text, as is all of it.
        do: what to do about it.
        names: whom it concerns, each with its own reason; shown folded, `MOST_NAMED` at most.
        grave: worse than a remark.
    """

    what: str
    do: str = ""
    names: Sequence[tuple[str, str]] = ()
    grave: bool = True


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture with what it shows: `title` stands out, `text` follows, `alternative` is for those who cannot see."""

    pixels: NDArray[np.uint8]
    title: str
    text: str
    alternative: str


MOST_NAMED = 100


def tiles(values: Iterable[tuple[str, str, str]]) -> str:
    """Figures to see at a glance: (name, value, what follows it in small print), plain text."""
    cells = "".join(
        f'<div class="card"><dt>{escape(name)}</dt><dd>{escape(value).replace(" ", chr(160))}'
        f"{f' <small>{escape(small)}</small>' if small else ''}</dd></div>"
        for name, value, small in values
    )
    return f'<dl class="tiles">{cells}</dl>'


def warnings_list(warnings: Sequence[Warn]) -> str:
    """What to look at, the grave first, each with what to do about it."""
    if not warnings:
        return '<ul class="warnings"><li class="card fine"><b>Nothing to warn of.</b></li></ul>'
    items = []
    for warning in sorted(warnings, key=lambda warning: not warning.grave):
        parts = [f"<b>{escape(warning.what)}</b>"]
        if warning.do:
            parts.append(f"<p>{escape(warning.do)}</p>")
        if warning.names:
            parts.append(_named(warning.names))
        kind = "" if warning.grave else " note"
        items.append(f'<li class="card{kind}">{"".join(parts)}</li>')
    return f'<ul class="warnings">{"".join(items)}</ul>'


def _named(names: Sequence[tuple[str, str]]) -> str:
    shown = [
        f"<li>{escape(shortened(name))}{f': {escape(reason)}' if reason else ''}</li>"
        for name, reason in names[:MOST_NAMED]
    ]
    if len(names) > MOST_NAMED:
        shown.append(f"<li>and {len(names) - MOST_NAMED} more; report.json names them all</li>")
    few = " open" if len(names) <= 3 else ""
    return f"<details{few}><summary>{len(names)} named</summary><ul>{''.join(shown)}</ul></details>"


def pictures(drawn: Sequence[Drawn], absent: str) -> str:
    """Pictures with their captions ; a sentence where there are none."""
    if not drawn:
        return f'<p class="numbers">{escape(absent)}</p>'
    return "".join(
        f"<figure>{picture(one.pixels, one.alternative, lazy=True, quality=80)}<figcaption><b>{escape(one.title)}</b> "
        f"{escape(one.text)}</figcaption></figure>"
        for one in drawn
    )


def table(head: Sequence[str], rows: Iterable[tuple[Sequence[str], bool]], label: str) -> str:
    """A table in a box that scrolls by itself; each row with whether it is to stand out."""
    lines = "".join(
        f"<tr{' class=out' if out else ''}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"
        for row, out in rows
    )
    names = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(label, quote=True)}"><table><thead><tr>'
        f"{names}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def section(anchor: str, title: str, *body: str) -> str:
    """A part of the page with a heading to jump to."""
    return f'<section aria-labelledby="{anchor}"><h2 id="{anchor}">{escape(title)}</h2>{"".join(body)}</section>'


def head(eyebrow: str, title: str, verdict: str, links: Sequence[tuple[str, str]]) -> str:
    """The top of a page: what it is, of what, how it went, and where to find what."""
    jumps = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name in links)
    return (
        f'<header><p class="eyebrow">{escape(eyebrow)}</p><h1>{escape(title)}</h1>'
        f'<p class="verdict">{escape(verdict)}</p><nav aria-label="On this page">{jumps}</nav></header>'
    )
