"""Every network by name: made new, opened with its weights, told from a state dict or a file, and named again.

Names are `hardnet` (the originals' `h7`), `h8`, `h8E512`, `hardnet-ps`, `tfeat`, `hardtfeat`, `affnet` and `orinet`; a
descriptor with a projection has the number of its dimensions behind: `h8E512-pca128` (`h8E512pca128` in the
originals' checkpoints; it is also what `hardnet8` means). What has no weights goes by its registry's name
(`rootsift`, `baumberg`, `dominant`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from . import weights as weight_files
from .descriptors import DESCRIPTORS, HardNet, HardNet8, HardNetPS, HardTFeat, TFeat
from .descriptors.base import DescriptorNetwork
from .errors import OptionError, WeightsError
from .inference import PatchNetwork
from .l2net import without_initialisation
from .orientation import ORIENTATIONS, OriNet
from .shape import SHAPES, AffNet

KINDS = ("descriptor", "shape", "orientation")
_ALIASES = {"h7": "hardnet", "hardnet8": "h8E512-pca128"}
_PROJECTION = re.compile(r"-?pca(\d+)$")


@dataclass(frozen=True)
class Architecture:
    """A network that can be made.

    Args:
        name: its canonical name. kind: "descriptor", "shape" or "orientation".
        family: what `extract` and the weights' registry call it (all of HardNet8's forms are `hardnet8`).
        make: a new instance with the originals' initialisation.
        trainable: it has weights.
    """

    name: str
    kind: str
    family: str
    make: Callable[[], PatchNetwork]
    trainable: bool = True


def _known() -> dict[str, Architecture]:
    networks: list[tuple[str, str, str, Callable[[], PatchNetwork]]] = [
        ("hardnet", "descriptor", "hardnet", HardNet),
        ("h8", "descriptor", "hardnet8", partial(HardNet8, 256, None)),
        ("h8E512", "descriptor", "hardnet8", partial(HardNet8, 512, None)),
        ("hardnet-ps", "descriptor", "hardnet-ps", HardNetPS),
        ("tfeat", "descriptor", "tfeat", TFeat),
        ("hardtfeat", "descriptor", "hardtfeat", HardTFeat),
        ("affnet", "shape", "affnet", AffNet),
        ("orinet", "orientation", "orinet", OriNet),
    ]
    known = {name: Architecture(name, kind, family, make) for name, kind, family, make in networks}
    for kind, registry in zip(KINDS, (DESCRIPTORS, SHAPES, ORIENTATIONS), strict=True):
        for name, (make, default) in registry.items():
            if default is None:
                known[name] = Architecture(name, kind, name, make, trainable=False)
    return known


ARCHITECTURES = _known()
"""By canonical name, without projections; `find` also knows those and the other names in use."""


def find(name: str) -> Architecture:
    """The architecture of that name, in the originals' spelling or ours.

    Raises:
        OptionError: there is none.
    """
    wanted = _ALIASES.get(name, name)
    if wanted in ARCHITECTURES:
        return ARCHITECTURES[wanted]
    projection = _PROJECTION.search(wanted)
    stem = wanted[: projection.start()] if projection else ""
    base = ARCHITECTURES.get(_ALIASES.get(stem, stem))
    if projection is None or base is None or base.kind != "descriptor" or not base.trainable:
        raise OptionError(
            f"there is no network {name!r}; there are {', '.join((*ARCHITECTURES, *_ALIASES))}, "
            "and descriptors with a projection, as h8E512-pca128"
        )
    dim = int(projection[1])

    def make() -> PatchNetwork:
        network = base.make()
        assert isinstance(network, DescriptorNetwork)
        network.reserve(dim)
        return network

    return Architecture(f"{base.name}-pca{dim}", base.kind, base.family, make)


def build(name: str) -> PatchNetwork:
    """A new network with the originals' initialisation: orthogonal, gain 0.6 for HardNet's kind and 0.8 for AffNet and
    OriNet, biases 0.01; torch's own for TFeat and HardTFeat, whose originals set none.

    Raises:
        OptionError: no such network.
    """
    return find(name).make()


def name_of(network: PatchNetwork) -> str:
    """The canonical name of a network of this package.

    Raises:
        OptionError: it is of a class or width that has none.
    """
    base = f"{'h8' if network.width == 256 else f'h8E{network.width}'}" if isinstance(network, HardNet8) else ""
    if not base:
        fitting = [known.name for known in ARCHITECTURES.values() if known.make is type(network)]
        if not fitting:
            raise OptionError(
                f"a {type(network).__name__} is no network with a name; there are {', '.join(ARCHITECTURES)}"
            )
        base = fitting[0]
    elif base not in ARCHITECTURES:
        raise OptionError(f"a HardNet8 has 256 or 512 channels, not {network.width}")
    projected = isinstance(network, DescriptorNetwork) and network.projected
    return f"{base}-pca{network.dim}" if projected else base


# What only one network's state dict has: a tensor's name and its shape (None: any size).
_MARKS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "hardnet": ("features.19.weight", (128, 128, 8, 8)),
    "h8": ("features.22.weight", (256, 256, 8, 8)),
    "h8E512": ("features.22.weight", (512, 256, 8, 8)),
    "hardnet-ps": ("features.18.weight", (128, 128, 8, 8)),
    "tfeat": ("descr.0.weight", (128, 4096)),
    "hardtfeat": ("classifier.1.weight", (128, 64, 8, 8)),
    "affnet": ("features.19.weight", (3, 64, 8, 8)),
    "orinet": ("features.19.weight", (2, 64, 8, 8)),
}


def recognise(state: Mapping[str, Tensor]) -> str | None:
    """The canonical name of the network a state dict is of, told by its tensors; None if of none known."""
    for name, (key, shape) in _MARKS.items():
        if key in state and tuple(state[key].shape) == shape:
            components = state.get("components")
            projected = ARCHITECTURES[name].kind == "descriptor" and components is not None and components.ndim == 2
            return f"{name}-pca{components.shape[1]}" if projected and components is not None else name
    return None


@dataclass(frozen=True)
class Loaded:
    """A network with its weights, in evaluation mode, float32, trainable.

    Args:
        network: ready to describe, to be trained on, or to be exported.
        architecture: what it is.
        source: the registered name or file the weights came from; "" for a network without weights.
        about: what the file says of itself (its metadata; `epoch`, ... of a checkpoint).
    """

    network: PatchNetwork
    architecture: Architecture
    source: str = ""
    about: Mapping[str, str] = field(default_factory=dict)


def load_network(source: str | Path, expected: str | None = None, kind: str | None = None) -> Loaded:
    """The network behind registered weights or a weights file.

    Which network a file is for is told by its tensors, and by its metadata only where they do not tell.

    Args:
        source: "hardnet++", "mine.safetensors", ...
        expected: the name or family it must be of, as in `DESCRIPTORS`, `SHAPES` or `ORIENTATIONS`.
        kind: "descriptor", "shape" or "orientation", if it must be one.

    Raises:
        WeightsError: unknown, damaged, or made for another network.
        OptionError: `expected` is no network's name.
    """
    wanted = find(expected) if expected is not None else None
    loaded = _from_weights(source, wanted, kind)
    found = loaded.architecture
    if wanted is not None and expected != found.family and wanted.name != found.name:
        raise WeightsError(f"{source}: made for another network: it holds weights of {found.name}, not of {expected}")
    if kind is not None and found.kind != kind:
        raise WeightsError(f"{source}: made for another network: {found.name} gives the {found.kind}, not the {kind}")
    return loaded


def family_of(source: str | Path) -> str | None:
    """What `extract` calls the network some weights are of; a registered name is not downloaded for it.

    Raises:
        WeightsError: a file that cannot be read.
    """
    entry = weight_files.ENTRIES.get(str(source))
    if entry is not None:
        return entry.architecture
    name = recognise(weight_files.read_checkpoint(weight_files.resolve(source)).state)
    return None if name is None else find(name).family


def open_network(name: str | Path, weights: str | Path | None = None) -> Loaded:
    """A network by its own name, with the weights it takes when none are asked for; or by those of weights.

    Args:
        name: a network (`hardnet`, `affnet`: the bundled weights; `rootsift`: none), else as `load_network`.
        weights: instead of the default ones.

    Raises:
        WeightsError: as `load_network`.
        OptionError: the network has no weights of its own and none are given, or takes none and some are.
    """
    try:
        known = find(str(name))
    except OptionError:
        if weights is not None:
            raise
        return load_network(name)
    if not known.trainable:
        if weights is not None:
            raise OptionError(f"{known.name} has no weights to load, but {str(weights)!r} was asked for")
        return Loaded(known.make().eval(), known)
    registry = dict(zip(KINDS, (DESCRIPTORS, SHAPES, ORIENTATIONS), strict=True))[known.kind]
    default = registry[known.family][1] if str(name) in registry else None
    if weights is None and default is None:
        raise OptionError(f"{known.name} has no weights of its own in this package: give a file of yours as --weights")
    return load_network(weights or str(default), str(name))


def _from_weights(source: str | Path, wanted: Architecture | None, kind: str | None) -> Loaded:
    entry = weight_files.ENTRIES.get(str(source))
    if entry is not None:
        _check_entry(entry, wanted, kind)  # before anything is downloaded
    checkpoint = weight_files.read_checkpoint(weight_files.resolve(source))
    state, about = checkpoint.state, checkpoint.about
    told = about.get("architecture") or about.get("model_arch")
    guess = recognise(state)
    try:
        architecture = find(guess or told or (entry.architecture if entry else None) or (wanted.name if wanted else ""))
    except OptionError as error:
        raise WeightsError(
            f"{source}: of no network known here (its tensors: {', '.join(list(state)[:3])}, ...); "
            f"networks are {', '.join(name for name, known in ARCHITECTURES.items() if known.trainable)}"
        ) from error
    with without_initialisation():
        network = architecture.make()
    weight_files.load_into(network, state, str(source))
    return Loaded(network.eval(), architecture, str(source), about)


def _check_entry(entry: weight_files.Entry, wanted: Architecture | None, kind: str | None) -> None:
    kinds = {known.family: known.kind for known in ARCHITECTURES.values()}
    if entry.architecture not in kinds:
        raise WeightsError(f"weights {entry.name!r} are for the detector {entry.architecture}, no network over patches")
    if (wanted is not None and entry.architecture != wanted.family) or kind not in (None, kinds[entry.architecture]):
        for_what = wanted.family if wanted is not None else f"the {kind}"
        fitting = weight_files.names(wanted.family) if wanted is not None else []
        raise WeightsError(
            f"weights {entry.name!r} are for {entry.architecture}, not for {for_what}; "
            f"weights for it: {', '.join(fitting) or 'see hardnet-match weights'}"
        )
