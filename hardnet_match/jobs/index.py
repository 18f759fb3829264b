"""A features file becomes an index, or joins one; a second run goes on where the first was stopped."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError, OptionError, StoreError
from ..retrieval.files import write_text
from ..retrieval.index import Index
from ..store import FeatureReader, check_name
from .progress import progress_bar
from .vocabulary import SAMPLE, TRAIN, described, draw_sample, load_codebook, train_codebook

log = logging.getLogger(__name__)

WORDS = 65536
METHOD = "asmk"
SOURCES = "sources.json"
# A killed run loses at most so many seconds of work; each commit costs a folder of files.
COMMIT_SECONDS = 20.0


@dataclass(frozen=True)
class IndexSummary:
    """What `index_features` did.

    `images` are in the index now, of these `added` now and `reused` from earlier; `replaced` of the added were there
    with other features, `bare` have none, so that no search finds them. `bytes` is the size of the whole folder,
    `bytes_per_image` that of the images in it, without the codebook. `skipped` could not be read.
    """

    index: str
    method: str
    images: int
    added: int
    reused: int
    replaced: int
    bare: int
    features: int
    codebook: dict[str, Any]
    bytes: int
    bytes_per_image: int
    seconds: dict[str, float]
    settings: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sources:
    """Where the images of an index came from: features files, and the folder of photos if it is known."""

    features: tuple[Path, ...] = ()
    images: Path | None = None


def index_features(
    features: str | Path,
    output: str | Path,
    *,
    codebook: str | Path | None = None,
    words: int | None = None,
    method: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    images: str | Path | None = None,
    iterations: int = 20,
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> IndexSummary:
    """Put the images of a features file into an index, made if there is none.

    Images that the index already holds are left as they are if their features are the same, else replaced.
    Interrupted at any moment, the index stays whole and the next run goes on.

    Args:
        features: features file.
        output: folder of the index.
        codebook: `train`, or the folder of a codebook or of an index whose words to take; training if None.
        words: visual words to train, 65,536 if None; fewer where the file cannot fill them.
        method: `asmk`, `bow` or `hqe`; ASMK if None.
        parameters: of the method.
        images: folder of the photos, remembered for the pages of searches.
        iterations, seed: of k-means.
        overwrite: start anew instead of going on.

    Raises:
        OptionError: an option cannot work, or contradicts the index that is there.
        StoreError: a file is missing, damaged, empty, or made with other settings than the index.
    """
    output = Path(output)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    with FeatureReader(features) as reader:
        names = reader.names()
        if not names:
            raise StoreError(f"{features}: no images in it, there is nothing to index; extract some first")
        if (output / "manifest.json").is_file() and not overwrite:
            index = Index.open(output)
            _check(index, codebook, words, method, parameters)
            index.check_settings(reader.settings, str(features))
        else:
            index = _create(
                reader, names, output, codebook or TRAIN, words or WORDS, method or METHOD, dict(parameters or {}),
                iterations, seed, overwrite, quiet,
            )  # fmt: skip
            seconds["codebook"] = round(time.perf_counter() - started, 3)
        with index:
            started = time.perf_counter()
            _remember(output, Path(features), Path(images) if images else None)
            stale = index.changed({name: reader.digest(name) for name in names if name in index})
            if stale:
                log.info("%d images in %s are of features that changed since: indexing them again", len(stale), output)
                index.remove(stale)
            reused = sum(name in index for name in names)
            if reused:
                log.info("%d of %d images are in %s already", reused, len(names), output)
            skipped, bare, count = _add(index, reader, [name for name in names if name not in index], quiet)
            index.flush()
            total, settings, words_now = len(index), index.settings, described(index.codebook)
            seconds["add"] = round(time.perf_counter() - started, 3)
        kind = index.method
    size, own = _bytes(output)
    return IndexSummary(
        index=str(output),
        method=kind,
        images=total,
        added=len(names) - reused - len(skipped),
        reused=reused,
        replaced=len(stale),
        bare=bare,
        features=count,
        codebook=words_now,
        bytes=size,
        bytes_per_image=own // max(1, total),
        seconds=seconds,
        settings=settings,
        skipped=skipped,
    )


def _create(
    reader: FeatureReader,
    names: list[str],
    output: Path,
    codebook: str | Path,
    words: int,
    method: str,
    parameters: dict[str, Any],
    iterations: int,
    seed: int,
    overwrite: bool,
    quiet: bool,
) -> Index:
    from ..retrieval.method import complete, method_class

    complete(method_class(method), parameters)  # a wrong name is told before minutes of training, not after
    if str(codebook) == TRAIN:
        made, sample = train_codebook(reader, names, words, iterations=iterations, seed=seed, quiet=quiet)
        learned = sample.descriptors
    else:
        made = load_codebook(codebook)
        made.check_settings(reader.settings, str(reader.path))
        learned = draw_sample(reader, names, SAMPLE, seed=seed, quiet=quiet).descriptors
        if learned.shape[1] != made.dim:
            raise StoreError(
                f"{reader.path}: descriptors of dimension {learned.shape[1]}, those of the codebook {codebook} have "
                f"{made.dim}: it was trained on other features"
            )
    if overwrite and (output / "manifest.json").is_file():
        (output / SOURCES).unlink(missing_ok=True)
    return Index.create(output, made, method, reader.settings, sample=learned, overwrite=overwrite, **parameters)


def _check(
    index: Index,
    codebook: str | Path | None,
    words: int | None,
    method: str | None,
    parameters: Mapping[str, Any] | None,
) -> None:
    """Refuse what cannot be changed in an index that is there."""
    way_out = "leave the option out to add to it, name another folder, or --overwrite it"
    if method is not None and method != index.method:
        raise OptionError(f"{index.folder} is an index for {index.method}, not for {method}; {way_out}")
    for key, value in (parameters or {}).items():
        if index.scorer.parameters.get(key) != value:
            raise OptionError(
                f"{index.folder} was made with {key} = {index.scorer.parameters.get(key)!r}, not {value!r}; {way_out}"
            )
    if codebook is not None and str(codebook) != TRAIN and load_codebook(codebook).hash != index.codebook.hash:
        raise OptionError(f"{index.folder} has another codebook than {codebook}; {way_out}")
    if words is not None and words != len(index.codebook):
        log.warning("%s has %d words and keeps them; %d were asked for", index.folder, len(index.codebook), words)


def _add(index: Index, reader: FeatureReader, todo: list[str], quiet: bool) -> tuple[dict[str, str], int, int]:
    skipped: dict[str, str] = {}
    bare = count = 0
    last = time.monotonic()
    with progress_bar("indexing", len(todo), "image", quiet=quiet) as bar:
        for name in todo:
            try:
                features = reader.read(check_name(name))
            except StoreError as error:
                skipped[name] = " ".join(str(error).split())
            else:
                try:
                    index.add(name, features, reader.digest(name))
                    bare += not len(features)
                    count += len(features)
                except DataError as error:
                    skipped[name] = " ".join(str(error).split())
            if name in skipped:
                log.warning("skipped %s: %s", name, skipped[name])
            if time.monotonic() - last > COMMIT_SECONDS:
                index.flush()
                last = time.monotonic()
            bar.update()
    return skipped, bare, count


def _bytes(folder: Path) -> tuple[int, int]:
    """Bytes of the folder, and of what grows with the images."""
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    grown = sum(size for path, size in sizes.items() if path.parts[0] == "segments" or path.name.startswith("norms"))
    return sum(sizes.values()), grown


def _remember(output: Path, features: Path, images: Path | None) -> None:
    known = read_sources(output)
    files = [*(path for path in known.features if path != features.resolve()), features.resolve()]
    folder = images.resolve() if images else known.images
    record = {"features": [str(path) for path in files], "images": str(folder) if folder else None}
    write_text(output / SOURCES, json.dumps(record, indent=1, ensure_ascii=False))


def read_sources(index: str | Path) -> Sources:
    """Where the images of an index came from; nothing if nobody wrote it down."""
    try:
        record = json.loads((Path(index) / SOURCES).read_text(encoding="utf-8"))
        images = record["images"]
        return Sources(tuple(Path(path) for path in record["features"]), Path(images) if images else None)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return Sources()
