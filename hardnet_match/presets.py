"""Named compositions of a detector, an affine shape, an orientation and a descriptor.

No imports of torch here: the command line reads the names to check an option before anything heavy loads.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from . import extensions
from .errors import OptionError

DEFAULT_PRESET = "hesaffnet-hardnet"


@dataclass(frozen=True)
class Composition:
    """Names as in `detectors.DETECTORS`, `shape.SHAPES`, `orientation.ORIENTATIONS` and `descriptors.DESCRIPTORS`.

    `shape` may be "none": frames stay circles. Orientation is the dominant gradient's unless asked otherwise: it needs
    no weights, and the bundled OriNet is not yet as good (its card has the figures).
    """

    detector: str = "hessian"
    shape: str = "affnet"
    orientation: str = "dominant"
    descriptor: str = "hardnet"


_FRONTS = {
    "hesaffnet": Composition(),
    "dog-affnet": Composition(detector="dog"),
    "keynet-affnet": Composition(detector="keynet"),
    "dog": Composition(detector="dog", shape="none"),
}

_DESCRIPTORS = ("hardnet", "hardnet8", "rootsift", "tfeat")

PRESETS: dict[str, Composition] = {
    f"{front}-{descriptor}": replace(composition, descriptor=descriptor)
    for front, composition in _FRONTS.items()
    for descriptor in _DESCRIPTORS
}

METHODS = ("smnn", "mnn", "snn", "fginn", "adalam")
"""This package's own matching methods; tests hold it against `matching.METHODS`."""

ABOUT: dict[str, dict[str, str]] = {
    "detector": {
        "hessian": "determinant of the Hessian: blobs",
        "dog": "difference of Gaussians: SIFT's blobs",
        "dog-opencv": "the same by OpenCV, on the CPU",
        "harris": "Harris corners over scales",
        "gftt": "Shi-Tomasi corners over scales",
        "keynet": "Key.Net, learned (weights fetched, or --detector-weights)",
    },
    "shape": {
        "affnet": "AffNet, learned",
        "baumberg": "second moments of the gradients",
        "none": "frames stay circles",
    },
    "orientation": {
        "orinet": "OriNet, learned",
        "dominant": "peak of the gradient histogram, as SIFT",
        "upright": "none: photos held upright",
    },
    "descriptor": {
        "hardnet": "HardNet, learned, 128 dimensions",
        "hardnet8": "HardNet8, learned (weights fetched)",
        "hardnet-ps": "HardNet-PS, learned (weights fetched)",
        "tfeat": "TFeat, learned (weights fetched)",
        "hardtfeat": "TFeat with HardNet's loss, learned (weights fetched)",
        "rootsift": "RootSIFT, 128 dimensions",
    },
    "matcher": {
        "smnn": "mutual nearest neighbours, ratio test both ways",
        "mnn": "mutual nearest neighbours",
        "snn": "nearest neighbours, ratio test",
        "fginn": "ratio test against the nearest elsewhere in the image",
        "adalam": "neighbours that agree with a local affine map",
    },
}
"""In a few words, for `hardnet-match list`."""

CHOICES: dict[str, tuple[str, ...]] = {
    "detector": ("hessian", "dog", "dog-opencv", "harris", "gftt", "keynet"),
    "shape": ("affnet", "baumberg", "none"),
    "orientation": ("orinet", "dominant", "upright"),
    "descriptor": ("hardnet", "hardnet8", "hardnet-ps", "tfeat", "hardtfeat", "rootsift"),
}
"""What each part of this package's own may be called; tests hold it against the registries of the parts."""


def known(part: str) -> tuple[str, ...]:
    """What a part may be called: this package's own names, then those that other packages bring."""
    return (*CHOICES[part], *(name for name in extensions.names(part) if name not in CHOICES[part]))


def compose(preset: str = DEFAULT_PRESET, **parts: str | None) -> Composition:
    """The preset's composition with some parts replaced, by names of this package or of a plugin (`extensions`).

    Raises:
        OptionError: an unknown name.
    """
    if preset not in PRESETS:
        raise OptionError(f"there is no preset {preset!r}; there are {', '.join(PRESETS)}")
    chosen = {part: name for part, name in parts.items() if name is not None}
    for part, name in chosen.items():
        if part not in CHOICES:
            raise OptionError(f"a composition has no part {part!r}; its parts are {', '.join(CHOICES)}")
        if name not in CHOICES[part] and name not in extensions.names(part):
            raise OptionError(f"there is no {part} {name!r}; there are {', '.join(known(part))}")
    return replace(PRESETS[preset], **chosen)
