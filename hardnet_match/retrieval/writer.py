"""The writing side of an index: images on their way into a segment, and segments merged into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..features import Features
from .codebook import Codebook
from .method import Batch, Method, Postings
from .segment import PAYLOAD, Images, Segment

# Enough for the matrix products of the assignment to be large, little enough to stay in memory.
FEATURES_IN_BATCH = 1 << 15
MERGE_AT = 8


class Buffer:
    """Images that were added and are not in a segment yet; their descriptors are quantised many images at a time."""

    def __init__(self, codebook: Codebook, method: Method) -> None:
        self._codebook, self._method = codebook, method
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.names: dict[str, int] = {}
        self.features = 0
        self._waiting: list[Features] = []
        self._waiting_rows = 0
        self._sizes: list[tuple[int, int]] = []
        self._counts: list[int] = []
        self._done_images = 0
        self._words: list[NDArray[np.uint32]] = []
        self._lafs: list[NDArray[np.float32]] = []
        self._postings: list[Postings] = []

    def add(self, name: str, features: Features) -> None:
        """Take an image in."""
        self.names[name] = len(features)
        self._waiting.append(features)
        self._waiting_rows += len(features)
        self.features += len(features)
        if self._waiting_rows >= FEATURES_IN_BATCH:
            self._encode()

    def _encode(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        counts = [len(features) for features in waiting]
        descriptors = np.concatenate([self._codebook.checked(features.descriptors) for features in waiting])
        lafs = np.concatenate([features.lafs for features in waiting])
        words = self._codebook.assign(descriptors)[:, 0]
        offsets = np.zeros(len(counts) + 1, dtype=np.int64)
        np.cumsum(counts, out=offsets[1:])
        made = self._method.encode(Batch(descriptors, words, lafs, offsets))
        self._postings.append(Postings(made.words, made.images + self._done_images, made.payload))
        self._done_images += len(waiting)
        self._words.append(words)
        self._lafs.append(lafs)
        self._counts += counts
        self._sizes += [features.image_size for features in waiting]

    def taken(self) -> tuple[Images, Postings]:
        """Everything in it, ready to be written; the buffer itself is left as it is."""
        self._encode()
        offsets = np.zeros(len(self._counts) + 1, dtype=np.int64)
        np.cumsum(self._counts, out=offsets[1:])
        images = Images(
            list(self.names),
            np.array(self._sizes, dtype=np.int32).reshape(-1, 2),
            offsets,
            np.concatenate(self._words),
            np.concatenate(self._lafs),
        )
        keys = self._postings[0].payload.keys()
        postings = Postings(
            np.concatenate([part.words for part in self._postings]),
            np.concatenate([part.images for part in self._postings]),
            {key: np.concatenate([part.payload[key] for part in self._postings]) for key in keys},
        )
        return images, postings


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


def merged(segments: Sequence[Segment]) -> dict[str, NDArray[Any]]:
    """The files of one segment that holds what several neighbouring ones hold, in the same order."""
    base = segments[0].base
    present, place = np.unique(np.concatenate([segment["posting_words"] for segment in segments]), return_inverse=True)
    counts = np.zeros((len(segments), len(present)), dtype=np.int64)
    occurs = np.zeros(len(present), dtype=np.int64)
    start = 0
    for row, segment in enumerate(segments):
        at = place[start : start + len(segment["posting_words"])]
        counts[row, at] = np.diff(segment["posting_starts"])
        occurs[at] += segment["posting_images"]
        start += len(at)
    starts = np.zeros(len(present) + 1, dtype=np.int64)
    np.cumsum(counts.sum(axis=0), out=starts[1:])
    keys = ["images", *(PAYLOAD + key for key in segments[0].payload_keys)]
    total = int(starts[-1])
    arrays: dict[str, NDArray[Any]] = {
        key: np.empty((total, *segments[0][key].shape[1:]), segments[0][key].dtype) for key in keys
    }
    # Within a word the postings of an earlier segment come first: its images have lower numbers.
    first = starts[:-1] + np.cumsum(counts, axis=0) - counts
    for row, segment in enumerate(segments):
        own = counts[row] > 0
        lengths, begins = counts[row, own], first[row, own]
        where = np.repeat(begins - (np.cumsum(lengths) - lengths), lengths)
        where += np.arange(len(where))
        for key in keys:
            values = segment[key]
            arrays[key][where] = values + np.uint32(segment.base - base) if key == "images" else values
    names = [segment["name_ends"] for segment in segments]
    shifts = np.cumsum([0, *(int(ends[-1]) if len(ends) else 0 for ends in names[:-1])])
    rows = np.cumsum([0, *(len(segment["words"]) for segment in segments[:-1])])
    joined = ("names", "image_sizes", "words", "lafs")
    return {
        **{key: np.concatenate([segment[key] for segment in segments]) for key in joined},
        "name_ends": np.concatenate([ends + shift for ends, shift in zip(names, shifts, strict=True)]),
        "offsets": np.concatenate(
            [np.zeros(1, np.int64), *(s["offsets"][1:] + row for s, row in zip(segments, rows, strict=True))]
        ),
        "posting_words": present,
        "posting_starts": starts,
        "posting_images": occurs,
        **arrays,
    }
