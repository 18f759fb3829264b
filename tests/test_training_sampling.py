"""Which labels a batch has, which patches of each, from which set; and that all of it hangs on the generator alone."""

from __future__ import annotations

import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hardnet_match.errors import DataError, OptionError
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sampling import Batch, MixedSampler, PairSampler, TupleSampler, batches
from hardnet_match.training.sampling.pairs import without_repeats

SIDE = 4


def numbered(counts: list[int], *, scenes: int = 1, images: int = 5, geometry: bool = True, **more: Any) -> PatchSet:
    """A set whose patches hold their row's number; label k has counts[k] patches."""
    rng = np.random.default_rng(len(counts))
    track = np.repeat(np.arange(len(counts)), counts)
    count = len(track)
    number = np.arange(count)
    patches = np.zeros((count, SIDE, SIDE), dtype=np.uint8)
    patches[:, 0, 0], patches[:, 0, 1] = number % 256, number // 256
    place = rng.normal(size=(len(counts), 3)).astype(np.float32)[track] if geometry else None
    toward = rng.normal(size=(count, 3)).astype(np.float32)
    return PatchSet(
        patches,
        (10 * track + 3).astype(np.int64),  # numbers of labels need not be close together
        rng.integers(0, images, count).astype(np.int32),
        (track % scenes).astype(np.int32),
        toward / np.linalg.norm(toward, axis=1, keepdims=True) if geometry else None,
        place,
        np.full(count, 0.05, dtype=np.float32) if geometry else None,
        **more,
    )


def rows_of(batch: Batch) -> NDArray[np.int64]:
    number = batch.stored[..., 0, :2].astype(np.int64)
    return number[..., 0] + 256 * number[..., 1]


def drawn(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# pairs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("focus", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_no_label_comes_twice_and_every_member_comes_once_in_a_while(focus: float, count: int) -> None:
    counts = [1, 2, 3, 7] * 10
    observations = numbered(counts, scenes=3)
    sampler, rng = PairSampler(observations, focus), drawn()
    seen: set[int] = set()
    for _ in range(2500 // count):
        batch = sampler.batch(count, rng)
        rows = rows_of(batch)
        assert rows.shape == batch.label.shape == batch.image.shape == (2, count)
        assert (batch.label == observations.track[rows]).all()
        assert (batch.image == observations.image[rows]).all()
        assert (batch.label[0] == batch.label[1]).all()
        assert len(np.unique(batch.label[0])) == count == len(batch)
        single = np.array(counts)[batch.label[0] // 10] == 1
        assert (batch.itself == single).all()
        assert ((rows[0] == rows[1]) == single).all()
        seen |= set(rows.ravel().tolist())
    assert len(seen) == len(observations)  # the last member of a class too


def test_half_of_a_batch_is_of_one_scene() -> None:
    observations = numbered([2] * 600, scenes=6)
    for focus, least, most in ((0.0, 0.1, 0.35), (0.5, 0.5, 0.75), (1.0, 1.0, 1.0)):
        sampler = PairSampler(observations, focus)
        share = []
        for seed in range(40):
            label = sampler.batch(60, drawn(seed)).label[0]
            share.append(np.bincount(label // 10 % 6).max() / 60)
        assert least <= np.mean(share) <= most


def test_large_scenes_do_not_drown_small_ones() -> None:
    track = np.arange(1000)
    observations = numbered([1] * 1000)
    scene = (track >= 900).astype(np.int32)
    observations = PatchSet(observations.patches, observations.track, observations.image, scene)
    labels = np.concatenate([PairSampler(observations, 0.0).batch(40, drawn(s)).label[0] for s in range(100)])
    # sqrt(100) of sqrt(900) + sqrt(100) draws
    assert np.mean(labels // 10 >= 900) == pytest.approx(0.25, abs=0.05)


def test_a_batch_may_take_all_there_is_but_no_more() -> None:
    observations = numbered([2] * 37, scenes=4, name="liberty")
    for sampler in (
        PairSampler(observations),
        TupleSampler(observations, 3),
        TupleSampler(observations, few_images=True),
    ):
        assert sampler.labels == 37
        assert len(np.unique(sampler.batch(37, drawn()).label[0])) == 37
        with pytest.raises(DataError, match=r"liberty has 37 labels.*batch of 38.*smaller batch"):
            sampler.batch(38, drawn())
        with pytest.raises(OptionError):
            sampler.batch(0, drawn())
    with pytest.raises(DataError, match="liberty is empty"):
        PairSampler(observations.select(np.zeros(0, dtype=np.intp)))


def test_random_negatives_are_of_other_labels_and_other_places() -> None:
    observations = numbered([3] * 50, scenes=2)
    assert observations.position is not None
    observations.position[30:60] = observations.position[30]  # ten labels in one place
    observations.scene[30:60] = 0
    sampler = PairSampler(observations, negatives=True)
    assert sampler.views == 3
    seen: set[int] = set()
    for seed in range(60):
        batch = sampler.batch(30, drawn(seed))
        assert batch.label.shape == (3, 30)
        assert (batch.label[2] != batch.label[0]).all()
        here, there = rows_of(batch)[[0, 2]]
        assert not ((here // 30 == 1) & (there // 30 == 1)).any()
        seen |= set(there.tolist())
    assert len(seen) > 0.95 * len(observations)
    with pytest.raises(DataError, match="two labels"):
        PairSampler(numbered([4]), negatives=True)
    two = PairSampler(numbered([400, 1]), negatives=True).batch(2, drawn())
    assert (two.label[2] == two.label[0][::-1]).all()


def test_sets_without_geometry_are_drawn_from_all_the_same() -> None:
    batch = PairSampler(numbered([2, 3, 4] * 10, geometry=False)).batch(20, drawn())
    assert batch.same is None
    assert batch.on("cpu").same is None


# tuples ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_members_repeat_only_when_there_are_no_others(counts: list[int], views: int, seed: int) -> None:
    picked = without_repeats(np.array(counts), views, drawn(seed))
    for column, count in zip(picked.T, counts, strict=True):
        assert column.min() >= 0
        assert column.max() < count
        assert len(set(column.tolist())) == min(views, count)
        assert np.bincount(column).max() == -(-views // count)


def test_members_are_drawn_alike() -> None:
    picked = without_repeats(np.full(6000, 5), 3, drawn())
    for row in picked:
        assert np.bincount(row, minlength=5) == pytest.approx(1200, abs=150)
    pairs = np.bincount(5 * picked[0] + picked[2], minlength=25).reshape(5, 5)
    assert (pairs.diagonal() == 0).all()
    assert pairs[~np.eye(5, dtype=bool)] == pytest.approx(300, abs=80)


def test_tuples_are_of_one_label_each() -> None:
    observations = numbered([1, 2, 5, 9] * 8)
    sampler = TupleSampler(observations, 4)
    batch = sampler.batch(20, drawn())
    assert batch.label.shape == (4, 20)
    assert (batch.label == batch.label[0]).all()
    rows = rows_of(batch)
    assert (observations.track[rows] == batch.label).all()
    for column in range(20):
        there = int((observations.track == batch.label[0, column]).sum())
        assert len(set(rows[:, column].tolist())) == min(4, there)
    with pytest.raises(OptionError, match="two views"):
        TupleSampler(observations, 1)
    with pytest.raises(OptionError, match="focus"):
        TupleSampler(observations, focus=1.5)


# few images ------------------------------------------------------------------------------------------


def test_few_images_fill_the_batch_one_after_another() -> None:
    """Every label is in 2 of 30 images; a batch of 40 labels out of images with 20 labels each takes few of them."""
    rng = drawn(1)
    image = np.array([rng.choice(30, 2, replace=False) for _ in range(300)]).ravel().astype(np.int32)
    base = numbered([2] * 300, geometry=False)
    observations = PatchSet(base.patches, base.track, image, base.scene)
    sampler = TupleSampler(observations, few_images=True)
    taken, labels = [], []
    for seed in range(60):
        label = sampler.batch(40, drawn(seed)).label[0]
        assert len(np.unique(label)) == 40
        inside = (observations.track[:, None] == label).reshape(300, 2, 40).any(axis=(1, 2))
        images = observations.image.reshape(300, 2)[inside]
        # a few images cover all labels: take greedily the most frequent ones
        left, used = images, 0
        while len(left):
            most = np.bincount(left.ravel()).argmax()
            left = left[(left != most).all(axis=1)]
            used += 1
        taken.append(used)
        labels.append(label)
    assert max(taken) <= 4
    assert len(np.unique(labels)) == 300  # over time, all of them
    plain = [len(np.unique(TupleSampler(observations).batch(40, drawn(seed)).image)) for seed in range(10)]
    assert min(plain) > 20


def test_images_of_different_scenes_are_different_images() -> None:
    observations = numbered([1] * 200, scenes=20, images=1)  # image 0 in every scene
    label = TupleSampler(observations, few_images=True).batch(30, drawn()).label[0]
    assert len(np.unique(label // 10 % 20)) == 3  # ten labels a scene


def test_the_last_image_gives_any_of_its_labels() -> None:
    observations = numbered([1] * 100, images=1)
    seen = [TupleSampler(observations, few_images=True).batch(5, drawn(seed)).label[0] for seed in range(150)]
    assert len(np.unique(seen)) > 95


# places ----------------------------------------------------------------------------------------------


def test_neighbours_are_no_negatives() -> None:
    rng = drawn(4)
    base = numbered([2] * 60, scenes=2)
    position = (1e5 + rng.random((120, 3))).astype(np.float32)  # far from the origin, as surveys are
    size = rng.uniform(0.2, 1.0, 120).astype(np.float32)
    observations = PatchSet(base.patches, base.track, base.image, base.scene, base.direction, position, size)
    batch = PairSampler(observations).batch(40, rng)
    one, two = rows_of(batch)
    assert batch.same is not None
    for i in range(40):
        for j in range(40):
            a, b = one[i], two[j]
            gap = np.linalg.norm(position[a].astype(float) - position[b].astype(float))
            near = bool(gap < 0.5 * max(size[a], size[b]))
            assert batch.same[i, j] == (near and base.scene[a] == base.scene[b])
    assert 40 < batch.same.sum() < 1600


def test_collisions_are_no_negatives() -> None:
    pairs = np.array([[3, 13], [23, 53], [13, 9993]])
    base = numbered([2] * 8, geometry=False, collisions=pairs)
    batch = PairSampler(base).batch(8, drawn())
    expected = np.zeros((8, 8), dtype=bool)
    at = {int(label): column for column, label in enumerate(batch.label[0])}
    for one, other in pairs[:2]:
        expected[at[one], at[other]] = expected[at[other], at[one]] = True
    assert batch.same is not None
    assert (batch.same == expected).all()
    moved = batch.on("cpu")
    assert moved.same is not None
    assert torch.equal(moved.same, torch.from_numpy(expected))
    assert torch.equal(moved.stored, torch.from_numpy(batch.stored))


# mixing ----------------------------------------------------------------------------------------------


@pytest.fixture
def three() -> list[TupleSampler]:
    return [
        TupleSampler(numbered([2] * 30, scenes=2)),
        TupleSampler(numbered([3] * 40, geometry=False)),
        TupleSampler(numbered([2] * 20, collisions=np.array([[3, 13]]))),
    ]


def test_by_batch_every_batch_is_of_one_set_by_weight(three: list[TupleSampler]) -> None:
    mixed = MixedSampler(three, "batch", [1, 3, 0])
    assert mixed.labels == 30
    source = [mixed.batch(10, drawn(seed)).source for seed in range(200)]
    assert np.bincount(source, minlength=3) / 200 == pytest.approx([0.25, 0.75, 0], abs=0.08)


def test_by_epoch_the_sets_come_one_after_another(three: list[TupleSampler]) -> None:
    mixed = MixedSampler(three, "epoch", [1, 2, 1])
    source = [mixed.batch(5, drawn(), progress=step / 40).source for step in range(40)]
    assert source == [0] * 10 + [1] * 20 + [2] * 10
    assert MixedSampler(three[:2], "epoch", [1, 0]).batch(5, drawn(), progress=0.999).source == 0
    with pytest.raises(OptionError, match="share of the epoch"):
        mixed.batch(5, drawn())


def test_within_a_batch_the_sets_share_it_and_never_meet(three: list[TupleSampler]) -> None:
    mixed = MixedSampler(three, "within", [2, 1, 1])
    batch = mixed.batch(20, drawn())
    assert mixed.parts(20) == [10, 5, 5]
    assert sum(mixed.parts(23)) == 23
    assert len(np.unique(batch.label[0])) == 20
    assert (batch.label[0] == batch.label[1]).all()
    assert batch.stored.shape[:2] == batch.image.shape == (2, 20)
    same = batch.same
    assert same is not None
    assert not same[:10, 10:].any()
    assert not same[10:15].any()  # no geometry, nothing known
    assert same[:10, :10].diagonal().all()
    images = [set(part.ravel().tolist()) for part in (batch.image[:, :10], batch.image[:, 10:15], batch.image[:, 15:])]
    assert not images[0] & images[1] | images[1] & images[2]
    # the largest batch uses up the set that ends first
    most = mixed.labels
    assert len(mixed.batch(most, drawn())) == most
    assert any(part > sampler.labels for part, sampler in zip(mixed.parts(most + 1), three, strict=True))


def test_what_cannot_be_mixed_is_refused(three: list[TupleSampler]) -> None:
    for arguments, word in (
        (([], "batch"), "at least one"),
        ((three, "hour"), "within"),
        ((three, "batch", [1, 2]), "weights"),
        ((three, "batch", [1, -1, 1]), "weights"),
        ((three, "batch", [0, 0, 0]), "weights"),
        (([three[0], TupleSampler(numbered([2] * 5), 3)], "batch"), "views"),
    ):
        with pytest.raises(OptionError, match=word):
            MixedSampler(*arguments)  # type: ignore[arg-type]
    other = TupleSampler(numbered([2] * 30, margin=1.0))
    with pytest.raises(DataError, match="by batch or by epoch"):
        MixedSampler([three[0], other], "within").batch(10, drawn())
    assert MixedSampler([three[0], other], "batch").batch(10, drawn()).margin in (1.0, 2.0)


# the same again --------------------------------------------------------------------------------------


def samplers() -> dict[str, Any]:
    observations = numbered([1, 2, 3, 4] * 30, scenes=3)
    pairs, tuples = PairSampler(observations), TupleSampler(observations, 3, few_images=True)
    return {
        "pairs": pairs,
        "negatives": PairSampler(observations, negatives=True),
        "tuples": tuples,
        "batch": MixedSampler([pairs, TupleSampler(observations)], "batch"),
        "epoch": MixedSampler([pairs, TupleSampler(observations)], "epoch"),
        "within": MixedSampler([pairs, TupleSampler(observations)], "within", [1, 2]),
    }


def equal(one: Batch, other: Batch) -> bool:
    return all(
        np.array_equal(getattr(one, key), getattr(other, key))
        for key in ("stored", "label", "image", "itself", "margin", "same", "source")
    )


@pytest.mark.parametrize("name", samplers())
def test_what_is_drawn_hangs_on_the_generator_alone(name: str) -> None:
    one, other = samplers()[name], samplers()[name]
    for seed in (5, 3, 9):
        one.batch(11, drawn(seed), progress=0.4)  # what came before leaves no trace
    assert equal(one.batch(24, drawn(7), progress=0.4), other.batch(24, drawn(7), progress=0.4))
    assert not equal(one.batch(24, drawn(7), progress=0.4), other.batch(24, drawn(8), progress=0.4))


@pytest.mark.parametrize("name", samplers())
def test_processes_that_read_their_columns_have_the_batch_between_them(name: str) -> None:
    sampler = samplers()[name]
    whole = sampler.batch(24, drawn(2), progress=0.1)
    cuts = [0, 5, 16, 24]
    parts = [sampler.batch(24, drawn(2), progress=0.1, columns=slice(a, b)) for a, b in pairwise(cuts)]
    assert np.array_equal(np.concatenate([part.stored for part in parts], axis=1), whole.stored)
    for part, (a, b) in zip(parts, pairwise(cuts), strict=True):
        assert part.stored.shape[1] == b - a
        assert part.columns == slice(a, b)
        assert np.array_equal(part.label, whole.label)
        assert np.array_equal(part.same, whole.same)  # type: ignore[arg-type]


@pytest.mark.parametrize("ahead", [0, 1, 5])
def test_a_run_that_goes_on_draws_what_an_unbroken_one_would(ahead: int) -> None:
    sampler = samplers()["epoch"]
    unbroken = list(batches(sampler, 9, 4, stop=12, epoch=4, ahead=ahead))
    assert [batch.source for batch in unbroken] == [0, 0, 1, 1] * 3
    resumed = list(batches(sampler, 9, 4, start=7, stop=12, epoch=4, ahead=2))
    assert len(resumed) == 5
    assert all(equal(one, other) for one, other in zip(unbroken[7:], resumed, strict=True))
    assert not equal(unbroken[0], next(iter(batches(sampler, 9, 5, stop=1))))


class _Slow:
    """A sampler that takes its time and counts."""

    labels, views = 100, 2

    def __init__(self, fails: bool = False) -> None:
        self.drawn, self.fails = 0, fails
        self.inner = PairSampler(numbered([2] * 100))

    def batch(self, count: int, rng: np.random.Generator, **more: Any) -> Batch:
        time.sleep(0.02)
        self.drawn += 1
        if self.fails and self.drawn == 3:
            raise DataError("the disk is gone")
        return self.inner.batch(count, rng, **more)


def test_batches_are_ready_before_they_are_asked_for_but_not_all_of_them() -> None:
    slow = _Slow()
    ready = batches(slow, 8, 0, stop=50, ahead=3)
    for taken in (1, 2):
        next(ready)
        until = time.monotonic() + 20
        while slow.drawn < 3 + taken and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        assert slow.drawn == 3 + taken
    ready.close()
    time.sleep(0.1)
    settled = slow.drawn
    time.sleep(0.1)
    assert slow.drawn == settled < 10
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


def test_an_error_while_drawing_comes_out_where_the_batch_is_asked_for() -> None:
    ready = batches(_Slow(fails=True), 8, 0, stop=50, threads=1)
    next(ready)
    next(ready)
    with pytest.raises(DataError, match="disk"):
        next(ready)


def test_a_mapped_set_gives_the_same_batches(tmp_path: Path) -> None:
    observations = numbered([1, 2, 3, 4] * 30, scenes=3)
    observations.save(tmp_path / "set.h5")
    for mapped in (True, False):
        again = PatchSet.load(tmp_path / "set.h5", mapped=mapped)
        assert equal(
            TupleSampler(again, 3, few_images=True).batch(50, drawn()),
            TupleSampler(observations, 3, few_images=True).batch(50, drawn()),
        )
