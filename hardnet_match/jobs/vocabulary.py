"""The codebook of an index: trained on a fair sample of a features file, or taken from where it is."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError, StoreError
from ..retrieval.codebook import Codebook
from ..store import FeatureReader
from .progress import progress_bar

log = logging.getLogger(__name__)

TRAIN = "train"
# k-means learns little from more; 65,536 words of 128 numbers then need 1 GB.
SAMPLE_PER_WORD = 32
# With fewer a word is hardly more than one descriptor, and two images seldom share it.
LEAST_PER_WORD = 4
# What a method learns beside the words (medians of projections) from, where the words need no training.
SAMPLE = 1 << 18


@dataclass(frozen=True)
class Sample:
    """Descriptors drawn from a file: (M, D) float32, of how many there are, in how many images."""

    descriptors: NDArray[np.float32]
    total: int
    images: int


def fitting_words(asked: int, descriptors: int) -> int:
    """The number of words to train: as asked, or a power of two that so many descriptors can fill.

    Raises:
        OptionError: fewer than one was asked for.
    """
    if asked < 1:
        raise OptionError(f"a codebook needs at least one word, got {asked}")
    if asked * LEAST_PER_WORD <= descriptors:
        return asked
    return 1 << max(0, (descriptors // LEAST_PER_WORD).bit_length() - 1)


def draw_sample(
    reader: FeatureReader, names: Sequence[str], most: int, *, seed: int = 0, quiet: bool = False
) -> Sample:
    """At most so many descriptors, from every image its share.

    Raises:
        StoreError: the images have no descriptors, or not all of one dimension.
    """
    shapes = [reader.descriptor_shape(name) for name in names]
    counts = np.array([count for count, _, _ in shapes], dtype=np.int64)
    total = int(counts.sum())
    if not total:
        raise StoreError(f"{reader.path}: {len(names)} image(s) and not one feature in them: there is nothing to index")
    dims = {dim for count, dim, _ in shapes if count}
    if len(dims) > 1:
        raise StoreError(f"{reader.path}: descriptors of several dimensions: {', '.join(map(str, sorted(dims)))}")
    kept = min(most, total)
    ends = np.cumsum(counts) * kept // total
    shares = np.diff(ends, prepend=0)
    rng = np.random.default_rng(seed)
    sample = np.empty((kept, dims.pop()), dtype=np.float32)
    with progress_bar("sampling", len(names), "image", quiet=quiet) as bar:
        for name, count, share, end in zip(names, counts, shares, ends, strict=True):
            if share:
                rows = np.sort(rng.choice(count, share, replace=False))
                sample[end - share : end] = reader.descriptors(name)[rows]
            bar.update()
    return Sample(sample, total, int((counts > 0).sum()))


def train_codebook(
    reader: FeatureReader,
    names: Sequence[str],
    words: int,
    *,
    per_word: int = SAMPLE_PER_WORD,
    iterations: int = 20,
    seed: int = 0,
    quiet: bool = False,
) -> tuple[Codebook, Sample]:
    """Train visual words on a features file.

    Fewer than asked for where there are fewer than `LEAST_PER_WORD` descriptors a word; a warning says so.

    Args:
        names: the images to learn from.
        per_word: descriptors drawn for each word at most.

    Raises:
        OptionError: a number cannot work, or faiss is not installed.
        StoreError: there are no descriptors.
    """
    if per_word < LEAST_PER_WORD:
        raise OptionError(f"k-means needs at least {LEAST_PER_WORD} descriptors a word, got {per_word}")
    sample = draw_sample(reader, names, max(words, 1) * per_word, seed=seed, quiet=quiet)
    trained = fitting_words(words, sample.total)
    if trained < words:
        log.warning(
            "%d words need %d descriptors or more, there are %d: training %d words",
            words, words * LEAST_PER_WORD, sample.total, trained,
        )  # fmt: skip
    chosen = sample.descriptors[: trained * per_word]
    if len(chosen) < len(sample.descriptors):
        rows = np.random.default_rng(seed).choice(len(sample.descriptors), len(chosen), replace=False)
        chosen = sample.descriptors[np.sort(rows)]
    log.info("training %d words on %d of %d descriptors", trained, len(chosen), sample.total)
    codebook = Codebook.train(chosen, trained, seed=seed, iterations=iterations, settings=reader.settings)
    codebook.about |= {"features": reader.path.name, "images": sample.images, "descriptors": sample.total}
    return codebook, sample


def load_codebook(place: str | Path) -> Codebook:
    """A codebook from its folder, or out of an index.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    folder = Path(place)
    inside = folder / "codebook"
    return Codebook.load(inside if (inside / "codebook.json").is_file() else folder)


def described(codebook: Codebook) -> dict[str, Any]:
    """Facts about a codebook for a summary."""
    kept = ("features", "images", "descriptors", "sample", "seed", "iterations", "error")
    about = {key: codebook.about[key] for key in kept if key in codebook.about}
    return {"words": len(codebook), "dimension": codebook.dim, "hash": codebook.hash, **about}
