"""Weights and patches become weights with a projection to fewer dimensions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..architectures import find, name_of, open_network
from ..descriptors.base import DescriptorNetwork
from ..devices import choose_device
from ..errors import OptionError
from ..export import export_network, form_of
from ..training.patchset import PatchSet
from ..training.pca import SAMPLE, fit_projection
from .progress import progress_bar


@dataclass(frozen=True)
class PcaSummary:
    """What `add_projection` did: `kept` is the share of the descriptors' variance in the `dim` dimensions."""

    file: str
    network: str
    source: str
    dim: int
    of: int
    patches: int
    kept: float
    seconds: float


def add_projection(
    weights: str | Path,
    data: Sequence[str | Path],
    output: str | Path,
    *,
    dim: int = 128,
    sample: int = SAMPLE,
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> PcaSummary:
    """Write a descriptor's weights together with a projection found from patch sets.

    Args:
        weights: a descriptor by name, registered weights or a file; a projection it has already is replaced.
        data: patch set files (`hardnet-match patches` makes them).
        output: .safetensors, or .pth for the originals' layout.
        dim: dimensions to keep.
        sample, seed: see `training.pca.fit_projection`.

    Raises:
        OptionError: a number that cannot work, another suffix, or it is no descriptor with weights.
        WeightsError, DataError: weights or patch sets cannot be read, or there are too few patches.
    """
    started = time.perf_counter()
    if form_of(output) not in ("safetensors", "checkpoint"):
        raise OptionError(f"{output}: weights go to .safetensors or .pth; export makes graphs of them")
    loaded = open_network(weights)
    network = loaded.network
    if not isinstance(network, DescriptorNetwork):
        raise OptionError(
            f"{weights}: {loaded.architecture.name} is no descriptor with weights; there is nothing to project"
        )
    sets = [PatchSet.load(Path(path)) for path in data]
    patches = min(sum(map(len, sets)), sample)
    with progress_bar("describing", patches, "patch", quiet=quiet) as bar:
        found = fit_projection(
            network, sets, dim, sample=sample, seed=seed, device=str(choose_device(device)), advance=bar.update
        )
    network.project(found.components, found.mean)
    about = {
        **loaded.about,
        "projection": f"PCA to {dim}, {found.kept:.4f} of the variance, from {found.count} patches",
        "projection_data": ", ".join(one.name or Path(path).name for one, path in zip(sets, data, strict=True)),
        "projection_seed": str(seed),
    }
    name = name_of(network)
    export_network(replace(loaded, architecture=find(name), about=about), output)
    return PcaSummary(
        file=str(output),
        network=name,
        source=loaded.source,
        dim=dim,
        of=network.width,
        patches=found.count,
        kept=round(found.kept, 6),
        seconds=round(time.perf_counter() - started, 3),
    )
