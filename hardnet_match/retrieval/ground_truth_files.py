"""The two ground-truth files that hold everything in one: the benchmarks' pickle, and JSON of one's own.

Both come from outside, so every entry is checked here, and nothing in a pickle is run.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError, WeightsError
from ..weights.inert import read_plain

Box = tuple[float, float, float, float]
# The revisited files are a few hundred kilobytes; with a million distractors' names they stay below this.
MAX_BYTES = 256 << 20
LISTS = ("ok", "easy", "hard", "junk")
FORM = (
    'expected {"queries": [{"image": ..., "positives": [...], "junk": [...]}, ...]}, '
    'or "easy" and "hard" in place of "positives"; "box": [x0, y0, x1, y1] and "name" may be there'
)


@dataclass(frozen=True)
class PickledRow:
    """A query of a pickle: lists of numbers into its image list by kind, and the box."""

    lists: dict[str, list[int]]
    box: Box | None


@dataclass(frozen=True)
class JsonRow:
    """A query of one's own file: lists of names by kind."""

    name: str
    image: str
    lists: dict[str, list[str]]
    box: Box | None


def read_box(values: Sequence[Any], where: str) -> Box:
    """Four numbers as a box (x0, y0, x1, y1).

    Raises:
        StoreError: they are not four finite numbers with x0 < x1 and y0 < y1.
    """
    try:
        x0, y0, x1, y1 = (float(value) for value in values)
    except (TypeError, ValueError):
        raise StoreError(f"{where}: a box is four numbers x0 y0 x1 y1, got {values!r}") from None
    if not all(map(math.isfinite, (x0, y0, x1, y1))) or x0 >= x1 or y0 >= y1:
        raise StoreError(f"{where}: the box {x0:g} {y0:g} {x1:g} {y1:g} is empty (x0 y0 is its top left corner)")
    return x0, y0, x1, y1


def read_pickle(path: Path) -> tuple[list[str], list[str], list[PickledRow]]:
    """`gnd_*.pkl` of the revisited benchmark (and of those who store the classic one likewise).

    Returns:
        Names of the database's images, names of the query images, and a row for each of the latter.

    Raises:
        StoreError: damaged, refers to code, or does not have the benchmark's form.
    """
    size = path.stat().st_size
    if not 0 < size <= MAX_BYTES:
        raise StoreError(f"{path}: not a ground truth ({'empty' if not size else f'{size} bytes'})")
    try:
        with path.open("rb") as file:
            content = read_plain(file)
    except WeightsError as error:
        raise StoreError(f"{path}: is not read: {error}. Nothing of it was run") from error
    except Exception as error:  # pickle raises anything on damaged files
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise StoreError(f"{path}: neither JSON nor a whole pickle ({reason}); fetch it again") from error
    if not isinstance(content, Mapping) or not {"imlist", "gnd"} <= content.keys():
        raise StoreError(f"{path}: a ground truth pickle is a dict with 'imlist', 'qimlist' and 'gnd'")
    images = _texts(content["imlist"], path, "imlist")
    gnd = _listed(content["gnd"])
    if "qimlist" in content:
        asked = _texts(content["qimlist"], path, "qimlist")
    else:
        asked = [images[number] for number in _numbers(content.get("qidx"), len(images), path, "qidx")]
    if len(gnd) != len(asked) or not gnd:
        raise StoreError(f"{path}: it has {len(asked)} query images and {len(gnd)} entries in 'gnd'")
    rows = []
    for name, entry in zip(asked, gnd, strict=True):
        if not isinstance(entry, Mapping) or not ("ok" in entry or {"easy", "hard"} <= entry.keys()):
            raise StoreError(f"{path}: the entry of {name!r} has neither 'ok' nor 'easy' and 'hard'")
        lists = {key: _numbers(entry[key], len(images), path, f"{key!r} of {name}") for key in LISTS if key in entry}
        box = entry.get("bbx")
        rows.append(
            PickledRow({"junk": [], **lists}, None if box is None else read_box(_listed(box), f"{path}: {name}"))
        )
    if len({"ok" in row.lists for row in rows}) > 1:
        raise StoreError(f"{path}: some of its queries have 'ok' and others 'easy' and 'hard'")
    return images, asked, rows


def own_json(path: Path) -> tuple[list[JsonRow], bool]:
    """A ground truth of one's own.

    Returns:
        The queries, and whether their images are kept out of the database (`"apart": true`).

    Raises:
        StoreError: it is no JSON, or not of the form.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not JSON ({error})") from error
    queries = content.get("queries") if isinstance(content, dict) else None
    if not isinstance(queries, list) or not queries:
        raise StoreError(f"{path}: {FORM}")
    rows = []
    for number, entry in enumerate(queries):
        where = f"{path}: query {number}"
        if not isinstance(entry, dict) or not isinstance(image := entry.get("image"), str):
            raise StoreError(f"{where} names no image; {FORM}")
        if ("positives" in entry) == ("easy" in entry or "hard" in entry):
            raise StoreError(f"{where} ({image}) needs either 'positives' or 'easy' and 'hard'; {FORM}")
        kinds = ("positives", "junk") if "positives" in entry else ("easy", "hard", "junk")
        lists = {kind: _texts(entry.get(kind, []), path, f"{kind!r} of query {number}") for kind in kinds}
        box = None if entry.get("box") is None else read_box(_listed(entry["box"]), f"{where} ({image})")
        rows.append(JsonRow(str(entry.get("name", image)), image, lists, box))
    if len({"positives" in row.lists for row in rows}) > 1:
        raise StoreError(f"{path}: some of its queries have 'positives' and others 'easy' and 'hard'")
    return rows, bool(content.get("apart", False))


def _listed(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        return list(value.reshape(-1).tolist())
    return list(value) if isinstance(value, list | tuple | set | frozenset) else []


def _texts(value: Any, path: Path, what: str) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
        raise StoreError(f"{path}: {what} is not a list of names")
    return list(value)


def _numbers(value: Any, count: int, path: Path, what: str) -> list[int]:
    items = _listed(value)
    # numpy writes an empty list as float, and MATLAB's numbers are all floats
    if not all(isinstance(item, int | float) and float(item).is_integer() for item in items):
        raise StoreError(f"{path}: {what} is not a list of whole numbers")
    if any(not 0 <= item < count for item in items):
        raise StoreError(f"{path}: {what} points outside its {count} images")
    return [int(item) for item in items]
