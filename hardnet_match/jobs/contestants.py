"""Who takes part in a comparison: our presets, peers, and files of anybody's features; all on the same pixels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmark.peers import make_peer
from ..descriptors import DESCRIPTORS
from ..errors import OptionError, StoreError
from ..extractor import FeatureExtractor
from ..features import Features
from ..presets import compose
from ..store import FeatureReader, FeatureWriter
from .extract import extract_folder
from .stages import fingerprint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contest:
    """The options that say who takes part, and on what terms.

    Args:
        presets, peers: names as in `presets.PRESETS` and `benchmark.peers.PEERS`.
        files: label to a features file in hloc's layout, whose images are named relative to the photos' folder.
        keypoints: features of an image at most, the best by each one's own score.
        max_size: longer side that images are shrunk to; None as they are. Coordinates are the file's all the same.
        weights: the descriptor's, for every preset that has a learned one; `detector_weights` likewise, of Key.Net,
            also kornia's; `shape_weights` and `orientation_weights` likewise.
        orientation: instead of the presets' own.
        device: for the presets.
    """

    presets: Sequence[str] = ("hesaffnet-hardnet",)
    peers: Sequence[str] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    keypoints: int = 2048
    max_size: int | None = None
    weights: str | None = None
    detector_weights: str | None = None
    shape_weights: str | None = None
    orientation: str | None = None
    orientation_weights: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Contestant:
    """One of them: its label, and how to file its features."""

    label: str
    source: Any  # what has `settings` and `extract_batch`, or the path of a features file


def contestants(options: Contest) -> list[Contestant]:
    """All that take part, ours first.

    Raises:
        OptionError: an unknown name, a label twice, nobody at all, or a number that cannot work.
        WeightsError: weights that cannot be read.
    """
    if options.keypoints < 1 or (options.max_size is not None and options.max_size < 16):
        raise OptionError("keypoints must be 1 or more, and max size 16 pixels or more")
    found = [Contestant(name, _preset(name, options)) for name in options.presets]
    found += [Contestant(name, make_peer(name, options.keypoints, options.detector_weights)) for name in options.peers]
    for label, path in options.files.items():
        if not Path(path).is_file():
            raise OptionError(f"{path}: no such features file")
        found.append(Contestant(label, Path(path)))
    labels = [one.label for one in found]
    if not found or len(set(labels)) < len(labels):
        raise OptionError(f"a comparison takes one or more, each once; got {', '.join(labels) or 'nobody'}")
    unfit = [label for label in labels if not label or any(mark in label for mark in "/\\\0") or label[0] == "."]
    if unfit:
        raise OptionError(f"{unfit[0]!r} names files and rows of tables: take one without slashes or a leading dot")
    return found


def _preset(name: str, options: Contest) -> FeatureExtractor:
    parts = compose(name, orientation=options.orientation)
    # One of another package is not in the registry, and may well have weights.
    learned = parts.descriptor not in DESCRIPTORS or DESCRIPTORS[parts.descriptor][1] is not None
    return FeatureExtractor.from_preset(
        name,
        orientation=options.orientation,
        max_keypoints=options.keypoints,
        weights=options.weights if learned else None,
        detector_weights=options.detector_weights if parts.detector == "keynet" else None,
        shape_weights=options.shape_weights if parts.shape == "affnet" else None,
        orientation_weights=options.orientation_weights if parts.orientation == "orinet" else None,
        device=options.device,
    )


def file_features(
    one: Contestant, photos: Path, names: Sequence[str], output: Path, options: Contest, quiet: bool
) -> dict[str, str]:
    """See that a contestant's features of some photos are on file; those of unchanged photos are kept.

    Args:
        output: features file. One that was made with other settings or weights is begun anew.

    Returns:
        Images that could not be read, with the reason.

    Raises:
        StoreError: a features file lacks an image, or is damaged.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(one.source, Path):
        _copy(one.source, names, output, options.keypoints)
        return {}
    settings = {**one.source.settings, "max_size": options.max_size, "masks": False}
    log.info("%s: features of %d images", one.label, len(names))
    return extract_folder(
        photos,
        output,
        one.source,
        names=names,
        max_size=options.max_size,
        store="float32",
        overwrite=_is_other(output, settings),
        quiet=quiet,
    ).skipped


def state_of(photos: Path, names: Sequence[str]) -> str:
    """Fingerprint of photos' sizes and times: figures of photos that changed are not taken for theirs."""
    there = [(name, (photos / name).stat()) for name in names if (photos / name).is_file()]
    return fingerprint([(name, status.st_size, status.st_mtime_ns) for name, status in there])


def _is_other(output: Path, settings: Mapping[str, Any]) -> bool:
    if not output.is_file():
        return False
    try:
        with FeatureReader(output) as reader:
            return bool(reader.settings != settings)
    except StoreError:
        return True


def _copy(source: Path, names: Sequence[str], output: Path, count: int) -> None:
    """The best features of some images out of a file."""
    status = source.stat()
    settings = {"file": str(source.resolve()), "bytes": status.st_size, "time": status.st_mtime_ns, "keypoints": count}
    with (
        FeatureReader(source) as reader,
        FeatureWriter(output, settings, overwrite=_is_other(output, settings), buffer=8) as writer,
    ):
        done = writer.names_done()
        for name in names:
            if name not in done:
                writer.write(name, best(reader.read(name), count))


def best(features: Features, count: int) -> Features:
    """The features of the highest scores, in the order they had; all where there are no more."""
    if len(features) <= count:
        return features
    return features.select(np.sort(np.argsort(-features.scores, kind="stable")[:count]))


def measured(
    found: Sequence[Contestant],
    photos: Path,
    names: Sequence[str],
    work: Path,
    options: Contest,
    quiet: bool,
    measure: Callable[[Contestant, Path], Any],
) -> tuple[list[Any], dict[str, str]]:
    """Features of every contestant and what is measured on them, one contestant after the other.

    Returns:
        What `measure` gave for each, and the images that could not be read.
    """
    results, skipped = [], {}
    for one in found:
        path = work / "features" / f"{one.label}.h5"
        skipped.update(file_features(one, photos, names, path, options, quiet))
        results.append(measure(one, path))
    return results, skipped
