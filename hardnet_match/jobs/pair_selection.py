"""Pairs for matching by retrieval: each image with those an index finds most like it, instead of with all."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import OptionError, StoreError
from ..features import Features
from ..retrieval.index import Index
from ..retrieval.search import Plan, search
from ..store import FeatureReader
from .index import index_features
from .pairs import PairsSummary
from .progress import progress_bar
from .question import Questions

log = logging.getLogger(__name__)

WORDS = 4096
TOP = 20
# Geometry looks at so many images for each one that is kept.
VERIFIED_PER_PAIR = 2


def retrieval_pairs(
    source: str | Path,
    top: int = TOP,
    *,
    words: int = WORDS,
    method: str = "asmk",
    verify: bool = True,
    names: Iterable[str] | None = None,
    quiet: bool = False,
) -> PairsSummary:
    """Each image with the `top` that show the same most likely; a pair found from either side is taken once.

    Args:
        source: features file, which is indexed on the fly with words trained on itself; or an index, whose features
            are read where it was made from.
        top: images each is paired with; N images give at most N * top pairs.
        words: visual words to train (fewer where there are too few features); an index has its own.
        method: `asmk`, `bow` or `hqe`; an index has its own.
        verify: let geometry reorder twice as many candidates first.
        names: only these images, all if None.

    Raises:
        OptionError: an option cannot work, or faiss is not installed.
        StoreError: a file is missing, damaged or empty.
    """
    if top < 1:
        raise OptionError(f"top must be at least 1, got {top}")
    if Path(source).is_dir():
        index = Index.open(source)
        questions = Questions(index)

        def read(name: str) -> Features:
            found = questions.stored(name)
            if found is None:
                files = ", ".join(map(str, questions.sources.features)) or "none is known"
                raise StoreError(f"{source}: the features of {name} are in no file at hand ({files})")
            return found

        return _selected(index, read, top, verify, names, quiet)
    with tempfile.TemporaryDirectory(prefix="hardnet-match-") as folder:
        place = Path(folder) / "index"
        index_features(source, place, words=words, method=method, quiet=quiet)
        with FeatureReader(source) as reader:
            return _selected(Index.open(place), reader.read, top, verify, names, quiet)


def _selected(
    index: Index,
    read: Callable[[str], Features],
    top: int,
    verify: bool,
    names: Iterable[str] | None,
    quiet: bool,
) -> PairsSummary:
    known = index.names
    wanted = set(known) if names is None else set(names)
    plan = Plan(VERIFIED_PER_PAIR * top if verify else 0)
    chosen: set[tuple[int, int]] = set()
    skipped: dict[str, str] = {}
    with progress_bar("searching", len(known), "image", quiet=quiet) as bar:
        for number, name in enumerate(known):
            bar.update()
            if name not in wanted:
                continue
            features = read(name)
            if not len(features):
                skipped[name] = "no features, so that nothing is like it"
                continue
            found = search(index, index.query(features), plan, without=number)
            others = [other for other in found.images.tolist() if known[other] in wanted][:top]
            chosen.update((min(number, other), max(number, other)) for other in others)
    pairs = [(known[i], known[j]) for i, j in sorted(chosen)]
    return PairsSummary("retrieval", len(wanted & set(known)), pairs, skipped)
