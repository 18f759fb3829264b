"""Descriptors of patches that are cut already: one file, or a folder of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from .. import extensions
from .. import weights as weight_files
from ..architectures import load_network, open_network
from ..devices import choose_device
from ..errors import DataError, ImageError, OptionError
from ..inference import PatchNetwork, run_tiled
from ..parts import open_part
from ..presets import CHOICES
from .patch_input import PatchInput, is_collection, list_columns, open_patches
from .patch_output import FORMATS, ResultFolder, format_of, write_rows
from .progress import progress_bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DescribeSummary:
    """What `describe_patches` did: files written now, and there already from an earlier run (`reused`)."""

    output: str
    patches: int
    dim: int
    files: int
    reused: int
    seconds: float
    settings: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)


class _Describer:
    """A descriptor ready to run over inputs of patches."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.device = choose_device(device)
        network = network.fused() if isinstance(network, PatchNetwork) else network
        self.network = network.to(self.device)
        self.size = int(getattr(network, "patch_size", 32))
        empty = torch.zeros(0, 1, self.size, self.size, device=self.device)
        self.dim = int(getattr(network, "dim", 0)) or run_tiled(self.network, empty).shape[1]

    def rows(
        self, patches: PatchInput, advance: Callable[[int], object] = lambda count: None
    ) -> Iterator[NDArray[np.float32]]:
        for block in patches.blocks(self.size):
            yield run_tiled(self.network, block.to(self.device)).cpu().numpy()
            advance(len(block))


def describe_patches(
    patches: str | Path,
    output: str | Path,
    *,
    descriptor: str | None = None,
    weights: str | None = None,
    form: str | None = None,
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
) -> DescribeSummary:
    """Describe patches; a row of numbers each.

    Patches that are not 32x32 are resized bilinearly, as the originals' scripts do it. Memory is bounded by the picture
    (or one bitmap of Brown's); everything else passes in blocks.

    Args:
        patches: a picture that is a column of square patches (HPatches' form, any width), `.npy` (N, w, w) uint8, a
            patch set `.h5`, a Brown folder or zip; or a folder of pictures, each with a result of its own (HPatches'
            `SEQUENCE/ref.png`, ... become `SEQUENCE/ref.csv`, ...; what is there already is kept).
        output: `.csv` and `.txt` (numbers as `%10.5f`, commas or blanks between), `.npy` (N, D) float32 or `.h5`
            (dataset `descriptors` (N, D) float32); for a folder of pictures a folder.
        descriptor: a network, or a plugin's descriptor, by name; that of the weights, or HardNet, if None.
        weights: a registered name or a file, instead of the network's own.
        form: of the files in an output folder, one of `FORMATS`; csv if None.
        overwrite: make files of an output folder anew.

    Raises:
        OptionError: output and input do not fit together, or a name is unknown.
        PluginError: a plugin's descriptor cannot be loaded, or fails.
        WeightsError: the weights cannot be read or are no descriptor's.
        ImageError, DataError: the input cannot be read; of a folder, such pictures are skipped and named instead.
        StoreError: the output folder holds results of another network.
    """
    source, target, started = Path(patches), Path(output), time.perf_counter()
    many = is_collection(source)
    if form is not None and (form not in FORMATS or not many):
        raise OptionError(
            f"the format of a folder's files is one of {', '.join(FORMATS)}; a single file's suffix says it"
        )
    names = list_columns(source) if many else []
    opened = None if many else open_patches(source)
    kind = form or "csv" if many else format_of(target)
    network, settings = _descriptor(descriptor, weights)
    describer = _Describer(network, device)
    skipped: dict[str, str] = {}
    files = reused = count = 0
    if opened is not None:
        files, count = 1, opened.count
        with progress_bar("describing", count, "patch", quiet=quiet) as bar:
            write_rows(target, count, describer.dim, describer.rows(opened, bar.update), settings, kind)
    else:
        results = ResultFolder(target, settings, kind, overwrite=overwrite)
        skipped = results.clashes(names)
        todo = [name for name in names if name not in skipped and not results.done(name)]
        reused = len(names) - len(todo) - len(skipped)
        with progress_bar("describing", len(names), "file", done=reused, quiet=quiet) as bar:
            for name in todo:
                try:
                    item = open_patches(source / name)
                    results.write(name, item.count, describer.dim, describer.rows(item))
                    files, count = files + 1, count + item.count
                except (ImageError, DataError) as error:
                    skipped[name] = " ".join(str(error).split()).removeprefix(f"{source / name}: ")
                    log.warning("skipped %s: %s", name, skipped[name])
                bar.update()
    seconds = round(time.perf_counter() - started, 3)
    return DescribeSummary(str(target), count, describer.dim, files, reused, seconds, settings, skipped)


def _descriptor(name: str | None, weights: str | None) -> tuple[nn.Module, dict[str, Any]]:
    """The network, and what the settings of its results say of it."""
    if name is not None and name not in CHOICES["descriptor"] and name in extensions.names("descriptor"):
        part = open_part("descriptor", name, weights)
        if getattr(part.module, "of_frames", False):
            raise OptionError(f"the descriptor {name!r} looks at frames in an image and cannot describe bare patches")
        return part.module, {"descriptor": name, "weights": part.weights, "plugin": dict(part.plugin or {})}
    if name is None and weights is not None:
        loaded = load_network(weights, kind="descriptor")
    else:
        loaded = open_network(name or "hardnet", weights)
    if loaded.architecture.kind != "descriptor":
        raise OptionError(f"{name} gives the {loaded.architecture.kind} of a patch, no descriptor")
    digest = weight_files.file_hash(loaded.source) if loaded.source else None
    return loaded.network, {"descriptor": loaded.architecture.name, "weights": digest}
