"""A segment without some of its images: what is left is as if these had never been added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import Parts
from .segment import PAYLOAD, Segment

ROWS_AT_ONCE = 1 << 20


def without(segment: Segment, keep: NDArray[np.bool_]) -> dict[str, NDArray[Any] | Parts]:
    """The arrays of a segment that holds only the images (I,) that are kept, in their order.

    Those that grow with the features are read and handed on part by part.
    """
    kept = [name.encode("utf-8") for name, stays in zip(segment.names, keep.tolist(), strict=True) if stays]
    counts = np.diff(segment["offsets"])
    lists = _Lists(segment, keep)
    return {
        "names": np.frombuffer(b"".join(kept), dtype=np.uint8),
        "name_ends": np.cumsum([len(text) for text in kept], dtype=np.int64),
        "image_sizes": segment["image_sizes"][keep],
        "digests": segment.digests[keep],
        "offsets": np.concatenate([np.zeros(1, np.int64), np.cumsum(counts[keep], dtype=np.int64)]),
        **{key: _rows(segment, key, keep) for key in ("words", "lafs")},
        "posting_words": lists.words,
        "posting_starts": lists.starts,
        "posting_images": lists.occurs,
        **{key: lists.array(key) for key in ("images", *(PAYLOAD + key for key in segment.payload_keys))},
    }


def _rows(segment: Segment, key: str, keep: NDArray[np.bool_]) -> Parts:
    """One of the arrays that have a row a feature."""
    values, offsets = segment[key], segment["offsets"]

    def parts() -> Iterator[NDArray[Any]]:
        for start in range(0, len(values), ROWS_AT_ONCE):
            rows = np.arange(start, min(start + ROWS_AT_ONCE, len(values)))
            yield values[start : start + ROWS_AT_ONCE][keep[np.searchsorted(offsets, rows, side="right") - 1]]

    return Parts(values.dtype, (int(np.diff(offsets)[keep].sum()), *values.shape[1:]), parts())


class _Lists:
    """The posting lists of a segment, less the postings of images that go, less the words that nothing is left of."""

    def __init__(self, segment: Segment, keep: NDArray[np.bool_]) -> None:
        self.segment, self.keep = segment, keep
        self.numbers = (np.cumsum(keep) - 1).astype(np.uint32)
        starts, total = segment["posting_starts"], len(segment["posting_words"])
        lengths, occurs = np.zeros(total, np.int64), np.zeros(total, np.int64)
        for low, high, first, end in self._spans():
            images = segment["images"][first:end]
            of_word = np.repeat(np.arange(low, high), np.diff(starts[low : high + 1]))
            stays = keep[images]
            new = np.ones(len(images), dtype=bool)  # an image's postings of a word lie side by side
            new[1:] = (images[1:] != images[:-1]) | (of_word[1:] != of_word[:-1])
            lengths[low:high] = np.bincount(of_word[stays] - low, minlength=high - low)
            occurs[low:high] = np.bincount(of_word[stays & new] - low, minlength=high - low)
        left = np.flatnonzero(lengths)
        self.words, self.occurs = segment["posting_words"][left], occurs[left]
        self.starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[left], dtype=np.int64)])

    def array(self, key: str) -> Parts:
        """One of the arrays that have a row a posting."""
        values = self.segment[key]
        return Parts(values.dtype, (int(self.starts[-1]), *values.shape[1:]), self._parts(key))

    def _parts(self, key: str) -> Iterator[NDArray[Any]]:
        for _, _, first, end in self._spans():
            images = self.segment["images"][first:end]
            stays = self.keep[images]
            yield self.numbers[images[stays]] if key == "images" else self.segment[key][first:end][stays]

    def _spans(self) -> Iterator[tuple[int, int, int, int]]:
        """Words (low, high) of about `ROWS_AT_ONCE` postings, and the rows (first, end) of these."""
        starts, low = self.segment["posting_starts"], 0
        while low < len(starts) - 1:
            high = max(int(np.searchsorted(starts, starts[low] + ROWS_AT_ONCE, side="right")) - 1, low + 1)
            yield low, high, int(starts[low]), int(starts[high])
            low = high
