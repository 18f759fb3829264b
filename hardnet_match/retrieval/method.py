"""What a retrieval method is: which postings it keeps of an image, and how it scores a query against them.

BoW, ASMK and HQE are one file each. The index (`index.py`) stores what a method hands over without knowing what it
means; a method sees the stored postings through a `View` and never a file.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import OptionError
from .query import Query

if TYPE_CHECKING:
    from .codebook import Codebook
    from .snapshot import Geometry

# Name -> (module, class): a method is imported when it is asked for.
METHODS = {"bow": ("bow", "BagOfWords"), "asmk": ("asmk", "ASMK"), "hqe": ("hqe", "HQE")}


@dataclass(frozen=True, eq=False)
class Batch:
    """Features of several images, one image after the other, with the word of each.

    Args:
        descriptors: (N, D) float32.
        words: (N,) uint32, the nearest word of each.
        lafs: (N, 2, 3) float32.
        offsets: (I + 1,) int64; image i has the rows `offsets[i]:offsets[i + 1]`.
    """

    descriptors: NDArray[np.float32]
    words: NDArray[np.uint32]
    lafs: NDArray[np.float32]
    offsets: NDArray[np.int64]

    @cached_property
    def images(self) -> NDArray[np.int64]:
        """(N,) int64, which image of the batch each feature is of."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True, eq=False)
class Postings:
    """What a method keeps of images, or makes of a query: one row a posting.

    Args:
        words: (P,) uint32.
        images: (P,) int64; ascending within a word. All 0 for a query.
        payload: arrays of P rows, as the method named them.
    """

    words: NDArray[np.uint32]
    images: NDArray[np.int64]
    payload: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.words)


@dataclass(frozen=True, eq=False)
class Run:
    """Some stored postings of the words that were asked for.

    Args:
        rows: (R,) int64, which of the words asked for each posting belongs to; ascending.
        images: (R,) int64, image numbers in the index.
        payload: arrays of R rows.
    """

    rows: NDArray[np.int64]
    images: NDArray[np.int64]
    payload: Mapping[str, NDArray[Any]]


class View(Protocol):
    """An index as a method sees it."""

    @property
    def n_images(self) -> int:
        """Images in the index, those without features among them."""

    @property
    def document_frequency(self) -> NDArray[np.int64]:
        """(K,) int64, in how many images each word occurs."""

    @property
    def norms(self) -> NDArray[np.float64]:
        """(n_images,) float64, what `Method.image_norms` gave for the index as it is now."""

    def gather(self, words: NDArray[np.uint32], keys: Sequence[str] = ()) -> Iterator[Run]:
        """The postings of words, some hundred thousand at a time.

        Each image's postings come in the order of `words`, however the index is cut into segments, so that a sum over
        them is the same to the last bit.

        Args:
            words: (W,) uint32, none twice.
            keys: the payload arrays to read.
        """

    def geometry(self, images: Sequence[int] | NDArray[np.int64]) -> Geometry:
        """Frames and words of several images, in the order asked for.

        The postings of a method that keeps one a feature are, within a word and image, in the order of these rows.
        """


class Method(ABC):
    """Base of the methods; `name`, `defaults` and `payload` are what tells them apart on disk.

    Args:
        codebook: the words.
        parameters: every parameter of `defaults` with its value, plain JSON.
        state: arrays that `prepare` made when the index was created.
    """

    name: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    # Words a query feature goes to where the caller does not say.
    assignments: ClassVar[int] = 1

    def __init__(
        self, codebook: Codebook, parameters: Mapping[str, Any], state: Mapping[str, NDArray[Any]] | None = None
    ) -> None:
        self.codebook = codebook
        self.parameters = dict(parameters)
        self.state = dict(state or {})

    @classmethod
    def check(cls, parameters: Mapping[str, Any]) -> None:
        """Raise OptionError where a value cannot work."""
        return

    @classmethod
    def prepare(
        cls, codebook: Codebook, parameters: Mapping[str, Any], sample: NDArray[Any] | None
    ) -> dict[str, NDArray[Any]]:
        """What the method learns once, when an index is created: arrays to be stored with it.

        Args:
            sample: (M, D) descriptors to learn from, or None.
        """
        return {}

    @property
    @abstractmethod
    def payload(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Name -> (dtype, shape of a row) of the arrays that are stored beside each posting."""

    @abstractmethod
    def encode(self, batch: Batch) -> Postings:
        """The postings of the images of a batch; `images` counts from 0 within it."""

    @abstractmethod
    def represent(self, query: Query) -> Postings:
        """A query as the method compares it: words ascending, and the method's own payload."""

    @abstractmethod
    def image_norms(self, view: View) -> NDArray[np.float64]:
        """(n_images,) float64, what a score is divided by; depends on all images, kept until some are added."""

    @abstractmethod
    def score(self, query: Postings, view: View) -> NDArray[np.float64]:
        """Similarity of a represented query to every image, (n_images,) float64; 0 is none."""


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        OptionError: there is none of that name.
    """
    if name not in METHODS:
        raise OptionError(f"retrieval method {name!r} is unknown: choose one of {', '.join(METHODS)}")
    module, attribute = METHODS[name]
    found: type[Method] = getattr(importlib.import_module(f".{module}", __package__), attribute)
    return found


def complete(kind: type[Method], given: Mapping[str, Any]) -> dict[str, Any]:
    """A method's parameters: the given ones over its defaults.

    Raises:
        OptionError: one is unknown or cannot work.
    """
    unknown = sorted(given.keys() - kind.defaults.keys())
    if unknown:
        known = ", ".join(sorted(kind.defaults)) or "none"
        raise OptionError(f"method {kind.name} has no parameter {', '.join(unknown)}; it has: {known}")
    parameters = {**kind.defaults, **given}
    for key, value in parameters.items():
        default = kind.defaults[key]
        wanted = (int, float) if isinstance(default, float) else (type(default),)
        if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise OptionError(f"parameter {key} of method {kind.name} must be like {default!r}, got {value!r}")
    kind.check(parameters)
    return parameters


def inverse_frequency(view: View, unseen: float = 0.0) -> NDArray[np.float64]:
    """log(images / images with the word) of every word, (K,) float64; `unseen` where no image has it."""
    frequency = view.document_frequency
    idf = np.full(len(frequency), unseen)
    seen = frequency > 0
    idf[seen] = np.log(view.n_images / frequency[seen])
    return idf
