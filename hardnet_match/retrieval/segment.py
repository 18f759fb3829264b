"""Segments: what an index holds of some images, written once and never changed, memory-mapped to read.

A segment is one file of arrays. By image: `names` (UTF-8 bytes, one after the other) with `name_ends`,
`image_sizes` (I, 2), `offsets` (I + 1,), `digests` (I, 16) uint8 of their features (zeros where there is none; earlier
versions wrote no such array). By feature, image after image: `words` (F,) uint32, `lafs` (F, 2, 3) float32.
By posting, word after word and image after image within a word: `images` (P,) uint32, counted from the segment's
first image, and the method's payload; `posting_words` (U,) uint32 are the words that occur, `posting_starts` (U + 1,)
where each begins, `posting_images` (U,) int64 in how many images it occurs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .files import Parts, map_arrays, write_arrays
from .method import Postings, Run

# Few enough for what is made of them to stay in the processor's cache.
POSTINGS_AT_ONCE = 1 << 15
PAYLOAD = "payload_"
DIGEST_BYTES = 16


@dataclass(frozen=True, eq=False)
class Images:
    """What a segment holds by image and by feature.

    Args:
        names: of the images.
        sizes: (I, 2) int32 width, height.
        digests: (I, 16) uint8, of the features in their file.
        offsets: (I + 1,) int64, rows of each image's features.
        words: (F,) uint32, nearest word of each feature.
        lafs: (F, 2, 3) float32.
    """

    names: Sequence[str]
    sizes: NDArray[np.int32]
    digests: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    words: NDArray[np.uint32]
    lafs: NDArray[np.float32]


def arrays_of(images: Images, postings: Postings, words: int) -> dict[str, NDArray[Any]]:
    """The files of a segment; `words` is the size of the codebook."""
    # 16-bit keys are sorted by radix: several times faster, and the order of equal ones is kept either way.
    keys = postings.words.astype(np.uint16) if words <= 1 << 16 else postings.words
    order = np.argsort(keys, kind="stable")
    sorted_words, of_image = postings.words[order], postings.images[order].astype(np.uint32)
    starts = np.flatnonzero(np.concatenate([[True], sorted_words[1:] != sorted_words[:-1]])[: len(sorted_words)])
    bounds = np.append(starts, len(sorted_words)).astype(np.int64)
    fresh = np.ones(len(of_image), dtype=np.int64)
    fresh[1:] = (of_image[1:] != of_image[:-1]) | (sorted_words[1:] != sorted_words[:-1])
    occurs = np.add.reduceat(fresh, starts) if len(starts) else np.empty(0, dtype=np.int64)
    texts = [name.encode("utf-8") for name in images.names]
    return {
        "names": np.frombuffer(b"".join(texts), dtype=np.uint8),
        "name_ends": np.cumsum([len(text) for text in texts], dtype=np.int64),
        "image_sizes": images.sizes,
        "digests": images.digests,
        "offsets": images.offsets,
        "words": images.words,
        "lafs": images.lafs,
        "posting_words": sorted_words[starts],
        "posting_starts": bounds,
        "posting_images": occurs,
        "images": of_image,
        **{PAYLOAD + key: array[order] for key, array in postings.payload.items()},
    }


def write_segment(path: Path, arrays: Mapping[str, NDArray[Any] | Parts]) -> dict[str, Any]:
    """Write a segment; its entry in the manifest.

    Raises:
        StoreError: it cannot be written.
    """
    return {
        "file": path.name,
        "images": int(arrays["name_ends"].shape[0]),
        "features": int(arrays["words"].shape[0]),
        "postings": int(arrays["images"].shape[0]),
        **write_arrays(path, arrays),
    }


class Segment:
    """An open segment.

    Args:
        path: its file.
        entry: what the manifest says of it.
        base: number in the index of its first image.

    Raises:
        StoreError: the file is missing, or of another size than when it was written.
    """

    def __init__(self, path: Path, entry: Mapping[str, Any], base: int) -> None:
        self.path, self.entry, self.base = path, entry, base
        self._arrays = map_arrays(path, entry)

    def __getitem__(self, name: str) -> NDArray[Any]:
        """One of its arrays, memory-mapped."""
        return self._arrays[name]

    @property
    def n_images(self) -> int:
        """Images in the segment."""
        return int(self.entry["images"])

    @cached_property
    def names(self) -> list[str]:
        """Names of its images."""
        text, ends = self["names"].tobytes(), self["name_ends"].tolist()
        return [text[start:end].decode("utf-8") for start, end in zip([0, *ends[:-1]], ends, strict=True)]

    @property
    def digests(self) -> NDArray[np.uint8]:
        """(I, 16) of the images' features; zeros where nobody wrote them down."""
        found = self._arrays.get("digests")
        return np.zeros((self.n_images, DIGEST_BYTES), np.uint8) if found is None else found

    @property
    def payload_keys(self) -> list[str]:
        """Names of the method's arrays."""
        return [name.removeprefix(PAYLOAD) for name in self._arrays if name.startswith(PAYLOAD)]

    def gather(self, words: NDArray[np.uint32], keys: Sequence[str] = ()) -> Iterator[Run]:
        """The segment's postings of the words, see `View.gather`."""
        present = self["posting_words"]
        if not len(words) or not len(present):
            return
        at = np.searchsorted(present, words)
        at[at == len(present)] = 0
        rows = np.flatnonzero(present[at] == words)
        starts = self["posting_starts"]
        first, lengths = starts[at[rows]], starts[at[rows] + 1] - starts[at[rows]]
        ends = np.cumsum(lengths)
        images, payload = self["images"], {key: self[PAYLOAD + key] for key in keys}
        start = 0
        while start < len(rows):
            before = int(ends[start - 1]) if start else 0
            stop = max(int(np.searchsorted(ends, before + POSTINGS_AT_ONCE, side="right")), start + 1)
            count = lengths[start:stop]
            where = np.repeat(first[start:stop] - (ends[start:stop] - count) + before, count)
            where += np.arange(len(where))
            yield Run(
                np.repeat(rows[start:stop], count),
                images.take(where).astype(np.int64) + self.base,
                # Not array[where]: for rows of several elements that is fifteen times slower.
                {key: array.take(where, axis=0) for key, array in payload.items()},
            )
            start = stop
