"""What a peer is: something else that turns an image into `Features`, run on the same pixels as ours."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError
from ...features import Features


class Peer(ABC):
    """An extractor of somebody else's.

    It has what `jobs.extract` asks of an extractor (`settings`, `device`, `extract_batch`), so peers are run, filed and
    resumed like our own. Heavy imports are in the methods: naming a peer costs nothing, and features on file are
    read without the library that made them.

    Args:
        max_keypoints: features given of an image at most, by the peer's own order of preference.

    Raises:
        OptionError: the number is not positive.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """One line for the reader of a table: which library, which settings."""

    def __init__(self, max_keypoints: int) -> None:
        if max_keypoints < 1:
            raise OptionError(f"max_keypoints must be at least 1, got {max_keypoints}")
        self.max_keypoints = max_keypoints

    @property
    def settings(self) -> dict[str, Any]:
        """All that the features depend on besides the image, as JSON has it."""
        return {"peer": self.name, "max_keypoints": self.max_keypoints}

    @property
    def device(self) -> Any:
        """Where it works: on the processor."""
        import torch

        return torch.device("cpu")

    @abstractmethod
    def extract(self, image: NDArray[np.uint8]) -> Features:
        """Features of a grey image (H, W) uint8, in its pixels, pixel centres at integers.

        Raises:
            OptionError: the library the peer lives in is absent.
        """

    def extract_batch(
        self, images: Sequence[NDArray[np.uint8]], masks: Sequence[NDArray[np.bool_] | None] | None = None
    ) -> list[Features]:
        """Features of several images, one after the other; peers take no masks."""
        if any(mask is not None for mask in masks or ()):
            raise OptionError(f"the peer {self.name} takes no masks")
        return [self.extract(np.ascontiguousarray(image)) for image in images]


def as_bits(packed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Binary descriptors (N, bytes) as (N, bits) of 0 and 1.

    Their squared Euclidean distance is the Hamming distance, so that every matcher here orders neighbours as a Hamming
    matcher does, and a ratio r of distances is a ratio r^2 of bits.
    """
    return np.unpackbits(np.ascontiguousarray(packed, dtype=np.uint8), axis=1)
