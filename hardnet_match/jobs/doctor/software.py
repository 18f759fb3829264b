"""Versions: Python, the package, what it stands on, and the extras."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import subprocess
import sys
from collections.abc import Iterator

import hardnet_match

from .check import BROKEN, LOOK, OK, Check

PACKAGE = "hardnet-match"
OLDEST, NEWEST = (3, 10), (3, 13)
# name of the distribution -> name of the module; zlib's users come after it for pycolmap's sake (see `trap`)
CORE = {
    "numpy": "numpy", "torch": "torch", "opencv-python-headless": "cv2", "pillow": "PIL", "h5py": "h5py",
    "kornia": "kornia", "safetensors": "safetensors", "pycolmap": "pycolmap",
}  # fmt: skip
FLAVOURS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
# extra -> (modules, what one gets by it)
EXTRAS = {
    "int8": (("openvino",), "precision int8, about three times as fast on a CPU"),
    "retrieval": (("faiss",), "quicker codebooks for search and pair selection"),
    "training": (("tensorboard",), "curves of a training in TensorBoard"),
    "export": (("onnx", "onnxscript", "onnxruntime"), "networks as ONNX files"),
    "benchmark": (("poselib",), "measured comparisons of pairs and poses"),
    "ray": (("ray",), "runs over several machines"),
}
_TRAP = """
import {first}
import {second}
assert zlib.decompress(zlib.compress(bytes(100000))) == bytes(100000)
"""


def python() -> Check:
    """The interpreter, and the system it runs on."""
    version = sys.version_info[:2]
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()} ({sys.executable})"
    if version < OLDEST:
        return Check("python", BROKEN, text, "Python 3.10 or newer is needed")
    if version > NEWEST:
        return Check("python", LOOK, text, "tested with 3.10 to 3.13; newer ones probably work")
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        return Check(
            "python", LOOK, f"{text}; file names are read as {sys.getfilesystemencoding()}",
            "set PYTHONUTF8=1, or photos with names beyond ASCII may not be found",
        )  # fmt: skip
    return Check("python", OK, text)


def package() -> Check:
    """This package: its version, and whether what is imported is what is installed."""
    here = hardnet_match.__path__[0]
    try:
        installed = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return Check(
            PACKAGE, OK, f"{hardnet_match.__version__}, from {here} (not installed: run from its folder)"
        )  # fmt: skip
    if installed != hardnet_match.__version__:
        return Check(
            PACKAGE, LOOK, f"{hardnet_match.__version__} is imported from {here}, but {installed} is installed",
            "run from another folder, or install again, so that only one of them is found",
        )  # fmt: skip
    return Check(PACKAGE, OK, f"{installed}, from {here}")


def core() -> Iterator[Check]:
    """What the package cannot do without: there, importable, new enough."""
    least = _least()
    importlib.import_module("zlib")
    for name, module in CORE.items():
        version = _version(name, module)
        try:
            loaded = importlib.import_module(module)
        except Exception as error:  # a broken shared library raises what it likes
            told = " ".join(str(error).split())
            what = "is not installed" if version is None else f"{version} cannot be imported: {told}"
            yield Check(name, BROKEN, what, f"pip install --force-reinstall {name}")
            continue
        found = version or str(getattr(loaded, "__version__", "version unknown"))
        if name in least and _numbers(found) < _numbers(least[name]):
            yield Check(name, BROKEN, f"{found} is too old", f'pip install "{name}>={least[name]}"')
        else:
            yield Check(name, OK, found)


def opencv() -> Iterator[Check]:
    """Two flavours of OpenCV write into the same folder."""
    there = [name for name in FLAVOURS if _distribution(name)]
    if len(there) > 1:
        yield Check(
            "opencv", LOOK, f"{' and '.join(there)} are installed over one another",
            f"keep one: pip uninstall {' '.join(there)}, then pip install {there[-1]}",
        )  # fmt: skip


def extras() -> Iterator[Check]:
    """Which optional parts are there, and what the others would bring."""
    for extra, (modules, brings) in EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        if missing:
            yield Check(
                f"extra {extra}", OK, f"not installed; it brings {brings}",
                f'if wanted: pip install "{PACKAGE}[{extra}]"',
            )  # fmt: skip
            continue
        versions = ", ".join(f"{module} {_version(module, module) or '(version unknown)'}" for module in modules)
        yield Check(f"extra {extra}", OK, f"{versions}: {brings}")


def trap() -> Check:
    """pycolmap's wheels bring symbols of their own zlib: whoever loads them first must not break Python's."""
    ours = _runs("from hardnet_match.sfm.colmap import pycolmap", "zlib")
    if not ours:
        return Check(
            "zlib and pycolmap", BROKEN, "zlib breaks once this package has loaded pycolmap",
            "pip install --force-reinstall pycolmap; if it stays, tell the maintainers which versions these are",
        )  # fmt: skip
    if not _runs("import pycolmap", "zlib"):
        return Check(
            "zlib and pycolmap", OK, "work together here; in code of your own that imports pycolmap before zlib, "
            "zlib, PNG writing and matplotlib would abort", "write `import zlib` before `import pycolmap` there",
        )  # fmt: skip
    return Check("zlib and pycolmap", OK, "work together, in either order")


def _runs(first: str, second: str) -> bool:
    code = _TRAP.format(first=first.removeprefix("import "), second=second)
    if first.startswith("from"):
        code = code.replace(f"import {first}", first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, env=_environment())
    return done.returncode == 0


def _environment() -> dict[str, str]:
    """That of this process, with the package importable as it is here."""
    import os
    from pathlib import Path

    root = str(Path(hardnet_match.__path__[0]).parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}


def _least() -> dict[str, str]:
    """Lowest versions that the installed package asks for; of other Pythons' lines the lowest."""
    try:
        lines = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for line in lines:
        told = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", line)
        if told and "extra ==" not in line:
            name, version = told.groups()
            if name not in found or _numbers(version) < _numbers(found[name]):
                found[name] = version
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _version(name: str, module: str) -> str | None:
    """Version of a distribution, whichever of those that hold the module is there."""
    direct = _distribution(name)
    if direct is not None:
        return direct
    holders = importlib.metadata.packages_distributions().get(module, [])
    return _distribution(holders[0]) if holders else None
