"""What is asked of an index becomes features: a photo, a part of one, or an image that the index holds."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ImageError, OptionError, StoreError
from ..features import Features
from ..images import read_image
from ..retrieval.codebook import differing
from ..retrieval.ground_truth import NameFinder
from ..retrieval.index import Index
from ..store import FeatureReader, kept_as
from .index import Sources, read_sources
from .same_extractor import extractor_like

if TYPE_CHECKING:
    from ..extractor import FeatureExtractor

# Beside a features file, where the photos may be; more than this is no project's folder.
FOLDERS_LOOKED_AT = 1000
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Question:
    """A query's features in pixels of its whole image file.

    `image` is its file where there is one; `member` its number in the index where it was asked for by name.
    """

    name: str
    features: Features
    box: Box | None
    image: Path | None
    member: int | None


class Questions:
    """Makes questions to one index; the extractor is built when a photo first needs it.

    Args:
        features: features files to find stored features in, before those the index was made from.
        images: folder of the photos, in place of the one that the index remembers.
        weights: names or files of weights, for an index whose weights are neither bundled nor downloaded.
    """

    def __init__(
        self,
        index: Index,
        *,
        features: Sequence[str | Path] = (),
        images: str | Path | None = None,
        weights: Sequence[str] = (),
        device: str = "auto",
    ) -> None:
        self.index = index
        sources = read_sources(index.folder)
        self.sources = Sources(
            (*map(Path, features), *sources.features), Path(images) if images is not None else sources.images
        )
        self._given = {Path(path) for path in features}
        self._weights, self._device = weights, device
        self._made: FeatureExtractor | None = None
        self._readers: dict[Path, FeatureReader | None] = {}
        self._finders: dict[Path, NameFinder] = {}

    def ask(self, query: str | Path, box: Box | None = None) -> Question:
        """The question of a photo's path, or of the name of an image in the index.

        Args:
            box: x0, y0, x1, y1 in pixels of the image file: only what is inside is asked for. A photo is cut to it
                before features are extracted, as the benchmarks have it; stored features are those centred in it.

        Raises:
            OptionError: there is no such photo or image, or the box holds nothing of it.
            ImageError: the photo cannot be read, or has no features.
            StoreError: the index cannot say how to extract its features, or those of an image are not to be had.
        """
        path = Path(query)
        if path.is_file():
            return self._checked(Question(str(query), self.extracted(path, box), box, path, None))
        name = str(query)
        if name not in self.index:
            near = difflib.get_close_matches(name, self.index.names, 3)
            hint = f"; like it: {', '.join(near)}" if near else ""
            raise OptionError(f"{name}: neither a photo nor an image in {self.index.folder}{hint}")
        number = self.index.number(name)
        photo = self.photo(name)
        stored = self.stored(name)
        if stored is None and photo is None:
            files = ", ".join(map(str, self.sources.features)) or "none is known"
            raise StoreError(
                f"{name} is in {self.index.folder}, but its features are in no file at hand ({files}); "
                "say --features FILE, or give a photo"
            )
        if stored is None:
            assert photo is not None
            return self._checked(Question(name, self.extracted(photo, box), box, photo, number))
        return self._checked(Question(name, inside(stored, box) if box else stored, box, photo, number))

    def _checked(self, question: Question) -> Question:
        if not len(question.features):
            where = " in its box" if question.box else ""
            raise ImageError(
                f"{question.name}: no features found{where}, so there is nothing to search for; "
                "it needs texture: try a larger box or picture"
            )
        return question

    def extracted(self, path: Path, box: Box | None = None) -> Features:
        """Features of a photo, made with the very settings of the index."""
        if self._made is None:
            self._made = extractor_like(
                self.index.settings, str(self.index.folder), weights=self._weights, device=self._device
            )
        max_size = self.index.settings.get("max_size")
        picture = read_image(path)
        if box is not None:
            picture = picture.cropped(box)
        if max_size:
            picture = picture.shrunk(int(max_size))
        found = self._made.extract(picture.pixels)
        lafs = picture.to_original(found.lafs)
        features = Features(lafs, found.scores, found.descriptors, picture.size, found.meta)
        # Rounded as the stored ones are: bits of a signature hang on it, and a photo finds itself with its own score.
        return kept_as(features, str(self.index.settings.get("store", "float32")))

    def stored(self, name: str) -> Features | None:
        """Features of an image of the index as they lie in a features file; None if in none that is known.

        Raises:
            StoreError: a file that was named is missing, or made with other settings than the index.
        """
        for path in self.sources.features:
            reader = self._reader(path)
            if reader is not None and name in reader:
                return reader.read(name)
        return None

    def find(self, path: Path, image: str) -> str | None:
        """The name under which a features file holds an image that may be named without folder or extension."""
        if path not in self._finders:
            reader = self._reader(path)
            self._finders[path] = NameFinder(reader.names() if reader is not None else [])
        return self._finders[path].find(image)

    def _reader(self, path: Path) -> FeatureReader | None:
        if path not in self._readers:
            self._readers[path] = None
            if path in self._given or path.is_file():
                reader = FeatureReader(path)
                if path in self._given:
                    self.index.check_settings(reader.settings, str(path))
                    self._readers[path] = reader
                # A file that the index remembers may have been made anew since, of other descriptors.
                elif not differing(self.index.settings, reader.settings) or not reader.settings:
                    self._readers[path] = reader
        return self._readers[path]

    def photo(self, name: str) -> Path | None:
        """The photo of an image of the index, if its folder is known and it is still there."""
        path = self.sources.images / name if self.sources.images is not None else None
        return path if path is not None and path.is_file() else None

    def guess_photos(self, near: Path) -> None:
        """Where nobody has said where the photos are: see whether they lie around a query, or in a folder beside a
        features file."""
        if self.sources.images is not None or not len(self.index):
            return
        first = self.index.names[0]
        around = {path.parent for path in self.sources.features if path.parent.is_dir()}
        places = [*near.resolve().parents, *around]
        for folder in around:
            places += [path for path in itertools.islice(folder.iterdir(), FOLDERS_LOOKED_AT) if path.is_dir()]
        for place in places:
            if (place / first).is_file():
                self.sources = Sources(self.sources.features, place)
                return


def inside(features: Features, box: Box) -> Features:
    """The features whose centre lies in a box (edges as PIL's `crop` takes them)."""
    x, y = features.keypoints.T
    x0, y0, x1, y1 = (edge - 0.5 for edge in box)
    return features.select(np.flatnonzero((x >= x0) & (x < x1) & (y >= y0) & (y < y1)))
