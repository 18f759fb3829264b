"""The real download code against a real HTTP server on this machine: right, wrong, cut off, slow, gone, at once."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hardnet_match.errors import WeightsError
from hardnet_match.weights import ENTRIES, cache_folder, download, file_hash, resolve
from hardnet_match.weights.download import fetch, file_digest
from hardnet_match.weights.registry import Entry

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
GIT_BLOB = hashlib.sha1(f"blob {len(CONTENT)}\0".encode() + CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    """/good, /wrong, /cut, /gone, /busy (once), /hang, /slow, /to/URL, /endless."""

    def do_GET(self) -> None:
        server: _Server = self.server  # type: ignore[assignment]
        kind = self.path.split("/")[1]
        server.asked[kind] += 1
        if kind == "gone" or (kind == "busy" and server.asked[kind] == 1):
            self.send_error(404 if kind == "gone" else 503)
            return
        if kind == "to":
            self.send_response(302)
            self.send_header("Location", self.path[len("/to/") :])
            self.end_headers()
            return
        body = {"wrong": b"x" * len(CONTENT), "cut": CONTENT[:100_000], "empty": b""}.get(kind, CONTENT)
        self.send_response(200)
        announced = {"empty": 0, "huge": 10**12}.get(kind, len(CONTENT))
        if kind != "unannounced":
            self.send_header("Content-Length", str(announced))
        self.end_headers()
        if kind == "hang":
            self.wfile.write(body[:1000])
            server.release.wait(20)
            return
        if kind == "slow":
            for start in range(0, len(body), 10_000):
                self.wfile.write(body[start : start + 10_000])
                time.sleep(0.03)
            return
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.release = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are part of the tests

    def url(self, kind: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{kind}"

    def entry(self, *kinds: str, **changes: str | None) -> Entry:
        urls = tuple(self.url(kind) for kind in kinds)
        entry = Entry("test", "hardnet", urls, "test file.pth", "MIT", "nobody", "a test", sha256=SHA256)
        return dataclasses.replace(entry, **changes)  # type: ignore[arg-type]


@pytest.fixture
def server() -> Iterator[_Server]:
    running = _Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield running
    running.release.set()
    running.shutdown()
    running.server_close()
    thread.join(5)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARDNET_MATCH_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "weights"


def _kept(cache: Path) -> list[str]:
    """What lies in the cache, locks aside."""
    return sorted(path.name for path in cache.glob("*") if path.suffix != ".lock") if cache.exists() else []


@pytest.mark.parametrize("hashes", [{}, {"sha256": None, "git_blob": GIT_BLOB}])
def test_a_file_is_fetched_once_checked_and_kept(server: _Server, cache: Path, hashes: dict[str, str | None]) -> None:
    entry = server.entry("good", **hashes)
    path = fetch(entry)
    assert path == cache / "test file.pth"
    assert path.read_bytes() == CONTENT
    assert fetch(entry) == path
    assert server.asked["good"] == 1
    assert _kept(cache) == ["test file.pth"]


def test_nothing_is_said_on_stderr_that_is_no_terminal(server: _Server, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(server.entry("good"))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("bad", ["wrong", "cut", "gone", "empty", "huge"])
def test_the_next_source_is_tried_when_one_is_bad(server: _Server, bad: str) -> None:
    assert fetch(server.entry(bad, "good")).read_bytes() == CONTENT
    assert server.asked[bad] == (2 if bad == "cut" else 1), "a second attempt only where it may help"
    assert server.asked["good"] == 1


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("wrong", "not the official file"),
        ("cut", "broke off after 100000 of 300000 bytes"),
        ("gone", "HTTP 404"),
        ("empty", "empty file"),
        ("huge", "too many"),
    ],
)
def test_a_bad_file_never_reaches_the_cache(server: _Server, cache: Path, bad: str, reason: str) -> None:
    with pytest.raises(WeightsError, match=reason) as caught:
        fetch(server.entry(bad))
    assert _kept(cache) == []
    for part in (server.url(bad), str(cache / "test file.pth"), SHA256, "bundled"):
        assert part in str(caught.value), "the message tells the addresses, and where to put the file by hand"


def test_a_passing_fault_is_tried_again(server: _Server) -> None:
    assert fetch(server.entry("busy")).read_bytes() == CONTENT
    assert server.asked["busy"] == 2


def test_a_source_without_a_length_is_checked_by_its_hash(server: _Server) -> None:
    assert fetch(server.entry("unannounced")).read_bytes() == CONTENT


def test_a_source_that_hangs_is_given_up(server: _Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)
    start = time.monotonic()
    assert fetch(server.entry("hang", "good")).read_bytes() == CONTENT
    assert time.monotonic() - start < 5
    assert _kept(cache) == ["test file.pth"]
    (cache / "test file.pth").unlink()
    with pytest.raises(WeightsError, match=r"no answer for 0\.3 seconds"):
        fetch(server.entry("hang"))


def test_a_source_that_drips_is_given_up_in_the_end(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TOTAL_SECONDS", 0.2)
    with pytest.raises(WeightsError, match="not done after"):
        fetch(server.entry("slow"))


def test_no_server_at_all_is_told_as_such(server: _Server, cache: Path) -> None:
    server.server_close()
    server.shutdown()
    with pytest.raises(WeightsError, match=r"(?s)refused.*put it at .*test file\.pth"):
        fetch(server.entry("good"))
    assert _kept(cache) == []


def test_a_file_put_there_by_hand_needs_no_network_and_a_wrong_one_is_told(server: _Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "test file.pth").write_bytes(CONTENT)
    assert fetch(server.entry("gone")) == cache / "test file.pth"
    assert not server.asked
    (cache / "test file.pth").write_bytes(b"something else")
    with pytest.raises(WeightsError, match="HTTP 404"):
        fetch(server.entry("gone"))
    assert fetch(server.entry("good")).read_bytes() == CONTENT, "the damaged file is replaced"


def test_redirects_are_followed_but_not_from_https_to_http(server: _Server) -> None:
    assert fetch(server.entry(f"to/{server.url('good')}")).read_bytes() == CONTENT
    import urllib.request

    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(download._Failed, match="leads away from https"):
        download._NoDowngrade().redirect_request(request, None, 302, "", {}, "http://example.org/a")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://example.org/a", "test"])
def test_other_schemes_are_refused(url: str) -> None:
    entry = Entry("test", "hardnet", (url,), "t.pth", "MIT", "", "", sha256=SHA256)
    with pytest.raises(WeightsError, match="only https and http"):
        fetch(entry)


def test_without_a_published_hash_the_first_file_sets_it(
    server: _Server, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry = server.entry("good", sha256=None)
    with caplog.at_level(logging.WARNING):
        path = fetch(entry)
    assert f"sha256 {SHA256} is trusted from now on" in caplog.text
    assert (cache / "test file.pth.sha256").read_text().split()[0] == SHA256
    path.unlink()
    with pytest.raises(WeightsError, match="not the official file"):
        fetch(server.entry("wrong", sha256=None))
    assert fetch(entry).read_bytes() == CONTENT
    plain = dataclasses.replace(entry, urls=("http://example.org/a",), file="other.pth")
    with pytest.raises(WeightsError, match="unencrypted, and no hash"):
        fetch(plain)


_CHILD = """
import sys
from hardnet_match.weights.download import fetch
from hardnet_match.weights.registry import Entry
url, sha = sys.argv[1:]
print("ready", flush=True)
fetch(Entry("test", "hardnet", (url,), "test file.pth", "MIT", "", "", sha256=sha))
"""


def _child(url: str) -> subprocess.Popen[bytes]:
    root = Path(download.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, url, SHA256], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def _wait_for_part(cache: Path) -> None:
    end = time.monotonic() + 30
    while not list(cache.glob(".*.part")):
        assert time.monotonic() < end, "the download never began"
        time.sleep(0.01)


def test_two_processes_at_once_download_once(server: _Server, cache: Path) -> None:
    children = [_child(server.url("slow")) for _ in range(2)]
    for child in children:
        assert child.wait(60) == 0, child.communicate()
    assert server.asked["slow"] == 1
    assert (cache / "test file.pth").read_bytes() == CONTENT


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
def test_an_interrupted_download_leaves_nothing_and_a_killed_one_is_cleaned_up(server: _Server, cache: Path) -> None:
    child = _child(server.url("hang"))
    _wait_for_part(cache)
    child.send_signal(signal.SIGINT)
    assert child.wait(30) != 0
    assert b"KeyboardInterrupt" in child.communicate()[1]
    assert _kept(cache) == []
    child = _child(server.url("hang"))
    _wait_for_part(cache)
    child.kill()
    child.wait(30)
    child.communicate()
    assert len(list(cache.glob(".*.part"))) == 1
    assert fetch(server.entry("good")).read_bytes() == CONTENT
    assert _kept(cache) == ["test file.pth"]
    assert not list(cache.glob(".*.part"))


def test_an_unwritable_cache_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: _Server) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HARDNET_MATCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match="HARDNET_MATCH_CACHE"):
        fetch(server.entry("good"))


def test_names_go_through_the_same_door(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENTRIES, "test", server.entry("good"))
    path = resolve("test")
    assert path.read_bytes() == CONTENT
    assert file_hash("test") == file_hash(path) == SHA256[:16]


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HARDNET_MATCH_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "hardnet-match"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "hardnet-match"


def test_the_registry_is_whole() -> None:
    """Every entry can be fetched from two places, is of a known kind, and tells its licence and paper."""
    wanted = {
        *("hardnet++", "hardnet-liberty", "hardnet-liberty-aug", "hardnet-notredame", "hardnet-yosemite"),
        *("hardnet-notredame-aug", "hardnet-yosemite-aug", "hardnet-6brown", "hardnet-ps", "hardnet8", "affnet"),
        *("orinet", "keynet", "tfeat-liberty", "tfeat-notredame", "tfeat-yosemite", "hardtfeat"),
        *("hardnet-bundled", "affnet-bundled", "orinet-bundled"),
    }
    assert wanted <= set(ENTRIES)
    files = [entry.file for entry in ENTRIES.values()]
    assert len(set(files)) == len(files), "two entries would share a place in the cache"
    for entry in ENTRIES.values():
        assert entry.licence
        assert entry.citation
        assert entry.bundled or len(entry.urls) >= 2
        assert all(url.startswith("https://") for url in entry.urls)
        assert entry.sha256 is None or len(entry.sha256) == 64
        assert entry.git_blob is None or len(entry.git_blob) == 40


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("affnet", "affnet_repo/AffNet.pth"),
        ("orinet", "affnet_repo/OriNet.pth"),
        ("hardtfeat", "affnet_repo/HardTFeat.pth"),
        ("keynet", "keynet/keynet_pytorch.pth"),
        ("tfeat-liberty", "tfeat/tfeat-liberty.params"),
    ],
)
def test_the_registrys_hashes_are_those_of_the_originals(shared: Path, name: str, file: str) -> None:
    path = shared / "weights" / file
    if not path.exists():
        pytest.skip(f"no {path}")
    assert file_digest(path, ENTRIES[name]) == ENTRIES[name].sha256
