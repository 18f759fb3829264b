"""A verb hears of signals while it runs, and nobody hears of them again after it."""

from __future__ import annotations

import importlib
import io
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

from hardnet_match.cli import common, stops

pytestmark = pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals as POSIX has them")


@pytest.fixture
def heard() -> Iterator[list[int]]:
    """The signals that come to whoever calls the verb."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda number, frame: came.append(number)) for number in numbers]
    hook = sys.unraisablehook
    yield came
    assert sys.unraisablehook is hook
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def code_of(body: Callable[[], object]) -> int:
    """Exit code of a verb that does this."""

    @common.verb
    def run() -> int:
        body()
        return 0

    with pytest.raises(typer.Exit) as ended:
        run()
    return int(ended.value.exit_code)


def swallow(number: int) -> None:
    """The signal comes inside a finaliser, where Python drops what is raised."""

    class Left:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)
            for _ in range(1000):
                pass

    Left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_not_sent_again_after_the_end(number: int, heard: list[int]) -> None:
    assert code_of(lambda: swallow(number)) == 0
    time.sleep(4 * stops.MOMENT)
    assert heard == []


def test_whenever_the_verb_ends(heard: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """The end meets the sending at every place of both."""
    draw = random.Random(0)
    monkeypatch.setattr(stops, "MOMENT", 0.0)
    codes = set()

    def body() -> None:
        swallow(signal.SIGTERM)
        end = time.perf_counter() + draw.random() * 3e-4
        while time.perf_counter() < end:
            pass

    for _ in range(400):
        codes.add(code_of(body))
        assert signal.getsignal(signal.SIGTERM).__name__ == "<lambda>"  # type: ignore[union-attr]
    time.sleep(0.05)
    assert heard == []
    assert codes == {0, 143}


def test_it_is_heard_where_another_handler_has_ctrl_c(heard: list[int]) -> None:
    """As training has it, whose second Ctrl-C acts at once."""

    def body() -> None:
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            swallow(signal.SIGINT)
            time.sleep(10)
        finally:
            signal.signal(signal.SIGINT, before)

    begun = time.monotonic()
    assert code_of(body) == 130
    assert time.monotonic() - begun < 5
    assert heard == []


def test_it_wakes_who_waits_for_a_thread(heard: list[int]) -> None:
    free = threading.Event()

    def body() -> None:
        swallow(signal.SIGTERM)
        free.wait(10)

    begun = time.monotonic()
    assert code_of(body) == 143
    assert time.monotonic() - begun < 5


def module(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of this text that was not imported yet, by name."""
    name = f"made_{folder.name}"
    (folder / f"{name}.py").write_text(
        f"import os, time\nkill = lambda: os.kill(os.getpid(), {signal.SIGTERM:d})\n{text}"
    )
    monkeypatch.syspath_prepend(folder)
    return name


def test_an_import_comes_to_its_end_first(heard: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = module(tmp_path, "kill()\ntime.sleep(3 * 0.05)\nwhole = True\n", monkeypatch)

    def body() -> None:
        importlib.import_module(name)
        time.sleep(10)

    begun = time.monotonic()
    assert code_of(body) == 143
    assert time.monotonic() - begun < 5
    assert importlib.import_module(name).whole
    assert heard == []


def test_an_import_that_swallows_signals_does_not_lose_them(
    heard: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = module(tmp_path, "try:\n    kill()\n    time.sleep(0.01)\nexcept BaseException: pass\n", monkeypatch)

    def body() -> None:
        importlib.import_module(name)
        time.sleep(10)

    assert code_of(body) == 143
    assert heard == []


def test_an_import_that_does_not_end_is_stopped(
    heard: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stops, "IMPORT_SECONDS", 0.2)
    name = module(tmp_path, "kill()\ntime.sleep(10)\n", monkeypatch)
    begun = time.monotonic()
    assert code_of(lambda: importlib.import_module(name)) == 143
    assert time.monotonic() - begun < 5


def test_a_verb_run_by_a_module_while_it_is_imported(
    heard: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "from test_cli_stops import code_of\ncode = code_of(lambda: (kill(), time.sleep(4)))\n"
    begun = time.monotonic()
    assert importlib.import_module(module(tmp_path, text, monkeypatch)).code == 143
    assert time.monotonic() - begun < 3


def test_a_finaliser_that_fails_by_itself_is_told_as_ever(heard: list[int]) -> None:
    told: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda what: told.append(what.exc_type)

    class Left:
        def __del__(self) -> None:
            raise ValueError

    try:
        assert code_of(Left) == 0
    finally:
        sys.unraisablehook = hook
    assert told == [ValueError]


def test_in_another_thread_nothing_is_changed() -> None:
    hook, handler, codes = sys.unraisablehook, signal.getsignal(signal.SIGTERM), []

    def body() -> None:
        assert (sys.unraisablehook, signal.getsignal(signal.SIGTERM)) == (hook, handler)

    thread = threading.Thread(target=lambda: codes.append(code_of(body)))
    thread.start()
    thread.join()
    assert codes == [0]


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), RuntimeError("reentrant call inside stderr"), ValueError("closed")],
)
def test_a_log_that_cannot_be_written_ends_no_run(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    logger = logging.getLogger("hardnet_match")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", logger.propagate)
    level = logger.level
    try:
        common.set_logging(quiet=False)
        monkeypatch.setattr(sys, "stderr", Full())
        logger.info("a line")
    finally:
        logger.setLevel(level)
