"""Build the wheel and the source archive, install each into a fresh environment, and see that it works there.

    python scripts/check_wheel.py [--full]

Without --full the environments see the libraries of the one this runs in, and pip installs the package alone: what is
checked is what is inside. With it each environment is empty, and pip fetches all that setup.cfg asks for (gigabytes).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
INSIDE = (
    "hardnet_match/py.typed",
    "hardnet_match/weights/hardnet-bundled.safetensors",
    "hardnet_match/weights/affnet-bundled.safetensors",
    "hardnet_match/weights/orinet-bundled.safetensors",
    "hardnet_match/weights/hardnet-bundled.md",
    "hardnet_match/training/recipes/bundled-hardnet.toml",
)
SEEN = """
import hardnet_match, numpy as np, sys
from pathlib import Path
place = Path(hardnet_match.__file__).parent
assert place.is_relative_to(sys.prefix), f"{place} is not the installed package"
from hardnet_match import FeatureExtractor
from hardnet_match.training import recipe
found = FeatureExtractor.from_preset("hesaffnet-hardnet", max_keypoints=50, device="cpu").extract(
    np.random.default_rng(0).integers(0, 256, (90, 120), np.uint8)
)
print(len(found), "features,", len(recipe.names()), "recipes, from", place)
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="fetch the dependencies too")
    full = parser.parse_args().full
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for package in build(place):
            check_content(package)
            install(package, place / f"env-{package.suffix[1:]}", full)


def build(place: Path) -> list[Path]:
    """The wheel and the source archive, out of a copy: a build leaves folders behind."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    source, out = place / "source", place / "dist"
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    backend = "import sys; from setuptools import build_meta as b; "
    for step in ("b.build_sdist(sys.argv[1])", "b.build_wheel(sys.argv[1])"):
        subprocess.run([sys.executable, "-c", backend + step, str(out)], cwd=source, check=True, capture_output=True)
    return [next(out.glob("*.whl")), next(out.glob("*.tar.gz"))]


def check_content(package: Path) -> None:
    """What must be inside is inside."""
    if package.suffix == ".whl":
        names = set(zipfile.ZipFile(package).namelist())
        licence = any(name.endswith("LICENSE") for name in names)
    else:
        with tarfile.open(package) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        licence = "LICENSE" in names
    missing = [name for name in INSIDE if name not in names]
    if missing or not licence:
        raise SystemExit(f"{package.name} lacks {', '.join(missing) or 'its licence'}")
    print(f"{package.name}: {len(names)} files, {package.stat().st_size / 1e6:.1f} MB")


def install(package: Path, environment: Path, full: bool) -> None:
    """Install into a new environment, and use it there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    # the libraries' own copy of the package, if there is one, must not count as this one
    options = [] if full else ["--no-deps", "--no-build-isolation", "--ignore-installed"]
    if not full:
        site = subprocess.run(
            [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        Path(site, "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    clean = {"PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(environment), "OMP_NUM_THREADS": "1"}
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(package)], check=True, cwd=environment)
    subprocess.run([str(python), "-c", SEEN], check=True, cwd=environment, env=clean)
    subprocess.run([str(environment / "bin" / "hardnet-match"), "--version"], check=True, cwd=environment, env=clean)


if __name__ == "__main__":
    main()
