"""Training data of any form to one patch set, and a sheet to look at it."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import OptionError, StoreError
from ..report.draw import save_picture
from ..report.sheet import draw_sheet
from ..store.hdf5 import acquire, release
from ..training.patchset import PatchSet, save_joined
from ..training.sources.choose import open_source
from ..training.sources.gather import gather_to_file
from .progress import progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PatchesSummary:
    """What is in a patch set: `side` and `margin` of its patches, `matches` its test pairs; `reused` if it was there.

    `skipped` holds the pieces (photos, files) that could not be read, and why.
    """

    output: str
    kind: str
    patches: int
    tracks: int
    images: int
    scenes: int
    side: int
    margin: float
    matches: int
    collisions: int
    megabytes: float
    reused: bool
    sheet: str
    seconds: float
    skipped: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """The summary for a reader."""
        views = self.patches / max(self.tracks, 1)
        told = [
            f"{self.output}: {self.patches} patches of {self.tracks} tracks ({views:.1f} each) "
            f"in {self.images} images of {self.scenes} scene(s)",
            f"{self.side}x{self.side} cells, margin {self.margin:g}, {self.megabytes:.1f} MB"
            + (f"; {self.matches} test pairs" if self.matches else "")
            + (f"; {self.collisions} collisions" if self.collisions else ""),
        ]
        if self.reused:
            told.append("it was there already, made from the same source with the same options")
        if self.sheet:
            told.append(f"sheet: {self.sheet}")
        return "\n".join(told)


def make_patches(
    sources: str | Path | Sequence[str | Path],
    output: str | Path | None,
    *,
    kind: str = "auto",
    sheet: str | Path | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **options: Any,
) -> PatchesSummary:
    """Make one patch set file out of a source, or join patch sets into one, or look at one.

    Stopped at any moment, the same call goes on where it was; the file appears when it is complete.

    Args:
        sources: a folder, file or name as `training.sources.choose.open_source` takes them; or patch sets (.h5).
        output: the file to write; None for a single patch set that is only looked at.
        kind: of the source.
        sheet: picture to draw of it.
        overwrite: replace an output that holds something else.
        quiet: no progress bar.
        **options: of the source, as `open_source` has them.

    Raises:
        OptionError: an option that cannot work, or is of no use for this kind.
        DataError: the source is no such thing, or holds nothing to learn from.
        StoreError: the output holds something else, or cannot be written.
        ImageError: the sheet cannot be written.
    """
    started = time.perf_counter()
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    output = None if output is None else Path(output)
    if all(str(source).lower().endswith((".h5", ".hdf5")) for source in listed):
        kind = "set"
        found, reused = _sets([Path(source) for source in listed], output, overwrite, options), False
        skipped: dict[str, str] = {}
    elif len(listed) != 1:
        raise OptionError("only patch sets (.h5) are joined; make one of each source first")
    elif output is None:
        raise OptionError("--output names the patch set to write")
    else:
        source = open_source(listed[0], kind, **options)
        kind = source.kind
        with ExitStack() as stack:
            bars: list[Any] = []

            def began(total: int, done: int) -> None:
                bars.append(stack.enter_context(progress_bar("reading", total, "piece", done=done, quiet=quiet)))

            found, skipped, reused = gather_to_file(
                source, output, overwrite=overwrite, began=began, advanced=lambda: bars[0].update()
            )
    for name, reason in skipped.items():
        log.warning("skipped %s: %s", name, reason)
    if sheet is not None:
        title = f"{found.name or 'patches'}: {found.side}x{found.side} cells"
        save_picture(sheet, draw_sheet(found.patches, found.track, found.scene, margin=found.margin, title=title))
    path = output if output is not None else Path(listed[0])
    return PatchesSummary(
        output=str(path),
        kind=kind,
        patches=len(found),
        tracks=len(np.unique(found.track)),
        images=len(np.unique(found.image)),
        scenes=len(np.unique(found.scene)),
        side=found.side,
        margin=found.margin,
        matches=0 if found.matches is None else len(found.matches),
        collisions=0 if found.collisions is None else len(found.collisions),
        megabytes=round(path.stat().st_size / 1e6, 1),
        reused=reused,
        sheet="" if sheet is None else str(sheet),
        seconds=round(time.perf_counter() - started, 3),
        skipped=skipped,
    )


def _sets(paths: list[Path], output: Path | None, overwrite: bool, options: dict[str, Any]) -> PatchSet:
    """One patch set, or several joined into a file."""
    wrong = [name for name in ("images", "database", "features", "masks", "split") if options.get(name) is not None]
    if wrong:
        raise OptionError(f"--{wrong[0]} is of no use for a patch set")
    parts = [PatchSet.load(path) for path in paths]
    if output is None:
        if len(parts) > 1:
            raise OptionError("--output names the file that the sets are joined in")
        return parts[0]
    if output.exists() and not overwrite:
        raise StoreError(f"{output} exists; name another output file, or overwrite it")
    lock = acquire(output)
    try:
        save_joined(output, parts, {"kind": "set", "sets": [part.name for part in parts]})
    finally:
        release(lock)
    return PatchSet.load(output)
