"""Fixtures that every test may use."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

# Whoever starts the tests in the background of a shell hands them an ignored SIGINT; those of Ctrl-C need it alive.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, not wrong.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def ctrl_c_as_python_has_it() -> None:
    """A test that sends itself SIGINT must not die of what another test, or a library it loaded, left behind."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photos and of the originals' small networks; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("HARDNET_MATCH_DATA", Path(__file__).parents[2] / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no real photos at {folder} (set HARDNET_MATCH_DATA)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def importable_from_anywhere() -> None:
    """Let the processes that tests start import the package these tests import, wherever they start."""
    import hardnet_match

    os.environ["PYTHONPATH"] = str(Path(hardnet_match.__file__).parents[1])


@pytest.fixture(scope="module")
def quick_disk() -> Iterator[None]:
    """Nobody pulls the plug while the tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Eight small pictures of the rendered world: `folder` of images, and the truth as `write_scene` tells it.

    Rendered once, whatever number of workers the tests run in; nobody may write there.
    """
    from hardnet_match.world import write_scene

    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    truth = base / "rendered" / "cameras.json"
    with FileLock(base / "rendered.lock"):
        if not truth.is_file():
            write_scene(truth.parent, n_views=8, size=(480, 360), seed=3)
    return {**json.loads(truth.read_text()), "folder": truth.parent / "images"}
