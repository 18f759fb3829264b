"""The originals' retrieval table on any folder of photos: methods by features, mean average precision.

    python scripts/bench_originals_table.py oxford/ --ground-truth gt_files/ --vocabulary paris/ --work DIR
    python scripts/bench_originals_table.py photos/ --ground-truth photos/ --train-groups rock monstree --work DIR

Columns: BoW, BoW with spatial verification (SV), the same with query expansion (QE), ASMK*, and HQE with multiple
assignment (MA). Rows: TFeat, RootSIFT and HardNet on Hessian-Affine frames (Baumberg), and HardNet on AffNet's.

The visual words are learnt on other photos: those of `--vocabulary`, or the groups (first folders) named by
`--train-groups`, which then are in the way of the queries but are not asked for. With neither, the words are learnt on
the photos themselves, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from hardnet_match.extractor import FeatureExtractor
from hardnet_match.jobs.evaluate import RetrievalScores, evaluate_retrieval
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.jobs.index import index_features
from hardnet_match.jobs.vocabulary import train_codebook
from hardnet_match.retrieval.ground_truth import GroundTruth, read_ground_truth
from hardnet_match.store import FeatureReader

# Row -> parts of the extractor.
FEATURES = {
    "TFeat": {"shape": "baumberg", "descriptor": "tfeat"},
    "RootSIFT": {"shape": "baumberg", "descriptor": "rootsift"},
    "HardNet": {"shape": "baumberg", "descriptor": "hardnet"},
    "AffNet+HardNet": {"shape": "affnet", "descriptor": "hardnet"},
}


@dataclass(frozen=True)
class Column:
    """One method: the index it searches, and what it does with the ranking."""

    index: str
    verified: bool = False
    expanded: bool = False


COLUMNS = {
    "BoW": Column("bow"),
    "BoW+SV": Column("bow", verified=True),
    "BoW+SV+QE": Column("bow", verified=True, expanded=True),
    "ASMK": Column("asmk"),
    "HQE+MA": Column("hqe"),
}


def features_of(photos: Path, label: str, output: Path, options: argparse.Namespace) -> Path:
    """Features of a folder of photos; those that are there already are kept."""
    given = dict(part.split("=", 1) for part in options.features_file)
    if label in given and photos == options.photos:
        return Path(given[label])
    output.parent.mkdir(parents=True, exist_ok=True)
    weights = dict(part.split("=", 1) for part in options.weights).get(label)
    extractor = FeatureExtractor.from_preset(
        "hesaffnet-hardnet", **FEATURES[label], max_keypoints=options.max_keypoints, weights=weights,
        device=options.device,
    )  # fmt: skip
    extract_folder(photos, output, extractor, max_size=options.max_size or None)
    return output


def asked(options: argparse.Namespace) -> GroundTruth:
    """The ground truth without queries of the groups that the words are learnt on, thinned if so wished."""
    truth = read_ground_truth(options.ground_truth, distractors=options.distractors)
    queries = [query for query in truth.queries if query.image.partition("/")[0] not in options.train_groups]
    if options.queries and options.queries < len(queries):
        rows = np.random.default_rng(0).choice(len(queries), options.queries, replace=False)
        queries = [queries[row] for row in np.sort(rows)]
    return replace(truth, queries=tuple(queries))


def words_of(label: str, features: Path, options: argparse.Namespace) -> Path:
    """The folder of the codebook, trained if it is not there."""
    place: Path = options.work / label / "codebook"
    if (place / "codebook.json").is_file():
        return place
    source = features
    if options.vocabulary is not None:
        source = features_of(options.vocabulary, label, options.work / label / "vocabulary.h5", options)
    with FeatureReader(source) as reader:
        names = reader.names()
        if options.train_groups:
            names = [name for name in names if name.partition("/")[0] in options.train_groups]
        codebook, _ = train_codebook(reader, names, options.words, iterations=options.iterations)
    codebook.save(place)
    return place


def measure(label: str, features: Path, truth: GroundTruth, options: argparse.Namespace) -> dict[str, RetrievalScores]:
    """Scores of every column for one row."""
    codebook = words_of(label, features, options)
    found = {}
    for name in options.columns:
        column = COLUMNS[name]
        index = options.work / label / column.index
        index_features(features, index, codebook=codebook, method=column.index, images=options.photos)
        found[name] = evaluate_retrieval(
            index, truth, features=[features], verify=options.verify if column.verified else 0,
            expand=column.expanded, upright=options.upright, device=options.device,
        )  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, help="folder of the photos that are searched")
    parser.add_argument("--ground-truth", type=Path, required=True, help="as `hardnet-match eval retrieval` takes it")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for features and indexes; kept, and used again"
    )
    parser.add_argument("--vocabulary", type=Path, help="folder of the photos that the words are learnt on")
    parser.add_argument("--train-groups", nargs="*", default=[], help="groups that the words are learnt on instead")
    parser.add_argument("--distractors", nargs="*", default=[], help="folders that are no groups")
    parser.add_argument("--features", nargs="+", choices=FEATURES, default=list(FEATURES))
    parser.add_argument("--features-file", nargs="*", default=[], metavar="ROW=FILE", help="features that are there")
    parser.add_argument("--weights", nargs="*", default=[], metavar="ROW=NAME|FILE", help="descriptor weights of a row")
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--words", type=int, default=65536)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--verify", type=int, default=1000, help="images that geometry looks at")
    parser.add_argument("--upright", action="store_true", help="all photos were held upright")
    parser.add_argument("--queries", type=int, default=0, help="at most so many queries, drawn with a fixed seed")
    parser.add_argument("--max-keypoints", type=int, default=4096)
    parser.add_argument("--max-size", type=int, default=1024)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="append a line a row to this file")
    options = parser.parse_args(arguments)
    if options.vocabulary is not None and options.train_groups:
        parser.error("--vocabulary and --train-groups are two ways to say the same: give one")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("hardnet_match").setLevel(logging.INFO)

    truth = asked(options)
    head = [f"{name}" for name in options.columns]
    print("| features | protocol | " + " | ".join(head) + " | ms a query |\n|" + "---|" * (len(head) + 3))
    words = 0
    for label in options.features:
        features = features_of(options.photos, label, options.work / label / "features.h5", options)
        found = measure(label, features, truth, options)
        with FeatureReader(features) as reader:
            images = len(reader.names())
        words = json.loads((options.work / label / "codebook" / "codebook.json").read_text())["words"]
        times = " / ".join(f"{1000 * scores.seconds:.1f}" for scores in found.values())
        for protocol in truth.protocols:
            means = [scores.protocols[protocol].map for scores in found.values()]
            cells = ["-" if mean is None else f"{100 * mean:.2f}" for mean in means]
            print(f"| {label} | {protocol} | " + " | ".join(cells) + f" | {times} |", flush=True)
        if options.json is not None:
            with options.json.open("a", encoding="utf-8") as file:
                row = {name: {**asdict(scores), "queries": len(scores.queries)} for name, scores in found.items()}
                file.write(json.dumps({"features": label, "images": images, "words": words, "columns": row}) + "\n")
    learnt = options.vocabulary or (
        ", ".join(options.train_groups) if options.train_groups else "the photos themselves"
    )
    print(f"\n{words} words learnt on {learnt}; {len(truth.queries)} queries; SV looks at {options.verify} images")


if __name__ == "__main__":
    main()
