"""FPR95 of descriptors on the published pairs of Brown's PhotoTour."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..architectures import load_network, open_network
from ..benchmark.patch_sift import opencv_sift
from ..devices import choose_device
from ..errors import DataError, OptionError
from ..inference import run_tiled
from ..metrics.patches import fpr95
from ..patches import fit_patches
from ..training.sources.brown import TEST_PAIRS, Brown
from .progress import progress_bar

Rows = NDArray[np.float32]
SIFTS = {"sift": False, "rootsift-opencv": True}
"""Peers: OpenCV's SIFT of the patch, and its RootSIFT."""
_AT_ONCE = 8192


@dataclass(frozen=True)
class BrownScores:
    """One descriptor: FPR95 in [0, 1], the distance at which 95 % of the matching pairs are kept."""

    label: str
    dim: int
    fpr95: float


@dataclass(frozen=True)
class BrownSummary:
    """What `evaluate_brown` measured."""

    folder: str
    set: str
    pairs: int
    matching: int
    patches: int
    scores: list[BrownScores]
    seconds: float


def evaluate_brown(
    folder: str | Path,
    descriptors: Sequence[str] = (),
    weights: Sequence[str] = (),
    peers: Sequence[str] = (),
    files: Mapping[str, Path] | None = None,
    *,
    device: str = "auto",
    quiet: bool = False,
) -> BrownSummary:
    """False positives at 95 % recall on the 100,000 published pairs of a set (Brown, Hua, Winder, PAMI 2011).

    Args:
        folder: a folder, zip or name of a set (`liberty`, ...), as `training.sources.brown` takes it, with
            `m50_100000_100000_0.txt`.
        descriptors: networks by name, with their own weights; HardNet if nothing at all is named.
        weights: registered names or files; each is a row of its own.
        peers: of `SIFTS`.
        files: label to `.npy` (N, D), descriptors of all N patches of the set in order, as `describe` writes them.
        device: where the networks run.
        quiet: no progress on a terminal.

    Raises:
        OptionError: an unknown name, or a label twice.
        WeightsError: weights that cannot be read or are no descriptor's.
        DataError: the set lacks its pairs or is damaged, or a file does not fit it.
    """
    started = time.perf_counter()
    files = files or {}
    place = choose_device(device)
    makers: dict[str, Callable[[NDArray[np.uint8]], Rows]] = {}

    def enter(label: str, make: Callable[[NDArray[np.uint8]], Rows]) -> None:
        if label in makers or label in files:
            raise OptionError(f"{label} is named twice; each row of the table needs a name of its own")
        makers[label] = make

    named = list(descriptors) if descriptors or weights or peers or files else ["hardnet"]
    for name in named:
        enter(name, _network(open_network(name), name, place))
    for source in weights:
        enter(Path(source).stem if Path(source).suffix else source, _network(load_network(source), source, place))
    for name in peers:
        if name not in SIFTS:
            raise OptionError(f"there is no peer {name!r} for patches; there are {', '.join(SIFTS)}")
        enter(name, lambda block, root=SIFTS[name]: opencv_sift(block, root=root))  # type: ignore[misc]
    brown = Brown(folder)
    pairs = brown.matches()
    if pairs is None or not len(pairs):
        raise DataError(f"{folder} has no pairs to test on; the published ones are in {TEST_PAIRS}")
    rows, where = np.unique(pairs[:, :2], return_inverse=True)
    where = where.reshape(-1, 2)
    table = {label: _stored(label, path, len(brown.points))[rows] for label, path in files.items()}
    if makers:
        table = {**_described(brown, rows, makers, quiet), **table}
    same = torch.from_numpy(pairs[:, 2].astype(bool))
    scores = []
    for label, found in table.items():
        distance = torch.cat(
            [
                torch.from_numpy(np.linalg.norm(found[part[:, 0]].astype(np.float64) - found[part[:, 1]], axis=1))
                for part in np.array_split(where, -(-len(where) // _AT_ONCE))
            ]
        )
        scores.append(BrownScores(label, found.shape[1], fpr95(distance[same], distance[~same])))
    seconds = round(time.perf_counter() - started, 3)
    return BrownSummary(str(folder), brown.name, len(pairs), int(same.sum()), len(rows), scores, seconds)


def _network(loaded: object, name: str, device: torch.device) -> Callable[[NDArray[np.uint8]], Rows]:
    from ..architectures import Loaded

    assert isinstance(loaded, Loaded)
    if loaded.architecture.kind != "descriptor":
        raise OptionError(f"{name} gives the {loaded.architecture.kind} of a patch, no descriptor")
    network = loaded.network.fused().to(device)

    def rows(patches: NDArray[np.uint8]) -> Rows:
        block = fit_patches(torch.from_numpy(np.ascontiguousarray(patches)), network.patch_size)
        return np.asarray(run_tiled(network, block.to(device)).cpu().numpy(), np.float32)

    return rows


def _described(
    brown: Brown, rows: NDArray[np.int64], makers: Mapping[str, Callable[[NDArray[np.uint8]], Rows]], quiet: bool
) -> dict[str, Rows]:
    """Descriptors of some patches of the set, in the order of the rows, bitmap after bitmap."""
    parts: dict[str, list[Rows]] = {label: [] for label in makers}
    start = 0
    with progress_bar("describing", len(rows), "patch", quiet=quiet) as bar:
        for key in brown.pieces():
            low, high = np.searchsorted(rows, [start, start + 256])
            if high > low:
                block = brown.read(key).patches[rows[low:high] - start]
                for label, make in makers.items():
                    parts[label].append(make(block))
                bar.update(int(high - low))
            start += 256
    return {label: np.concatenate(found) for label, found in parts.items()}


def _stored(label: str, path: Path, count: int) -> Rows:
    try:
        found: Rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no array file: {error}") from error
    if found.ndim != 2 or len(found) != count or found.dtype.kind not in "fiu":
        raise DataError(f"{path} ({label}): descriptors of this set are ({count}, D) numbers, these are {found.shape}")
    return found
