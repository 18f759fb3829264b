"""The house of docs/design.md: imports only point downwards, heavy ones stay out of the way, no machine's paths."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hardnet_match"
HEAVY = {"torch", "cv2", "pycolmap", "kornia", "h5py", "scipy", "PIL", "pooch", "tqdm"}


def read_floors() -> dict[str, int]:
    """Part -> floor, from the table of docs/design.md."""
    table = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| (.+?) \|", table, re.MULTILINE)
    floors = {
        name.strip("`").removesuffix("/").removesuffix(".py"): int(floor)
        for floor, names in rows
        for name in re.findall(r"`[\w./]+`", names)
    }
    return {**floors, "__main__": floors["cli"]}


FLOORS = read_floors()


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def place(file: Path) -> str:
    """The part of the house a file is in: the folder or module right under the package."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_parts(file: Path) -> set[str]:
    """Parts of this package that a file imports, anywhere in it, type checking aside."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    package = ("hardnet_match", *file.relative_to(PACKAGE).parts[:-1])
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            target = (*base, *(node.module.split(".") if node.module else ()))
            found |= {(*target, alias.name) for alias in node.names}
    return {path[1] for path in found if path[0] == "hardnet_match" and len(path) > 1}


def test_every_part_has_a_floor() -> None:
    parts = {place(file) for file in modules()} - {"__init__"}
    assert parts <= FLOORS.keys(), (
        f"say in the table of docs/design.md where these live: {sorted(parts - FLOORS.keys())}"
    )


@pytest.mark.parametrize("file", modules(), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_imports_point_downwards(file: Path) -> None:
    own = place(file)
    if own == "__init__":  # the front door: it hands out names of all floors, on first use
        return
    for part in imported_parts(file) - {own}:
        if part in FLOORS and own in FLOORS:
            assert FLOORS[part] <= FLOORS[own], f"{file.relative_to(ROOT)} (floor {FLOORS[own]}) imports {part}"
    # One floor may talk within itself, but only one way.
    if own == "report":
        assert "jobs" not in imported_parts(file)


@pytest.mark.parametrize("module", ["hardnet_match", "hardnet_match.cli"])
def test_importing_is_light(module: str) -> None:
    code = f"import sys, {module}; print(*sorted(set({sorted(HEAVY)!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == []


def tracked_texts() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [
        file for file in files if file.is_file() and file.suffix in {".py", ".md", ".cfg", ".toml", ".txt", ".sh", ""}
    ]


def test_no_path_of_one_machine() -> None:
    wrong = re.compile(r"(?<![\w.:/$}])/(?:home|Users|work|root|mnt|data)/\w")
    for file in tracked_texts():
        text = file.read_text(encoding="utf-8", errors="replace")  # seeds of the fuzzer are of any bytes
        for number, line in enumerate(text.splitlines(), 1):
            assert not wrong.search(line), f"{file.relative_to(ROOT)}:{number}: {line.strip()}"
