"""Every parser, fed its kept seeds and damaged ones: it reads them or refuses them with an error of the package."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import targets

EXAMPLES = int(os.environ.get("HARDNET_MATCH_FUZZ", "25"))  # more of them for a long search
TOKENS = [
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"-inf",
    b"\0",
    b"../",
    b"/",
    b"[",
    b"{",
    b'"',
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"=",
    b",",
]
TOKENS += [
    b"9" * 30,
    b"[" * 4000,
    b'{"a":' * 4000,
    b"\xff\xfe",
    "\u2028é".encode(),
    b"null",
    b"true",
    b"1.5",
    b"[]",
    b"{}",
]


@st.composite
def damaged(draw: st.DrawFn, name: str) -> bytes:
    """A seed of the target with some of it changed."""
    known = targets.seeds(name)
    data = bytearray(draw(st.sampled_from(known)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["byte", "token", "over", "cut", "drop", "again", "other"]))
        if kind == "byte" and at < len(data):
            data[at] = draw(st.integers(0, 255))
        elif kind == "token":
            data[at:at] = draw(st.sampled_from(TOKENS))
        elif kind == "over":
            token = draw(st.sampled_from(TOKENS[:16]))
            data[at : at + len(token)] = token
        elif kind == "cut":
            del data[at:]
        elif kind == "drop":
            del data[at : at + draw(st.integers(1, 40))]
        elif kind == "again":
            data[at:at] = data[at : at + draw(st.integers(1, 60))]
        elif kind == "other":
            other = draw(st.sampled_from(known))
            data[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(data[:60_000])


@pytest.mark.parametrize("name", targets.names())
def test_kept_seeds(name: str, tmp_path: Path) -> None:
    known = targets.seeds(name)
    assert known
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in known:
            targets.run(name, data, tmp_path)


@pytest.mark.parametrize("name", targets.names())
def test_damaged_input_is_read_or_refused(name: str, tmp_path: Path) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(damaged(name))
    def run(data: bytes) -> None:
        targets.run(name, data, tmp_path)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run()
