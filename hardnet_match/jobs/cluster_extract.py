"""Extraction by the workers of a cluster; the process that asked for it writes the file."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ClusterError
from .crew import Crew
from .extract import Described, described
from .same_extractor import extractor_like

IMAGES_AT_ONCE = 4
"""In a piece of work: little is done again when a worker is lost, and the result's megabytes are worth a trip."""


class ExtractWorker:
    """Extracts images of a folder that this machine sees.

    Args:
        settings: of the extractor.
        folder, masks, max_size, store: as in `extract_folder`.
        weights: files among which the weights are found by their hash.
        device: `cpu` (one thread) or `cuda`.

    Raises:
        ClusterError: the folder is not to be seen here.
        OptionError: the weights are not to be found here.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        folder: str,
        masks: str | None,
        max_size: int | None,
        store: str,
        weights: Sequence[str],
        device: str,
    ) -> None:
        import torch

        for path in (folder, *([masks] if masks else [])):
            if not os.path.isdir(path):
                raise ClusterError(
                    f"{socket.gethostname()} has no folder {path}: every machine of the cluster must see the photos "
                    "(and masks) at the same path; put them on shared storage"
                )
        if device == "cpu":
            torch.set_num_threads(1)
        self._folder, self._masks, self._max_size, self._store = Path(folder), masks, max_size, store
        self._extractor = extractor_like(settings, "the run", weights=weights, device=device)

    def work(self, items: list[str]) -> tuple[list[Described], dict[str, str], list[str]]:
        """Features of images, the reasons of those that cannot be read, and the names of those that are not there."""
        missing = [name for name in items if not os.path.lexists(self._folder / name)]
        names = [name for name in items if name not in missing]
        skipped: dict[str, str] = {}
        results = described(self._extractor, names, self._folder, self._masks, self._max_size, self._store, 1, skipped)
        return [image for batch in results for image in batch], skipped, missing


def described_by(
    crew: Crew,
    settings: Mapping[str, Any],
    names: Sequence[str],
    folder: Path,
    masks: str | Path | None,
    max_size: int | None,
    store: str,
    skipped: dict[str, str],
) -> Generator[list[Described], None, None]:
    """As `extract.described`, by a crew: each image once, in any order.

    Raises:
        ClusterError: the cluster is gone, or a machine of it does not see the photos.
    """
    # Absolute: a worker starts in a folder of its own.
    arguments = (
        dict(settings),
        os.path.abspath(folder),
        None if masks is None else os.path.abspath(masks),
        max_size,
        store,
        [os.path.abspath(path) if os.path.exists(path) else path for path in crew.weights],
        crew.device,
    )
    pieces = [list(names[at : at + IMAGES_AT_ONCE]) for at in range(0, len(names), IMAGES_AT_ONCE)]
    for given in crew.results(ExtractWorker, arguments, pieces):
        if given.lost:
            skipped.update((name, given.lost) for name in given.items)
            yield []
            continue
        images, reasons, missing = given.result
        for name in missing:
            if os.path.lexists(folder / name):
                raise ClusterError(
                    f"a machine of the cluster has the folder {folder} but not {name} in it; is the storage mounted "
                    "there?"
                )
            reasons[name] = "no such file"
        skipped.update(reasons)
        yield images
