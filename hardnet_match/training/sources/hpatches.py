"""HPatches: folders of sequences, patches of 65x65 stacked in one column (Balntas et al., CVPR 2017).

A sequence `i_NAME` (light) or `v_NAME` (viewpoint) holds `ref.png`, `e1.png` to `e5.png` (easy), `h1` to `h5` (hard)
and `t1` to `t5` (tough): patch k of each is the same place. `splits.json` of the benchmark says which sequences a
split trains on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, OptionError
from .base import MANY, Piece, Source
from .cutting import fingerprint
from .files import Files

SIDE = 65
VIEWS = ("ref", *(f"{noise}{number}" for noise in "eht" for number in range(1, 6)))
PARTS = ("train", "test")


def sequences(folder: Path) -> list[str]:
    """Names of the sequences in a folder, sorted.

    Raises:
        DataError: there are none.
    """
    found = sorted(path.parent.name for path in folder.glob("[iv]_*/ref.png"))
    if not found:
        raise DataError(f"{folder} has no HPatches sequence (folders i_* and v_* with ref.png)")
    return found


def read_patches(path: Path) -> NDArray[np.uint8]:
    """The patches of one file, (N, 65, 65) uint8.

    Raises:
        ImageError, DataError: it is no picture, or no column of 65x65 patches.
    """
    pixels = Files(path.parent).grey(path.name)
    if pixels.shape[1] != SIDE or not len(pixels) or len(pixels) % SIDE:
        raise DataError(f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, not a column of {SIDE}x{SIDE} patches")
    return pixels.reshape(-1, SIDE, SIDE)


def split_sequences(folder: Path, split: str, part: str = "train", splits: Path | None = None) -> list[str]:
    """The sequences of a folder that belong to a part of a split.

    Args:
        folder: of the sequences.
        split: a name in splits.json; `view`, `illum` and `full` need no file: they train on the sequences of light, of
            viewpoint, and on none, and test on all others.
        part: `train` or `test`.
        splits: the file; None looks for it in the folder and beside it.

    Raises:
        OptionError: unknown split or part, or the file is needed and not found.
        DataError: the file is damaged, or no sequence of the part is there.
    """
    if part not in PARTS:
        raise OptionError(f"a split has the parts {' and '.join(PARTS)}, not {part!r}")
    there = sequences(folder)
    candidates = [splits] if splits else [folder / "splits.json", folder.parent / "splits.json"]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None and splits is not None:
        raise OptionError(f"{splits}: no such file")
    if file is None:
        learned = {"view": "i_", "illum": "v_", "full": "-"}
        if split not in learned:
            raise OptionError(
                f"split {split!r} needs the benchmark's splits.json; put it into {folder} or name it "
                f"(without it there are {', '.join(learned)})"
            )
        chosen = [name for name in there if name.startswith(learned[split]) == (part == "train")]
    else:
        chosen = _listed(file, split, part)
    found = [name for name in there if name in set(chosen)]
    if not found:
        raise DataError(f"{folder} has no sequence of split {split!r}, part {part!r}")
    return found


def _listed(file: Path, split: str, part: str) -> list[str]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if split not in known:
            raise OptionError(f"{file} has no split {split!r}; it has {', '.join(known)}")
        return [str(name) for name in known[split][part]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        if isinstance(error, OptionError):
            raise
        raise DataError(f"{file} is not HPatches' splits.json: {error}") from error


class HPatches(Source):
    """Patches of HPatches sequences, a piece each file; the network is shown the whole stored patch (margin 1).

    A track is a place of a sequence; scene k is sequence k, image 16 k + v its view v in the order of `VIEWS`.

    Args:
        folder: of the sequences.
        names: which; all if None.
        noise: which jitter besides the references: any of `e`, `h`, `t`.

    Raises:
        DataError: a sequence or a file of it is missing.
        OptionError: an unknown kind of jitter.
    """

    kind = "hpatches"
    side, margin = SIDE, 1.0

    def __init__(self, folder: Path, names: Sequence[str] | None = None, noise: str = "eht") -> None:
        if not noise or set(noise) - set("eht"):
            raise OptionError(f"noise is some of e, h and t, got {noise!r}")
        self.folder, self.name = folder, folder.name or "hpatches"
        self.names = list(names) if names is not None else sequences(folder)
        views = [view for view in VIEWS if view == "ref" or view[0] in noise]
        self._files = {
            f"{name}/{view}.png": (k, VIEWS.index(view)) for k, name in enumerate(self.names) for view in views
        }
        missing = [name for name in self._files if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{folder} lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))

    def settings(self) -> dict[str, Any]:
        return {"kind": self.kind, "sequences": len(self.names), "files": fingerprint(self.folder, self._files)}

    def pieces(self) -> list[str]:
        return list(self._files)

    def read(self, key: str) -> Piece:
        sequence, view = self._files[key]
        patches = read_patches(self.folder / key)
        count = len(patches)
        return Piece(
            patches,
            {
                "track": sequence * MANY + np.arange(count, dtype=np.int64),
                "image": np.full(count, sequence * len(VIEWS) + view, np.int32),
                "scene": np.full(count, sequence, np.int32),
            },
        )
