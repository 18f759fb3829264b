"""Pages point at files and headings that exist, the index names them all, the citation is of this version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import hardnet_match

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def slug(heading: str) -> str:
    """The anchor GitHub gives a heading: its words in small letters, without marks, joined by dashes."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-")


def anchors(text: str) -> set[str]:
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", text), re.MULTILINE):
        name = slug(heading)
        found[name] = found.get(name, -1) + 1
        if found[name]:
            found[f"{name}-{found[name]}"] = 0
    return set(found)


def test_slugs() -> None:
    assert slug("Going on in COLMAP") == "going-on-in-colmap"
    assert slug("How good, how fast") == "how-good-how-fast"
    assert slug("hardnet_match.images") == "hardnet_matchimages"
    assert anchors("# A b\n\n## A b\n\n```sh\n# no heading\n```\n") == {"a-b", "a-b-1"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), f"{name_of(page)} points at {target}, which does not exist"
        assert there.resolve().is_relative_to(ROOT), f"{name_of(page)} points out of the project: {target}"
        if anchor:
            wanted = anchors(there.read_text(encoding="utf-8"))
            assert anchor in wanted, f"{name_of(page)} points at {target}, but {file or 'it'} has no such heading"


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    named = set(LINK.findall(index))
    assert named >= {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert {"../README.md", "../CONTRIBUTING.md", "../CHANGELOG.md"} <= named


def test_the_citation_is_of_this_version() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {hardnet_match.__version__}\n" in citation
    assert f"## [{hardnet_match.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    # Each reference has what the format asks for.
    references = citation.partition("\nreferences:\n")[2].split("  - type: ")[1:]
    assert len(references) >= 10
    for reference in references:
        assert re.match(r"(conference-paper|article|book|report)\n", reference)
        for key in ("title", "authors", "year"):
            assert re.search(rf"^    {key}:", reference, re.MULTILINE), reference


def test_drawings_are_what_their_script_draws(tmp_path: Path) -> None:
    folder = ROOT / "docs" / "images"
    script = ROOT / "scripts" / "conventions.py"
    command = [sys.executable, str(script), "--only", "svg", "-o", str(tmp_path)]
    subprocess.run(command, check=True, timeout=120)
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == ["angles.svg", "frame.svg", "pixels.svg"]
    for name in made:
        assert (tmp_path / name).read_text() == (folder / name).read_text(), f"run {script.name}: {name} is old"
