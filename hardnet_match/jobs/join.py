"""Files that jobs of one work made, read as one: checked to belong together and to be all there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import OptionError, StoreError
from ..store import FeatureReader, MatchReader, Shard, ViewWriter
from ..store.hdf5 import differences
from ..store.reader import Reader

_NAMED = 10
READERS: dict[str, type[FeatureReader] | type[MatchReader]] = {"features": FeatureReader, "matches": MatchReader}


@dataclass(frozen=True)
class JoinSummary:
    """What a joined file leads to: `items` (images or pairs) in `files` files.

    `left_out` counts the images that the shards themselves named as unreadable; `skipped` holds the shards that are
    missing or did not come to their end (only where that was allowed).
    """

    output: str
    kind: str
    files: int
    items: int
    left_out: int
    settings_hash: str
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Found:
    """What a file says of itself."""

    path: Path
    kind: str
    settings: dict[str, Any]
    hash: str
    shard: Shard | None
    finished: dict[str, int] | None


def join_files(files: Sequence[str | Path], output: str | Path, *, partial: bool = False) -> JoinSummary:
    """Make one small file that reads as all of these: external links, nothing copied.

    Args:
        files: features files, or matches files, of the same settings, below the folder of the output.
        output: the file; its folder exists. An earlier joined file there is replaced, any other file is not.
        partial: join although shards are missing or stopped before their end; the summary names them.

    Raises:
        OptionError: no file is named, or one of them twice, or the output among them.
        StoreError: a file is missing, damaged, of another program, kind or settings; two hold the same image or pair;
            a shard is missing or unfinished; files lie elsewhere than below the output's folder.
    """
    started, output = time.perf_counter(), Path(output)
    paths = [Path(file) for file in files]
    if not paths:
        raise OptionError("name the files to join")
    places: dict[Path, Path] = {}
    for path in paths:
        if places.setdefault(path.resolve(), path) is not path:
            raise OptionError(f"{path} is named twice")
    if output.resolve() in places:
        raise OptionError(f"{output} is the output and among the files to join; name another output")
    found = [_look(path) for path in paths]
    _check_alike(found)
    skipped = _absent(found)
    if skipped and not partial:
        told = [f"{shard} {reason}" for shard, reason in skipped.items()]
        more = f"; and {len(told) - _NAMED} more" if len(told) > _NAMED else ""
        raise StoreError(
            f"{'; '.join(told[:_NAMED])}{more}: run these first (the same command goes on where it stopped), or join "
            "what is there with --partial"
        )
    first = found[0]
    with ViewWriter(output, first.kind, first.settings) as view:
        for path in paths:  # before the long part: a file that lies elsewhere is told at once
            view.link_to(path)
        items = 0
        for path in paths:
            with READERS[first.kind](path) as reader:
                items += view.add(reader)
    return JoinSummary(
        output=str(output),
        kind=first.kind,
        files=len(paths),
        items=items,
        left_out=sum((each.finished or {}).get("skipped", 0) for each in found),
        settings_hash=first.hash,
        seconds=round(time.perf_counter() - started, 3),
        skipped=skipped,
    )


def _look(path: Path) -> _Found:
    with Reader(path) as reader:
        if reader.shards:
            raise StoreError(f"{path} joins other files itself; name those")
        if reader.kind not in READERS:
            raise StoreError(f"{path} is no features or matches file of this package; only those are joined")
        return _Found(path, reader.kind, reader.settings, reader.settings_hash, reader.shard, reader.finished)


def _check_alike(found: Sequence[_Found]) -> None:
    first = found[0]
    for other in found[1:]:
        if other.kind != first.kind:
            raise StoreError(f"{first.path} holds {first.kind}, {other.path} {other.kind}; join files of one kind")
        if (other.hash, other.settings) != (first.hash, first.settings):
            told = differences(first.settings, other.settings) or f"hash {first.hash} -> {other.hash}"
            raise StoreError(
                f"{other.path} was made with other settings than {first.path} ({told}); features or matches of "
                "different settings do not mix"
            )
    counts = {each.shard.of: each for each in found if each.shard is not None}
    if len(counts) > 1:
        one, two = list(counts.values())[:2]
        raise StoreError(f"{one.path} is shard {one.shard} and {two.path} is shard {two.shard}: not of one work")
    claimed: dict[Shard, Path] = {}
    for each in found:
        if each.shard is not None and claimed.setdefault(each.shard, each.path) != each.path:
            raise StoreError(
                f"{claimed[each.shard]} and {each.path} are both shard {each.shard}; leave one of them out"
            )


def _absent(found: Sequence[_Found]) -> dict[str, str]:
    """The shards that are not there or did not come to their end, each with what is wrong."""
    wrong = {
        f"shard {each.shard} ({each.path})": "was stopped before its end"
        for each in found
        if each.shard is not None and each.finished is None
    }
    there = {each.shard for each in found if each.shard is not None}
    for of in {shard.of for shard in there}:
        wrong |= {f"shard {index}/{of}": "is missing" for index in range(of) if Shard(index, of) not in there}
    return wrong
