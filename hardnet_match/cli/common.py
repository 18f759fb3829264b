"""What every verb shares: the end of a run (summary, exit code), and errors as one line on stderr."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import typer

from ..errors import HardnetMatchError, OptionError
from ..presets import compose
from .stops import Stops

if TYPE_CHECKING:
    from ..extractor import FeatureExtractor
    from ..store import Shard

DONE, FAILED, USAGE, SKIPPED = 0, 1, 2, 3
STOPPED = 128  # and the signal's number: 130 Ctrl-C, 143 SIGTERM
DEBUG = "HARDNET_MATCH_DEBUG"

P = ParamSpec("P")


def examples(text: str) -> str:
    """Help text of examples, kept line by line."""
    lines = [line.strip() for line in text.strip().splitlines()]
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def verb(function: Callable[P, int]) -> Callable[P, None]:
    """Make a verb of a function that returns its exit code: no traceback for what the user can mend."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        stops = Stops()
        try:
            with stops:
                code = function(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get(DEBUG):
                raise
            # A library may turn the KeyboardInterrupt raised inside its callback into an error of its own.
            if isinstance(error, KeyboardInterrupt) or stops.came:
                number = stops.came[0] if stops.came else signal.SIGINT
                code = STOPPED + number
                how = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
                complain(f"{how}; what is written stays readable, and the same command goes on from there")
            else:
                code = USAGE if isinstance(error, OptionError) else FAILED
                complain(_told(error))
        raise typer.Exit(code)

    return run


def _told(error: Exception) -> str:
    if isinstance(error, HardnetMatchError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory: try a smaller --max-size or fewer --max-keypoints, or --device cpu"
    return f"{type(error).__name__}: {error} (this should not happen; {DEBUG}=1 shows where)"


def complain(message: str) -> None:
    """One line on stderr."""
    print(f"hardnet-match: error: {' '.join(message.split())}", file=sys.stderr, flush=True)


class _ToStderr(logging.Handler):
    """Writes to the stderr of the moment: whoever runs a verb inside a program may have closed an earlier one."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        # A log that cannot be written (its disk is full, its pipe is gone, a signal's handler logs while this very
        # stream writes) ends no run.
        with suppress(OSError, ValueError, RuntimeError):
            print(line, file=sys.stderr, flush=True)


def set_logging(quiet: bool) -> None:
    """Logs of the package go to stderr, plainly."""
    logger = logging.getLogger("hardnet_match")
    logger.handlers[:] = [_ToStderr()]
    logger.propagate = False
    logger.setLevel(logging.WARNING if quiet else logging.INFO)


def finish(summary: Any, text: str, *, as_json: bool, skipped: Mapping[str, str] | None = None) -> int:
    """Print a summary, as JSON or in words, and give the exit code that fits it."""
    left_out = dict(getattr(summary, "skipped", {}) if skipped is None else skipped)
    if as_json:
        print(json.dumps(plain(summary), indent=2, ensure_ascii=False))
    else:
        print(text)
        if left_out:
            print(f"{len(left_out)} skipped:")
            for name, reason in left_out.items():
                print(f"  {name}: {reason}")
    sys.stdout.flush()
    return SKIPPED if left_out else DONE


def plain(value: Any) -> Any:
    """Dataclasses, tuples, paths and numpy numbers as what JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return value


def output_place(path: Path, *, folder: bool = False) -> Path:
    """The path if it can be written to.

    Raises:
        OptionError: its folder is missing, or something of the other kind is in its place.
    """
    if not path.parent.is_dir():
        raise OptionError(f"{path}: the folder {path.parent} does not exist; make it first")
    if folder and path.exists() and not path.is_dir():
        raise OptionError(f"{path} is a file; the output is a folder")
    if not folder and path.is_dir():
        raise OptionError(f"{path} is a folder; name a file in it")
    return path


def shard_of(text: str | None) -> Shard | None:
    """The part of the work that `--shard` names; OptionError if it names none."""
    from ..store.shards import Shard

    return None if text is None else Shard.parse(text)


@contextmanager
def crew_at(address: str | None, most: int | None, device: str, weights: Sequence[str | None] = ()) -> Iterator[Any]:
    """The crew of `--ray`, as `jobs.cluster.connected`; None without it."""
    if address is None:
        if most is not None:
            raise OptionError("--ray-workers says how many workers --ray ADDRESS may have; give both")
        yield None
        return
    from ..jobs.cluster import connected

    with connected(address, device=device, most=most, weights=[name for name in weights if name]) as crew:
        yield crew


def build_extractor(preset: str, **options: Any) -> FeatureExtractor:
    """A FeatureExtractor from the command line's options; wrong names are told before anything heavy is imported."""
    parts = ("detector", "shape", "orientation", "descriptor")
    compose(preset, **{part: options[part] for part in parts if part in options})
    from ..extractor import FeatureExtractor

    return FeatureExtractor.from_preset(preset, **options)
