"""Numbers out of MATLAB's files (MAT-file format, level 5: MATLAB 5 to 7).

A reader of exactly what annotated points need, in place of scipy's: that one believes the sizes a file states, and a
damaged file of 200 bytes keeps it at work for hours. Here every size is held against the bytes that are there.
Format: "MAT-File Format", The MathWorks, chapter 1.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

MOST_BYTES = 2**20  # of a file, and of a variable unpacked: 20,000 points
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _NUMERIC = 2, range(6, 16)


@dataclass(frozen=True)
class _Element:
    kind: int
    data: memoryview


@dataclass(frozen=True)
class _Array:
    kind: int
    shape: tuple[int, ...]
    name: bytes
    parts: Iterator[_Element]
    order: str

    def numbers(self) -> NDArray[np.float64]:
        """A numeric array's values."""
        if self.kind not in _NUMERIC or len(self.shape) != 2:
            raise DataError("it is no matrix of numbers")
        return _numbers(_next(self.parts), self.order, prod(self.shape)).reshape(self.shape, order="F")

    def field(self, name: bytes) -> _Array:
        """A field of a struct array's first element."""
        if self.kind != _STRUCT or prod(self.shape) < 1:
            raise DataError("it is no struct")
        [width] = _integers(_next(self.parts), self.order, 1)
        text = bytes(_next(self.parts).data)
        if not 1 <= width <= 64 or len(text) % width:
            raise DataError("names of fields have no length that can be")
        names = [text[at : at + width].split(b"\0")[0] for at in range(0, len(text), width)]
        found = dict(zip(names, self.parts, strict=False)).get(name)
        if found is None:
            raise DataError(f"there is no field {name.decode()}")
        return _array(found, self.order)


def read_field(path: Path, variable: str, field: str) -> NDArray[np.float64]:
    """A matrix (rows, columns) that is a field of a struct, of its first element if it has several.

    Raises:
        DataError: the file has no such matrix, is damaged, of another version, or unpacks to more than 1 MB.
    """
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise DataError(f"it is larger than {MOST_BYTES >> 20} MB")
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise DataError("it is no MATLAB file of versions 5 to 7")
    for element in _elements(memoryview(content)[128:], order):
        if element.kind == _COMPRESSED:
            element = _next(_elements(memoryview(_unpacked(element.data)), order))
        if element.kind == _MATRIX and (found := _array(element, order)).name == variable.encode():
            return found.field(field.encode()).numbers()
    raise DataError(f"there is no variable {variable}")


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """What stands one after the other: a tag of type and size, and that many bytes, up to a multiple of eight."""
    at = 0
    while at + 8 <= len(data):
        kind, size = (int(word) for word in np.frombuffer(data[at : at + 8], f"{order}u4"))
        start, room = at + 8, len(data) - at - 8
        if kind >> 16:  # a small one: size and type share a word, the data is in the next
            kind, size, start, room = kind & 0xFFFF, kind >> 16, at + 4, 4
        if size > room:
            raise DataError(f"an element of {size} bytes where {room} are left")
        yield _Element(kind, data[start : start + size])
        at = start + size
        if kind != _COMPRESSED:
            at += -at % 8


def _unpacked(data: memoryview) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        found = unpacker.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise DataError(f"a variable does not unpack ({error})") from error
    if unpacker.unconsumed_tail:
        raise DataError(f"a variable unpacks to more than {MOST_BYTES >> 20} MB")
    return found


def _array(element: _Element, order: str) -> _Array:
    if element.kind != _MATRIX:
        raise DataError("it is no array")
    parts = _elements(element.data, order)
    flags, shape, name = _integers(_next(parts), order), _integers(_next(parts), order), _next(parts)
    if not flags or not 2 <= len(shape) <= 32 or min(shape) < 0:
        raise DataError("an array has no shape that can be")
    return _Array(flags[0] & 0xFF, tuple(shape), bytes(name.data), parts, order)


def _next(parts: Iterator[_Element]) -> _Element:
    found = next(parts, None)
    if found is None:
        raise DataError("it ends too early")
    return found


def _integers(element: _Element, order: str, count: int | None = None) -> list[int]:
    found = _numbers(element, order, count)
    if not np.isfinite(found).all():
        raise DataError("a size or a kind is no number")
    return [int(number) for number in found]


def _numbers(element: _Element, order: str, count: int | None = None) -> NDArray[np.float64]:
    kind = _NUMBERS.get(element.kind)
    if kind is None:
        raise DataError(f"numbers of the unknown type {element.kind}")
    dtype = np.dtype(order + kind)
    if len(element.data) % dtype.itemsize or count not in (None, len(element.data) // dtype.itemsize):
        raise DataError(f"{len(element.data)} bytes of numbers for {count or 'an unknown number of'} values")
    return np.frombuffer(element.data, dtype).astype(np.float64)
