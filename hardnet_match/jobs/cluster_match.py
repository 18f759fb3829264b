"""Matching by the workers of a cluster; the process that asked for it writes the file."""

from __future__ import annotations

import os
import socket
from collections.abc import Generator, Sequence

from ..errors import ClusterError, StoreError
from ..store import FeatureReader
from .crew import Crew
from .match import FeatureCache, Matched, matched

PAIRS_IN_A_PIECE = 32
"""Some hundred milliseconds of work, and neighbours in the order that `order_pairs` gave them: they share images."""


class MatchWorker:
    """Matches pairs of a features file that this machine sees.

    Raises:
        ClusterError: the file is not to be seen here, or is another one.
        StoreError: it is damaged.
    """

    def __init__(self, features: str, made: str, method: str, ratio: float, cache_bytes: int, device: str) -> None:
        import torch

        if not os.path.isfile(features):
            raise ClusterError(
                f"{socket.gethostname()} has no file {features}: every machine of the cluster must see the features at "
                "the same path; put them on shared storage"
            )
        if device == "cpu":
            torch.set_num_threads(1)
        self._reader = FeatureReader(features)
        if self._reader.settings_hash != made:
            raise ClusterError(f"{features} on {socket.gethostname()} is another file than here")
        self._cache = FeatureCache(self._reader.read, cache_bytes)
        self._features, self._method, self._ratio, self._device = features, method, ratio, device

    def work(self, items: list[tuple[str, str]]) -> list[Matched]:
        """The matches of pairs."""
        return list(matched(self._cache, items, self._method, self._ratio, self._device, self._features))


def matched_by(
    crew: Crew, pairs: Sequence[tuple[str, str]], features: str, method: str, ratio: float, cache_bytes: int
) -> Generator[Matched, None, None]:
    """As `match.matched`, by a crew: each pair once, in any order.

    Raises:
        ClusterError: the cluster is gone, or a machine of it does not see the features.
        StoreError: features cannot be read or matched, or a pair kills the workers that are at it.
    """
    with FeatureReader(features) as reader:
        made = reader.settings_hash
    # Absolute: a worker starts in a folder of its own.
    arguments = (os.path.abspath(features), made, method, ratio, cache_bytes, crew.device)
    pieces = [list(pairs[at : at + PAIRS_IN_A_PIECE]) for at in range(0, len(pairs), PAIRS_IN_A_PIECE)]
    for given in crew.results(MatchWorker, arguments, pieces):
        if given.lost:
            name0, name1 = given.items[0]
            raise StoreError(f"{features}: {name0} and {name1} cannot be matched: {given.lost}")
        yield from given.result
