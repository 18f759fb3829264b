"""Matching against brute force and kornia; odd inputs; memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia import feature as kf
from numpy.typing import NDArray

from hardnet_match.errors import DataError, OptionError
from hardnet_match.features import Features
from hardnet_match.matching import METHODS, match, nearest
from hardnet_match.matching.nearest import k_nearest, two_nearest

ROOT = Path(__file__).parents[1]


def make_features(descriptors: NDArray[np.generic], seed: int = 0, spread: float = 600) -> Features:
    rng = np.random.default_rng(seed)
    count = len(descriptors)
    lafs = rng.normal(size=(count, 2, 3)).astype(np.float32)
    lafs[:, :, 2] = rng.uniform(0, spread, (count, 2))
    return Features(lafs, np.ones(count, np.float32), np.asarray(descriptors), (640, 480))


def make_pair(count: int = 300, other: int = 400, dim: int = 32, noise: float = 0.15) -> tuple[Features, Features]:
    """Two sets that share half of the first one's descriptors, with noise, on the unit sphere."""
    rng = np.random.default_rng(count + other)
    a, b = rng.normal(size=(count, dim)), rng.normal(size=(other, dim))
    shared = min(count, other) // 2
    b[rng.permutation(other)[:shared]] = a[:shared] + noise * rng.uniform(0, 6, (shared, 1)) * rng.normal(
        size=(shared, dim)
    )
    unit = [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in (a, b)]
    return make_features(unit[0], 1), make_features(unit[1], 2)


def kornia_rows(distances: torch.Tensor, pairs: torch.Tensor) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    order = torch.argsort(pairs[:, 0], stable=True)
    return pairs[order].numpy(), distances[order, 0].numpy()


# ---- the engine


def brute_force(a: NDArray[np.generic], b: NDArray[np.generic]) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    apart = np.linalg.norm(a.astype(np.float64)[:, None] - b.astype(np.float64)[None], axis=2)
    index = np.argsort(apart, axis=1, kind="stable")[:, :2]
    return index, np.take_along_axis(apart, index, axis=1)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (3, 200), (200, 3), (64, 64), (65, 129), (700, 1100)])
@pytest.mark.parametrize("block", [(128, 256), (1024, 8192)])
def test_two_nearest_is_brute_force(
    rows: int, columns: int, block: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_CPU_BLOCK", block)
    rng = np.random.default_rng(rows)
    a, b = rng.normal(size=(rows, 20)).astype(np.float32), rng.normal(size=(columns, 20)).astype(np.float32)
    forward, backward = two_nearest(torch.from_numpy(a), torch.from_numpy(b))
    for found, (index, distance) in ((forward, brute_force(a, b)), (backward, brute_force(b, a))):
        np.testing.assert_array_equal(found.index.numpy(), index)
        np.testing.assert_allclose(found.distance.numpy(), distance, rtol=1e-5)


@settings(deadline=None, max_examples=40)
@given(data=st.data(), rows=st.integers(1, 90), columns=st.integers(1, 90), levels=st.integers(1, 3))
def test_ties_go_to_the_lower_row(data: st.DataObject, rows: int, columns: int, levels: int) -> None:
    """Small integers: many equal distances, and exact arithmetic, so that brute force is the whole truth."""
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    a = rng.integers(0, levels + 1, (rows, 3)).astype(np.float32)
    b = rng.integers(0, levels + 1, (columns, 3)).astype(np.float32)
    old = nearest._CPU_BLOCK
    nearest._CPU_BLOCK = (16, 64)
    try:
        forward, backward = two_nearest(torch.from_numpy(a), torch.from_numpy(b))
    finally:
        nearest._CPU_BLOCK = old
    for found, (index, distance) in ((forward, brute_force(a, b)), (backward, brute_force(b, a))):
        known = index.shape[1]
        np.testing.assert_array_equal(found.index.numpy()[:, :known], index)
        np.testing.assert_allclose(found.distance.numpy()[:, :known], distance, rtol=1e-6)
        assert (found.index.numpy()[:, known:] == -1).all()
        assert np.isinf(found.distance.numpy()[:, known:]).all()


def test_near_duplicates_keep_their_distances() -> None:
    """|a|^2 + |b|^2 - 2ab in float32 cannot see 1e-5 between unit vectors; the differences can."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 128))
    a = (a / np.linalg.norm(a, axis=1, keepdims=True)).astype(np.float32)
    b = a.copy()
    b[:, 0] += np.float32(1e-5)
    forward, _ = two_nearest(torch.from_numpy(a), torch.from_numpy(b))
    np.testing.assert_array_equal(forward.index[:, 0], np.arange(50))
    np.testing.assert_allclose(forward.distance[:, 0], np.linalg.norm(a - b, axis=1), rtol=1e-4)


def test_k_nearest_is_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_CPU_BLOCK", (2, 64))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(57, 9)).astype(np.float32), rng.normal(size=(31, 9)).astype(np.float32)
    apart = np.linalg.norm(a[:, None].astype(np.float64) - b[None], axis=2)
    index, distance = k_nearest(torch.from_numpy(a), torch.from_numpy(b), 10)
    np.testing.assert_array_equal(index, np.argsort(apart, axis=1)[:, :10])
    np.testing.assert_allclose(distance, np.sort(apart, axis=1)[:, :10], rtol=1e-5)
    assert k_nearest(torch.from_numpy(a), torch.from_numpy(b[:4]), 10)[0].shape == (57, 4)


# ---- the methods


@pytest.mark.parametrize(("count", "other"), [(300, 400), (400, 300), (2, 2), (2, 50), (50, 2)])
@pytest.mark.parametrize("ratio", [0.7, 0.9, 0.97])
def test_methods_agree_with_kornia(count: int, other: int, ratio: float) -> None:
    a, b = make_pair(count, other)
    da, db = torch.from_numpy(a.descriptors), torch.from_numpy(b.descriptors)
    la, lb = torch.from_numpy(a.lafs)[None], torch.from_numpy(b.lafs)[None]
    ours = {name: match(a, b, name, ratio) for name in ("mnn", "snn", "smnn", "fginn")}
    ours["fginn one-way"] = match(a, b, "fginn", ratio, mutual=False, spatial_threshold=150)
    pairs, value = kornia_rows(*kf.match_mnn(da, db))
    np.testing.assert_array_equal(ours["mnn"].pairs, pairs)
    np.testing.assert_allclose(ours["mnn"].scores, 1 / (1 + value), rtol=1e-4)
    theirs = {
        "snn": kf.match_snn(da, db, ratio),
        "smnn": kf.match_smnn(da, db, ratio),
        "fginn": kf.match_fginn(da, db, la, lb, ratio, 10.0, mutual=True),
        "fginn one-way": kf.match_fginn(da, db, la, lb, ratio, 150.0, mutual=False),
    }
    for name, found in theirs.items():
        pairs, value = kornia_rows(*found)
        np.testing.assert_array_equal(ours[name].pairs, pairs, err_msg=name)
        np.testing.assert_allclose(ours[name].scores, 1 - value, atol=1e-5, err_msg=name)
    if count == 300:
        assert 20 < len(ours["smnn"]) < len(ours["mnn"])


def test_smnn_is_symmetric() -> None:
    a, b = make_pair()
    there, back = match(a, b), match(b, a).swapped()
    order = np.argsort(back.pairs[:, 0])
    np.testing.assert_array_equal(there.pairs, back.pairs[order])
    np.testing.assert_allclose(there.scores, back.scores[order], atol=1e-6)


def grid_pair() -> tuple[Features, Features, NDArray[np.generic]]:
    """Features of a picture and of its affine image, a third of them with a random partner's descriptor."""
    rng = np.random.default_rng(5)
    count = 600
    xy = rng.uniform(0, 600, (count, 2)).astype(np.float32)
    angle, scale = rng.uniform(-180, 180, count), rng.uniform(5, 30, count)
    from hardnet_match.frames import make_lafs

    lafs = make_lafs(xy, scale, angle)
    warp = np.array([[0.9, 0.2], [-0.15, 1.1]], np.float32)
    warped = np.einsum("ij,njk->nik", warp, lafs)
    warped[:, :, 2] += np.array([30, 40], np.float32)
    descriptors = rng.normal(size=(count, 64)).astype(np.float32)
    other = descriptors + 0.3 * rng.normal(size=descriptors.shape).astype(np.float32)
    wrong = rng.permutation(count)[:200]
    other[wrong] = other[np.roll(wrong, 1)]
    ones = np.ones(count, np.float32)
    truth = np.setdiff1d(np.arange(count), wrong)
    return Features(lafs, ones, descriptors, (640, 480)), Features(warped, ones, other, (800, 800)), truth


def test_adalam_keeps_what_geometry_supports() -> None:
    a, b, truth = grid_pair()
    plain, kept = match(a, b, "mnn"), match(a, b, "adalam")
    assert (plain.pairs[:, 0] != plain.pairs[:, 1]).sum() > 150
    wrong = (kept.pairs[:, 0] != kept.pairs[:, 1]).sum()
    assert len(kept) - wrong > 0.9 * len(truth)
    assert wrong < 0.02 * len(kept)
    da, db = torch.from_numpy(a.descriptors), torch.from_numpy(b.descriptors)
    la, lb = torch.from_numpy(a.lafs)[None], torch.from_numpy(b.lafs)[None]
    _, theirs = kf.match_adalam(da, db, la, lb, hw1=a.image_size, hw2=b.image_size)
    assert {tuple(row) for row in kept.pairs.tolist()} == {tuple(row) for row in theirs.tolist()}
    again = match(a, b, "adalam")
    np.testing.assert_array_equal(again.pairs, kept.pairs)
    assert len(match(a, b, "adalam", min_inliers=10_000)) == 0


# ---- odd inputs


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("count", "other"), [(0, 0), (0, 5), (5, 0)])
def test_empty_sets_give_no_matches(method: str, count: int, other: int) -> None:
    a, b = make_features(np.zeros((count, 128), np.float32)), make_features(np.zeros((other, 128), np.float32))
    assert len(match(a, b, method)) == 0


@pytest.mark.parametrize("method", METHODS)
def test_one_row(method: str) -> None:
    one, five = make_features(np.eye(5, dtype=np.float32)[:1]), make_features(np.eye(5, dtype=np.float32))
    assert len(match(one, one, method)) == (method == "mnn")
    assert match(one, five, "mnn").pairs.tolist() == [[0, 0]]
    assert len(match(five, one, method)) == (method == "mnn")


@pytest.mark.parametrize("method", METHODS)
def test_identical_rows_are_ambiguous(method: str) -> None:
    """Flat patches all look alike: a ratio test must not call 0 / 0 distinctive."""
    a = make_features(np.ones((40, 16), np.float32))
    found = match(a, a, method)
    if method == "mnn":
        assert found.pairs.tolist() == [[0, 0]]
    elif (
        method == "adalam"
    ):  # as kornia's, but for which of equals is the nearest: all at one place, and so in agreement
        rows, lafs = torch.from_numpy(a.descriptors), torch.from_numpy(a.lafs)[None]
        _, theirs = kf.match_adalam(rows, rows, lafs, lafs, hw1=a.image_size, hw2=a.image_size)
        assert found.pairs[:, 0].tolist() == theirs[:, 0].tolist()
        assert len(np.unique(found.pairs[:, 1])) == len(theirs[:, 1].unique()) == 1
    else:
        assert len(found) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [np.float16, np.uint8])
def test_other_dtypes(method: str, dtype: type) -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (80, 128))
    near = np.clip(values + rng.integers(-9, 10, values.shape), 0, 255)
    small = [make_features(x.astype(dtype), i) for i, x in enumerate((values, near))]
    wide = [make_features(x.astype(np.float32), i) for i, x in enumerate((values, near))]
    np.testing.assert_array_equal(match(*small, method).pairs, match(*wide, method).pairs)
    np.testing.assert_array_equal(match(*small, "mnn").pairs, np.stack([np.arange(80)] * 2, axis=1))


@pytest.mark.parametrize("method", METHODS)
def test_bad_descriptors_are_refused(method: str) -> None:
    good = make_features(np.ones((4, 8), np.float32))
    bad = np.ones((4, 8), np.float32)
    bad[2, 3] = np.nan
    with pytest.raises(DataError, match="row 2"):
        match(good, make_features(bad), method)
    with pytest.raises(DataError, match="8 and 9 dimensions"):
        match(good, make_features(np.ones((4, 9), np.float32)), method)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "best"}, "use one of smnn"),
        ({"ratio": 0.0}, "ratio"),
        ({"ratio": 1.5}, "ratio"),
        ({"ratio": float("nan")}, "ratio"),
        ({"spatial_threshold": -1.0}, "spatial_threshold"),
        ({"device": "toaster"}, "unknown device"),
        ({"device": "cuda:99"}, "no CUDA device"),
        ({"min_inliers": 0}, "min_inliers"),
    ],
)
def test_bad_options(arguments: dict[str, object], message: str) -> None:
    a = make_features(np.ones((2, 8), np.float32))
    with pytest.raises(OptionError, match=message):
        match(a, a, **arguments)  # type: ignore[arg-type]


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    """30,000 x 30,000 distances are 3.6 GB; the peak may grow by a tenth of that."""
    code = """
import resource, numpy as np, torch
torch.set_num_threads(1)
from hardnet_match.features import Features
from hardnet_match.matching import match
rng = np.random.default_rng(0)
def features(count):
    lafs = rng.random((count, 2, 3), dtype=np.float32)
    return Features(lafs, lafs[:, 0, 0].copy(), rng.random((count, 8), dtype=np.float32), (9, 9))
match(features(100), features(100))
match(features(100), features(100), "fginn")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
a, b = features(30_000), features(30_000)
match(a, b)
match(features(3_000), b, "fginn", mutual=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 360_000, f"{done.stdout} KiB"
