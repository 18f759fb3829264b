"""Parts that other packages bring: detectors, shapes, orientations, descriptors and matchers, found by entry points.

A package adds a part by an entry point in one of the groups of `GROUPS`; its name is what `--detector` and the like are
told. Nothing of the package is imported before the part is used.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import PluginError

log = logging.getLogger(__name__)

GROUPS = {
    "detector": "hardnet_match.detectors",
    "shape": "hardnet_match.shapes",
    "orientation": "hardnet_match.orientations",
    "descriptor": "hardnet_match.descriptors",
    "matcher": "hardnet_match.matchers",
}
"""The entry point group of each kind of part."""


@dataclass(frozen=True)
class Extension:
    """A part of another package.

    Args:
        part: a key of `GROUPS`. name: what it is called here.
        package, version: who brings it.
        entry: its entry point.
    """

    part: str
    name: str
    package: str
    version: str
    entry: importlib.metadata.EntryPoint

    def __str__(self) -> str:
        return f"{self.part} {self.name!r} of {self.package} {self.version}"

    @property
    def settings(self) -> dict[str, str]:
        """What the settings of a file say of it: another version may compute something else."""
        return {"package": self.package, "version": self.version}

    def load(self) -> Any:
        """What the entry point names, always something that can be called.

        Raises:
            PluginError: its package cannot be imported, or has nothing of that name that can be called.
        """
        try:
            loaded = self.entry.load()
        except Exception as error:
            raise PluginError(
                f"{self} cannot be loaded ({type(error).__name__}: {error}); mend or uninstall {self.package}"
            ) from error
        if not callable(loaded):
            raise PluginError(
                f"{self} cannot be used: {self.entry.value} is a {type(loaded).__name__}, "
                f"not something to call; ask the makers of {self.package}"
            )
        return loaded


def installed(part: str) -> Mapping[str, tuple[Extension, ...]]:
    """The parts of that kind which other packages bring, by name; more than one where packages disagree.

    Args:
        part: a key of `GROUPS`.
    """
    return _scan(tuple(sys.path)).get(part, {})


def find(part: str, name: str) -> Extension | None:
    """The part of that name, if a package brings one.

    Raises:
        PluginError: several packages do.
    """
    offers = installed(part).get(name, ())
    if len(offers) > 1:
        packages = " and ".join(f"{offer.package} {offer.version}" for offer in offers)
        raise PluginError(f"the {part} {name!r} is offered by {packages}; uninstall all but one")
    return offers[0] if offers else None


def names(part: str) -> tuple[str, ...]:
    """Names of the parts of that kind which other packages bring."""
    return tuple(installed(part))


@functools.lru_cache(maxsize=4)
def _scan(path: tuple[str, ...]) -> dict[str, dict[str, tuple[Extension, ...]]]:
    """All entry points of our groups, for a given sys.path: a process may be given more folders as it runs."""
    del path
    parts = {group: part for part, group in GROUPS.items()}
    found: dict[str, dict[str, tuple[Extension, ...]]] = {part: {} for part in GROUPS}
    for entry in _entry_points():
        if entry.group in parts:
            part, dist = parts[entry.group], entry.dist
            package = dist.name if dist is not None else entry.module
            extension = Extension(part, entry.name, package or "?", dist.version if dist is not None else "?", entry)
            found[part][entry.name] = (*found[part].get(entry.name, ()), extension)
    return {part: dict(sorted(offers.items())) for part, offers in found.items()}


def _entry_points() -> Iterator[importlib.metadata.EntryPoint]:
    try:
        points = importlib.metadata.entry_points()
        yield from [entry for group in GROUPS.values() for entry in points.select(group=group)]
        return
    except Exception as error:  # one package's damaged metadata hides those of all
        log.debug("reading the installed packages one by one: %s", error)
    seen: set[str] = set()
    for dist in importlib.metadata.distributions():
        try:
            name, entries = str(dist.name), list(dist.entry_points)
        except Exception as error:
            log.warning("the installed package at %s has entry points that cannot be read: %s", _place(dist), error)
            continue
        if name not in seen:  # of two installations the first on the path is the one that is imported
            seen.add(name)
            yield from entries


def _place(dist: importlib.metadata.Distribution) -> str:
    return str(getattr(dist, "_path", None) or dist)
