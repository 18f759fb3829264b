"""Unpickling without running anything.

An `InertUnpickler` knows a short list of names and answers each with a function or class of this file that only
stores what it is given; any other name in the pickle is refused before it is even imported. Two kinds of checkpoints
need it: those that carry a pickled scikit-learn PCA (HardNet8), and TorchScript archives, whose tensors are wanted
but not their code. Files that are plain data all through (the ground truths of retrieval benchmarks) are read by
`read_plain`, whose list is shorter still.
"""

from __future__ import annotations

import collections
import pickle
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import WeightsError

_DTYPES = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}


class Refused(WeightsError):
    """A pickle names something outside the list."""


class Placeholder:
    """Stands for an object of another package: its class by name, its attributes in `state`, no behaviour."""

    kind = "object"

    def __init__(self, *_: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, dict) else {}


class _Dtype:
    """Stands for numpy.dtype."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = str(state[1]) if isinstance(state, tuple) and len(state) > 1 else "?"

    def real(self) -> np.dtype[Any]:
        if self.code not in _DTYPES or self.order not in ("<", ">", "|", "="):
            raise Refused(f"an array of type {self.order}{self.code} in a pickle is not rebuilt")
        return np.dtype(("<" if self.order in "|=" else self.order) + self.code)


class Array:
    """Stands for a numpy array until `real` builds one from its bytes."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else ()

    def real(self) -> NDArray[Any]:
        """The array.

        Raises:
            Refused: it is no plain array of numbers.
        """
        if len(self.state) != 5:
            raise Refused("an array in a pickle has an unknown form")
        _, shape, dtype, fortran, content = self.state
        if isinstance(content, str):  # of Python 2, whose strings are bytes
            content = content.encode("latin1", "replace")
        if not isinstance(dtype, _Dtype) or not isinstance(content, bytes) or not isinstance(shape, tuple):
            raise Refused("an array in a pickle does not hold plain numbers")
        try:
            flat = np.frombuffer(content, dtype.real())
            return flat.reshape(shape, order="F" if fortran else "C").copy()
        except (TypeError, ValueError) as error:
            raise Refused(f"an array in a pickle is damaged: {error}") from error


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
    """numpy's _frombuffer, which pickles of protocol 5 hold arrays in."""
    array = Array()
    array.state = (1, shape, dtype, order == "F", bytes(content) if isinstance(content, bytearray) else content)
    return array


def _scalar(dtype: Any, content: Any = b"") -> Any:
    if isinstance(content, str):
        content = content.encode("latin1", "replace")
    if not isinstance(dtype, _Dtype) or not isinstance(content, bytes):
        return None
    values = np.frombuffer(content, dtype.real())
    return values[0].item() if len(values) == 1 else None


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """_codecs.encode as numpy's pickles use it: bytes written as text."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("a pickle calls _codecs.encode with something else than bytes written as text")
    return text.encode("latin1")


def _first(value: Any = None, *_: Any) -> Any:
    return value


class _Call:
    """A function a pickle may call, and do nothing else with: its BUILD could otherwise set a function's attributes."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise Refused("it sets attributes of a function")


def _allowed_names() -> dict[tuple[str, str], Callable[..., Any] | type]:
    names: dict[tuple[str, str], Callable[..., Any] | type] = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("_codecs", "encode"): _Call(_encode),
        ("numpy", "dtype"): _Dtype,
        ("numpy", "ndarray"): Array,
    }
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[module, "_reconstruct"] = Array
        names[module, "scalar"] = _Call(_scalar)
    for module in ("numpy.core.numeric", "numpy._core.numeric"):
        names[module, "_frombuffer"] = _Call(_from_buffer)
    for name in ("restore_type_tag", "build_intlist", "build_doublelist", "build_boollist", "build_tensorlist"):
        names["torch.jit._pickle", name] = _Call(_first)
    return names


_NAMES = _allowed_names()
_PCA_MODULES = ("sklearn.decomposition.pca", "sklearn.decomposition._pca")


class _Lines:
    """A file whose lines are whole: half a name at the end of one that is cut off is no name."""

    def __init__(self, file: Any) -> None:
        self.read, self._readline = file.read, file.readline

    def readline(self) -> bytes:
        line: bytes = self._readline()
        if not line.endswith(b"\n"):
            raise EOFError("it ends within a line")
        return line


class _Unpickler(pickle._Unpickler):
    """pickle's unpickler in Python: the one in C makes room for as many remembered objects as a file says, so that a
    hundred bytes take all memory."""

    def __init__(self, file: Any, **options: Any) -> None:
        super().__init__(_Lines(file), **options)


class InertUnpickler(_Unpickler):
    """A `pickle.Unpickler` whose every name leads to something that cannot act.

    `rebuild_tensor` stands for torch's functions of that name; by default torch's own, which checks that a tensor
    lies inside its storage.
    """

    rebuild_tensor: Callable[..., Any] | None = None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NAMES:
            return _NAMES[module, name]
        if module in _PCA_MODULES and name == "PCA":
            return type("PCA", (Placeholder,), {"kind": "PCA"})
        if module == "__torch__" or module.startswith("__torch__."):
            return type("Module", (Placeholder,), {"kind": "module"})
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"):
            if self.rebuild_tensor is not None:
                return _Call(self.rebuild_tensor)
            import torch._utils

            return _Call(getattr(torch._utils, name))
        raise Refused(f"it refers to {module}.{name}, which could run code")


class inert_pickle:
    """What torch.load takes as `pickle_module`: the pickle functions, with the inert unpickler in place."""

    __name__ = "inert_pickle"
    Unpickler = InertUnpickler
    UnpicklingError = pickle.UnpicklingError

    @staticmethod
    def load(file: Any, **options: Any) -> Any:
        return InertUnpickler(file, **options).load()


# Old protocols write no bytes at all as a call of bytes().
_BUILTINS = {"set": _Call(frozenset), "frozenset": _Call(frozenset), "bytes": _Call(lambda: b"")}


class _PlainUnpickler(_Unpickler):
    """Knows numpy's arrays and numbers, ordered dicts and sets, and nothing of any framework."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _NAMES and not module.startswith("torch"):
            return _NAMES[module, name]
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        raise Refused(f"it refers to {module}.{name}, which could run code")


def read_plain(file: BinaryIO) -> Any:
    """The content of a pickle of plain data: dicts, lists, texts, numbers, and arrays of numbers. Runs nothing.

    Pickles of Python 2 read too (their strings as Latin-1).

    Raises:
        Refused: it refers to anything else, or its containers hold themselves.
        Exception: whatever `pickle` raises on a damaged file.
    """
    try:
        return _plain(_PlainUnpickler(file, encoding="latin1").load(), {})
    except RecursionError as error:
        raise Refused("its containers are nested too deep, or hold themselves") from error


def _plain(value: Any, seen: dict[int, Any]) -> Any:
    """The value with real arrays in place of their stand-ins; each object is converted once, however often it is
    referred to."""
    if isinstance(value, Array):
        if id(value) not in seen:
            seen[id(value)] = value.real()
        return seen[id(value)]
    if isinstance(value, Mapping | list | tuple):
        if id(value) not in seen:
            if isinstance(value, Mapping):
                seen[id(value)] = {key: _plain(item, seen) for key, item in value.items()}
            else:
                seen[id(value)] = type(value)(_plain(item, seen) for item in value)
        return seen[id(value)]
    if value is None or isinstance(value, str | bytes | bytearray | int | float | set | frozenset):
        return value
    raise Refused(f"it holds a {type(value).__name__.strip('_')}, where plain data is expected")
