"""One HTML file that holds everything: style, pictures, numbers, the few lines it runs. It loads nothing."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from ..whole import replacing

STYLE = """
:root { color-scheme: light dark; --ground: #fbfbfa; --card: #ffffff; --ink: #1c1e21; --faint: #62676d;
  --line: #dcdee1; --accent: #0b63b5; }
@media (prefers-color-scheme: dark) { :root { --ground: #15171a; --card: #1f2226; --ink: #e8e9ea; --faint: #9aa1a9;
  --line: #363b41; --accent: #6db3f2; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.25rem clamp(.75rem, 3vw, 2rem) 3rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0 0 .75rem; }
h2 { font-size: 1.15rem; margin: 2rem 0 .75rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
a { color: var(--accent); text-decoration: none; }
a:hover, a:focus-visible { text-decoration: underline; }
img { display: block; max-width: 100%; height: auto; border-radius: .25rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 0; align-content: start; }
dt { color: var(--faint); }
dd { margin: 0; }
.numbers { color: var(--faint); font-variant-numeric: tabular-nums; font-size: .9rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; }
"""
LONGEST_NAME = 80
# The browser itself refuses whatever is not in this file.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def page(title: str, body: str, style: str = "", scripts: Sequence[str] = ()) -> str:
    """A whole HTML document around a body.

    Args:
        title: plain text.
        body: HTML.
        style: CSS on top of that of all pages.
        scripts: run at the end of the body; the browser runs these and, by the page's policy, no others.
    """
    policy = POLICY
    if scripts:
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts]
        policy += "; script-src " + " ".join(f"'sha256-{value}'" for value in hashes)
    body = "\n".join([body, *(f"<script>{text}</script>" for text in scripts)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def facts(values: Mapping[str, str]) -> str:
    """Names and values as an HTML list; both are plain text."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in values.items())
    return f"<dl>{rows}</dl>"


def data(value: Any) -> str:
    """JSON for a script of the page to read, as an element that nothing runs; no text in it can end it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f'<script type="application/json">{text.replace("<", chr(92) + "u003c")}</script>'


def packed(array: NDArray[Any]) -> str:
    """An array's bytes, little end first, in base64."""
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<")).tobytes()).decode("ascii")


def shortened(name: str) -> str:
    """A name of bounded length, its ends kept."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}…{name[-LONGEST_NAME // 2 + 1 :]}"


def script(name: str) -> str:
    """A script of this folder."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def picture(pixels: NDArray[np.uint8], alternative: str, *, lazy: bool = False, quality: int = 82) -> str:
    """An `img` element that holds its picture.

    Args:
        pixels: (H, W) or (H, W, 3) RGB uint8.
        alternative: what the picture shows, plain text.
        lazy: decode when it comes into view.
    """
    stored = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    done, coded = cv2.imencode(".jpg", stored, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ImageError("OpenCV could not encode a picture for the page")
    text = base64.b64encode(coded.tobytes()).decode("ascii")
    height, width = pixels.shape[:2]
    when = ' loading="lazy"' if lazy else ""
    return (
        f'<img src="data:image/jpeg;base64,{text}" width="{width}" height="{height}" '
        f'alt="{escape(alternative, quote=True)}"{when}>'
    )


def shrunk(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The picture with its longer side at most `side` pixels."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small: NDArray[Any] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return small.astype(np.uint8, copy=False)


def write_page(path: str | os.PathLike[str], html: str) -> None:
    """Write a page; an earlier one is replaced in one step.

    Raises:
        ImageError: the folder is missing or not writable.
    """
    place = Path(path)
    try:
        with replacing(place) as part:
            part.write_text(html, encoding="utf-8")
    except OSError as error:
        raise ImageError(f"{place}: cannot be written ({error.strerror or error})") from error
