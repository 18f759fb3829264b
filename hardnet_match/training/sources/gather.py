"""A source's pieces to a patch set: in memory, or through a spool into a file of any size."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, ImageError, StoreError
from ...store.hdf5 import acquire, canonical, differences, release
from .. import patchfile
from ..patchset import PatchSet
from .base import Columns, Source
from .spool import Spool

Skipped = dict[str, str]
"""Pieces that could not be read, and why."""


def gather(source: Source) -> PatchSet:
    """The whole set in memory.

    Raises:
        DataError: the source is no such thing, or there is nothing in it to learn from.
        ImageError: one of its images cannot be read.
    """
    pieces = [source.read(key) for key in source.pieces()]
    pieces = [piece for piece in pieces if len(piece)]
    if not pieces:
        raise DataError(f"{source.name} holds nothing to learn from")
    columns = {key: np.concatenate([piece.columns[key] for piece in pieces]) for key in pieces[0].columns}
    patches = np.concatenate([piece.patches for piece in pieces])
    collisions = [piece.collisions for piece in pieces if piece.collisions is not None]
    rows, matches = _chosen(source, columns, lambda rows: patches[rows])
    return PatchSet(
        patches[rows],
        **{key: values[rows] for key, values in columns.items()},
        margin=source.margin,
        name=source.name,
        matches=matches,
        collisions=np.unique(np.concatenate(collisions), axis=0) if collisions else None,
    )


def gather_to_file(
    source: Source,
    path: Path,
    *,
    overwrite: bool = False,
    began: Callable[[int, int], Any] = lambda total, done: None,
    advanced: Callable[[], Any] = lambda: None,
) -> tuple[PatchSet, Skipped, bool]:
    """The set as a file, however large; it appears when it is complete.

    Killed at any moment, the next call with the same source goes on with the pieces that are still missing.

    Args:
        source: what to read.
        path: the HDF5 file.
        overwrite: replace what is there, and start anew rather than go on.
        began: called with the number of pieces, and how many of them an earlier call has read.
        advanced: called after each piece.

    Returns:
        The set, mapped; the pieces that could not be read; and whether the file was there already.

    Raises:
        DataError: the source is no such thing, or there is nothing in it to learn from.
        StoreError: the file holds something else, another process is at it, or it cannot be written.
    """
    lock = acquire(path)
    try:
        if path.exists() and not overwrite:
            _check_same(path, source.settings())
            return PatchSet.load(path), {}, True
        folder = path.with_name(path.name + ".pieces")
        if overwrite:
            shutil.rmtree(folder, ignore_errors=True)
        try:
            spool = Spool(folder, source)
            try:
                _read_into(spool, source, began, advanced)
            finally:
                spool.close()
        except OSError as error:
            raise StoreError(
                f"{path}: cannot write what is read: {error.strerror or error}; the same command goes on from there"
            ) from error
        skipped = {key: reason for key, reason in spool.done.items() if reason is not None}
        if not len(spool):
            spool.remove()
            reasons = f" ({len(skipped)} unreadable, the first: {next(iter(skipped.values()))})" if skipped else ""
            raise DataError(f"{source.name} holds nothing to learn from{reasons}")
        _write(source, spool, path)
        spool.remove()
        return PatchSet.load(path), skipped, False
    finally:
        release(lock)


def _read_into(spool: Spool, source: Source, began: Callable[[int, int], Any], advanced: Callable[[], Any]) -> None:
    keys = source.pieces()
    began(len(keys), len(spool.done))
    for key in keys:
        if key in spool.done:
            continue
        try:
            spool.add(key, source.read(key))
        except ImageError as error:
            spool.add(key, None, str(error))
        advanced()


def _check_same(path: Path, wanted: Mapping[str, Any]) -> None:
    try:
        found = patchfile.settings_of(path)
    except DataError as error:
        raise StoreError(f"{error}; name another output file, or overwrite it") from error
    if canonical(found) != canonical(wanted):
        raise StoreError(
            f"{path} holds patches of something else ({differences(found, wanted)}); name another output file, "
            "or overwrite it"
        )


def _write(source: Source, spool: Spool, path: Path) -> None:
    patches, columns = spool.patches(), spool.columns()
    rows, matches = _chosen(source, columns, lambda rows: patches[rows])
    patchfile.write(
        path,
        _blocks(patches, rows),
        {
            **{key: values[rows] for key, values in columns.items()},
            "matches": matches,
            "collisions": spool.collisions(),
        },
        side=source.side,
        margin=source.margin,
        name=source.name,
        settings=source.settings(),
    )


def _blocks(patches: NDArray[np.uint8], rows: NDArray[np.intp]) -> Iterator[NDArray[np.uint8]]:
    in_order = len(rows) == len(patches) and bool((rows == np.arange(len(rows))).all())
    return patchfile.blocks_of(patches, None if in_order else rows)


def _chosen(
    source: Source, columns: Columns, read: Callable[[NDArray[np.intp]], NDArray[np.uint8]]
) -> tuple[NDArray[np.intp], NDArray[np.int64] | None]:
    """Rows of the set in its order, as numbers of the order in which they came; and the test pairs in the set's."""
    order = np.lexsort((columns["image"], columns["track"])).astype(np.intp)
    keep = source.refine({key: values[order] for key, values in columns.items()}, lambda rows: read(order[rows]))
    rows = order if keep is None else order[keep]
    if not len(rows):
        raise DataError(f"{source.name}: of {len(order)} observations none is fit to learn from")
    matches = source.matches()
    if matches is not None:
        place = np.full(len(order), -1, np.int64)
        place[rows] = np.arange(len(rows))
        matches = np.c_[place[matches[:, :2]], matches[:, 2]]
        matches = matches[(matches[:, :2] >= 0).all(axis=1)]
    return rows, matches
