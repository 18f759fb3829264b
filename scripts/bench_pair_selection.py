"""How many of the exhaustive pairs does a reconstruction need, if an index chooses them? A table.

    python scripts/bench_pair_selection.py PHOTOS --work DIR [--top 5 10 20] [--max-size 1600] [--max-keypoints 4096]

PHOTOS is a folder with a subfolder a scene; all are thrown together, matched and mapped as one. Every pair is matched
once; each selection is then given its share of these matches, verified and mapped by itself, so that the rows differ
in the pairs alone. `found` is how many of the pairs that verify in the exhaustive run the selection contains, and
`choosing` what it took to train the words, index and search.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hardnet_match.errors import ReconstructionError
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images import list_images
from hardnet_match.jobs.database import make_database
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.jobs.match import match_features
from hardnet_match.jobs.pair_selection import retrieval_pairs
from hardnet_match.sfm import reconstruct
from hardnet_match.sfm.inliers import verified_pairs
from hardnet_match.store import FeatureReader, MatchReader, MatchWriter

Pair = frozenset[str]


@dataclass
class Row:
    """One selection: what it cost and what came of it."""

    selection: str
    pairs: int
    share: float
    verified: int
    found: float
    registered: int
    images: int
    models: int
    points: int
    observations: int
    track: float
    error: float
    choosing: float
    by_scene: dict[str, int]

    def cells(self) -> list[str]:
        return [
            self.selection, str(self.pairs), f"{100 * self.share:.1f} %", str(self.verified),
            f"{100 * self.found:.1f} %", f"{self.registered}/{self.images}", str(self.models), str(self.points),
            str(self.observations), f"{self.track:.2f}", f"{self.error:.3f}", f"{self.choosing:.1f}",
        ]  # fmt: skip


HEADER = ["pairs chosen by", "pairs", "of all", "verified", "found", "registered", "models", "points", "observations",
          "track", "reproj. px", "choosing s"]  # fmt: skip


def part_of(features: Path, matches: Path, chosen: Collection[Pair], output: Path) -> None:
    """Copy the matches of some pairs."""
    output.unlink(missing_ok=True)
    with (
        FeatureReader(features) as frames,
        MatchReader(matches) as reader,
        MatchWriter(output, reader.settings, buffer=512) as writer,
    ):
        counts = {name: frames.descriptor_shape(name)[0] for name in frames.names()}
        for first, second in reader.pairs():
            if frozenset((first, second)) in chosen:
                writer.write(first, second, reader.read(first, second), counts[first])


def map_pairs(
    title: str, chosen: Collection[Pair], every: int, folder: Path, given: dict[str, Path], choosing: float,
    wanted: Collection[Pair] | None,
) -> tuple[Row, set[Pair]]:  # fmt: skip
    """Verify and map one selection; also the pairs that verified."""
    folder.mkdir(parents=True, exist_ok=True)
    part_of(given["features"], given["matches"], chosen, folder / "matches.h5")
    database = folder / "database.db"
    make_database(
        given["features"], folder / "matches.h5", given["photos"], database, verified=True, overwrite=True
    )  # fmt: skip
    verified = {frozenset(pair[:2]) for pair in verified_pairs(database)}
    try:
        models = reconstruct(database, given["photos"], folder / "sparse", overwrite=True)
    except ReconstructionError:
        models = []
    names = {name for model in models for name in model.images}
    observations = sum(model.observations for model in models)
    points = sum(model.points for model in models)
    error = sum(model.reprojection_error * model.observations for model in models) / max(1, observations)
    truth = set(verified if wanted is None else wanted)
    with FeatureReader(given["features"]) as reader:
        images = len(reader.names())
    row = Row(
        title, len(chosen), len(chosen) / every, len(verified), len(truth & set(chosen)) / max(1, len(truth)),
        len(names), images, len(models), points, observations, observations / max(1, points), error, choosing,
        dict(sorted(Counter(name.partition("/")[0] for name in names).items())),
    )  # fmt: skip
    return row, verified


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder with a subfolder a scene")
    parser.add_argument("--work", type=Path, required=True, help="folder for features, matches and models; kept")
    parser.add_argument("--features", type=Path, help="features file of these photos, if there is one")
    parser.add_argument("--top", type=int, nargs="+", default=[5, 10, 20])
    parser.add_argument("--unverified", action="store_true", help="also choose without geometry's say")
    parser.add_argument("--words", type=int, default=4096)
    parser.add_argument("--max-size", type=int, default=1600)
    parser.add_argument("--max-keypoints", type=int, default=4096)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="append a line a row to this file")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    options.work.mkdir(parents=True, exist_ok=True)
    features, matches = options.features or options.work / "features.h5", options.work / "matches.h5"
    if options.features is None:
        extractor = FeatureExtractor.from_preset(max_keypoints=options.max_keypoints, device=options.device)
        extract_folder(options.photos, features, extractor, max_size=options.max_size)
    names = [name for name in list_images(options.photos) if "/" in name]
    every = {frozenset((a, b)) for i, a in enumerate(names) for b in names[:i]}
    match_features(features, matches, device=options.device)
    given = {"features": features, "matches": matches, "photos": options.photos}

    print("| " + " | ".join(HEADER) + " |\n|" + "---|" * len(HEADER))
    row, wanted = map_pairs("exhaustive", every, len(every), options.work / "exhaustive", given, 0.0, None)
    show(row, options.json)
    for top in options.top:
        for verify in (True, False) if options.unverified else (True,):
            started = time.perf_counter()
            chosen = retrieval_pairs(features, top, words=options.words, verify=verify, quiet=True).pairs
            choosing = time.perf_counter() - started
            title = f"top {top}" if verify else f"top {top}, unverified"
            pairs = {frozenset(pair) for pair in chosen}
            folder = options.work / title.replace(", ", "-").replace(" ", "-")
            show(map_pairs(title, pairs, len(every), folder, given, choosing, wanted)[0], options.json)
    within = {pair for pair in every if len({name.partition("/")[0] for name in pair}) == 1}
    show(map_pairs("scenes known", within, len(every), options.work / "known", given, 0.0, wanted)[0], options.json)
    print(f"\n{len(names)} images; {len(within)} of {len(every)} pairs are within a scene")


def show(row: Row, path: Path | None) -> None:
    print("| " + " | ".join(row.cells()) + " |", flush=True)
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(row)) + "\n")


if __name__ == "__main__":
    main()
