"""An index as one manifest describes it: all there is to read of it, nothing of it ever changes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, StoreError
from .files import checked_size, map_array
from .manifest import Manifest
from .method import Method, Postings, Run
from .segment import Segment


@dataclass(frozen=True, eq=False)
class Geometry:
    """Features of several images, one image after the other.

    Args:
        lafs: (T, 2, 3) float32, pixels of the image files.
        words: (T,) uint32, nearest word of each.
        offsets: (C + 1,) int64, image c has the rows `offsets[c]:offsets[c + 1]`.
    """

    lafs: NDArray[np.float32]
    words: NDArray[np.uint32]
    offsets: NDArray[np.int64]


class Snapshot:
    """The segments of a manifest; a `View` for the method.

    Args:
        earlier: a snapshot whose open segments are used again.

    Raises:
        StoreError: a file is missing, or of another size than when it was written.
    """

    def __init__(self, folder: Path, manifest: Manifest, method: Method, earlier: Snapshot | None = None) -> None:
        self.folder, self.method = folder, method
        known = {segment.path.name: segment for segment in earlier.segments} if earlier else {}
        self.segments: list[Segment] = []
        base = 0
        for entry in manifest.segments:
            segment = known.get(entry["file"])
            if segment is None or segment.base != base:
                segment = Segment(folder / "segments" / entry["file"], entry, base)
            self.segments.append(segment)
            base += segment.n_images
        self._n_images = base
        self._stored_norms: Path | None = None
        if manifest.norms:
            self._stored_norms = folder / manifest.norms["file"]
            checked_size(self._stored_norms, manifest.norms["bytes"])

    @property
    def n_images(self) -> int:
        """Images, those without features among them."""
        return self._n_images

    @cached_property
    def names(self) -> list[str]:
        """Names of the images, in the order they were added."""
        return [name for segment in self.segments for name in segment.names]

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each image by its name."""
        return {name: number for number, name in enumerate(self.names)}

    def digest(self, image: int) -> bytes:
        """16 bytes of an image's features as they were in their file; zeros where nobody wrote them down."""
        segment, row = self._place(int(self.checked([image])[0]))
        return bytes(segment.digests[row])

    @cached_property
    def document_frequency(self) -> NDArray[np.int64]:
        """(K,) int64, in how many images each word occurs."""
        frequency = np.zeros(len(self.method.codebook), dtype=np.int64)
        for segment in self.segments:
            frequency[segment["posting_words"]] += segment["posting_images"]
        return frequency

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """(n_images,) float64: the method's, read where the writer has left them, else computed now."""
        if self._stored_norms is None:
            return self.method.image_norms(self)
        norms: NDArray[np.float64] = map_array(self._stored_norms)
        if norms.shape != (self._n_images,):
            raise StoreError(f"{self._stored_norms}: {norms.shape} instead of ({self._n_images},)")
        return norms

    def gather(self, words: NDArray[np.uint32], keys: Sequence[str] = ()) -> Iterator[Run]:
        """The postings of words, see `View.gather`."""
        for segment in self.segments:
            yield from segment.gather(words, keys)

    def checked(self, images: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
        """Image numbers as an array.

        Raises:
            DataError: one is not in the index.
        """
        numbers = np.asarray(images, dtype=np.int64).reshape(-1)
        if len(numbers) and not (numbers.min() >= 0 and numbers.max() < self._n_images):
            raise DataError(f"image numbers are 0..{self._n_images - 1}, got {numbers.min()}..{numbers.max()}")
        return numbers

    def _place(self, image: int) -> tuple[Segment, int]:
        bases = [segment.base for segment in self.segments]
        segment = self.segments[int(np.searchsorted(bases, image, side="right")) - 1]
        # Segments without images share their base with the one that follows.
        return segment, image - segment.base

    def image_size(self, image: int) -> tuple[int, int]:
        """(width, height) of an image file in pixels."""
        segment, row = self._place(int(self.checked([image])[0]))
        width, height = segment["image_sizes"][row].tolist()
        return width, height

    def one(self, image: int) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """Frames (N, 2, 3) and nearest words (N,) of an image, memory-mapped."""
        segment, row = self._place(int(image))
        start, end = segment["offsets"][row : row + 2].tolist()
        return segment["lafs"][start:end], segment["words"][start:end]

    def geometry(self, images: Sequence[int] | NDArray[np.int64]) -> Geometry:
        """Frames and words of several images, in the order asked for."""
        parts = [self.one(image) for image in self.checked(images).tolist()]
        offsets = np.zeros(len(parts) + 1, dtype=np.int64)
        np.cumsum([len(words) for _, words in parts], out=offsets[1:])
        if not parts:
            return Geometry(np.empty((0, 2, 3), np.float32), np.empty(0, np.uint32), offsets)
        return Geometry(
            np.concatenate([lafs for lafs, _ in parts]), np.concatenate([words for _, words in parts]), offsets
        )

    def postings_of(self, images: Sequence[int] | NDArray[np.int64], keys: Sequence[str] | None = None) -> Postings:
        """All postings of some images, by word and then by image number.

        Args:
            keys: payload arrays to read; all of the method if None.
        """
        wanted = np.unique(self.checked(images))
        names = list(self.method.payload) if keys is None else list(keys)
        words = np.unique(self.geometry(wanted).words)
        chosen = np.zeros(self._n_images, dtype=bool)
        chosen[wanted] = True
        found: list[tuple[NDArray[np.uint32], Run]] = []
        for run in self.gather(words, names):
            kept = chosen[run.images]
            part = Run(run.rows[kept], run.images[kept], {key: run.payload[key][kept] for key in names})
            found.append((words[part.rows], part))
        if not found:
            empty = {key: np.empty((0, *shape), dtype) for key, (dtype, shape) in self.method.payload.items()}
            return Postings(words[:0], np.empty(0, np.int64), {key: empty[key] for key in names})
        of_word = np.concatenate([part for part, _ in found])
        order = np.argsort(of_word, kind="stable")
        return Postings(
            of_word[order],
            np.concatenate([run.images for _, run in found])[order],
            {key: np.concatenate([run.payload[key] for _, run in found])[order] for key in names},
        )
