"""A matching method by name: this package's, or one that another package brings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import extensions
from ..errors import HardnetMatchError, OptionError, PluginError
from ..features import Features, Matches
from .adalam import adalam
from .methods import Options, fginn, mnn, smnn, snn

Method = Callable[[Features, Features, torch.device, Options], Matches]

METHODS: dict[str, Method] = {"smnn": smnn, "mnn": mnn, "snn": snn, "fginn": fginn, "adalam": adalam}
"""This package's methods by name. One more is one function and one line here, and its name in `presets`."""


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        OptionError: there is none.
        PluginError: another package's method that cannot be loaded.
    """
    if name in METHODS:
        return METHODS[name]
    extension = extensions.find("matcher", name)
    if extension is None:
        known = (*METHODS, *extensions.names("matcher"))
        raise OptionError(f"unknown matching method {name!r}; use one of {', '.join(known)}")
    return _checked(extension.load(), str(extension))


def method_settings(name: str) -> dict[str, Any]:
    """What the settings of a matches file say of its method besides the name: nothing of this package's own."""
    extension = None if name in METHODS else extensions.find("matcher", name)
    return {} if extension is None else {"plugins": {"matcher": extension.settings}}


def _checked(matcher: Callable[..., Any], label: str) -> Method:
    def matched(a: Features, b: Features, device: torch.device, options: Options) -> Matches:
        try:
            found = matcher(a, b, device, options)
        except (HardnetMatchError, MemoryError):
            raise
        except Exception as error:
            if "out of memory" in str(error).lower():
                raise
            raise PluginError(f"the {label} failed: {type(error).__name__}: {error}") from error
        if not isinstance(found, Matches):
            raise PluginError(f"the {label} must give Matches, but gave a {type(found).__name__}")
        if len(found) and (found.pairs.max(axis=0) >= (len(a), len(b))).any():
            rows = found.pairs.max(axis=0).tolist()
            raise PluginError(f"the {label} gave rows up to {rows} for {len(a)} and {len(b)} features")
        return found

    return matched
