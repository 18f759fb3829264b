"""MATLAB's files: what scipy writes and reads, and sizes that are not so."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hardnet_match.benchmark.matlab import MOST_BYTES, read_field
from hardnet_match.benchmark.sequences import _fitted
from hardnet_match.errors import DataError

DTYPES = ["f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", ">f8"]


def saved(path: Path, content: dict[str, Any], **options: Any) -> bytes:
    pytest.importorskip("scipy.io").savemat(path, content, **options)
    return path.read_bytes()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_reads_what_scipy_writes(dtype: str, packed: bool, tmp_path: Path) -> None:
    points = np.random.default_rng(0).integers(0, 100, (6, 7)).astype(dtype)
    extra = {"a text": "x", "n": 3, "c": np.array(["a", 1], object), "long name of a field": np.eye(3), "pts": points}
    content = {"first": np.eye(4), "other": "text", "validation": extra}
    saved(tmp_path / "a.mat", content, do_compression=packed, long_field_names=True)
    found = read_field(tmp_path / "a.mat", "validation", "pts")
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, points)


@given(arrays("f8", st.tuples(st.integers(0, 6), st.integers(0, 9)), elements=st.floats(-1e9, 1e9)))
def test_any_matrix(points: Any) -> None:
    sio = pytest.importorskip("scipy.io")
    content = io.BytesIO()
    sio.savemat(content, {"v": {"p": points}})

    class Held:
        def open(self, mode: str) -> io.BytesIO:
            return io.BytesIO(content.getvalue())

    np.testing.assert_array_equal(read_field(Held(), "v", "p"), points)  # type: ignore[arg-type]


def test_big_endian_files(tmp_path: Path) -> None:
    """As MATLAB on other machines wrote them; by hand, for scipy writes none."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack(">II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    def matrix(kind: int, shape: tuple[int, ...], name: bytes, *rest: bytes) -> bytes:
        parts = [element(6, struct.pack(">II", kind, 0)), element(5, struct.pack(">2i", *shape)), element(1, name)]
        return element(14, b"".join([*parts, *rest]))

    points = matrix(6, (2, 3), b"", element(9, struct.pack(">6d", 1, 2, 3, 4, 5, 6)))
    width = struct.pack(">HHI", 4, 5, 4)  # a small element: size and type in one word
    data = matrix(2, (1, 1), b"v", width, element(1, b"pts\0"), points)
    (tmp_path / "a.mat").write_bytes(b"MATLAB".ljust(124) + b"\1\0MI" + data)
    np.testing.assert_array_equal(read_field(tmp_path / "a.mat", "v", "pts"), [[1, 3, 5], [2, 4, 6]])


@pytest.mark.parametrize("at", ["kind", "shape", "width"])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e300])
def test_sizes_that_are_no_whole_numbers(at: str, value: float, tmp_path: Path) -> None:
    """MATLAB writes whole ones; nothing in the file keeps another from saying that they are floats."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    odd = element(9, struct.pack("<2d", value, value))
    plain = {"kind": element(6, struct.pack("<II", 2, 0)), "shape": element(5, struct.pack("<2i", 1, 1))}
    width = element(9, struct.pack("<d", value)) if at == "width" else element(5, struct.pack("<i", 4))
    head = [odd if at == part else right for part, right in plain.items()]
    data = element(14, b"".join([*head, element(1, b"validation"), width, element(1, b"pts\0")]))
    (tmp_path / "a.mat").write_bytes(b"MATLAB".ljust(124) + b"\0\1IM" + data)
    with pytest.raises(DataError, match=r"a\.mat holds no annotated points"):
        _fitted(tmp_path / "a.mat")


def test_every_word_of_a_file_made_senseless_is_read_or_refused_at_once(tmp_path: Path) -> None:
    """scipy's reader is at work for hours on some of these."""
    corners = np.array([[0, 0, 1], [9, 0, 1], [0, 9, 1], [9, 9, 1]], float)
    content = {"validation": {"pts": np.hstack([corners, corners + np.array([1, 2, 0])]).T}}
    plain = saved(tmp_path / "a.mat", content)
    packed = saved(tmp_path / "b.mat", content, do_compression=True)
    inside = plain[:128]
    begun, refused = time.process_time(), 0
    for at in range(124, len(plain), 4):
        for word in (0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000000, 0x00FF0005):
            damaged = plain[:at] + struct.pack("<I", word) + plain[at + 4 :]
            for data in (
                damaged,
                inside + struct.pack("<II", 15, len(zlib.compress(damaged[128:]))) + zlib.compress(damaged[128:]),
            ):
                (tmp_path / "c.mat").write_bytes(data)
                try:
                    assert np.isfinite(_fitted(tmp_path / "c.mat")).all()
                except DataError as error:
                    refused += "c.mat holds no annotated points" in str(error)
    for cut in range(0, len(packed), 7):
        (tmp_path / "c.mat").write_bytes(packed[:cut])
        with pytest.raises(DataError):
            _fitted(tmp_path / "c.mat")
    assert refused > 300
    assert time.process_time() - begun < 10


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "no MATLAB file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "no MATLAB file"),
        (bytes(MOST_BYTES + 1), "larger than 1 MB"),
        ("bomb", "unpacks to more than 1 MB"),
        ("broken", "does not unpack"),
        ("nothing", "no variable validation"),
        ("empty", "ends too early"),
    ],
)
def test_what_is_wrong_is_told(data: bytes | str, told: str, tmp_path: Path) -> None:
    head = b"MATLAB".ljust(124) + b"\0\1IM"
    bomb = zlib.compress(struct.pack("<II", 14, 2**28) + bytes(2**22))
    made = {
        "bomb": head + struct.pack("<II", 15, len(bomb)) + bomb,
        "broken": head + struct.pack("<II", 15, 8) + b"no zlib!",
        "nothing": head,
        "empty": head + struct.pack("<II", 14, 0),
    }
    (tmp_path / "a.mat").write_bytes(data if isinstance(data, bytes) else made[data])
    with pytest.raises(DataError, match=told):
        _fitted(tmp_path / "a.mat")


def test_points_of_another_form_are_told(tmp_path: Path) -> None:
    for content, told in (
        ({"validation": {"pts": np.ones((5, 8))}}, "5 rows"),
        ({"validation": {"other": np.ones((6, 8))}}, "no field pts"),
        ({"validation": np.ones((6, 8))}, "no struct"),
        ({"validation": {"pts": "text"}}, "no matrix of numbers"),
        ({"validation": {"pts": np.ones((6, 8))}}, "homography"),
        ({"validation": {"pts": np.ones((6, 3))}}, "annotated"),
    ):
        saved(tmp_path / "a.mat", content)
        with pytest.raises(DataError, match=told):
            _fitted(tmp_path / "a.mat")
