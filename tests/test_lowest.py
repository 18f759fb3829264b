"""The lowest versions that setup.cfg states, as constraints that pip takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("lowest_script", ROOT / "scripts" / "lowest.py")
assert _spec is not None
assert _spec.loader is not None
lowest_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lowest_script)

SETUP = """
[options]
install_requires =
    torch>=2.4
    kornia>=0.9.0; python_version >= "3.11"
    kornia>=0.8.2; python_version < "3.11"
[options.extras_require]
one =
    faiss-cpu>=1.9
test =
    us[one]
    faiss-cpu>=1.9
"""


def test_bounds_become_pins() -> None:
    assert lowest_script.lowest(SETUP) == [
        "faiss-cpu==1.9",
        'kornia==0.8.2; python_version < "3.11"',
        'kornia==0.9.0; python_version >= "3.11"',
        "torch==2.4",
    ]
    assert "torch==2.13.0" in lowest_script.lowest(SETUP, "torch==2.13.0\nnumpy==1\n", ["torch"])
    assert "torch==2.4" not in lowest_script.lowest(SETUP, "torch==2.13.0\nnumpy==1\n", ["torch"])
    with pytest.raises(ValueError, match="no torch=="):
        lowest_script.lowest(SETUP, "", ["torch"])
    with pytest.raises(ValueError, match="'h5py' in"):
        lowest_script.lowest(SETUP.replace("torch>=2.4", "h5py"))


def test_every_dependency_states_its_lowest_version_and_has_a_pin() -> None:
    """So that both ends of each range can be installed."""
    setup, pins = ((ROOT / name).read_text(encoding="utf-8") for name in ("setup.cfg", "constraints.txt"))
    names = {line.partition("==")[0] for line in lowest_script.lowest(setup)}
    pinned = {line.partition("==")[0] for line in pins.splitlines() if "==" in line and not line.startswith("#")}
    assert {"torch", "h5py", "ray"} <= names
    assert names - pinned <= {"tomli"}
