"""The machine: processors, graphics cards, memory, and what `auto` makes of them."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from .check import BROKEN, LOOK, OK, Check

GIB = 1 << 30
LEAST_MEMORY = 2 * GIB
INSTRUCTIONS = {
    "avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI",
    "avx512_bf16": "AVX-512 bfloat16", "amx_int8": "AMX int8", "amx_bf16": "AMX bfloat16", "asimd": "NEON",
    "asimddp": "NEON dot product", "i8mm": "NEON int8 matrices",
}  # fmt: skip
INTEGER = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp")


def processor() -> Check:
    """Its kind, its instructions, and how many cores this process may use."""
    model, flags = _cpu()
    told = [name for flag, name in INSTRUCTIONS.items() if flag in flags]
    cores, whole = usable_cores(), os.cpu_count() or 1
    text = f"{model}; {cores} of {whole} cores may be used" if cores != whole else f"{model}; {_cores(cores)}"
    if told:
        text += f"; {', '.join(told)}"
    if platform.machine().lower() in ("x86_64", "amd64") and flags and "avx2" not in flags:
        return Check("processor", LOOK, text, "without AVX2 the networks are several times slower")
    return Check("processor", OK, text)


def memory() -> Check:
    """How much there is, a container's limit counted."""
    amount = _memory()
    if amount is None:
        return Check("memory", OK, "size unknown on this system")
    text = f"{amount / GIB:.1f} GiB"
    if amount < LEAST_MEMORY:
        return Check("memory", LOOK, text, "keep --max-size 1600 and --max-keypoints 4096, and --workers 1")
    return Check("memory", OK, text)


def threads() -> Check:
    """How many threads torch takes, against the cores there are."""
    import torch

    cores, taken = usable_cores(), torch.get_num_threads()
    asked = {name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ}
    text = f"torch takes {taken}, {_cores(cores)} may be used"
    if asked:
        text += f" ({', '.join(f'{name}={value}' for name, value in asked.items())})"
    if taken > cores:
        return Check("threads", LOOK, text, f"more threads than cores slow each other: set OMP_NUM_THREADS={cores}")
    if taken < cores:
        return Check("threads", LOOK, text, f"set OMP_NUM_THREADS={cores}, unless others need the cores")
    return Check("threads", OK, text)


def graphics() -> Iterator[Check]:
    """CUDA and MPS: what torch can use, and why not."""
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            text = f"{about.name}, {about.total_memory / GIB:.0f} GiB, CUDA {torch.version.cuda}"
            yield _worked(f"cuda:{number}", text)
    elif shutil.which("nvidia-smi"):
        built = torch.version.cuda
        text = "this machine has NVIDIA's tools, but " + (
            f"torch (built for CUDA {built}) finds no card" if built else "torch is built for the processor alone"
        )
        do = "the driver may be too old for it: see nvidia-smi" if built else "install torch's CUDA build to use it"
        yield Check("cuda", LOOK, text, do)
    else:
        yield Check("cuda", OK, "no NVIDIA card; the processor does the work")
    if sys.platform == "darwin":
        there = torch.backends.mps.is_available()
        yield _worked("mps", "Apple's graphics processor") if there else Check("mps", OK, "not available")


def automatic() -> Check:
    """Device and precision that `auto` takes, and what would be faster."""
    from ...extractor import FeatureExtractor

    extractor = FeatureExtractor.from_preset()
    device = extractor.device
    text = f"device {device}, precision {extractor.precision}"
    if device.type != "cpu" or extractor.precision == "int8":
        return Check("auto takes", OK, text)
    if importlib.util.find_spec("openvino") is None:
        return Check(
            "auto takes", OK, text, 'about three times as fast: pip install "hardnet-match[int8]" and --precision int8'
        )
    fast = "" if set(INTEGER) & _cpu()[1] else ", somewhat (this processor has no 8-bit dot product)"
    return Check("auto takes", OK, f"{text}; --precision int8 would be faster{fast}")


def usable_cores() -> int:
    """Cores this process may use: its affinity, and a container's share of time."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        cores = os.cpu_count() or 1
    told = _read("/sys/fs/cgroup/cpu.max").split()
    if len(told) == 2 and told[0].isdigit() and told[1].isdigit():
        cores = min(cores, max(1, round(int(told[0]) / int(told[1]))))
    return cores


def _worked(name: str, text: str) -> Check:
    """Whether a device multiplies as it should."""
    import torch

    try:
        given = torch.arange(64, dtype=torch.float32).reshape(8, 8)
        result = (given.to(name) @ given.to(name)).cpu()
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for the device
        told = " ".join(str(error).split())
        return Check(name, BROKEN, f"{text}: it is there and does not work: {told}", "use --device cpu meanwhile")
    if not torch.allclose(result, given @ given, rtol=1e-2):
        return Check(name, BROKEN, f"{text}: it multiplies wrongly", "use --device cpu, and mend driver or card")
    return Check(name, OK, text)


def _cpu() -> tuple[str, set[str]]:
    """Model and flags, as far as the system tells."""
    model, flags = platform.processor() or platform.machine(), set()
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            model = value.strip()
        elif key.strip() in ("flags", "Features"):
            flags = set(value.split())
            break
    return model, flags


def _memory() -> int | None:
    amounts = []
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            amounts.append(int(line.split()[1]) * 1024)
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdigit():
        amounts.append(int(limit))
    if not amounts and hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        amounts.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(amounts) if amounts else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cores(count: int) -> str:
    return f"{count} core{'' if count == 1 else 's'}"
