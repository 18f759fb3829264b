"""The page of a fine-tuning and its charts."""

from __future__ import annotations

import re

import numpy as np
import pytest
from page_helpers import Seen

from hardnet_match.report.chart import line_chart
from hardnet_match.report.finetune import FinetunePage, Row, Strip, finetune_page


@pytest.mark.parametrize("improved", [True, False])
def test_page_is_whole_and_loads_nothing(improved: bool) -> None:
    patch = np.tile(np.arange(32, dtype=np.uint8), (32, 1))
    html = finetune_page(
        FinetunePage(
            "On <photos>",
            "It helped.",
            improved,
            [Row("matching mAP", 0.5, 0.625, error=0.01), Row("FPR95", 0.01, 0.012, lower=True)],
            [("a&b.jpg", "c.jpg", 50, (0.5, 0.4), (30, 35))],
            [(1, 0.7), (2, 0.6)],
            [(0, 0.5), (2, 0.6)],
            2,
            0.5,
            {"seed": "0"},
            ["So."],
            [("pair", np.zeros((20, 30, 3), np.uint8))],
            [Strip([patch] * 3, "one")],
            [],
            np.zeros((20, 30, 3), np.uint8),
            {"gained": 1, "lost": 0},
        )
    )
    seen = Seen(html)
    assert seen.open == []
    assert len(seen.loads) == 5
    assert all(load.startswith("data:image/") for load in seen.loads)
    assert not re.search(r"https?://|<script|url\(", html)
    assert "On &lt;photos&gt;" in html
    assert "a&amp;b.jpg" in html
    assert '<span class="up">+12.50 ± 1.00</span>' in html
    assert '<span class="down">+0.200</span>' in html  # more false positives
    assert ("verdict worse" in html) != improved
    assert "prefers-color-scheme: dark" in html


def test_chart_spans_its_values() -> None:
    svg = line_chart([0, 10, 20], [0.5, 0.25, 0.75], title="t", x_name="step", level=(0.9, "start"), chosen=10)
    places = re.search(r'points="([^"]+)"', svg)
    assert places is not None
    points = np.array([[float(v) for v in pair.split(",")] for pair in places[1].split()])
    assert (np.diff(points[:, 0]) > 0).all()
    assert points[1, 1] > points[0, 1] > points[2, 1]  # down is less
    assert 'class="chosen"' in svg
    assert "Nothing" in line_chart([], [], title="t", x_name="step")
    assert "<circle" in line_chart([3], [1.0], title="t", x_name="step")
