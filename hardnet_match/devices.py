"""Which device work runs on, and the memory it leaves behind."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import TYPE_CHECKING

from .errors import OptionError

if TYPE_CHECKING:
    import torch


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """The device of that name; `auto` is CUDA where there is one, then Apple's MPS, then the processor.

    Raises:
        OptionError: there is no such device here.
    """
    import torch

    if isinstance(device, torch.device):
        return device
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise OptionError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:N or mps") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise OptionError(f"no CUDA device for {device!r} here ({torch.cuda.device_count()} found); use auto or cpu")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise OptionError("no MPS device here; use auto or cpu")
    return chosen


def release_memory() -> None:
    """Give back to the system what glibc's allocator keeps of freed memory; with other C libraries nothing.

    Each thread has a heap of its own, and what an image leaves in it adds up over the threads. It takes about a
    millisecond, and as long again for every ten megabytes, once they are used anew.
    """
    with suppress(OSError, AttributeError, TypeError):  # not glibc; not a system with dlopen
        ctypes.CDLL(None).malloc_trim(0)
