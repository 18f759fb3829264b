"""hloc (Sarlin et al., CVPR 2019) with this package's features: one call, nothing of hloc is changed on disk.

    from hloc import extract_features, match_features, reconstruction
    from hardnet_match.plugins.hloc import register

    register()
    features = extract_features.main(extract_features.confs["hesaffnet-hardnet"], images, outputs)
    matches = match_features.main(match_features.confs["hardnet-match-smnn"], pairs, features, matches=...)

hloc finds a model by importing `hloc.extractors.NAME`, and what it may be asked for in the dictionaries `confs`.
`register` puts one module into each of its packages `extractors` and `matchers` (in memory) and adds the confs. A file
copied into hloc's folder would do it too, but be gone with the next update.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

from ...errors import OptionError
from ...presets import METHODS, PRESETS

NAME = "hardnet_match"
"""The model's name in hloc's confs, of the extractor and of the matcher."""

MAX_KEYPOINTS = 4096
RESIZE_MAX = 1600
RATIO = 0.9

__all__ = ["NAME", "extractor_conf", "matcher_conf", "register"]


def extractor_conf(preset: str, max_keypoints: int = MAX_KEYPOINTS, resize_max: int | None = RESIZE_MAX) -> Any:
    """A conf for hloc's `extract_features`; change it as any of hloc's.

    `model` takes all that `FeatureExtractor.from_preset` does: `weights`, `orientation`, `precision`, ... What the
    features depend on belongs into `output`, the file's name, for hloc looks at nothing else.
    """
    size = f"-r{resize_max}" if resize_max else ""
    return {
        "output": f"feats-{preset}-n{max_keypoints}{size}",
        "model": {"name": NAME, "preset": preset, "max_keypoints": max_keypoints},
        "preprocessing": {"grayscale": False, "resize_max": resize_max},
    }


def matcher_conf(method: str = "smnn", ratio: float = RATIO) -> Any:
    """A conf for hloc's `match_features`."""
    tested = f"-ratio{ratio:g}" if method in ("snn", "smnn", "fginn") else ""
    return {
        "output": f"matches-hardnet-match-{method}{tested}",
        "model": {"name": NAME, "method": method, "ratio": ratio},
    }


def register() -> None:
    """Make hloc find this package's extractor and matcher. A second call changes nothing.

    Extractor confs go by the presets' names, matcher confs by `hardnet-match-METHOD`; confs of those names that are
    there already are left alone.

    Raises:
        OptionError: hloc cannot be imported.
    """
    try:
        extract, match, base = (
            importlib.import_module(f"hloc.{name}")
            for name in ("extract_features", "match_features", "utils.base_model")
        )
        packages = [importlib.import_module(f"hloc.{name}") for name in ("extractors", "matchers")]
    except ImportError as error:
        raise OptionError(
            f"hloc cannot be imported ({error}); install it from its repository, cvg/Hierarchical-Localization"
        ) from error
    from .models import Extraction, Matching

    for package, rules in zip(packages, (Extraction, Matching), strict=True):
        _put(package, rules, base.BaseModel)
    for preset in PRESETS:
        extract.confs.setdefault(preset, extractor_conf(preset))
    for method in METHODS:
        match.confs.setdefault(f"hardnet-match-{method}", matcher_conf(method))


def _put(package: ModuleType, rules: type, base: type) -> None:
    """A module `package.hardnet_match` with one class: hloc takes the one that is defined in it."""
    place = f"{package.__name__}.{NAME}"
    if place in sys.modules:
        return
    module = ModuleType(place, f"hardnet-match for {package.__name__}")
    model = type("HardnetMatch", (rules, base), {"__module__": place, "__doc__": rules.__doc__})
    module.HardnetMatch = model  # type: ignore[attr-defined]
    sys.modules[place] = module
    setattr(package, NAME, module)
