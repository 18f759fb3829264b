"""docs/scale.md: its shell commands run as they are printed, its tables are what the simulation prints."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from store_helpers import contents

from hardnet_match.store import FeatureReader, MatchReader

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_shell_commands_run(rendered: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(3):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", tmp_path / "photos" / f"{i}.jpg")
    command = tmp_path / "hardnet-match"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m hardnet_match "$@"\n')
    command.chmod(0o755)
    [block] = re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    shell = ["bash", "-euo", "pipefail", "-c", f'PATH="{tmp_path}:$PATH"\n{block}']
    done = subprocess.run(shell, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    with FeatureReader(tmp_path / "from-shards.h5") as reader:
        assert reader.names() == ["0.jpg", "1.jpg", "2.jpg"]
        assert len(reader.shards) == 2
    with MatchReader(tmp_path / "matches-from-shards.h5") as reader:
        assert len(reader.pairs()) == 3
    assert len(contents(tmp_path / "matches-from-shards.h5")) == 3 * 2 + 1


def test_the_tables_are_the_simulations() -> None:
    script = ROOT / "scripts" / "simulate_cluster.py"
    arguments = ["--workers", "100", "600", "--shards", "2000", "10000"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if re.match(r"\| \d", line)]
    assert len(printed) == 2 + 2 * 3
    for line in printed:
        assert line in PAGE
