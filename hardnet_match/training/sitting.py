"""Where and how one sitting of a run computes: precision, seeds of its steps, and Ctrl-C between two of them."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ..errors import OptionError

log = logging.getLogger(__name__)

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def choose_precision(name: str, device: torch.device) -> torch.dtype | None:
    """The type matrix products run in; None for float32.

    `auto`: bfloat16 on CUDA devices and processors that have it, float16 (with a loss scale) on other CUDA devices,
    float32 elsewhere.

    Raises:
        OptionError: the name is unknown, or float16 is asked for without CUDA.
    """
    if name not in PRECISIONS:
        raise OptionError(f"precision {name!r} is unknown: choose one of {', '.join(PRECISIONS)}")
    if name == "float16" and device.type != "cuda":
        raise OptionError("float16 trains on CUDA devices only; use bfloat16 or float32")
    if name == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        return torch.bfloat16 if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported() else None
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]


def seed_of(seed: int, step: int, rank: int) -> int:
    """A seed of 62 bits that no other step or process (-1: what all share) has, but by chance."""
    high, low = np.random.SeedSequence([seed, step, rank + 1]).generate_state(2, np.uint32)
    return (int(high) << 30) ^ int(low)


@contextmanager
def noticing_interrupt() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets; a second Ctrl-C acts at once."""
    pressed = threading.Event()

    def handler(number: int, frame: Any) -> None:
        if pressed.is_set():
            signal.default_int_handler(number, frame)
        pressed.set()
        log.info("stopping after this step; press Ctrl-C again to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield pressed
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
