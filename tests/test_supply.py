"""What is shipped: the wheel and the source archive, and that they work where they are installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hardnet_match.weights.registry import ENTRIES

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_wheel_and_source_archive_work_where_they_are_installed() -> None:
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True).returncode:
        pytest.skip("not a git checkout")
    done = subprocess.run(
        [sys.executable, "scripts/check_wheel.py"], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("features, ") == 2
    assert "\n0 features" not in done.stdout


def test_every_known_weights_file_has_its_licence_on_the_page() -> None:
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for entry in ENTRIES.values():
        family = entry.name.split("-")[0]
        assert family in page, entry.name
        assert entry.licence.split(" ")[0] in page
