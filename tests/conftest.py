"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and of the originals' small networks; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("HARDNET_MATCH_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real photos at {folder} (set HARDNET_MATCH_DATA)")
    return folder
