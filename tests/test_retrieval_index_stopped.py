"""An index whose writer hears of Ctrl-C at any moment and closes it in order: an image is there once or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from index_helpers import IMAGES, built, same_ranking

from hardnet_match.errors import StoreError
from hardnet_match.retrieval import index as module
from hardnet_match.retrieval.index import Index

pytestmark = pytest.mark.usefixtures("quick_disk")
FOLDER = Path(module.__file__).parent
FILES = tuple(str(FOLDER / name) for name in ("index.py", "writer.py", "manifest.py"))


def stopped_at(line: int, run: Callable[[], object]) -> bool:
    """Run it with Ctrl-C before the line of this number, counted as they are executed; whether it came so far."""
    left = line

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def write(index: Index) -> None:
    for name, features in IMAGES[2:5]:
        index.add(name, features)
        index.flush()
    index.add(*IMAGES[5])


@pytest.mark.parametrize("again", [False, True], ids=["closed", "used again"])
def test_ctrl_c_before_any_line(tmp_path: Path, again: bool) -> None:
    names, kept, line = [name for name, _ in IMAGES[:6]], set(), 0
    truth = built(tmp_path / "truth", [IMAGES[:6]])
    while True:
        built(tmp_path / "index", [IMAGES[:2]])
        with Index.open(tmp_path / "index") as index:
            stopped = stopped_at(line, lambda index=index: write(index))  # type: ignore[misc]
            if again:  # whoever catches it may go on with the index
                index.add_many([(name, features) for name, features in IMAGES[:6] if name not in index])
                assert index.names == names
        found = Index.open(tmp_path / "index")
        kept.add(len(found))
        assert found.names == names[: len(found)]
        with found:
            found.add_many([(name, features) for name, features in IMAGES[:6] if name not in found])
        assert Index.open(tmp_path / "index").names == names
        assert same_ranking(Index.open(tmp_path / "index"), truth)
        if not stopped:
            break
        line += 1 if line < 60 else 5
    assert line > 100  # it was stopped many times, and not before everything or after
    assert kept == {6} if again else kept == {2, 3, 4, 5, 6}


@pytest.mark.parametrize("line", range(0, 40, 3))
def test_ctrl_c_while_images_are_taken_out(tmp_path: Path, line: int) -> None:
    names, gone = [name for name, _ in IMAGES[:4]], [IMAGES[1][0]]
    built(tmp_path / "index", [IMAGES[:2], IMAGES[2:4]])
    with Index.open(tmp_path / "index") as index:
        stopped_at(line, lambda: index.remove(gone))
    assert Index.open(tmp_path / "index").names in (names, [name for name in names if name not in gone])


def test_after_a_full_disk_what_was_added_waits_for_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StoreError("no space left")

    built(tmp_path / "index", [IMAGES[:2]])
    with Index.open(tmp_path / "index") as index:
        index.add(*IMAGES[2])
        with monkeypatch.context() as patch:
            patch.setattr("hardnet_match.retrieval.manifest.write_text", full)
            for _ in range(2):
                with pytest.raises(StoreError, match="no space"):
                    index.flush()
        index.add(*IMAGES[3])
        # Committed, and then it cannot be read back: nothing of it waits to be written a second time.
        with monkeypatch.context() as patch:
            patch.setattr(module, "Snapshot", full)
            with pytest.raises(StoreError, match="no space"):
                index.flush()
    assert Index.open(tmp_path / "index").names == [name for name, _ in IMAGES[:4]]
