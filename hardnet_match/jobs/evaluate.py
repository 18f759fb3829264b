"""How well an index finds what it should: every query of a ground truth asked, and the rankings scored."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import ImageError, OptionError, StoreError
from ..features import Features
from ..images import list_images
from ..metrics.ranking import KAPPAS, RankedQuery, locate, precision_at, score_rankings, trapezoidal_ap
from ..retrieval.ground_truth import GroundTruth, NameFinder, TruthQuery, read_ground_truth
from ..retrieval.index import Index
from ..retrieval.search import Plan, search
from .progress import progress_bar
from .question import Questions, inside
from .search import planned

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProtocolScores:
    """Means over the `queries` that have positives, in [0, 1], None if none has; `precision` is mP@k by k."""

    map: float | None
    precision: dict[int, float | None]
    queries: int


@dataclass(frozen=True)
class QueryScores:
    """One query: average precision and precision at k by protocol, None without positives, and what it took."""

    query: str
    average_precision: dict[str, float | None]
    precision: dict[str, dict[int, float | None]]
    features: int
    seconds: float


@dataclass(frozen=True)
class RetrievalScores:
    """What `evaluate_retrieval` measured.

    `missing` images are named by the ground truth and not in the index: they count as not found. `skipped` queries
    could not be asked, and count as having found nothing. `seconds` is the mean of a search, without describing.
    """

    index: str
    ground_truth: str
    kind: str
    method: str
    images: int
    verify: int
    expand: bool
    protocols: dict[str, ProtocolScores]
    seconds: float
    missing: list[str]
    queries: list[QueryScores]
    skipped: dict[str, str] = field(default_factory=dict)


def evaluate_retrieval(
    folder: str | Path,
    ground_truth: str | Path | GroundTruth,
    *,
    distractors: Collection[str] = (),
    images: str | Path | None = None,
    features: Sequence[str | Path] = (),
    weights: Sequence[str] = (),
    verify: int = 0,
    expand: bool = False,
    upright: bool = False,
    device: str = "auto",
    quiet: bool = False,
) -> RetrievalScores:
    """Score an index on a ground truth.

    A query that is a box is cut out of its photo and described anew where the photo is at hand (`images`, or the
    folder that the index remembers), as the benchmarks' protocols have it; else its stored features inside the box
    are asked for, and a warning says so. Whole images are asked with their stored features.

    Args:
        folder: of the index.
        ground_truth, distractors: as `read_ground_truth` takes them; or one that is read already.
        images, features, weights, device: as `Questions` takes them; `images` may hold queries the index does not.
        verify, expand, upright: as in `search_index`.
        quiet: no progress bar.

    Raises:
        OptionError: an option cannot work.
        StoreError: a file is missing or damaged, or the ground truth is for other photos.
    """
    plan = planned(verify, expand, upright)
    index = Index.open(folder)
    if not len(index):
        raise StoreError(f"{folder}: there are no images in this index")
    if not isinstance(ground_truth, GroundTruth):
        ground_truth = read_ground_truth(ground_truth, distractors=distractors)
    truth = ground_truth.bound(index.names)
    if truth.missing:
        log.warning(
            "%d images of the ground truth are not in the index and count as not found, the first: %s",
            len(truth.missing), sorted(truth.missing)[0],
        )  # fmt: skip
    questions = Questions(index, features=features, images=images, weights=weights, device=device)
    asked = _Asked(questions, truth)
    rankings: dict[str, list[RankedQuery]] = {protocol: [] for protocol in truth.protocols}
    rows: list[QueryScores] = []
    skipped: dict[str, str] = {}
    with progress_bar("searching", len(truth.queries), "query", quiet=quiet) as bar:
        for query in truth.queries:
            try:
                found = asked.features(query)
                if not len(found):
                    skipped[query.name] = "no features found in it"
            except (ImageError, OptionError, StoreError) as error:
                if not rows and not isinstance(error, ImageError):
                    raise  # nothing has worked yet: no photos, no features, or the wrong weights
                skipped[query.name] = " ".join(str(error).split())
                found = None
            started = time.perf_counter()
            names = _ranking(index, found, plan, _own(index, query)) if found is not None and len(found) else []
            seconds = time.perf_counter() - started
            placed = {protocol: locate(names, positives, junk) for protocol, (positives, junk) in query.setups.items()}
            for protocol, place in placed.items():
                rankings[protocol].append(place)
            rows.append(_row(query.name, placed, 0 if found is None else len(found), seconds))
            bar.update()
    asked.tell()
    return RetrievalScores(
        index=str(folder),
        ground_truth=truth.source,
        kind=truth.kind,
        method=index.method,
        images=len(index),
        verify=plan.verify,
        expand=plan.expand,
        protocols={protocol: _means(found) for protocol, found in rankings.items()},
        seconds=float(np.mean([row.seconds for row in rows])) if rows else 0.0,
        missing=sorted(truth.missing),
        queries=rows,
        skipped=skipped,
    )


def _own(index: Index, query: TruthQuery) -> int | None:
    """The query's own image in the index, where no protocol wants it found: it is not to verify or expand itself."""
    sought = any(query.image in positives for positives, _ in query.setups.values())
    return index.number(query.image) if query.image in index and not sought else None


def _ranking(index: Index, features: Features, plan: Plan, without: int | None) -> list[str]:
    found = search(index, index.query(features), plan, without=without)
    names = index.names
    return [names[image] for image in found.images.tolist()]


def _means(rankings: list[RankedQuery]) -> ProtocolScores:
    scores = score_rankings(rankings)
    precision = {k: _known(value) for k, value in scores.mean_precision.items()}
    return ProtocolScores(_known(scores.mean_average_precision), precision, scores.counted)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _row(name: str, placed: dict[str, RankedQuery], features: int, seconds: float) -> QueryScores:
    return QueryScores(
        name,
        {protocol: _known(trapezoidal_ap(place)) for protocol, place in placed.items()},
        {protocol: {k: _known(precision_at(place, k)) for k in KAPPAS} for protocol, place in placed.items()},
        features,
        round(seconds, 5),
    )


class _Asked:
    """Features of the queries of a ground truth, from wherever they are to be had."""

    def __init__(self, questions: Questions, truth: GroundTruth) -> None:
        self._questions, self._truth = questions, truth
        self._photos: NameFinder | None = None
        self._boxed_from_stored = 0

    def features(self, query: TruthQuery) -> Features:
        """Features of one query."""
        questions = self._questions
        photo = questions.photo(query.image) or self._elsewhere(query.image)
        if query.box is not None and photo is not None:
            return questions.extracted(photo, query.box)
        stored = next((found for name in self._spellings(query) if (found := questions.stored(name))), None)
        if stored is not None and query.box is not None:
            self._boxed_from_stored += 1
            return inside(stored, query.box)
        if stored is not None:
            return stored
        if photo is not None:
            return questions.extracted(photo)
        raise StoreError(
            f"query {query.name}: neither features of {query.image} nor its photo are at hand; "
            "say --features FILE or --images FOLDER"
        )

    def tell(self) -> None:
        """Say what was done otherwise than the protocol has it."""
        if self._boxed_from_stored:
            log.warning(
                "%d queries are the stored features inside their boxes: with --images FOLDER the boxes are cut out "
                "and described anew, as the protocol has it",
                self._boxed_from_stored,
            )

    def _spellings(self, query: TruthQuery) -> Iterator[str]:
        yield query.image
        for path in self._questions.sources.features:
            found = self._questions.find(path, query.image)
            if found:
                yield found

    def _elsewhere(self, image: str) -> Path | None:
        """A photo that the index does not hold, as the revisited benchmarks keep their queries."""
        folder = self._questions.sources.images
        if folder is None or not folder.is_dir():
            return None
        if self._photos is None:
            self._photos = NameFinder(list_images(folder))
        name = self._photos.find(image)
        return folder / name if name else None
