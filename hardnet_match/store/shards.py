"""A part of the work, i of n, that one job of many does into a file of its own; no job has to know of another."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

from ..errors import OptionError

MOST_SHARDS = 1_000_000


@dataclass(frozen=True)
class Shard:
    """Shard `index` (from 0) of `of`.

    An image belongs to the shard that a hash of its name says: images that are added later move no other. Shards
    differ in size by chance alone: N images in n shards give N / n each with a standard deviation of about sqrt(N / n).
    """

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`i/n`, i from 0 to n - 1.

        Raises:
            OptionError: it is something else.
        """
        found = re.fullmatch(r"(\d{1,7})/(\d{1,7})", text.strip(), re.ASCII)
        if not found or not 1 <= int(found[2]) <= MOST_SHARDS:
            raise OptionError(
                f"a shard is i/n, such as 0/8 for the first of eight, n {MOST_SHARDS} at most, got {text!r}"
            )
        index, of = int(found[1]), int(found[2])
        if index >= of:
            raise OptionError(f"shard {text} does not exist: shards count from 0, so of {of} the last is {of - 1}/{of}")
        return cls(index, of)

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def takes(self, name: str) -> bool:
        """Whether an image is in this shard."""
        return _number(name) % self.of == self.index

    def takes_pair(self, name0: str, name1: str) -> bool:
        """Whether a pair, whichever way round, is in this shard.

        A pair goes where one of its two images goes, which of them is drawn by a hash: pairs of one image stay
        together, so that a shard reads few images, and an image that comes first in all its pairs fills no shard.
        """
        first, second = sorted((name0, name1))
        return self.takes((first, second)[_number(f"{first}\0{second}") % 2])


def _number(text: str) -> int:
    digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")


def shard_of(attribute: object) -> Shard | None:
    """The shard that a file's attribute `shard` names; None if it names none."""
    try:
        return Shard.parse(str(attribute)) if attribute is not None else None
    except OptionError:
        return None


def finished_note(items: int, skipped: int) -> str:
    """What a shard that came to its end says of itself: how many images or pairs it has, how many it left out."""
    return json.dumps({"items": items, "skipped": skipped})
