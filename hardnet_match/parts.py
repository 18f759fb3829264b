"""The parts of an extractor, by name (the package's own and plugins') or as modules, ready to be composed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from . import extensions
from . import weights as weight_files
from .architectures import load_network
from .descriptors import DESCRIPTORS
from .detectors import DETECTORS
from .errors import OptionError, PluginError
from .foreign import adapted, class_name, copied, identity
from .inference import PatchNetwork
from .orientation import ORIENTATIONS
from .presets import known
from .shape import SHAPES

Registry = Mapping[str, tuple[Callable[[], nn.Module], str | None]]

REGISTRIES: dict[str, Registry] = {
    "detector": DETECTORS,
    "shape": SHAPES,
    "orientation": ORIENTATIONS,
    "descriptor": DESCRIPTORS,
}


@dataclass(frozen=True)
class Part:
    """A part to compute with.

    Args:
        module: of this package with its weights, as it is trained (BatchNorm not folded); or of somebody else's,
            within the house's signature.
        name: by which it was asked for; a module's class.
        weights: hash of its weights file, if there is one.
        plugin: who brings it, if another package does (`Extension.settings`).
        given: what it is, if it was given as a module (`foreign.identity`).
    """

    module: nn.Module
    name: str
    weights: str | None = None
    plugin: Mapping[str, str] | None = None
    given: Mapping[str, str] | None = None


def open_part(part: str, name: str, weights: str | None = None) -> Part:
    """A part by name, in evaluation mode.

    Args:
        part: "detector", "shape", "orientation" or "descriptor".
        name: one of `presets.CHOICES[part]` that is more than nothing, or of a plugin.
        weights: a registered name or a file, instead of its own.

    Raises:
        OptionError: no such part, or it has no weights to load.
        WeightsError: the weights are missing, damaged or of another network.
        PluginError: another package's part that cannot be loaded.
    """
    if name not in REGISTRIES[part]:
        extension = extensions.find(part, name)
        if extension is None:
            raise OptionError(f"there is no {part} {name!r}; there are {', '.join(known(part))}")
        return _of_plugin(extension, weights)
    make, default = REGISTRIES[part][name]
    source = weights or default
    if weights and default is None:
        raise OptionError(f"the {part} {name!r} has no weights to load, but {weights!r} was asked for")
    if source is None:
        return Part(make().eval(), name)
    if part == "detector":
        network = make()
        weight_files.load_into(network, weight_files.load_state_dict(source, name), source)
    else:
        # One name stands for several widths and projections; the weights say which.
        network = load_network(source, name, part).network
    return Part(network.eval(), name, weight_files.file_hash(source))


def given_part(part: str, module: nn.Module) -> Part:
    """A part that was handed over as a module: kornia's, your own, or a network of this package; it is copied."""
    name = class_name(module)
    own = copied(module)
    fitted = own if part != "detector" and _ours(own) else adapted(part, own, f"the {part} {name}")
    return Part(fitted, name, given=identity(module))


def _of_plugin(extension: extensions.Extension, weights: str | None) -> Part:
    make: Any = extension.load()
    options = {}
    if weights is not None:
        if "weights" not in inspect.signature(make).parameters:
            raise OptionError(f"the {extension} has no weights to load, but {weights!r} was asked for")
        options["weights"] = str(weight_files.resolve(weights))
    try:
        module = make(**options)
    except Exception as error:
        raise PluginError(f"{extension} cannot be made ({type(error).__name__}: {error})") from error
    if not isinstance(module, nn.Module):
        raise PluginError(f"{extension} must be made as a torch module, but {extension.entry.value} made {module!r}")
    module = module.eval().requires_grad_(False)
    fitted = module if _ours(module) else adapted(extension.part, module, f"the {extension}")
    return Part(fitted, extension.name, weight_files.file_hash(weights) if weights else None, plugin=extension.settings)


def _ours(module: nn.Module) -> bool:
    """Whether it keeps the rules of this package's networks anyway: its class is made here, not derived elsewhere."""
    return isinstance(module, PatchNetwork) and type(module).__module__.startswith(f"{__package__}.")
