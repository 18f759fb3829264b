"""The HPatches benchmark over a folder of descriptors, as `describe` writes it and others do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..devices import choose_device
from ..errors import DataError, OptionError
from ..metrics.hpatches import VIEWS, HPatchesFigures, hpatches_figures, read_tasks
from .progress import progress_bar

FORMS = ("npy", "csv", "txt", "h5")


@dataclass(frozen=True)
class HPatchesSummary:
    """What `evaluate_hpatches` found: figures in [0, 1], see `metrics.hpatches.HPatchesFigures`."""

    descriptors: str
    split: str | None
    sequences: int
    dim: int
    figures: HPatchesFigures
    seconds: float


def evaluate_hpatches(
    descriptors: str | Path,
    tasks: str | Path | None = None,
    split: str = "full",
    *,
    device: str = "auto",
    quiet: bool = False,
) -> HPatchesSummary:
    """Score descriptors of HPatches sequences.

    Args:
        descriptors: a folder with `SEQUENCE/ref`, `SEQUENCE/e1`, ... as `.csv` (commas or semicolons), `.txt`, `.npy`
            or `.h5`.
        tasks: the benchmark's folder of task files; without it the matching task alone is measured, on all sequences
            that are there.
        split: a, b, c, full, illum or view.
        device: where distances are computed.
        quiet: no progress on a terminal.

    Raises:
        OptionError: no such folder.
        DataError: no sequence in it, or a file of it or of the tasks is missing or damaged.
    """
    folder, started = Path(descriptors), time.perf_counter()
    for place in (folder, *([Path(tasks)] if tasks is not None else [])):
        if not place.is_dir():
            raise OptionError(f"{place}: no such folder")
    wanted = None if tasks is None else read_tasks(Path(tasks), split)
    there = sorted(path.name for path in folder.glob("[iv]_*") if path.is_dir())
    if not there:
        raise DataError(f"{folder} has no HPatches sequence (folders i_* and v_*) of descriptors")
    names = there if wanted is None else list(wanted.names)
    missing = sorted(set(names) - set(there))
    if missing:
        raise DataError(f"{folder} lacks {len(missing)} sequences of the split {split}, {missing[0]} the first")
    sequences: dict[str, dict[str, NDArray[np.float32]]] = {}
    with progress_bar("reading", len(names), "sequence", quiet=quiet) as bar:
        for name in names:
            sequences[name] = {view: _read(folder / name, view) for view in VIEWS}
            bar.update()
    figures = hpatches_figures(sequences, wanted, str(choose_device(device)))
    dim = sequences[names[0]]["ref"].shape[1]
    seconds = round(time.perf_counter() - started, 3)
    return HPatchesSummary(str(folder), None if tasks is None else split, len(names), dim, figures, seconds)


def write_hpatches_csv(found: HPatchesSummary, folder: str | Path, descriptor: str | None = None) -> Path:
    """Write figures as the public benchmark's toolbox keeps them, so that its tables take them in.

    Args:
        found: what was measured.
        folder: of the scores of all descriptors; made if its parent exists.
        descriptor: name of this one's subfolder and in its rows; the name of the folder of descriptors if None.

    Returns:
        `folder/DESCRIPTOR` with `matching.csv`, `verification.csv` and `retrieval.csv` (the latter two where there
        were task files). Columns that are not measured here are empty. A file that was there is replaced.

    Raises:
        OptionError: the folder cannot be made.
    """
    name = descriptor or Path(found.descriptors).resolve().name
    place = Path(folder) / name
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OptionError(f"{place}: the folder cannot be made ({error.strerror})") from error
    split = found.split or "full"
    matching = [
        [name, split, sequence, noise, 0, image, precision, "", ""]
        for sequence, noises in found.figures.pairs.items()
        for noise, values in noises.items()
        for image, precision in enumerate(values, 1)
    ]
    _table(place / "matching.csv", "descriptor,split,sequence,geom_noise,ima,imb,ap,auc,sr", matching)
    verification = []
    for key, value in found.figures.verification.items():
        if key.count("/") == 2:
            noise, negatives, method = key.split("/")
            areas = ["", "", value] if method == "balanced" else ["", value, ""]
            verification.append([name, split, negatives, noise, method, *areas, "", ""])
    if verification:
        head = "descriptor,split,negs,geom_noise,method,pr_auc,pr_ap,roc_auc,numpos,numneg"
        _table(place / "verification.csv", head, verification)
        noises = [key for key in found.figures.retrieval if key != "mean"]
        retrieval = [[name, split, noise, "pools", "", found.figures.retrieval[noise]] for noise in noises]
        _table(place / "retrieval.csv", "descriptor,split,geom_noise,method,mauc,map", retrieval)
    return place


def _table(path: Path, head: str, rows: list[list[Any]]) -> None:
    lines = [head, *(",".join(f"{v:.6f}" if isinstance(v, float) else str(v) for v in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _read(folder: Path, view: str) -> NDArray[np.float32]:
    path = next((path for form in FORMS if (path := folder / f"{view}.{form}").is_file()), None)
    if path is None:
        raise DataError(f"{folder} lacks {view} ({', '.join('.' + form for form in FORMS)})")
    try:
        if path.suffix == ".npy":
            found = np.load(path, allow_pickle=False)
        elif path.suffix == ".h5":
            import h5py

            with h5py.File(path) as file:
                found = file["descriptors"][:]
        else:
            with path.open(encoding="ascii") as lines:
                first = lines.readline()
            delimiter = next((mark for mark in ",;" if mark in first), None)
            found = np.loadtxt(path, dtype=np.float32, delimiter=delimiter, ndmin=2)
        rows = np.asarray(found, dtype=np.float32)
    except Exception as error:  # numpy raises anything on a damaged header
        raise DataError(f"{path} holds no descriptors: {error}") from error
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise DataError(f"{path} holds no rows of finite numbers")
    return rows
