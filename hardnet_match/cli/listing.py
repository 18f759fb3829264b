"""`hardnet-match list`: which parts there are by name, the package's own and those of other packages."""

from __future__ import annotations

import logging
from typing import Any

from .. import extensions
from ..errors import PluginError
from ..presets import ABOUT, CHOICES, METHODS, PRESETS
from . import common, options
from .common import verb

NAME = "list"
EXAMPLES = common.examples(
    """
    hardnet-match list
    hardnet-match list --json
    hardnet-match extract photos/ -o features.h5 --detector harris --descriptor rootsift
    """
)
OWN = "hardnet-match"

log = logging.getLogger(__name__)


@verb
def run(json: options.Json = False, quiet: options.Quiet = False) -> int:
    """List detectors, affine shapes, orientations, descriptors, matching methods and presets by name.

    Other packages add parts by entry points. One that cannot be loaded is listed with the reason and warned of; the
    others work all the same.
    """
    common.set_logging(quiet)
    parts = {part: _part(part, own) for part, own in {**CHOICES, "matcher": METHODS}.items()}
    for entries in parts.values():
        for entry in entries:
            if entry["problem"]:
                log.warning("warning: %s", entry["problem"])
    lines = []
    for part, entries in parts.items():
        lines.append(f"--{'method' if part == 'matcher' else part}")
        lines += [f"  {entry['name']:<14} {_words(entry)}".rstrip() for entry in entries]
    lines += ["--preset", *(f"  {name}" for name in PRESETS)]
    return common.finish({"parts": parts, "presets": list(PRESETS)}, "\n".join(lines), as_json=json, skipped={})


def _part(part: str, own: tuple[str, ...]) -> list[dict[str, Any]]:
    from .. import __version__

    entries = [_entry(name, OWN, __version__, ABOUT[part][name]) for name in own]
    for name, offers in extensions.installed(part).items():
        for offer in offers:
            about, problem = _looked_at(offer, name in own)
            entries.append(_entry(name, offer.package, offer.version, about, problem))
    return entries


def _entry(name: str, package: str, version: str, about: str, problem: str | None = None) -> dict[str, Any]:
    return {"name": name, "package": package, "version": version, "about": about, "problem": problem}


def _looked_at(offer: extensions.Extension, taken: bool) -> tuple[str, str | None]:
    """What another package's part says of itself, and why it cannot be used, if so."""
    if taken:
        return "", f"the {offer} is never used: this package has a {offer.part} of that name"
    try:
        extensions.find(offer.part, offer.name)
        loaded = offer.load()
    except PluginError as error:
        return "", str(error)
    return (getattr(loaded, "__doc__", None) or "").strip().partition("\n")[0], None


def _words(entry: dict[str, Any]) -> str:
    if entry["package"] == OWN:
        return str(entry["about"])
    origin = f"{entry['package']} {entry['version']}"
    return f"{origin}: cannot be used" if entry["problem"] else f"{origin}: {entry['about']}".rstrip(": ")
