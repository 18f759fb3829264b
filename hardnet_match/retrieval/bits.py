"""Binary signatures: signs packed into 64-bit words, and the distances between them."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ONES_OF_16 = np.unpackbits(np.arange(1 << 16, dtype=">u2").view(np.uint8).reshape(-1, 2), axis=1).sum(1, np.uint8)


def words_of(dim: int) -> int:
    """How many 64-bit words hold so many bits."""
    return -(-dim // 64)


def pack_signs(vectors: NDArray[Any]) -> NDArray[np.uint64]:
    """One bit an element, set where it is above 0: (N, D) to (N, ceil(D / 64)) uint64, the rest of the last word 0.

    The first element is the lowest bit of the first word.
    """
    bits = np.packbits(vectors > 0, axis=1, bitorder="little")
    whole = words_of(vectors.shape[1])
    if bits.shape[1] != whole * 8:
        bits = np.pad(bits, ((0, 0), (0, whole * 8 - bits.shape[1])))
    packed = np.ascontiguousarray(bits).view("<u8")
    return packed.astype(np.uint64, copy=False) if sys.byteorder == "little" else packed.astype(np.uint64)


def unpack_signs(packed: NDArray[np.uint64], dim: int) -> NDArray[np.bool_]:
    """The bits of `pack_signs` again, (N, dim) bool."""
    bits = np.unpackbits(packed.astype("<u8", copy=False).view(np.uint8), axis=1, bitorder="little")
    return bits[:, :dim].astype(bool)


def popcount(packed: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Bits set in each element."""
    if hasattr(np, "bitwise_count"):
        counted: NDArray[np.uint8] = np.bitwise_count(packed)
        return counted
    parts = _ONES_OF_16[np.ascontiguousarray(packed).view(np.uint16)].reshape(*packed.shape, 4)
    return np.asarray(np.add.reduce(parts, axis=-1, dtype=np.uint8))


def hamming(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> NDArray[np.uint16]:
    """Distance in bits of each row of the one to the same row of the other, (N,) uint16."""
    distance = popcount(first[:, 0] ^ second[:, 0]).astype(np.uint16)
    for column in range(1, first.shape[1]):
        distance += popcount(first[:, column] ^ second[:, column])
    return distance
