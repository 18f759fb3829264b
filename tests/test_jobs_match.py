"""Matching many pairs: few reads under a small cache, resume, and files that do not fit together."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import nn

from hardnet_match.errors import OptionError, StoreError
from hardnet_match.features import Features
from hardnet_match.inference import run_tiled
from hardnet_match.jobs.match import FeatureCache, match_features, order_pairs
from hardnet_match.jobs.side_by_side import Budget, side_by_side
from hardnet_match.matching import match
from hardnet_match.store import FeatureReader, FeatureWriter, MatchReader, write_pairs

SETTINGS = {"preset": "by hand", "max_keypoints": 40}


def some_features(seed: int, count: int = 40) -> Features:
    """Noisy copies of the same descriptors, so that images do match."""
    common = np.random.default_rng(0).normal(size=(count, 16))
    rng = np.random.default_rng(seed)
    descriptors = (common + 0.3 * rng.normal(size=common.shape))[rng.permutation(count)]
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    lafs = rng.uniform(1, 99, (count, 2, 3))
    scores = rng.uniform(size=count)
    return Features(*(x.astype(np.float32) for x in (lafs, scores, descriptors)), (100, 100))


@pytest.fixture
def features(tmp_path: Path) -> Path:
    path = tmp_path / "features.h5"
    with FeatureWriter(path, SETTINGS) as writer:
        for i in range(6):
            writer.write(f"folder/image {i}.jpg", some_features(i))
    return path


def contents(path: Path) -> dict[tuple[str, str], list[list[int]]]:
    with MatchReader(path) as reader:
        return {pair: reader.read(*pair).pairs.tolist() for pair in reader.pairs()}


def reads_of(order: list[tuple[str, str]], images_that_fit: int) -> int:
    one = some_features(0)
    size = one.lafs.nbytes + one.scores.nbytes + one.descriptors.nbytes
    cache = FeatureCache(lambda name: one, size * images_that_fit)
    for pair in order:
        for name in pair:
            cache.get(name)
    return cache.reads


@pytest.mark.parametrize(("images", "fit"), [(60, 4), (60, 8), (100, 10), (100, 20), (100, 60)])
def test_no_image_is_read_twice_as_often_as_it_must_be(images: int, fit: int) -> None:
    names = [f"{i:03d}" for i in range(images)]
    plain = list(combinations(names, 2))
    one = some_features(0)
    size = one.lafs.nbytes + one.scores.nbytes + one.descriptors.nbytes
    ordered = order_pairs(plain, dict.fromkeys(names, size), fit * size)
    assert sorted(map(frozenset, ordered), key=sorted) == sorted(map(frozenset, plain), key=sorted)
    # Once `fit` are there, one that is read can be paired with the others there, no more: so many reads in any order.
    least = fit + (len(plain) - fit * (fit - 1) / 2) / (fit - 1)
    assert least <= reads_of(ordered, fit) <= 1.6 * least
    assert reads_of(ordered, fit) <= sum(range(images, 0, 2 - fit))  # each block, and what comes after it
    assert reads_of(ordered, fit) < reads_of(plain, fit) / 1.5


def test_all_pairs_of_a_folder_that_does_not_fit(tmp_path: Path) -> None:
    images = [some_features(number, count=12) for number in range(30)]
    with FeatureWriter(tmp_path / "f.h5", SETTINGS, buffer=30) as writer:
        for number, features in enumerate(images):
            writer.write(f"{number:02}.jpg", features)
    size = images[0].lafs.nbytes + images[0].scores.nbytes + images[0].descriptors.nbytes
    summary = match_features(tmp_path / "f.h5", tmp_path / "m.h5", cache_bytes=10 * size, quiet=True)
    assert summary.matched == 435
    assert summary.reads <= 30 + 22 + 14 + 6  # 54 it must be; one pair after the other would read 419


@hypothesis.given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda pair: pair[0] != pair[1]), max_size=80),
    st.lists(st.integers(1, 9), min_size=31, max_size=31),
    st.integers(1, 60),
)
def test_any_pairs_of_any_sizes_are_all_there(wanted: list[tuple[int, int]], sizes: list[int], cache: int) -> None:
    pairs = [(str(a), str(b)) for a, b in wanted]
    named = {str(number): size for number, size in enumerate(sizes)}
    assert sorted(order_pairs(pairs, named, cache)) == sorted(pairs)


def test_everything_fits_everything_is_read_once(features: Path, tmp_path: Path) -> None:
    summary = match_features(features, tmp_path / "m.h5", quiet=True)
    assert (summary.pairs, summary.matched, summary.reused, summary.reads) == (15, 15, 0, 6)
    assert summary.matches == sum(map(len, contents(tmp_path / "m.h5").values())) > 15 * 20
    with FeatureReader(features) as reader:
        first, second = (reader.read(f"folder/image {i}.jpg") for i in (1, 4))
    expected = match(first, second, method="smnn", ratio=0.9, device="cpu").pairs.tolist()
    assert contents(tmp_path / "m.h5")["folder/image 1.jpg", "folder/image 4.jpg"] == expected


def test_a_small_cache_gives_the_same(features: Path, tmp_path: Path) -> None:
    match_features(features, tmp_path / "large.h5", quiet=True)
    summary = match_features(features, tmp_path / "small.h5", cache_bytes=1, quiet=True)
    assert summary.reads > 6
    large = {frozenset(pair) for pair in contents(tmp_path / "large.h5")}
    assert {frozenset(pair) for pair in contents(tmp_path / "small.h5")} == large


def test_going_on_gives_the_same_as_one_run(features: Path, tmp_path: Path) -> None:
    some = [("folder/image 1.jpg", "folder/image 0.jpg"), ("folder/image 2.jpg", "folder/image 3.jpg")]
    write_pairs(tmp_path / "some.txt", some)
    first = match_features(features, tmp_path / "m.h5", tmp_path / "some.txt", quiet=True)
    assert (first.matched, first.reused) == (2, 0)
    second = match_features(features, tmp_path / "m.h5", quiet=True)
    assert (second.matched, second.reused) == (13, 2)
    match_features(features, tmp_path / "whole.h5", quiet=True)
    with MatchReader(tmp_path / "m.h5") as resumed:
        for pair, rows in contents(tmp_path / "whole.h5").items():
            assert sorted(resumed.read(*pair).pairs.tolist()) == sorted(rows)


def test_pairs_of_unknown_images_are_named(features: Path, tmp_path: Path) -> None:
    pairs = [("folder/image 1.jpg", "gone.jpg"), ("folder/image 1.jpg", "folder/image 2.jpg")]
    summary = match_features(features, tmp_path / "m.h5", pairs, quiet=True)
    assert summary.skipped.keys() == {"gone.jpg"}
    assert summary.matched == 1
    with pytest.raises(StoreError, match="no pair to match"):
        match_features(features, tmp_path / "n.h5", pairs[:1], quiet=True)


def test_other_settings_and_other_features_are_refused(features: Path, tmp_path: Path) -> None:
    match_features(features, tmp_path / "m.h5", quiet=True)
    with pytest.raises(StoreError, match=r"ratio: 0\.9 -> 0\.8"):
        match_features(features, tmp_path / "m.h5", ratio=0.8, quiet=True)
    with FeatureWriter(tmp_path / "other.h5", {**SETTINGS, "max_keypoints": 41}) as writer:
        for i in range(2):
            writer.write(f"folder/image {i}.jpg", some_features(i + 50))
    with pytest.raises(StoreError, match="features"):
        match_features(tmp_path / "other.h5", tmp_path / "m.h5", quiet=True)
    assert len(contents(tmp_path / "m.h5")) == 15
    summary = match_features(tmp_path / "other.h5", tmp_path / "m.h5", overwrite=True, quiet=True)
    assert (summary.matched, len(contents(tmp_path / "m.h5"))) == (1, 1)


@pytest.mark.parametrize("option", [{"method": "best"}, {"ratio": 0.0}, {"device": "abacus"}, {"cache_bytes": 0}])
def test_options_that_cannot_work(features: Path, tmp_path: Path, option: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        match_features(features, tmp_path / "m.h5", quiet=True, **option)  # type: ignore[arg-type]
    assert not (tmp_path / "m.h5").exists()


def test_an_image_without_features_is_a_pair_without_matches(tmp_path: Path) -> None:
    empty = Features(np.zeros((0, 2, 3), np.float32), np.zeros(0, np.float32), np.zeros((0, 16), np.float32), (9, 9))
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer:
        writer.write("a.jpg", some_features(1))
        writer.write("b.jpg", empty)
    assert match_features(tmp_path / "f.h5", tmp_path / "m.h5", quiet=True).matches == 0
    assert contents(tmp_path / "m.h5") == {("a.jpg", "b.jpg"): []}


def test_as_many_threads_as_before_and_the_same_matches(features: Path, tmp_path: Path) -> None:
    """Pairs are matched side by side; the file does not show it, and neither does torch afterwards."""
    before, files = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            match_features(features, tmp_path / f"{threads}.h5", quiet=True)
            assert torch.get_num_threads() == threads
            files.append(contents(tmp_path / f"{threads}.h5"))
    finally:
        torch.set_num_threads(before)
    assert files[0] == files[1]
    assert len(files[0]) == 15


def test_work_is_fetched_as_it_is_needed() -> None:
    fetched: list[int] = []

    def work() -> Iterator[tuple[int, int]]:
        for number in range(100):
            fetched.append(number)
            yield number, number

    ahead = []
    for key, given, outcome in side_by_side(lambda value: value**2, work(), torch.device("cpu")):
        assert (given, outcome.result()) == (key, key**2)
        ahead.append(len(fetched) - key)
    assert len(ahead) == 100
    assert max(ahead) <= 2 * torch.get_num_threads() + 1


def test_a_budget_is_never_overdrawn() -> None:
    """Pieces of all sizes, one larger than the budget: that one works alone, and everybody gets their turn."""
    budget, lock, in_use, most = Budget(10), threading.Lock(), [0], [0]

    def work(amount: int) -> int:
        with budget.hold(amount):
            with lock:
                in_use[0] += amount
                most[0] = max(most[0], in_use[0] if amount <= 10 else 0)
                alone = in_use[0] == amount
            time.sleep(0.001)
            with lock:
                in_use[0] -= amount
        return amount if amount <= 10 or alone else -1

    amounts = [1, 2, 3, 99, 5, 8, 10, 4, 6, 99, 1, 1, 1, 7] * 5
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, amounts)) == amounts
    assert 5 < most[0] <= 10


def test_networks_stop_at_the_next_tile_when_work_is_given_up() -> None:
    """Of two pieces that would run for ever, both end when the caller leaves; and the cores are given back."""
    seen = threading.Semaphore(0)

    class Slow(nn.Module):
        def forward(self, patches: torch.Tensor) -> torch.Tensor:
            seen.release()
            time.sleep(0.01)
            return patches[:, 0, 0, :1]

    def work(number: int) -> int:
        run_tiled(Slow(), torch.zeros(1, 1, 32, 32).expand(10**8, 1, 32, 32))
        return number

    threads = torch.get_num_threads()
    pieces = side_by_side(work, ((n, n) for n in itertools.count()), torch.device("cpu"))
    _, _, outcome = next(pieces)
    assert seen.acquire(timeout=60)
    pieces.close()  # type: ignore[attr-defined]
    with pytest.raises(InterruptedError):
        outcome.result()
    assert torch.get_num_threads() == threads
