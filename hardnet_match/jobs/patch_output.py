"""Rows of descriptors to files, block by block, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, StoreError
from ..whole import replacing

FORMATS = ("csv", "txt", "npy", "h5")
NUMBER = "%10.5f"  # as the originals' scripts write them
_DELIMITERS = {"csv": ",", "txt": " "}
NOTE = ".hardnet-match.json"
"""In a folder of results: what made them. Hidden, so that a benchmark's script does not take it for a sequence."""

Blocks = Iterator[NDArray[np.float32]]


def format_of(path: Path) -> str:
    """The format a file name asks for.

    Raises:
        OptionError: the suffix is none of `FORMATS`.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise OptionError(f"{path}: descriptors go to {', '.join('.' + name for name in FORMATS)}")
    return suffix


def write_rows(path: Path, count: int, dim: int, blocks: Blocks, settings: Mapping[str, Any], form: str) -> None:
    """Write (count, dim) float32 that come in blocks (n, dim), replacing the file.

    Args:
        form: csv and txt are text, `%10.5f` a number, with commas or blanks between; npy is one array; h5 has a dataset
            `descriptors` and the settings as an attribute.
    """
    with replacing(path) as part:
        if form in _DELIMITERS:
            with part.open("w", encoding="ascii") as file:
                for rows in blocks:
                    np.savetxt(file, rows, delimiter=_DELIMITERS[form], fmt=NUMBER)
        elif form == "npy":
            with part.open("wb") as binary:
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, dim)}
                np.lib.format.write_array_header_1_0(binary, header)
                for rows in blocks:
                    binary.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        else:
            _write_hdf5(part, count, dim, blocks, settings)


def _write_hdf5(path: Path, count: int, dim: int, blocks: Blocks, settings: Mapping[str, Any]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        data = file.create_dataset("descriptors", (count, dim), dtype="<f4")
        file.attrs["settings"] = json.dumps(dict(settings))
        start = 0
        for rows in blocks:
            data[start : start + len(rows)] = rows
            start += len(rows)


class ResultFolder:
    """A folder of results, one file an input, that a second run goes on with.

    Args:
        folder: made if it is not there; its parent is.
        settings: what made the results; kept in the folder.
        form: of the files.
        overwrite: take what is there for nothing.

    Raises:
        OptionError: it is a file.
        StoreError: it holds results of other settings, or of unknown ones.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], form: str, *, overwrite: bool = False) -> None:
        self.folder, self.settings, self.form, self.overwrite = folder, dict(settings), form, overwrite
        if folder.exists() and not folder.is_dir():
            raise OptionError(f"{folder} is a file; a folder of pictures goes to a folder")
        note = folder / NOTE
        if not overwrite and folder.is_dir():
            before = _read_note(note)
            if before is not None and before != self.settings:
                raise StoreError(
                    f"{folder} holds results of {before}, not of {self.settings}: overwrite, or another folder"
                )
            if before is None and next(folder.rglob(f"*.{form}"), None) is not None:
                raise StoreError(f"{folder} holds .{form} files of unknown make: overwrite, or choose another folder")
        folder.mkdir(exist_ok=True)
        with replacing(note) as part:
            part.write_text(json.dumps(self.settings) + "\n", encoding="utf-8")

    def place(self, name: str) -> Path:
        """The file for the input of that relative name: `a/ref.png` goes to `a/ref.csv`."""
        return (self.folder / name).with_suffix(f".{self.form}")

    def clashes(self, names: Sequence[str]) -> dict[str, str]:
        """Inputs whose result would take the place of another's (`ref.png` and `ref.bmp`), with the reason."""
        first: dict[Path, str] = {}
        taken = {name: first.setdefault(self.place(name), name) for name in names}
        return {name: f"its result would replace that of {other}" for name, other in taken.items() if other != name}

    def done(self, name: str) -> bool:
        """Whether an earlier run wrote it."""
        return not self.overwrite and self.place(name).is_file()

    def write(self, name: str, count: int, dim: int, blocks: Blocks) -> None:
        """Write the result for an input."""
        place = self.place(name)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_rows(place, count, dim, blocks, self.settings, self.form)


def _read_note(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
