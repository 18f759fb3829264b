"""Speed and size of retrieval: side by side with the package asmk on the same features, and growing to many images.

    python scripts/bench_retrieval.py compare FEATURES.h5 [--words 65536] [--codebook FOLDER] [--queries 20]
    python scripts/bench_retrieval.py growth FOLDER [--words 65536] [--keypoints 200] [--images 1000 10000 100000]

`compare` runs both in turn, A B A B, in one process on one thread, with the same codebook: 128 binary bits, one word a
feature when indexing, five when querying; the codebook is there already in both, and our index is on the disk at the
end. Times are wall and processor time; the ratio of the medians is what to quote.
asmk finds the nearest words by comparing with all, this package looks into the nearest cells; `exact` is this package
comparing with all as well, whose scores must agree with asmk's to 1e-4.

`growth` adds images of random descriptors around the words to one index and measures at each size. The folder is
made, and left there.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hardnet_match.features import Features
from hardnet_match.retrieval.codebook import Codebook
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.query import Query
from hardnet_match.store import FeatureReader

ASMK = {
    "index": {"gpu_id": None},
    "train_codebook": {},
    "build_ivf": {
        "kernel": {"binary": True},
        "ivf": {"use_idf": False},
        "quantize": {"multiple_assignment": 1},
        "aggregate": {},
    },
    "query_ivf": {
        "quantize": {"multiple_assignment": 5},
        "aggregate": {},
        "search": {"topk": None},
        "similarity": {"similarity_threshold": 0.0, "alpha": 3.0},
    },
}
ASSIGNMENTS = 5


class Clock:
    """Wall and processor seconds of each named step."""

    def __init__(self) -> None:
        self.times: dict[str, list[tuple[float, float]]] = {}

    def __call__(self, name: str, work: Callable[[], Any]) -> Any:
        wall, processor = time.perf_counter(), time.process_time()
        result = work()
        self.times.setdefault(name, []).append((time.perf_counter() - wall, time.process_time() - processor))
        return result

    def median(self, name: str) -> tuple[float, float]:
        """(wall, processor) seconds."""
        wall, processor = zip(*self.times[name], strict=True)
        return statistics.median(wall), statistics.median(processor)


def asmk_untrained(codebook: Codebook) -> Any:
    from asmk import ASMKMethod
    from asmk.codebook import Codebook as Theirs
    from asmk.index import initialize_index

    theirs = Theirs(initialize_index(None), size=len(codebook))
    theirs.index(codebook.centroids)
    return ASMKMethod(ASMK, {}, codebook=theirs)


def build(empty: Index, images: list[tuple[str, Features]]) -> Index:
    with empty as index:
        index.add_many(images)
    return Index.open(empty.folder)


def ranked(index: Index, codebook: Codebook, queries: list[Features]) -> list[NDArray[np.float32]]:
    """Scores of all images for each query."""
    found = []
    for features in queries:
        ranking = index.rank(Query.from_features(features, codebook, ASSIGNMENTS))
        scores = np.zeros(len(index), dtype=np.float32)
        scores[ranking.images] = ranking.scores
        found.append(scores)
    return found


def compare(options: argparse.Namespace) -> None:
    with FeatureReader(options.features) as reader:
        names = reader.names()
        images = [(name, reader.read(name)) for name in names[:: max(len(names) // options.images, 1)]]
    images = [(name, features) for name, features in images if len(features)]
    everything = np.concatenate([features.descriptors for _, features in images]).astype(np.float32)
    if options.codebook and (options.codebook / "codebook.json").exists():
        codebook = Codebook.load(options.codebook)
    else:
        rows = np.random.default_rng(0).permutation(len(everything))[: options.sample]
        started = time.perf_counter()
        codebook = Codebook.train(everything[rows], options.words)
        print(f"trained {len(codebook)} words on {len(rows)} descriptors in {time.perf_counter() - started:.0f} s\n")
        if options.codebook:
            codebook.save(options.codebook)
    numbers = np.repeat(np.arange(len(images)), [len(features) for _, features in images])
    step = max(len(images) // options.queries, 1)
    chosen = list(range(0, len(images), step))[: options.queries]
    queries = [images[number][1] for number in chosen]
    asked = np.concatenate([features.descriptors for features in queries]).astype(np.float32)
    askers = np.repeat(np.arange(len(queries)), [len(features) for features in queries])
    clock, exact = Clock(), Codebook(codebook.centroids, codebook.about, codebook.cells, probes=None)
    with tempfile.TemporaryDirectory() as place:
        codebook.nearest(asked[:10])
        for repeat in range(options.repeats):
            untrained = asmk_untrained(codebook)
            theirs = clock("index asmk", partial(untrained.build_ivf, everything, numbers.copy()))
            empty = Index.create(Path(place) / "index", codebook, "asmk", overwrite=True)
            ours = clock("index ours", partial(build, empty, images))
            _, _, order, scores = clock("query asmk", partial(theirs.query_ivf, asked, askers))
            fast = clock("query ours", partial(ranked, ours, codebook, queries))
            if repeat == 0:
                empty = Index.create(Path(place) / "exact", exact, "asmk")
                slow = clock("index exact", partial(build, empty, images))
                same = clock("query exact", partial(ranked, slow, exact, queries))
        size = sum(path.stat().st_size for path in (Path(place) / "index" / "segments").iterdir())
    print("| step | asmk wall s | ours wall s | ratio | asmk processor s | ours processor s | ratio |\n|" + "---|" * 7)
    for step_name, count in (("index", len(images)), ("query", len(queries))):
        (wall, processor), (our_wall, our_processor) = (
            clock.median(f"{step_name} asmk"),
            clock.median(f"{step_name} ours"),
        )
        print(
            f"| {step_name}, an image | {wall / count:.4f} | {our_wall / count:.4f} | {wall / our_wall:.1f} "
            f"| {processor / count:.4f} | {our_processor / count:.4f} | {processor / our_processor:.1f} |"
        )
    truth = np.zeros_like(scores)
    np.put_along_axis(truth, order, scores, axis=1)
    difference = max(float(np.abs(a - b).max()) for a, b in zip(truth, same, strict=True))
    best = np.argsort(-truth, axis=1)[:, :10]
    agree = statistics.mean(float(np.isin(a, np.argsort(-b)[:10]).mean()) for a, b in zip(best, fast, strict=True))
    sample = everything[:: max(len(everything) // 10000, 1)]
    one, five = codebook.assign(sample), codebook.assign(sample, ASSIGNMENTS)
    true = codebook.assign(sample, ASSIGNMENTS, exact=True)
    overlap = (five[:, :, None] == true[:, None]).any(axis=2).mean()
    print(
        f"\n{len(images)} images, {len(everything)} features, {len(queries)} queries, {len(codebook)} words, "
        f"{options.repeats} repeats\nexact: index {clock.median('index exact')[1] / len(images):.4f} s, query "
        f"{clock.median('query exact')[1] / len(queries):.4f} s of processor time an image; "
        f"largest difference of a score to asmk's {difference:.1e}\n"
        f"cells: nearest word found for {(one[:, 0] == true[:, 0]).mean():.4f} of the features, {overlap:.4f} of the "
        f"five nearest; {agree:.3f} of asmk's ten best images among our ten best\n"
        f"{size / len(images):.0f} bytes an image ({size / len(everything):.1f} a feature)"
    )


def synthetic(centroids: NDArray[np.float32], spread: float, keypoints: int, first: int, last: int) -> Iterator[Any]:
    """Images of random words with noise, (name, features); the same ones whenever asked for."""
    lafs = np.tile(np.array([[20, 0, 100], [0, 20, 100]], np.float32), (keypoints, 1, 1))
    scores = np.ones(keypoints, dtype=np.float32)
    for number in range(first, last):
        rng = np.random.default_rng(number)
        words = rng.integers(0, len(centroids), keypoints)
        noise = rng.standard_normal((keypoints, centroids.shape[1]), dtype=np.float32)
        yield (
            f"{number // 1000:05d}/{number:08d}.jpg",
            Features(lafs, scores, centroids[words] + noise * np.float32(spread), (640, 480)),
        )


def resident() -> float:
    """Memory of this process that is its own, not of mapped files, in MB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


def growth(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(1)
    centroids = rng.standard_normal((options.words, 128), dtype=np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    # Noise of length .5 around words of length 1: descriptors sit as far from their word as HardNet's at this size.
    codebook, spread = Codebook(centroids), 0.5 / np.sqrt(128)
    Index.create(options.folder, codebook, options.method).close()
    print(
        "| images | segments | bytes an image | of them postings | add, ms an image | open ms | first query ms "
        "| query ms | own memory MB |\n|" + "---|" * 9
    )
    done = 0
    for count in options.images:
        started, generating = time.process_time(), 0.0
        with Index.open(options.folder) as index:
            source = synthetic(centroids, spread, options.keypoints, done, count)
            while True:
                before = time.process_time()
                item = next(source, None)
                generating += time.process_time() - before
                if item is None:
                    break
                index.add(*item)
        adding = time.process_time() - started - generating
        queries = [features for _, features in synthetic(centroids, spread, options.keypoints, 0, 5)]
        clock = Clock()
        index = clock("open", lambda: Index.open(options.folder))
        for features in queries:
            query = index.query(features)
            ranking = clock("query", partial(index.rank, query, 100))
        assert ranking.images[0] == len(queries) - 1, "an image must find itself first"
        files = [*(options.folder / "segments").iterdir(), *options.folder.glob("norms-*.npy")]
        size = sum(path.stat().st_size for path in files)
        geometry = sum(part[key].nbytes for part in index.view.segments for key in ("words", "lafs"))
        first, *others = clock.times["query"]
        print(
            f"| {count} | {len(index.view.segments)} | {size / count:.0f} | {(size - geometry) / count:.0f} "
            f"| {adding / (count - done) * 1e3:.2f} | {clock.median('open')[0] * 1e3:.1f} | {first[0] * 1e3:.0f} "
            f"| {statistics.median(processor for _, processor in others) * 1e3:.1f} | {resident():.0f} |",
            flush=True,
        )
        done = count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    side = commands.add_parser("compare", help="side by side with the package asmk")
    side.add_argument("features", type=Path)
    side.add_argument("--words", type=int, default=65536)
    side.add_argument("--sample", type=int, default=500_000, help="descriptors to train the codebook on")
    side.add_argument("--codebook", type=Path, help="folder to keep the codebook in, or to take it from")
    side.add_argument("--images", type=int, default=1 << 30, help="about so many images of the file, evenly spread")
    side.add_argument("--queries", type=int, default=20)
    side.add_argument("--repeats", type=int, default=3)
    side.set_defaults(run=compare)
    grow = commands.add_parser("growth", help="one index from few to many images of random descriptors")
    grow.add_argument("folder", type=Path)
    grow.add_argument("--words", type=int, default=65536)
    grow.add_argument("--keypoints", type=int, default=200)
    grow.add_argument("--images", type=int, nargs="+", default=[1000, 10_000, 100_000])
    grow.add_argument("--method", default="asmk", choices=("asmk", "bow"))
    grow.set_defaults(run=growth)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
