"""Match many image pairs: ordered so that a bounded cache reads each image's features as seldom as can be."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..devices import choose_device
from ..errors import DataError, OptionError, StoreError
from ..features import Features, Matches
from ..matching import Options, match, method_named, method_settings
from ..store import FeatureReader, MatchWriter, Shard, read_pairs
from .pairs import exhaustive_pairs
from .progress import progress_bar
from .side_by_side import side_by_side

if TYPE_CHECKING:
    from .crew import Crew

log = logging.getLogger(__name__)

Matched: TypeAlias = tuple[tuple[str, str], Matches, int, int]
"""A pair, its matches, how many features the first image has, and images read for it that were not in memory."""

CACHE_BYTES = 2 << 30
# A write that outlives a power cut costs some 10 to 50 ms, a pair of small images less.
PAIRS_AT_ONCE = 64
BUFFER_BYTES = 4 << 20
LAF_AND_SCORE_BYTES = 28


@dataclass(frozen=True)
class MatchSummary:
    """What `match_features` did: `pairs` asked for, of these `matched` now, `reused` from an earlier run.

    `matches` counts those made now; `skipped` holds the images that pairs name but the features file lacks. Of a shard
    (`i/n`), all of this is of its own pairs.
    """

    matches_file: str
    pairs: int
    matched: int
    reused: int
    matches: int
    reads: int
    seconds: float
    settings: dict[str, Any]
    shard: str = ""
    skipped: dict[str, str] = field(default_factory=dict)


def match_features(
    features: str | Path,
    output: str | Path,
    pairs: str | Path | Iterable[tuple[str, str]] | None = None,
    *,
    method: str = "smnn",
    ratio: float = 0.9,
    device: str = "auto",
    cache_bytes: int = CACHE_BYTES,
    shard: Shard | None = None,
    crew: Crew | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> MatchSummary:
    """Match the images of a features file with one another into a matches file.

    Pairs that the file already holds, from the same settings and features, are kept; those of an image that was
    extracted again, from another photo, are matched again. Interrupted at any moment, the
    file stays readable and the next run goes on.

    Args:
        features: features file.
        output: matches file to write or to go on with; its folder exists.
        pairs: pairs of image names, or a text file of them, one pair a line; all pairs of the file if None.
        method: `smnn`, `mnn`, `snn`, `fginn`, `adalam`, or of a plugin.
        ratio: ratio test threshold of the methods that have one.
        device: `auto`, `cpu`, `cuda`, `mps`.
        cache_bytes: memory for features that wait for their next pair; each worker of a crew has as much.
        shard: only the pairs of this part of the work, in a file of its own; see `join_files`.
        crew: workers of a Ray cluster, which match while this process writes. They find the features file at the same
            path.
        overwrite: start anew instead of going on.
        quiet: no progress bar.

    Raises:
        OptionError: the method, the ratio or the cache size cannot work.
        StoreError: a file is missing, damaged, made from other features or settings, or no pair can be matched.
        PluginError: another package's method cannot be loaded or fails.
        ClusterError: the crew's cluster is gone, or its workers cannot work.
    """
    started = time.perf_counter()
    if cache_bytes < 1:
        raise OptionError(f"the cache needs some memory, got {cache_bytes} bytes")
    method_named(method)
    Options(ratio=ratio)
    choose_device(device)
    with FeatureReader(features) as reader:
        names = list(reader.names())
        wanted = _wanted(pairs, names)
        known = set(names)
        usable = [pair for pair in wanted if known.issuperset(pair)]
        skipped = {name: f"not in {features}" for pair in wanted for name in pair if name not in known}
        if shard is not None:
            usable = [pair for pair in usable if shard.takes_pair(*pair)]
            wanted = [pair for pair in wanted if shard.takes_pair(*pair)]
        elif not usable:
            raise StoreError(
                f"{features}: no pair to match: it holds {len(names)} image(s)"
                + (f", and {len(wanted)} pair(s) name others" if wanted else "")
            )
        settings = {
            "method": method,
            "ratio": ratio,
            "features": reader.settings_hash,
            **method_settings(method),
        }
        count = reads = 0
        with MatchWriter(
            output, settings, overwrite=overwrite, buffer=PAIRS_AT_ONCE, buffer_bytes=BUFFER_BYTES
        ) as writer:
            writer.begin(shard)
            there = {frozenset(pair): (pair, of) for pair, of in writer.sources().items()}
            digests = {name: reader.digest(name) for name in dict.fromkeys(name for pair in usable for name in pair)}
            todo = [pair for pair in (_stale_or_new(pair, there, digests) for pair in usable) if pair is not None]
            reused = len(usable) - len(todo)
            if replaced := sum(frozenset(pair) in there for pair in todo):
                log.info("%d pairs in %s are of features that changed since: matching them again", replaced, output)
            if reused:
                log.info("%d of %d pairs are in %s already", reused, len(usable), output)
            sizes = {name: _stored_bytes(reader, name) for name in dict.fromkeys(n for pair in todo for n in pair)}
            ordered = order_pairs(todo, sizes, cache_bytes)
            if crew is None:
                cache = FeatureCache(reader.read, cache_bytes)
                results = matched(cache, ordered, method, ratio, device, str(features))
            else:
                from .cluster_match import matched_by

                results = matched_by(crew, ordered, str(features), method, ratio, cache_bytes)
            with progress_bar("matching", len(usable), "pair", done=reused, quiet=quiet) as bar, closing(results):
                for (name0, name1), found, count0, read in results:
                    writer.write(name0, name1, found, count0, (digests[name0], digests[name1]))
                    count += len(found)
                    reads += read
                    bar.update()
            if shard is not None:
                writer.end(len(skipped))
    for name, reason in skipped.items():
        log.warning("skipped %s: %s", name, reason)
    return MatchSummary(
        matches_file=str(output),
        pairs=len(wanted),
        matched=len(todo),
        reused=reused,
        matches=count,
        reads=reads,
        seconds=round(time.perf_counter() - started, 3),
        settings=settings,
        shard="" if shard is None else str(shard),
        skipped=skipped,
    )


def matched(
    cache: FeatureCache, pairs: Iterable[tuple[str, str]], method: str, ratio: float, device: str, where: str
) -> Generator[Matched, None, None]:
    """The matches of pairs, in order.

    Raises:
        StoreError: features of the file `where` cannot be read or matched.
    """

    def find(both: tuple[Features, Features]) -> Matches:
        return match(*both, method=method, ratio=ratio, device=device)

    work = ((pair, (cache.get(pair[0]), cache.get(pair[1]))) for pair in pairs)
    told = cache.reads
    for pair, (first, _), outcome in side_by_side(find, work, choose_device(device)):
        try:
            found = outcome.result()
        except DataError as error:
            raise StoreError(f"{where}: {pair[0]} and {pair[1]} cannot be matched: {error}") from error
        yield pair, found, len(first), cache.reads - told
        told = cache.reads


def _wanted(pairs: str | Path | Iterable[tuple[str, str]] | None, names: Sequence[str]) -> list[tuple[str, str]]:
    """The pairs, each once whichever way round, none of an image with itself."""
    if pairs is None:
        return exhaustive_pairs(names)
    listed = read_pairs(pairs) if isinstance(pairs, str | Path) else pairs
    once: dict[frozenset[str], tuple[str, str]] = {}
    for name0, name1 in listed:
        if name0 != name1:
            once.setdefault(frozenset((name0, name1)), (name0, name1))
    return list(once.values())


def _stale_or_new(
    pair: tuple[str, str],
    there: Mapping[frozenset[str], tuple[tuple[str, str], tuple[str, str]]],
    digests: Mapping[str, str],
) -> tuple[str, str] | None:
    """The pair, in the order it is stored in, unless its stored matches are of these very features.

    Without a digest on one of the sides nothing is known against what is stored.
    """
    if frozenset(pair) not in there:
        return pair
    stored, of = there[frozenset(pair)]
    changed = any(was and digests[name] and was != digests[name] for name, was in zip(stored, of, strict=True))
    return stored if changed else None


def order_pairs(pairs: Sequence[tuple[str, str]], sizes: dict[str, int], cache_bytes: int) -> list[tuple[str, str]]:
    """Order pairs so that an LRU cache of `cache_bytes` reads seldom.

    Images are cut into blocks that leave room for two more. A block is paired with itself, then with one later image
    after the other: the block stays, and what makes room for the next image is the one before it. All pairs of N
    images of which M fit cost about N^2 / 2M + N / 2 reads; as a read can serve no more than the M - 1 images beside
    it, no order has fewer than N^2 / 2M. The plain order has N^2 / 2.
    """
    room = cache_bytes - 2 * max(sizes.values(), default=0)
    block: dict[str, int] = {}
    current = filled = 0
    for name in dict.fromkeys(name for pair in pairs for name in pair):
        if filled and filled + sizes[name] > room:
            current, filled = current + 1, 0
        block[name] = current
        filled += sizes[name]
    place = {name: index for index, name in enumerate(block)}

    def key(pair: tuple[str, str]) -> tuple[int, int, int]:
        first, second = sorted(pair, key=place.__getitem__)
        return block[first], place[second], place[first]

    return sorted(pairs, key=key)


class FeatureCache:
    """Features by name, read when first asked for; the longest unused go when `capacity` bytes are exceeded."""

    def __init__(self, read: Callable[[str], Features], capacity: int) -> None:
        self._read, self._capacity = read, capacity
        self._held: OrderedDict[str, Features] = OrderedDict()
        self._bytes = 0
        self.reads = 0

    def get(self, name: str) -> Features:
        """The features of an image."""
        if name in self._held:
            self._held.move_to_end(name)
            return self._held[name]
        features = self._read(name)
        self.reads += 1
        self._held[name] = features
        self._bytes += _nbytes(features)
        # The two of the pair in work stay, however large.
        while self._bytes > self._capacity and len(self._held) > 2:
            self._bytes -= _nbytes(self._held.popitem(last=False)[1])
        return features


def _stored_bytes(reader: FeatureReader, name: str) -> int:
    count, dim, dtype = reader.descriptor_shape(name)
    return count * (dim * np.dtype(dtype).itemsize + LAF_AND_SCORE_BYTES)


def _nbytes(features: Features) -> int:
    return int(features.lafs.nbytes + features.scores.nbytes + features.descriptors.nbytes)
