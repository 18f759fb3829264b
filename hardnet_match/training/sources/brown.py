"""Brown's PhotoTour: patches of Liberty, Notre Dame and Yosemite (Brown, Hua, Winder: PAMI 2011).

As published: bitmaps of 16x16 patches of 64x64 (`patches0000.bmp`, left to right and top to bottom), `info.txt` with a
row a patch (the point's number first), `interest.txt` with the reference image first, and test pairs in
`m50_100000_100000_0.txt` (rows `patch point _ patch point _ _`). Folders and unopened zips serve alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, HardnetMatchError, ImageError, OptionError
from ...weights.download import fetch
from .base import Piece, Source
from .files import Files

GRID, CELL = 16, 64
PER_BITMAP = GRID * GRID
TEST_PAIRS = "m50_100000_100000_0.txt"


@dataclass(frozen=True)
class BrownSet:
    """One of the published sets, as `weights.download` fetches it.

    Args:
        name: what a user types.
        urls, file, md5: of the zip. No better hash than the md5 is published.
        count: patches in it.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    count: int

    what: ClassVar[str] = "data"
    sha256: ClassVar[str | None] = None
    git_blob: ClassVar[str | None] = None
    most_bytes: ClassVar[int | None] = 4 << 30
    seconds: ClassVar[float | None] = 6 * 3600.0
    way_out: ClassVar[str] = "or pass the folder or zip you have instead of the name"
    error: ClassVar[type[HardnetMatchError]] = DataError

    @property
    def file(self) -> str:
        return f"{self.name}.zip"


def _brown(name: str, md5: str, count: int) -> BrownSet:
    urls = [f"http://matthewalunbrown.com/patchdata/{name}.zip"]
    if not name.endswith("_harris"):
        urls.insert(0, f"http://icvl.ee.ic.ac.uk/vbalnt/{name}.zip")
    return BrownSet(name, tuple(urls), md5, count)


SETS = {
    entry.name: entry
    for entry in (
        _brown("liberty", "fdd9152f138ea5ef2091746689176414", 450092),
        _brown("notredame", "509eda8535847b8c0a90bbb210c83484", 468159),
        _brown("yosemite", "533b2e8eb7ede31be40abc317b2fd4f0", 633587),
        _brown("liberty_harris", "c731fcfb3abb4091110d0ae8c7ba182c", 379587),
        _brown("notredame_harris", "69f8c90f78e171349abdf0307afefe4d", 325295),
        _brown("yosemite_harris", "a73253d1c6fbd3ba2613c45065c00d46", 450912),
    )
}


def resolve(source: str | Path) -> Path:
    """The folder or zip behind a name (downloaded on first use, its md5 checked every time) or a path.

    Raises:
        OptionError: neither a known name nor a folder or zip.
        DataError: the download failed; tells where to put the file by hand.
    """
    if str(source) in SETS:
        return fetch(SETS[str(source)])
    path = Path(source)
    if not path.exists():
        raise OptionError(f"{source}: no such folder or zip, and no set of that name (known: {', '.join(SETS)})")
    return path


class Brown(Source):
    """Patches of one of Brown's sets, a piece each bitmap; the network is shown the whole stored patch (margin 1).

    Tracks are the points; images are the reference images of `interest.txt` (0 where that file is missing).

    Args:
        source: a name of `SETS`, a folder, or a zip.

    Raises:
        OptionError, DataError: as `resolve`; or bitmaps are missing, or the text files do not fit them.
    """

    kind = "brown"
    side, margin = CELL, 1.0

    def __init__(self, source: str | Path) -> None:
        self._files = Files(resolve(source))
        self.name = str(source) if str(source) in SETS else self._files.path.stem
        names = self._files.names()
        self._bitmaps = [name for name in names if name.startswith("patches") and name.lower().endswith(".bmp")]
        self.points = self._column("info.txt", 0)
        needed = -(-len(self.points) // PER_BITMAP)
        if len(self._bitmaps) != needed:
            raise DataError(
                f"{self._files.path}: {len(self.points)} patches in info.txt need {needed} bitmaps, "
                f"there are {len(self._bitmaps)}; unpack it again"
            )
        self.references = self._column("interest.txt", 0) if "interest.txt" in names else np.zeros_like(self.points)
        if len(self.references) != len(self.points):
            raise DataError(f"{self._files.path}: info.txt and interest.txt differ in their number of rows")

    def _column(self, name: str, column: int) -> NDArray[np.int64]:
        return self._table(name)[:, column]

    def _table(self, name: str) -> NDArray[np.int64]:
        """The rows of a text file of numbers, as whole numbers; empty lines are passed over."""
        lines = [line for line in self._files.read(name).decode("ascii", "replace").splitlines() if line.strip()]
        if not lines:
            raise DataError(f"{self._files.path / name} is empty")
        try:
            return np.loadtxt(lines, ndmin=2).astype(np.int64)
        except ValueError as error:
            raise DataError(f"{self._files.path / name} is no table of numbers: {error}") from error

    def settings(self) -> dict[str, Any]:
        sizes = [self._files.size(name) for name in ("info.txt", self._bitmaps[0], self._bitmaps[-1])]
        return {"kind": self.kind, "set": self.name, "patches": len(self.points), "bytes": sizes}

    def pieces(self) -> list[str]:
        return self._bitmaps

    def read(self, key: str) -> Piece:
        start = self._bitmaps.index(key) * PER_BITMAP
        rows = slice(start, min(start + PER_BITMAP, len(self.points)))
        try:
            pixels = self._files.grey(key)
        except ImageError as error:  # without it all rows behind would be of other points
            raise DataError(str(error)) from error
        side = GRID * CELL
        if pixels.shape != (side, side):
            raise DataError(f"{self._files.path / key} is {pixels.shape[1]}x{pixels.shape[0]}, not {side}x{side}")
        cells = pixels.reshape(GRID, CELL, GRID, CELL).swapaxes(1, 2).reshape(PER_BITMAP, CELL, CELL)
        count = rows.stop - rows.start
        return Piece(
            cells[:count],
            {
                "track": self.points[rows],
                "image": self.references[rows].astype(np.int32),
                "scene": np.zeros(count, np.int32),
            },
        )

    def matches(self) -> NDArray[np.int64] | None:
        """The published 50,000 matching and 50,000 other pairs, where their file is there."""
        if TEST_PAIRS not in self._files.names():
            return None
        table = self._table(TEST_PAIRS)
        if table.shape[1] < 5 or table[:, [0, 3]].min() < 0 or table[:, [0, 3]].max() >= len(self.points):
            raise DataError(f"{self._files.path / TEST_PAIRS} does not fit the {len(self.points)} patches of info.txt")
        pairs = table[:, [0, 3]]
        if (self.points[pairs] != table[:, [1, 4]]).any():
            raise DataError(
                f"{self._files.path / TEST_PAIRS} names other points than info.txt; they are not of one set"
            )
        found: NDArray[np.int64] = np.c_[pairs, table[:, 1] == table[:, 4]].astype(np.int64)
        return found
