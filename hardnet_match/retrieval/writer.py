"""Images on their way into a segment."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from ..features import Features
from .codebook import Codebook
from .method import Batch, Method, Postings
from .segment import DIGEST_BYTES, Images

# Enough for the matrix products of the assignment to be large, little enough to stay in memory.
FEATURES_IN_BATCH = 1 << 15


def digest_bytes(digest: str) -> bytes:
    """A digest as an index keeps it: 16 bytes, zeros for none; of a text that is no 32 hexadecimal digits, its hash."""
    if not digest:
        return bytes(DIGEST_BYTES)
    with suppress(ValueError):
        if len(found := bytes.fromhex(digest)) == DIGEST_BYTES:
            return found
    return hashlib.sha256(digest.encode("utf-8", "surrogatepass")).digest()[:DIGEST_BYTES]


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
        self._digests: list[bytes] = []
        self._counts: list[int] = []
        self._done_images = 0
        self._words: list[NDArray[np.uint32]] = []
        self._lafs: list[NDArray[np.float32]] = []
        self._postings: list[Postings] = []

    def add(self, name: str, features: Features, digest: str = "") -> None:
        """Take an image in."""
        self.names[name] = len(features)
        self._digests.append(digest_bytes(digest))
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
            np.frombuffer(b"".join(self._digests), np.uint8).reshape(-1, DIGEST_BYTES),
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
