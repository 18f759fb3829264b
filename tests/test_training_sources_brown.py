"""Brown's sets: folders, zips, and downloads by name, in the published order."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from source_helpers import brown_like, zipped

from hardnet_match.errors import DataError, OptionError
from hardnet_match.training.sources import brown as brown_module
from hardnet_match.training.sources.brown import SETS, TEST_PAIRS, Brown
from hardnet_match.training.sources.gather import gather, gather_to_file


@pytest.mark.parametrize("form", ["folder", "zip", "zip with a folder"])
def test_brown_comes_back_in_order(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "liberty-like"
    patches, points = brown_like(folder)
    path = folder
    if form != "folder":
        path = zipped(folder, tmp_path / "b.zip", "liberty/" if "with" in form else "")
    found, _, _ = gather_to_file(Brown(path), tmp_path / "set.h5")
    assert (found.margin, found.side) == (1.0, 64)
    order = np.lexsort((np.arange(600) % 7, points))  # by point, then by reference image
    assert (found.track == points[order]).all()
    assert (found.patches == patches[order]).all()
    assert (found.image == order % 7).all()
    assert found.same_place(order, order) is None
    rows = [line.split() for line in (folder / TEST_PAIRS).read_text().splitlines()]
    assert found.matches is not None
    assert 15 < found.matches[:, 2].sum() < 25
    for (a, b, same), row in zip(found.matches, rows, strict=True):
        assert (found.patches[a] == patches[int(row[0])]).all()
        assert (found.patches[b] == patches[int(row[3])]).all()
        assert same == (row[1] == row[4])


def test_brown_without_its_further_files(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    brown_like(folder)
    (folder / "interest.txt").unlink()
    (folder / TEST_PAIRS).unlink()
    found = gather(Brown(folder))
    assert found.matches is None
    assert not found.image.any()


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda f: (f / "info.txt").unlink(), "has no info.txt"),
        (lambda f: (f / "info.txt").write_text("1 0\nx 0\n"), "no table of numbers"),
        (lambda f: (f / "info.txt").write_text(""), "empty"),
        (lambda f: (f / "patches0001.bmp").unlink(), "need 3 bitmaps, there are 2"),
        (lambda f: (f / "interest.txt").write_text("1 2\n"), "differ in their number of rows"),
        (lambda f: (f / "patches0001.bmp").write_bytes(b"BM"), "not a whole picture"),
        (lambda f: cv2.imwrite(str(f / "patches0001.bmp"), np.zeros((64, 64))), "64x64, not 1024x1024"),
        (lambda f: (f / TEST_PAIRS).write_text("0 1 0 999999 1 0\n"), "does not fit the 600 patches"),
        (lambda f: (f / TEST_PAIRS).write_text("0 77 0 1 77 0\n"), "other points than info.txt"),
    ],
)
def test_damaged_brown_says_what_is_wrong(tmp_path: Path, harm: Any, reason: str) -> None:
    folder = tmp_path / "b"
    brown_like(folder)
    harm(folder)
    with pytest.raises(DataError, match=reason):
        gather_to_file(Brown(folder), tmp_path / "set.h5")
    assert not (tmp_path / "set.h5").exists()


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, list[str]]]:
    """A folder served over HTTP, the paths asked for, and an empty cache."""
    folder, asked = tmp_path / "served", []
    folder.mkdir()
    monkeypatch.setenv("HARDNET_MATCH_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    here = f"http://127.0.0.1:{server.server_address[1]}"
    for name, entry in SETS.items():
        urls = tuple(f"{here}/{url.rsplit('/', 1)[1]}" for url in entry.urls)
        monkeypatch.setitem(brown_module.SETS, name, replace(entry, urls=urls))
    yield folder, asked
    server.shutdown()
    server.server_close()


def test_a_set_is_downloaded_by_name_once_and_checked(
    served: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = served
    patches, _ = brown_like(tmp_path / "b")
    zipped(tmp_path / "b", folder / "liberty.zip")
    with pytest.raises(DataError, match=r"(?s)data 'liberty'.*not the official file.*md5 fdd9152f.*folder or zip you"):
        Brown("liberty")
    digest = hashlib.md5((folder / "liberty.zip").read_bytes()).hexdigest()
    monkeypatch.setitem(brown_module.SETS, "liberty", replace(brown_module.SETS["liberty"], md5=digest))
    asked.clear()
    found = gather(Brown("liberty"))
    assert found.name == "liberty"
    assert len(found) == len(patches)
    assert asked == ["/liberty.zip"]
    assert gather(Brown("liberty")).name == "liberty"
    assert asked == ["/liberty.zip"]
    assert (tmp_path / "cache" / "data" / "liberty.zip").is_file()
    # a copy that went bad is fetched again
    (tmp_path / "cache" / "data" / "liberty.zip").write_bytes(b"PK")
    gather(Brown("liberty"))
    assert asked == ["/liberty.zip"] * 2


def test_all_six_sets_are_known_and_what_is_gone_says_where_to_put_it(served: tuple[Path, list[str]]) -> None:
    assert sorted(SETS) == sorted(f"{place}{kind}" for place in ("liberty", "notredame", "yosemite")
                                  for kind in ("", "_harris"))  # fmt: skip
    assert sum(entry.count for entry in SETS.values()) == 450092 + 468159 + 633587 + 379587 + 325295 + 450912
    for name, entry in SETS.items():
        assert len(entry.md5) == 32
        with pytest.raises(DataError, match=rf"HTTP 404.*(?s:.)*{name}\.zip"):
            Brown(name)
    with pytest.raises(OptionError, match="no set of that name"):
        Brown("statue")
