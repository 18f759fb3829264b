"""A folder of photos becomes one features file: decoding runs ahead of the networks, and a second run goes on."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ..devices import release_memory
from ..errors import DataError, ImageError, OptionError, StoreError
from ..features import Features
from ..images import list_images
from ..images.loading import Loaded, still_same
from ..images.workers import DecodeWorkers
from ..store import PRECISIONS, FeatureReader, FeatureWriter, Shard, check_name, kept_as
from .ahead import Ahead
from .progress import progress_bar
from .side_by_side import Budget, side_by_side

if TYPE_CHECKING:
    from ..extractor import FeatureExtractor
    from .crew import Crew

log = logging.getLogger(__name__)
Batch: TypeAlias = list[tuple[str, Loaded]]
Described: TypeAlias = tuple[str, Features, str]
"""An image's name, its features, and the stamp of the photo they are of."""

# Images that go through the networks of a GPU together, and a bound on their pixels: memory follows the pixels.
BATCH_IMAGES = 4
BATCH_PIXELS = 8_000_000
# On a processor each core has an image of its own, while all of them have so many pixels; a larger one is alone.
CORES_PIXELS = 24_000_000
# A write that outlives a power cut costs some 10 to 50 ms, so images share it: small ones more of them.
BUFFER = 16
BUFFER_BYTES = 8 << 20


@dataclass(frozen=True)
class ExtractSummary:
    """What `extract_folder` did.

    `images` were found, of these `extracted` now, `reused` from an earlier run and `skipped` with the reason; of a
    shard (`i/n`), those that are its own.
    """

    features: str
    images: int
    extracted: int
    reused: int
    keypoints: int
    seconds: float
    settings: dict[str, Any]
    shard: str = ""
    skipped: dict[str, str] = field(default_factory=dict)


def extract_folder(
    folder: str | Path,
    output: str | Path,
    extractor: FeatureExtractor,
    *,
    names: Sequence[str] | None = None,
    masks: str | Path | None = None,
    max_size: int | None = 1600,
    store: str | None = None,
    workers: int | None = None,
    shard: Shard | None = None,
    crew: Crew | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> ExtractSummary:
    """Extract the features of every image of a folder into one HDF5 file.

    Images that the file already holds whole, from the same settings and the same photo, are kept; those whose photo (or
    mask) was replaced are done again; those that cannot be read are skipped and named in the summary. Interrupted at
    any moment, the file stays readable and the next run goes on. Memory is bounded: so many pixels are decoded at once
    (`images.workers`), a few decoded images wait, and a batch, or an image a core within so many pixels, is in work.

    Args:
        folder: of the images, subfolders included.
        output: features file to write or to go on with; its folder exists.
        extractor: what to extract with.
        names: only these images, relative to the folder; all of them if None.
        masks: folder of masks, `NAME.png` for image `NAME` (COLMAP's way); 0 means "no keypoints here".
        max_size: images are shrunk to this many pixels on the longer side; coordinates are those of the file all the
            same. None: as they are.
        store: what descriptors are kept as, `float16` or `float32`; None: as the file has them, float16 in a new one.
        workers: processes that decode; as many as fit the processor if None.
        shard: only the images of this part of the work, in a file of its own; see `join_files`.
        crew: workers of a Ray cluster, which extract while this process writes. They find the folder, and weights
            that are not bundled, at the same paths.
        overwrite: start anew instead of going on, whatever settings made the file.
        quiet: no progress bar.

    Raises:
        OptionError: the folder has no images, the masks folder is missing, or a number cannot work.
        StoreError: the file was made with other settings, is of another shard, or cannot be written.
        ClusterError: the crew's cluster is gone, or its workers cannot work.
    """
    folder, started = Path(folder), time.perf_counter()
    if max_size is not None and max_size < 16:
        raise OptionError(f"max size must be 16 pixels or more, got {max_size}")
    if store not in (None, *PRECISIONS):
        raise OptionError(f"descriptors are stored as {' or '.join(PRECISIONS)}, got {store!r}")
    if workers is not None and workers < 1:
        raise OptionError(f"workers must be 1 or more, got {workers}")
    if masks is not None and not Path(masks).is_dir():
        raise OptionError(f"{masks}: no such folder of masks")
    found = list(names) if names is not None else list_images(folder)
    if not found:
        raise OptionError(f"{folder}: no images found in it")
    if shard is not None:
        found = [name for name in found if shard.takes(name)]
    store = store or (PRECISIONS[0] if overwrite else _stored(output))
    settings = {**extractor.settings, "max_size": max_size, "masks": masks is not None}
    if store != "float32":  # which is what files without it hold
        settings["store"] = store

    skipped = {name: reason for name in found if (reason := _unfit(name))}
    keypoints = extracted = 0
    with FeatureWriter(output, settings, overwrite=overwrite, buffer=BUFFER, buffer_bytes=BUFFER_BYTES) as writer:
        writer.begin(shard)
        stamps = writer.sources()
        done = {name for name in found if name in stamps and still_same(stamps[name], folder, name, masks)}
        replaced = sum(name in stamps for name in found) - len(done)
        if replaced:
            log.info("%d images in %s are of photos or masks that changed since: doing them again", replaced, output)
        reused = len(done)
        todo = [name for name in found if name not in done and name not in skipped]
        if reused:
            log.info("%d of %d images are in %s already", reused, len(found), output)
        if crew is None:
            threads = workers or min(4, os.cpu_count() or 1)
            results = described(extractor, todo, folder, masks, max_size, store, threads, skipped)
        else:
            from .cluster_extract import described_by

            results = described_by(crew, extractor.settings, todo, folder, masks, max_size, store, skipped)
        with progress_bar("extracting", len(found), "image", done=reused, quiet=quiet) as bar, closing(results):
            for batch in results:
                for name, features, stamp in batch:
                    writer.write(name, features, stamp)
                    keypoints += len(features)
                    extracted += 1
                bar.update(reused + extracted + len(skipped) - bar.n)
            bar.update(len(found) - bar.n)
        if shard is not None:
            writer.end(len(skipped))
    release_memory()  # what was freed since the last image: its features, the file's pages, the threads that decoded
    for name, reason in skipped.items():
        log.warning("skipped %s: %s", name, reason)
    return ExtractSummary(
        features=str(output),
        images=len(found),
        extracted=extracted,
        reused=reused,
        keypoints=keypoints,
        seconds=round(time.perf_counter() - started, 3),
        settings=settings,
        shard="" if shard is None else str(shard),
        skipped={name: skipped[name] for name in found if name in skipped},
    )


def described(
    extractor: FeatureExtractor,
    names: Sequence[str],
    folder: Path,
    masks: str | Path | None,
    max_size: int | None,
    store: str,
    threads: int,
    skipped: dict[str, str],
) -> Generator[list[Described], None, None]:
    """Every image that can be read, batch by batch; `skipped` takes the reasons of the others."""
    with (
        DecodeWorkers(folder, masks, max_size) as decoders,
        Ahead(decoders.load, names, threads, threads + BATCH_IMAGES) as loaded,
    ):
        for batch, outcome in _extracted(extractor, loaded, folder, skipped):
            stamps = {name: item.stamp for name, item in batch}
            yield [(name, kept_as(features, store), stamps[name]) for name, features in outcome.result()]


def _extracted(
    extractor: FeatureExtractor,
    loaded: Iterator[tuple[str, Future[Loaded]]],
    folder: Path,
    skipped: dict[str, str],
) -> Iterator[tuple[Batch, Future[list[tuple[str, Features]]]]]:
    """Batches and what came of them, in order: one batch after the other on a GPU, an image a core on a processor."""
    budget = Budget(CORES_PIXELS)

    def extract(batch: Batch) -> list[tuple[str, Features]]:
        with budget.hold(sum(_pixels(item) for _, item in batch)):
            done = list(_extract(extractor, batch, folder, skipped))
            release_memory()
            return done

    release_memory()  # what making the networks took
    images = 1 if extractor.device.type == "cpu" else BATCH_IMAGES
    work = ((None, batch) for batch in _batches(loaded, folder, skipped, images))
    for _, batch, outcome in side_by_side(extract, work, extractor.device, ahead=1):
        yield batch, outcome


def _pixels(item: Loaded) -> int:
    height, width = item.picture.pixels.shape[:2]
    return int(height * width)


def _batches(
    loaded: Iterator[tuple[str, Future[Loaded]]], folder: Path, skipped: dict[str, str], images: int
) -> Iterator[Batch]:
    batch: Batch = []
    pixels = 0
    for name, future in loaded:
        try:
            item = future.result()
        except (ImageError, OSError, MemoryError) as error:
            skipped[name] = _reason(error, folder / name)
            continue
        if batch and pixels + _pixels(item) > BATCH_PIXELS:
            yield batch
            batch, pixels = [], 0
        batch.append((name, item))
        pixels += _pixels(item)
        if len(batch) == images:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def _extract(
    extractor: FeatureExtractor, batch: Batch, folder: Path, skipped: dict[str, str]
) -> Iterator[tuple[str, Features]]:
    """Features of a batch in the coordinates of the files; an image that breaks the batch is found and skipped."""
    try:
        results = extractor.extract_batch([item.picture.pixels for _, item in batch], [item.mask for _, item in batch])
    except (DataError, ImageError) as error:
        if len(batch) == 1:
            skipped[batch[0][0]] = _reason(error, folder / batch[0][0])
            return
        for single in batch:
            yield from _extract(extractor, [single], folder, skipped)
        return
    for (name, item), features in zip(batch, results, strict=True):
        lafs = item.picture.to_original(features.lafs)
        yield name, Features(lafs, features.scores, features.descriptors, item.picture.size, features.meta)


def _stored(output: str | Path) -> str:
    """What the descriptors of a file of ours are kept as; of a new one float16. What is wrong with it, its writer
    says."""
    try:
        with FeatureReader(output) as reader:
            return str(reader.settings.get("store", "float32"))
    except StoreError:
        return PRECISIONS[0]


def _unfit(name: str) -> str | None:
    """Why an image cannot be filed under its name, if so."""
    try:
        check_name(name)
    except StoreError as error:
        return str(error)
    return None


def _reason(error: BaseException, path: Path) -> str:
    """The error's text on one line, without the path: the summary names the image anyway."""
    if isinstance(error, MemoryError):
        return "too large for the memory"
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removeprefix(f"{path}: ")
