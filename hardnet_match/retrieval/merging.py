"""Segments merged into one, so that an index that is added to often does not fall to pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import Parts
from .segment import PAYLOAD, Segment

MERGE_AT = 8
POSTINGS_AT_ONCE = 1 << 20


def to_merge(sizes: Sequence[int]) -> tuple[int, int] | None:
    """Which neighbouring segments (start, stop) to merge now, None if they are few or unlike.

    The last ones are merged when there are `MERGE_AT` and the largest holds no more than the others together, so that
    segments grow geometrically: a posting is copied a number of times that grows with the logarithm of the index.
    """
    for start in range(len(sizes) - MERGE_AT, -1, -1):
        group = sizes[start:]
        if max(group) <= sum(group) - max(group):
            return start, len(sizes)
    return None


def merged(segments: Sequence[Segment]) -> dict[str, NDArray[Any] | Parts]:
    """The arrays of one segment that holds what several neighbouring ones hold, in the same order.

    Those that grow with the features are read and handed on part by part.
    """
    lists = _Lists(segments)
    names = [segment["name_ends"] for segment in segments]
    shifts = np.cumsum([0, *(int(ends[-1]) if len(ends) else 0 for ends in names[:-1])])
    rows = np.cumsum([0, *(len(segment["words"]) for segment in segments[:-1])])
    return {
        **{key: _joined(segments, key) for key in ("names", "image_sizes", "words", "lafs")},
        "digests": np.concatenate([segment.digests for segment in segments]),
        "name_ends": np.concatenate([ends + shift for ends, shift in zip(names, shifts, strict=True)]),
        "offsets": np.concatenate(
            [np.zeros(1, np.int64), *(s["offsets"][1:] + row for s, row in zip(segments, rows, strict=True))]
        ),
        "posting_words": lists.words,
        "posting_starts": lists.starts,
        "posting_images": lists.occurs,
        **{key: lists.array(key) for key in ("images", *(PAYLOAD + key for key in segments[0].payload_keys))},
    }


def _joined(segments: Sequence[Segment], key: str) -> Parts:
    first = segments[0][key]
    count = sum(len(segment[key]) for segment in segments)
    return Parts(first.dtype, (count, *first.shape[1:]), (segment[key] for segment in segments))


class _Lists:
    """The posting lists of several segments, a word's lists one behind the other: earlier images have lower numbers."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = segments
        self.words, place = np.unique(
            np.concatenate([segment["posting_words"] for segment in segments]), return_inverse=True
        )
        self.counts = np.zeros((len(segments), len(self.words)), dtype=np.int64)
        self.occurs = np.zeros(len(self.words), dtype=np.int64)
        start = 0
        for row, segment in enumerate(segments):
            at = place[start : start + len(segment["posting_words"])]
            self.counts[row, at] = np.diff(segment["posting_starts"])
            self.occurs[at] += segment["posting_images"]
            start += len(at)
        self.starts = np.zeros(len(self.words) + 1, dtype=np.int64)
        np.cumsum(self.counts.sum(axis=0), out=self.starts[1:])

    def array(self, key: str) -> Parts:
        """One of the arrays that have a row a posting."""
        first = self.segments[0][key]
        return Parts(first.dtype, (int(self.starts[-1]), *first.shape[1:]), self._parts(key))

    def _parts(self, key: str) -> Iterator[NDArray[Any]]:
        base = self.segments[0].base
        taken = [0] * len(self.segments)
        low = 0
        while low < len(self.words):
            limit = self.starts[low] + POSTINGS_AT_ONCE
            high = max(int(np.searchsorted(self.starts, limit, side="right")) - 1, low + 1)
            example = self.segments[0][key]
            part = np.empty((int(self.starts[high] - self.starts[low]), *example.shape[1:]), example.dtype)
            begins = self.starts[low:high] - self.starts[low]
            for row, segment in enumerate(self.segments):
                lengths = self.counts[row, low:high]
                where = np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
                where += np.arange(len(where))
                values = segment[key][taken[row] : taken[row] + len(where)]
                part[where] = values + np.uint32(segment.base - base) if key == "images" else values
                taken[row] += len(where)
                begins = begins + lengths
            yield part
            low = high
