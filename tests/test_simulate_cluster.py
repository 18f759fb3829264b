"""The simulation behind docs/scale.md agrees with what is known of queues, failures and maxima."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "simulate_cluster.py"


@pytest.fixture(scope="module")
def cluster() -> Any:
    spec = importlib.util.spec_from_file_location("simulate_cluster", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulate_cluster"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_without_a_writer_and_failures_it_is_rounds_of_work(cluster: Any) -> None:
    for images, workers in ((400, 10), (404, 10), (36, 100)):
        out = cluster.one_writer(cluster.Plan(images, workers, seconds=2.0, away=5.0))
        assert out.makespan == pytest.approx(5 + math.ceil(images / 4 / workers) * 8)
        assert (out.lost, out.failures, out.wait) == (0, 0, 0)
        assert out.idle == pytest.approx((out.makespan - 5) * workers - images * 2)


def test_a_full_writer_sets_the_pace(cluster: Any) -> None:
    """All results arrive at once, are written one after the other, and workers stop when two of theirs wait."""
    plan = cluster.Plan(images=4 * 2000, workers=100, seconds=1.0, writer=0.1)
    out = cluster.one_writer(plan)
    assert out.makespan == pytest.approx(4 + 2000 * 0.4)  # the first piece, then all of the writing
    assert out.writing == pytest.approx(2000 * 0.4)
    # Nobody has more than two results: those of all others are written between two of one worker's.
    assert out.wait <= 2 * 100 * 0.4


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_many_workers_wait_for_the_writer_as_in_an_md1_queue(cluster: Any, load: float) -> None:
    """Pieces of random length from many workers arrive as a Poisson stream; Pollaczek and Khinchine give the wait."""
    workers, writing = 300, 4 * 0.01
    seconds = workers * writing / load / 4
    plan = cluster.Plan(4 * 60_000, workers, seconds, writer=0.01, varied=True, in_hand=50)
    out = cluster.one_writer(plan, seed=1)
    arrivals = 60_000 / out.makespan
    rho = arrivals * writing
    assert rho == pytest.approx(load, rel=0.06)  # less at the end of a run
    assert out.wait == pytest.approx(load * writing / (2 * (1 - load)), rel=0.1)


def test_a_worker_that_fails_takes_the_known_time(cluster: Any) -> None:
    """From scratch after each failure: (1 / rate + away) (exp(rate length) - 1) a piece, whatever the seed."""
    length, mtbf, away = 40.0, 60.0, 7.0
    plan = cluster.Plan(images=4 * 8000, workers=1, seconds=length / 4, mtbf=mtbf, away=away, in_hand=1)
    out = cluster.one_writer(plan, seed=2)
    expected = (mtbf + away) * (math.exp(length / mtbf) - 1)
    assert (out.makespan - away) / 8000 == pytest.approx(expected, rel=0.03)
    assert out.failures / 8000 == pytest.approx(math.exp(length / mtbf) - 1, rel=0.05)


def test_nothing_is_lost_or_done_twice_when_workers_fail(cluster: Any) -> None:
    plan = cluster.Plan(4 * 3000, 50, seconds=1.0, writer=0.015, mtbf=60.0, away=5.0)
    out = cluster.one_writer(plan, seed=3)
    assert out.failures > 100
    assert out.writing == pytest.approx(3000 * 4 * 0.015)  # each piece written once
    assert 0 < out.lost < 50 * out.makespan / 3


def test_shards_without_failures_take_as_long_as_the_largest(cluster: Any) -> None:
    plan = cluster.Plan(100_000, workers=100, seconds=0.5, away=10.0)
    out = cluster.shards(plan, 100, seed=4)
    assert out.makespan == pytest.approx(10 + out.largest * 0.5)
    # the largest of 100 Poisson numbers of mean 1000, about: the mean of the maximum of 100 normal ones is 2.51
    sizes = [cluster.shards(plan, 100, seed=seed).largest for seed in range(40)]
    assert np.mean(sizes) == pytest.approx(1000 + 2.51 * math.sqrt(1000), rel=0.01)
    more = cluster.shards(plan, 2000, seed=4)
    assert more.makespan < 0.5 * 100_000 / 100 + 20 * 10 + 0.5 * more.largest + 10


def test_a_shard_that_fails_loses_an_image_and_the_time_away(cluster: Any) -> None:
    plan = cluster.Plan(1_000_000, workers=10, seconds=1.0, mtbf=1000.0, away=50.0)
    out = cluster.shards(plan, 10, seed=5)
    # what is done between two failures is kept to the last image: half of one is lost in the mean
    assert out.lost / out.failures == pytest.approx(0.5, rel=0.1)
    assert out.failures == pytest.approx((1_000_000 + out.lost) / 1000, rel=0.12)
    calm = cluster.shards(replace(plan, mtbf=math.inf), 10, seed=5)
    assert calm.failures == 0
    assert out.makespan / calm.makespan == pytest.approx(1 + (50 + 0.5) / 1000, rel=0.02)


def test_the_tables_are_printed() -> None:
    arguments = ["--workers", "5", "50", "--images", "1e6", "--cores", "20", "--shards", "100"]
    done = subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 + 2 + 3
    assert rows[2].startswith("| 5 |")
