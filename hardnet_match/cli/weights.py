"""`hardnet-match weights`: which weights there are by name."""

from __future__ import annotations

from . import common, options
from .common import verb

EXAMPLES = common.examples(
    """
    hardnet-match weights
    hardnet-match weights --json
    hardnet-match extract photos/ -o features.h5 --weights hardnet++
    """
)


@verb
def run(json: options.Json = False, quiet: options.Quiet = False) -> int:
    """List the weights known by name: for which network, under which licence, and whether they are here already."""
    common.set_logging(quiet)
    from ..weights import ENTRIES, cache_folder

    folder = cache_folder() / "weights"
    known = [
        {
            "name": entry.name,
            "network": entry.architecture,
            "about": entry.about,
            "licence": entry.licence,
            "citation": entry.citation,
            "urls": list(entry.urls),
            "here": "bundled" if entry.bundled else "cached" if (folder / entry.file).is_file() else "",
        }
        for entry in ENTRIES.values()
    ]
    lines = [
        f"{item['name']:24}{item['network']:12}{item['here']:9}{item['licence']}; {item['about']}" for item in known
    ]
    text = "\n".join([*lines, f"the cache is {folder} (HARDNET_MATCH_CACHE moves it)"])
    return common.finish({"cache": str(folder), "weights": known}, text, as_json=json, skipped={})
