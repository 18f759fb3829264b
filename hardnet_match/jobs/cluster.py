"""This process and a Ray cluster: connected for a while, and nothing left behind."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ..errors import ClusterError, OptionError
from .crew import Crew, short

log = logging.getLogger(__name__)


@contextmanager
def connected(
    address: str, *, device: str = "auto", most: int | None = None, weights: Sequence[str] = ()
) -> Iterator[Crew]:
    """A crew on a Ray cluster; on leaving, its workers are ended and this process is no longer connected.

    Args:
        address: `auto` (the cluster this machine is part of), HOST:PORT of its head, or `local` (a cluster of this
            machine's cores alone, which ends with it). A process that is connected already stays where it is.
        device: `auto` (GPUs where the cluster has any), `cuda` or `cpu`.
        most, weights: as `Crew`.

    Raises:
        OptionError: Ray is not installed, the address is none, or the device is none that a cluster has.
        ClusterError: there is no such cluster, or it has no GPU where one is asked for.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise OptionError(f"the device of workers on a cluster is auto, cpu or cuda, got {device!r}")
    if most is not None and most < 1:
        raise OptionError(f"workers must be 1 or more, got {most}")
    if importlib.util.find_spec("ray") is None:
        raise OptionError('working on a Ray cluster needs Ray: pip install "hardnet-match[ray]"')
    _check_address(address)
    # Whoever starts a cluster decides whether it reports on its use; one that we start does not.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    options: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    aside = contextlib.redirect_stdout(_Aside(sys.stdout))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with aside, _disconnected_after():
        try:
            if not ray.is_initialized():  # whoever calls this from a program of Ray's keeps the connection they have
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
        except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError, AssertionError) as error:
            raise ClusterError(
                f"no Ray cluster at {address!r} ({short(error)}): start one with `ray start --head`, let this machine "
                "join it with `ray start --address HOST:PORT`, or take `local`"
            ) from None
        with suppress(ValueError):  # not the main thread
            for number, handler in handlers.items():
                signal.signal(number, handler)
        gpus = int(ray.cluster_resources().get("GPU", 0))
        if device == "cuda" and not gpus:
            raise ClusterError("the Ray cluster has no GPU; take --device cpu, or auto")
        crew = Crew("cuda" if gpus and device != "cpu" else "cpu", most, weights)
        try:
            yield crew
        finally:
            crew.dismiss()


@contextmanager
def _disconnected_after() -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    try:
        yield
    finally:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it held back until now
            ray.shutdown()


class _Aside:
    """Standard output, but for what Ray's threads print there: a summary is to be alone on it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or log, by whose words they are."""
        if threading.current_thread().name.startswith("ray_"):
            log.debug("%s", text.rstrip())
            return len(text)
        return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _check_address(address: str) -> None:
    if address in ("auto", "local"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in address or not port.isdigit():
        raise OptionError(f"a Ray cluster is auto, local or HOST:PORT of its head, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(f"nothing answers at {address} ({error}); is the head of the Ray cluster there?") from None
