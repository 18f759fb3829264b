"""The index: a folder of memory-mapped segments, added to without rebuilding, whole whenever it is looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, HardnetMatchError, OptionError, StoreError
from ..features import Features
from .codebook import Codebook, differing
from .files import checked_size, map_array, write_array
from .manifest import NAME, Manifest, segment_path, sweep
from .merging import merged, to_merge
from .method import Method, Postings, complete, method_class
from .query import Query
from .ranking import Ranking, best_first
from .removal import without
from .segment import arrays_of, write_segment
from .snapshot import Geometry, Snapshot
from .writer import Buffer, digest_bytes

# A commit costs some milliseconds and a folder; killed, a writer loses at most so many features' work.
FEATURES_AT_ONCE = 1 << 21
OWN = {"codebook", "method", "segments", NAME, NAME + ".part", NAME + ".lock"}


class Index:
    """Images by their visual words. `Index.create` or `Index.open`; a context manager.

    Images that are added become part of the index at the next `flush`, which `close` and every question to the index
    do first. A process killed at any moment leaves the index as of its last flush. One process may write at a time,
    any number may read meanwhile and see the index as it was when they opened it.
    """

    def __init__(self, folder: Path, manifest: Manifest, lock: Any = None) -> None:
        self.folder = folder
        self._manifest, self._lock = manifest, lock
        self.codebook = Codebook.load(folder / "codebook")
        if self.codebook.hash != manifest.codebook:
            raise StoreError(f"{folder / 'codebook'}: not the codebook this index was made with")
        state = {}
        for name, size in manifest.state.items():
            checked_size(folder / "method" / f"{name}.npy", size)
            state[name] = map_array(folder / "method" / f"{name}.npy")
        kind = method_class(manifest.method)
        self._method = kind(self.codebook, complete(kind, manifest.parameters), state)
        self._buffer = Buffer(self.codebook, self._method)
        self._committed = Snapshot(folder, manifest, self._method)
        self._torn = False

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike[str],
        codebook: Codebook,
        method: str = "asmk",
        settings: Mapping[str, Any] | None = None,
        *,
        sample: NDArray[Any] | None = None,
        overwrite: bool = False,
        **parameters: Any,
    ) -> Index:
        """Make an empty index, open for adding.

        Args:
            folder: where; made if it is not there, else empty.
            method: `bow`, `asmk` or `hqe`.
            settings: of the features that will be added, as their file has them; the codebook's if None.
            sample: (M, D) descriptors for methods that learn something from them.
            overwrite: remove an index that is there.
            parameters: of the method.

        Raises:
            OptionError: the method or a parameter is unknown or cannot work.
            StoreError: something is there already, another process writes there, it cannot be written, or the
                settings are not those of the codebook's features.
        """
        from ..store.hdf5 import acquire, canonical, release, told_plainly

        place = Path(folder)
        kind = method_class(method)
        full = complete(kind, parameters)
        given: dict[str, Any] = json.loads(canonical(dict(settings or {})))
        codebook.check_settings(given, "features")
        state = kind.prepare(codebook, full, sample)
        with told_plainly(place, "make the folder"):
            place.mkdir(parents=True, exist_ok=True)
        lock = acquire(place / NAME)
        try:
            with told_plainly(place, "empty it"):
                if (place / NAME).exists():
                    if not overwrite:
                        raise StoreError(f"{place} holds an index already; open it to add to it, or overwrite it")
                    (place / NAME).unlink()
                foreign = [path.name for path in place.iterdir() if path.name not in OWN and path.suffix != ".npy"]
                if foreign:
                    raise StoreError(f"{place} is not empty ({foreign[0]}) and no index; name another folder")
            manifest = Manifest(method, full, given or codebook.settings, codebook.hash)
            sweep(place, manifest)
            codebook.save(place / "codebook")
            for name, array in state.items():
                manifest.state[name] = write_array(place / "method" / f"{name}.npy", array)
            manifest.write(place)
            return cls(place, manifest, lock)
        except BaseException:
            release(lock)
            raise

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Index:
        """Open an index to search in, or to add to.

        Raises:
            StoreError: there is none, or a file of it is missing, truncated or of another version (it is named).
        """
        place = Path(folder)
        manifest = Manifest.read(place)
        while True:
            try:
                return cls(place, manifest)
            except StoreError:
                # A writer may have merged segments between our reading of the manifest and of them.
                tried, manifest = manifest, Manifest.read(place)
                if (manifest.identity, manifest.generation) == (tried.identity, tried.generation):
                    raise

    @property
    def method(self) -> str:
        """Name of the retrieval method."""
        return self._manifest.method

    @property
    def scorer(self) -> Method:
        """The retrieval method itself, with its parameters."""
        return self._method

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of the features in it."""
        return dict(self._manifest.settings)

    @property
    def view(self) -> Snapshot:
        """What is in the index now, all that was added included; later additions do not change it."""
        self.flush()
        return self._committed

    @property
    def names(self) -> list[str]:
        """Names of the images, in the order they were added."""
        return self.view.names

    def __len__(self) -> int:
        return self.view.n_images

    def __contains__(self, name: object) -> bool:
        if self._torn:
            self._restore()
        return name in self._buffer.names or name in self._committed.numbers

    def number(self, name: str) -> int:
        """Number of the image of this name.

        Raises:
            StoreError: there is none.
        """
        if name not in self.view.numbers:
            raise StoreError(f"{self.folder} has no image {name!r}")
        return self.view.numbers[name]

    def check_settings(self, settings: Mapping[str, Any], what: str = "features") -> None:
        """Raise StoreError, with what differs, if features of these settings must not be mixed with the index's.

        Numbers of keypoints, image size, masks and precision may differ. Features that say nothing pass.
        """
        differs = differing(self.settings, settings) if self.settings and settings else ""
        if differs:
            raise StoreError(
                f"{what}: made with other settings or weights than the index {self.folder} ({differs}); "
                f"extract again with the index's, or make another index"
            )

    def _begin(self) -> None:
        """Become the writer, of the index as it is now."""
        from ..store.hdf5 import acquire, release

        if self._lock is not None:
            return
        lock = acquire(self.folder / NAME)
        try:
            manifest = Manifest.read(self.folder)
            if manifest.identity != self._manifest.identity:
                raise StoreError(f"{self.folder}: another index was made in its place meanwhile; open it again")
        except StoreError:
            release(lock)
            raise
        self._lock, self._manifest = lock, manifest
        sweep(self.folder, self._manifest)
        self._committed = Snapshot(self.folder, self._manifest, self._method, self._committed)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """What is held in memory changes. Stopped in here, by Ctrl-C say, nobody knows how far it is changed and
        whether that is on the disk already: it is then read from there again, and what was not committed is forgotten.
        """
        if self._torn:
            self._restore()
        self._torn, before = True, self._manifest
        try:
            yield
        except HardnetMatchError:  # as told: the disk is full, and what was not committed waits for another try
            self._torn = self._manifest is not before
            raise
        self._torn = False

    def _restore(self) -> None:
        self._buffer.clear()
        self._manifest = Manifest.read(self.folder)
        self._committed = Snapshot(self.folder, self._manifest, self._method, self._committed)
        self._torn = False

    def changed(self, digests: Mapping[str, str]) -> list[str]:
        """Which of these images are in the index with other features, by the digests of their features now.

        Without a digest on one of the sides nothing is known against what is there.
        """
        view, unknown, found = self.view, digest_bytes(""), []
        for name, digest in digests.items():
            if name in view.numbers:
                now, then = digest_bytes(digest), view.digest(view.numbers[name])
                if now != then and unknown not in (now, then):
                    found.append(name)
        return found

    def remove(self, names: Collection[str]) -> None:
        """Take images out, and commit that; the segments that hold them are written anew.

        Raises:
            StoreError: one is not in the index, or it cannot be written; the index is then as it was.
        """
        self._begin()
        self.flush()
        with self._changing():
            self._remove(set(names))

    def _remove(self, gone: set[str]) -> None:
        if missing := sorted(gone - self._committed.numbers.keys()):
            raise StoreError(f"{self.folder} has no image {missing[0]!r}")
        entries = []
        for segment in self._committed.segments:
            keep = np.array([name not in gone for name in segment.names], dtype=bool)
            if keep.all():
                entries.append(dict(segment.entry))
            elif keep.any():
                entries.append(write_segment(segment_path(self.folder, self._manifest), without(segment, keep)))
        if gone:
            self._commit(entries)
            sweep(self.folder, self._manifest)

    def add(self, name: str, features: Features, digest: str = "") -> None:
        """Add an image; it may have no features at all.

        Args:
            digest: of the features, as `FeatureReader.digest` gives it, for `changed`.

        Raises:
            DataError: the descriptors are not of the codebook's kind.
            StoreError: an image of that name is in the index, the name cannot be one, another process writes.
        """
        from ..store.hdf5 import check_name

        check_name(name)
        self._begin()
        if name in self:
            raise StoreError(f"{self.folder} has an image {name!r} already")
        try:
            self.codebook.checked(features.descriptors)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        with self._changing():
            self._buffer.add(name, features, digest)
        if self._buffer.features >= FEATURES_AT_ONCE:
            self.flush()

    def add_many(self, images: Iterable[tuple[str, Features]]) -> int:
        """Add images by (name, features); how many there were."""
        count = 0
        for name, features in images:
            self.add(name, features)
            count += 1
        return count

    def flush(self) -> None:
        """Commit what was added.

        Raises:
            StoreError: it cannot be written (no space, ...); the index keeps all earlier flushes.
        """
        if not self._buffer.names and not self._torn:
            return
        with self._changing():
            if not self._buffer.names:  # it was torn, and is restored
                return
            arrays = arrays_of(*self._buffer.taken(), len(self.codebook))
            entry = write_segment(segment_path(self.folder, self._manifest), arrays)
            self._commit([*self._manifest.segments, entry])
            self._buffer.clear()
            while (span := to_merge([entry["postings"] for entry in self._manifest.segments])) is not None:
                self._merge(*span)

    def compact(self) -> None:
        """Merge all segments into one."""
        self._begin()
        self.flush()
        if len(self._manifest.segments) > 1:
            with self._changing():
                self._merge(0, len(self._manifest.segments))

    def _merge(self, start: int, stop: int) -> None:
        arrays = merged(self._committed.segments[start:stop])
        entry = write_segment(segment_path(self.folder, self._manifest), arrays)
        segments = self._manifest.segments
        self._commit([*segments[:start], entry, *segments[stop:]])
        sweep(self.folder, self._manifest)

    def _commit(self, segments: list[dict[str, Any]]) -> None:
        manifest = replace(self._manifest, segments=segments, norms=None)
        manifest.write(self.folder)
        self._manifest = manifest
        self._committed = Snapshot(self.folder, self._manifest, self._method, self._committed)

    def _keep_norms(self) -> None:
        """Store the norms, so that whoever opens the index next need not go through all postings for them."""
        if self._manifest.norms is None and self._manifest.segments:
            name = f"norms-{self._manifest.generation + 1:08d}.npy"
            size = write_array(self.folder / name, self._committed.norms)
            manifest = replace(self._manifest, norms={"file": name, "bytes": size})
            manifest.write(self.folder)
            self._manifest = manifest
            sweep(self.folder, self._manifest)

    def close(self) -> None:
        """Flush and let other processes write. An index that is only read needs no closing."""
        from ..store.hdf5 import release

        if self._lock is not None:
            try:
                self.flush()
                with self._changing():
                    self._keep_norms()
            finally:
                lock, self._lock = self._lock, None
                release(lock)

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def query(self, features: Features, assignments: int | None = None) -> Query:
        """Quantise features as this index's method asks its questions; see `Query.from_features`."""
        return Query.from_features(features, self.codebook, assignments or self._method.assignments)

    def rank(self, query: Query | Features | Postings, top: int | None = None) -> Ranking:
        """Images by similarity.

        Args:
            query: quantised features, features, or what the method made of a query.
            top: at most so many; all with a score above 0 if None.

        Raises:
            DataError: the features are not of the codebook's kind.
            OptionError: `top` is not positive.
        """
        if top is not None and top < 1:
            raise OptionError(f"top must be at least 1, got {top}")
        if isinstance(query, Features):
            query = self.query(query)
        if isinstance(query, Query):
            query = self._method.represent(query)
        return best_first(self._method.score(query, self.view), top)

    def geometry(self, image: int) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
        """Frames (N, 2, 3) float32 and nearest words (N,) uint32 of an image, memory-mapped.

        Raises:
            DataError: there is no image of this number.
        """
        return self.view.one(int(self.view.checked([image])[0]))

    def geometries(self, images: Sequence[int] | NDArray[np.int64]) -> Geometry:
        """Frames and words of several images at once, in the order asked for."""
        return self.view.geometry(images)
