"""Matches of many image pairs in one HDF5 file, in hloc's layout."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, StoreError
from ..features import Matches
from .hdf5 import check_name, told_plainly
from .links import Tree
from .reader import Reader
from .writer import Writer, no_shards


def pair_key(name0: str, name1: str) -> str:
    """hloc's group of a pair."""
    return f"{name0.replace('/', '-')}/{name1.replace('/', '-')}"


def spare_key(name0: str, name1: str) -> str:
    """Where a pair goes whose group is taken by another ('a/b.jpg' and 'a-b.jpg' share one)."""
    digest = hashlib.sha256("\0".join((name0, name1)).encode()).hexdigest()[:12]
    return f"{pair_key(name0, name1)}~{digest}"


def _names(group: Any) -> tuple[str, str] | None:
    """The true names of a pair's group, None in another program's file."""
    name0, name1 = group.attrs.get("name0"), group.attrs.get("name1")
    return None if name0 is None or name1 is None else (str(name0), str(name1))


class MatchWriter(Writer):
    """Writes matches pair by pair; a process killed at any moment leaves all pairs written before it.

    Args: as `FeatureWriter`; `buffer` counts pairs.

    Raises:
        StoreError: as `FeatureWriter`.
    """

    kind = "matches"

    def __enter__(self) -> MatchWriter:
        return self

    def pairs_done(self) -> set[tuple[str, str]]:
        """The complete pairs, those still buffered not among them."""
        return set(self._done)

    def sources(self) -> dict[tuple[str, str], tuple[str, str]]:
        """The complete pairs, each with the digests of the features it was made from ('' where unknown)."""
        return dict(self._done)

    def write(self, name0: str, name1: str, matches: Matches, count0: int, digests: tuple[str, str] = ("", "")) -> None:
        """File the matches of one pair, in place of earlier ones of the same two names in the same order.

        Args:
            count0: how many features the first image has: hloc's layout has a row for each.
            digests: of the two images' features (`FeatureReader.digest`).

        Raises:
            StoreError: a name cannot be a key, or the file cannot be written.
            DataError: a row is out of range, or a feature of the first image has two matches.
        """
        if check_name(name0) == check_name(name1):
            raise DataError(f"image {name0!r} cannot be matched with itself")
        rows = matches.pairs[:, 0]
        if len(rows) and int(rows.max()) >= count0:
            raise DataError(f"matches of {name0!r} point at row {int(rows.max())} of {count0} features")
        if len(np.unique(rows)) != len(rows):
            raise DataError(f"a feature of {name0!r} has two matches; hloc's layout holds one a feature")
        matches0 = np.full(count0, -1, dtype=np.int32)
        scores0 = np.zeros(count0, dtype=np.float32)
        matches0[rows] = matches.pairs[:, 1]
        scores0[rows] = matches.scores
        self._queue((name0, name1), (matches0, scores0), digests, matches0.nbytes + scores0.nbytes)

    def _finished(self, h5: Any) -> dict[tuple[str, str], tuple[str, str]]:
        return {
            names: (str(group.attrs.get("features0", "")), str(group.attrs.get("features1", "")))
            for names, group in _pair_groups(Tree(self.path, h5, no_shards), own=True)
        }

    def _put(
        self,
        h5: Any,
        key: tuple[str, str],
        value: tuple[NDArray[np.int32], NDArray[np.float32]],
        source: tuple[str, str],
    ) -> None:
        place = pair_key(*key)
        if place in h5 and _names(h5[place]) != key:
            place = spare_key(*key)
        if place in h5:
            del h5[place]
        group = h5.create_group(place)
        group.create_dataset("matches0", data=value[0])
        group.create_dataset("matching_scores0", data=value[1])
        group.attrs["name0"], group.attrs["name1"] = key
        if all(source):
            group.attrs["features0"], group.attrs["features1"] = source
        group.attrs["complete"] = True


def _pair_groups(tree: Tree, *, own: bool) -> Iterator[tuple[tuple[str, str], Any]]:
    """((name0, name1), group) of every pair, in no order, by the groups' own names where the true ones are not known;
    of a file of ours (`own`) the complete ones."""
    for outer in tree.root:
        first = tree.member(tree.root, outer)
        if not hasattr(first, "keys"):
            continue
        # hloc before 1.3: one level, names joined by '_', which cannot be told apart
        for inner in ("", *first):
            group = tree.member(first, inner) if inner else first
            if not hasattr(group, "keys") or not tree.kind(group, "matches0"):
                continue
            if not own or bool(group.attrs.get("complete")):
                yield _names(group) or (outer, inner), group


class MatchReader(Reader):
    """Reads matches of this package and of hloc.

    hloc's files do not keep the true names: there `pairs` gives them with '-' in place of '/', and `read` takes the
    true ones.

    Raises:
        StoreError: there is no such file, or it is not readable HDF5.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._pairs: list[tuple[str, str]] | None = None

    def __enter__(self) -> MatchReader:
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """The complete pairs, sorted."""
        if self._pairs is None:
            with told_plainly(self.path, "list its pairs"):
                self._pairs = sorted(names for names, _ in _pair_groups(self._tree, own=self.own))
        return list(self._pairs)

    def groups(self) -> Iterator[tuple[tuple[str, str], Any]]:
        """((name0, name1), group) of the complete pairs, as the file has them."""
        with told_plainly(self.path, "list its pairs"):
            yield from _pair_groups(self._tree, own=self.own)

    def _find(self, name0: str, name1: str) -> Any:
        old = "_".join((name0.replace("/", "-"), name1.replace("/", "-")))
        for place in (spare_key(name0, name1), pair_key(name0, name1), old):
            group = self._tree.at(place)
            is_pair = hasattr(group, "keys") and self._tree.kind(group, "matches0")
            if is_pair and _names(group) in (None, (name0, name1)):
                return group
        return None

    def __contains__(self, pair: tuple[str, str]) -> bool:
        with told_plainly(self.path, f"look for pair {pair}"):
            return self._find(*pair) is not None or self._find(*pair[::-1]) is not None

    def read(self, name0: str, name1: str) -> Matches:
        """Matches of a pair, stored in this order or the other.

        Raises:
            StoreError: there is no such pair, or its record is damaged.
        """
        check_name(name0), check_name(name1)
        where = f"pair {name0!r}, {name1!r}"
        with told_plainly(self.path, f"read {where}"):
            group = self._find(name0, name1)
            if group is None:
                if self._find(name1, name0) is None:
                    raise StoreError(f"{self.path} has no matches of {where}")
                return self.read(name1, name0).swapped()
            if self._tree.kind(group, "matches0") == "external":  # a view: all of the pair is where this leads
                found = self._tree.member(group, "matches0")
                if found is None:
                    raise StoreError(
                        f"{self.path}: {where} is no longer in the file that it was joined from; join again"
                    )
                group = found.parent
            if self.own and not bool(group.attrs.get("complete", False)):
                raise StoreError(f"{self.path}: the matches of {where} are not complete; match it again")
            matches0 = self._tree.dataset(group, "matches0")[()]
            scores = self._tree.dataset(group, "matching_scores0")
            scores0 = np.ones(len(matches0)) if scores is None else scores[()]
        if matches0.ndim != 1 or matches0.dtype.kind not in "iu" or scores0.shape != matches0.shape:
            raise StoreError(
                f"{self.path}: {where}: matches0 must be integers (N,) and matching_scores0 as many numbers, "
                f"got {matches0.dtype} {matches0.shape} and {scores0.dtype} {scores0.shape}"
            )
        if len(matches0) and (int(matches0.min()) < -1 or int(matches0.max()) > np.iinfo(np.int32).max):
            raise StoreError(f"{self.path}: {where}: matches0 hold an index below -1 (wrapped int16?) or too large")
        rows = np.flatnonzero(matches0 >= 0)
        pairs = np.stack([rows, matches0[rows]], axis=1).astype(np.int32)
        with told_plainly(self.path, f"read {where}"):
            return Matches(pairs, scores0[rows].astype(np.float32))
