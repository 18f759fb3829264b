"""Spatial verification in bulk: against a plain loop, against planted and rendered geometry, and under damage."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardnet_match.errors import DataError, OptionError
from hardnet_match.frames import make_lafs, make_upright
from hardnet_match.retrieval.affine import (
    FRAME_WEIGHT,
    Limits,
    apply_to_frames,
    from_frames,
    invert,
    least_squares,
    moments,
)
from hardnet_match.retrieval.consensus import WIDE
from hardnet_match.retrieval.tentative import Candidates, tentative_matches
from hardnet_match.retrieval.verification import Settings, rerank, verify

EMPTY = np.zeros((0, 2, 3), np.float32)


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def random_frames(rng: np.random.Generator, count: int, size: float = 800.0) -> np.ndarray:
    """Oriented ellipses all over an image."""
    lafs = make_lafs(rng.uniform(0, size, (count, 2)), np.exp(rng.uniform(2, 4, count)), rng.uniform(-180, 180, count))
    stretch = np.exp(rng.normal(0, 0.3, count))
    lafs[:, :, 0] *= stretch[:, None]
    lafs[:, :, 1] /= stretch[:, None]
    return lafs


def random_affine(rng: np.random.Generator) -> np.ndarray:
    """An affine transform a photographer could have made by walking around a wall."""
    turn, tilt = rng.uniform(-np.pi, np.pi), rng.uniform(-np.pi, np.pi)
    first, second = ([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]] for t in (turn, tilt))
    a = np.exp(rng.uniform(-0.7, 0.7)) * np.array(first) @ np.diag([1, np.exp(rng.uniform(-0.5, 0.5))]) @ second
    return np.concatenate([a, rng.uniform(-300, 300, (2, 1))], axis=1)


def joined(images: list[tuple[np.ndarray, np.ndarray]]) -> Candidates:
    return Candidates(
        np.concatenate([EMPTY, *(lafs for lafs, _ in images)]),
        np.concatenate([np.zeros(0, np.uint32), *(words for _, words in images)]).astype(np.uint32),
        np.cumsum([0, *(len(lafs) for lafs, _ in images)]),
    )


def planted(
    rng: np.random.Generator, query: np.ndarray, words: np.ndarray, right: int, wrong: int, noise: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image with `right` features of the query under one affine transform and `wrong` others with its words."""
    transform = random_affine(rng)
    rows = rng.choice(len(query), right, replace=False)
    seen = apply_to_frames(transform, query[rows])
    seen[:, :, 2] += rng.normal(0, noise, (right, 2))
    seen[:, :, :2] *= np.exp(rng.normal(0, 0.05, (right, 1, 1)))
    seen[:, :, :2] = seen[:, :, :2] @ (np.eye(2) + rng.normal(0, 0.04, (right, 2, 2)))
    lafs = np.concatenate([seen, random_frames(rng, wrong)]).astype(np.float32)
    return lafs, np.concatenate([words[rows], rng.choice(words, wrong)]), transform


def plain_verify(query: np.ndarray, words: np.ndarray, lafs: np.ndarray, image_words: np.ndarray, how: Settings) -> Any:
    """One image, one hypothesis, one match at a time, in words as the papers have it."""
    pairs = [(i, j) for i in range(len(query)) for j in range(len(lafs)) if words[i] == image_words[j]]
    crowd = [max(np.sum(words == words[i]), np.sum(image_words == words[i])) for i, _ in pairs]

    def reach(model: np.ndarray) -> float:
        return float(how.threshold * min(1.0, np.sqrt(np.linalg.det(model[:, :2]))))

    def errors(model: np.ndarray) -> np.ndarray:
        return np.array(
            [np.sum((model[:, :2] @ query[i, :, 2].astype(float) + model[:, 2] - lafs[j, :, 2]) ** 2) for i, j in pairs]
        )

    def score(model: np.ndarray) -> float:
        return float(sum(max(0, 1 - e / reach(model) ** 2) / c for e, c in zip(errors(model), crowd, strict=True)))

    def believed(model: np.ndarray) -> bool:
        if not np.isfinite(model).all() or np.linalg.det(model[:, :2]) <= 0:
            return False
        s = np.linalg.svd(model[:, :2], compute_uv=False)
        size = np.sqrt(s[0] * s[1])
        return bool(1 / how.limits.scale <= size <= how.limits.scale and s[0] / s[1] <= how.limits.anisotropy)

    def fit(model: np.ndarray, wide: float) -> np.ndarray:
        rows, targets = [], []
        for (i, j), error, c in zip(pairs, errors(model), crowd, strict=True):
            weight = np.sqrt(max(0, 1 - error / (wide * reach(model) ** 2)) / c)
            axis = weight * np.sqrt(FRAME_WEIGHT)
            rows += [weight * np.append(query[i, :, 2], 1), *(axis * np.append(query[i, :, k], 0) for k in (0, 1))]
            targets += [weight * lafs[j, :, 2], axis * lafs[j, :, 0], axis * lafs[j, :, 1]]
        return np.asarray(np.linalg.lstsq(np.array(rows, float), np.array(targets, float), rcond=None)[0].T)

    def alike(first: np.ndarray, second: np.ndarray) -> bool:
        """Whether two transforms turn and scale alike."""
        assert how.agreement is not None
        left, _, right = np.linalg.svd(first[:, :2] @ np.linalg.inv(second[:, :2]))
        rotation = left @ right
        angle = abs(np.rad2deg(np.arctan2(rotation[1, 0], rotation[0, 0])))
        ratio = np.sqrt(np.linalg.det(first[:, :2]) / np.linalg.det(second[:, :2]))
        return bool(1 / how.agreement[0] <= ratio <= how.agreement[0] and angle <= how.agreement[1])

    hypotheses = []
    own: list[Any] = []
    for i, j in pairs:
        a = lafs[j, :, :2].astype(float) @ np.linalg.inv(query[i, :, :2].astype(float))
        model = np.concatenate([a, (lafs[j, :, 2] - a @ query[i, :, 2])[:, None]], axis=1)
        own.append(model if believed(model) else None)
        if believed(model):
            hypotheses.append(model)
    best: tuple[int, float, Any, list[tuple[int, int]]] = (0, 0.0, None, [])
    for start in sorted(hypotheses, key=score, reverse=True)[: how.refined]:
        kept = now = start
        for round_ in range(how.rounds):
            trial = fit(now, WIDE[round_] ** 2)
            now = trial if believed(trial) else now
            kept = now if score(now) > score(kept) else kept
        error = errors(kept)
        single: list[tuple[int, int]] = []
        for k in np.argsort(error, kind="stable"):
            i, j = pairs[k]
            if own[k] is None or not alike(own[k], kept):
                continue
            if error[k] < reach(kept) ** 2 and all(i != a and j != b for a, b in single):
                single.append((i, j))
        if (len(single), score(kept)) > best[:2]:
            best = len(single), score(kept), kept, single
    return best[0], best[2], best[3]


@pytest.mark.parametrize("seed", range(4))
def test_against_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, words = random_frames(rng, 30), rng.integers(0, 20, 30)
    how = Settings(rounds=3)
    images = [planted(rng, query, words, right, wrong)[:2] for right, wrong in ((14, 6), (2, 20), (25, 3), (0, 15))]
    found = verify(query, words, joined(images), settings=how)
    for number, (lafs, image_words) in enumerate(images):
        count, transform, pairs = plain_verify(query, words, lafs, image_words, how)
        if number in (1, 3):
            # Nothing to find: which of many hypotheses with one inlier each is refined is a matter of rounding.
            assert max(found.inliers[number], count) <= 6
            continue
        assert found.inliers[number] == count >= 10
        np.testing.assert_allclose(found.transforms[number], transform, rtol=1e-3, atol=1e-3 * 800)
        assert set(map(tuple, found.pairs_of(number).tolist())) == set(pairs)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(12, 60), st.integers(0, 60))
def test_a_planted_affine_is_found(seed: int, right: int, wrong: int) -> None:
    rng = np.random.default_rng(seed)
    query, words = random_frames(rng, 80), rng.permutation(5000)[:80]
    lafs, image_words, transform = planted(rng, query, words, right, wrong)
    found = verify(query, words, joined([(lafs, image_words)]))
    assert found.inliers[0] >= 0.9 * right
    points = query[found.pairs_of(0)[:, 0], :, 2].astype(float)
    moved, truth = (points @ t[:, :2].T + t[:, 2] for t in (found.transforms[0], transform))
    assert np.median(np.linalg.norm(moved - truth, axis=1)) < 4.0


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(1, 60), st.integers(1, 3), st.booleans())
def test_inliers_are_one_to_one_matches_within_reach(
    seed: int, count: int, vocabulary: int, assignments: int, upright: bool
) -> None:
    rng = np.random.default_rng(seed)
    query, words = random_frames(rng, count), rng.integers(0, vocabulary, (count, assignments))
    images = [(random_frames(rng, n), rng.integers(0, vocabulary, n)) for n in rng.integers(0, 50, 5)]
    found = verify(query, words, joined(images), 30.0, upright, settings=Settings(max_matches=4096))
    assert found.offsets.tolist() == np.cumsum([0, *found.inliers]).tolist()
    for number, (lafs, image_words) in enumerate(images):
        pairs = found.pairs_of(number)
        together = (words[:, :, None] == image_words[None, None]).any(axis=1)
        assert len(pairs) <= found.tentative[number] == together.sum()
        assert len(set(pairs[:, 0])) == len(set(pairs[:, 1])) == len(pairs)
        assert together[pairs[:, 0], pairs[:, 1]].all()
        t = found.transforms[number]
        if not len(pairs):
            assert not t.any()
            continue
        assert Limits().allow(t)
        off = query[pairs[:, 0], :, 2].astype(float) @ t[:, :2].T + t[:, 2] - lafs[pairs[:, 1], :, 2]
        distance = np.linalg.norm(off, axis=1)
        assert distance.max() < 30.0 * min(1, np.sqrt(np.linalg.det(t[:, :2]))) + 1e-6
        assert (np.diff(distance) > -1e-6).all()


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(5, 40))
def test_order_of_rows_and_of_images_changes_nothing(seed: int, vocabulary: int) -> None:
    rng = np.random.default_rng(seed)
    query, words = random_frames(rng, 40), rng.integers(0, vocabulary, (40, 2))
    images = [planted(rng, query, words[:, 0], n, 15)[:2] for n in (0, 4, 10, 20)]
    found = verify(query, words, joined(images))
    mine = rng.permutation(40)
    theirs = [rng.permutation(len(words)) for _, words in images]
    order = rng.permutation(4)
    turned = [(images[i][0][theirs[i]], images[i][1][theirs[i]]) for i in order]
    again = verify(query[mine], words[mine][:, ::-1], joined(turned))
    np.testing.assert_array_equal(again.inliers, found.inliers[order])
    np.testing.assert_array_equal(again.transforms, found.transforms[order])
    for place, i in enumerate(order):
        back = np.stack([mine[again.pairs_of(place)[:, 0]], theirs[i][again.pairs_of(place)[:, 1]]], axis=1)
        np.testing.assert_array_equal(back, found.pairs_of(i))


def test_an_image_gets_the_same_result_whatever_is_beside_it() -> None:
    rng = np.random.default_rng(5)
    query, words = random_frames(rng, 120), rng.integers(0, 60, 120)
    images = [planted(rng, query, words, n % 50, 3 * n)[:2] for n in range(60)]
    together = verify(query, words, joined(images))
    for number in range(0, 60, 7):
        alone = verify(query, words, joined([images[number]]))
        assert alone.inliers[0] == together.inliers[number]
        np.testing.assert_array_equal(alone.transforms[0], together.transforms[number])
        np.testing.assert_array_equal(alone.pairs, together.pairs_of(number))


@pytest.mark.parametrize("damage", [0.0, np.nan, np.inf, 1e30, 1e-30])
def test_bad_frames_poison_nobody(damage: float) -> None:
    rng = np.random.default_rng(6)
    query, words = random_frames(rng, 60), np.arange(60)
    lafs, image_words, _ = planted(rng, query, words, 30, 10)
    clean = verify(query, words, joined([(lafs, image_words)]))
    bad = np.full((20, 2, 3), damage, np.float32)
    bad[:10, :, 2] = rng.uniform(0, 800, (10, 2))  # singular, but somewhere
    bad_query = np.concatenate([query, bad])
    bad_words = np.concatenate([words, np.arange(100, 120)])
    # Rows 0-9 of the damage match damage, 10-19 match good frames of the other side.
    both = np.concatenate([lafs, bad, random_frames(rng, 20)])
    both_words = np.concatenate([image_words, np.arange(100, 110), np.arange(200, 210), np.arange(100, 120)])
    found = verify(bad_query, bad_words, joined([(bad, bad_words[:20]), (both, both_words)]))
    assert np.isfinite(found.transforms).all()
    assert found.inliers[1] >= clean.inliers[0] >= 27
    good = found.pairs_of(1)
    assert len({tuple(pair) for pair in good.tolist()} & {tuple(pair) for pair in clean.pairs.tolist()}) >= 27


def test_upright_and_similarity_need_only_what_they_say() -> None:
    rng = np.random.default_rng(7)
    query, words = random_frames(rng, 60), np.arange(60)
    turn = random_affine(rng)
    turn[:, :2] = [[0.8, 0.0], [0.1, 1.2]]  # up stays up
    seen = apply_to_frames(turn, query)
    # The detector got every orientation wrong: only the ellipses can be believed.
    spin = np.deg2rad(rng.uniform(60, 300, 60))
    spins = np.stack([np.cos(spin), -np.sin(spin), np.sin(spin), np.cos(spin)], axis=1).reshape(-1, 2, 2)
    seen[:, :, :2] = seen[:, :, :2] @ spins.astype(np.float32)
    images = joined([(seen, words)])
    assert verify(query, words, images, upright=False).inliers[0] < 10
    found = verify(query, words, images, upright=True)
    assert found.inliers[0] == 60
    np.testing.assert_allclose(found.transforms[0], turn, atol=0.1)

    # The shapes are noise, scale and rotation are right.
    circles = make_lafs(query[:, :, 2], 20.0, rng.uniform(-180, 180, 60))
    other = random_affine(rng)
    other[:, :2] = [[0.6, 0.8], [-0.8, 0.6]]
    seen = apply_to_frames(other, circles)
    squeeze = np.exp(rng.choice([-1.0, 1.0], 60))[:, None]
    seen[:, :, 0] *= squeeze
    seen[:, :, 1] /= squeeze
    assert verify(circles, words, joined([(seen, words)]), settings=Settings(similarity=True)).inliers[0] == 60


@pytest.mark.parametrize(
    "a", [[[-1.0, 0], [0, 1]], [[30.0, 0], [0, 30]], [[0.03, 0], [0, 0.03]], [[4.0, 0], [0, 0.25]]]
)
def test_what_no_camera_does_is_not_believed(a: list[list[float]]) -> None:
    rng = np.random.default_rng(8)
    query, words = random_frames(rng, 40), np.arange(40)
    seen = apply_to_frames(np.concatenate([np.array(a), np.full((2, 1), 50.0)], axis=1), query)
    assert verify(query, words, joined([(seen, words)])).inliers[0] <= 4
    loose = Settings(limits=Limits(scale=100, anisotropy=100))
    # A mirror is never believed, the others are where the limits are wide.
    assert a[0][0] < 0 or verify(query, words, joined([(seen, words)]), settings=loose).inliers[0] == 40


def test_inliers_agree_with_the_transform_in_size_and_angle() -> None:
    rng = np.random.default_rng(13)
    query, words = random_frames(rng, 60), np.arange(60)
    transform = random_affine(rng)
    seen = apply_to_frames(transform, query)
    # In the right place by accident: ten are turned, ten are of another size.
    seen[:10, :, :2] = seen[:10, :, :2] @ np.array([[0, 1], [-1, 0]], np.float32)
    seen[10:20, :, :2] *= 3
    images = joined([(seen, words)])
    found = verify(query, words, images)
    assert set(found.pairs[:, 0].tolist()) == set(range(20, 60))
    assert verify(query, words, images, settings=Settings(agreement=None)).inliers[0] == 60
    wide = verify(query, words, images, settings=Settings(agreement=(4.0, 30.0)))
    assert set(wide.pairs[:, 0].tolist()) == set(range(10, 60))


def test_shrinking_all_to_a_spot_is_no_geometry() -> None:
    rng = np.random.default_rng(9)
    query, words = random_frames(rng, 60), np.arange(60)
    # Sixty tiny features within a few pixels of one another, anything of the query lands there when shrunk enough.
    heap = make_lafs(rng.uniform(400, 406, (60, 2)), 3.0, rng.uniform(-180, 180, 60))
    assert verify(query, words, joined([(heap, words)]), threshold=12.0).inliers[0] < 15


def test_bursts_are_bounded_and_the_rare_words_decide() -> None:
    rng = np.random.default_rng(10)
    query = random_frames(rng, 400)
    words = np.where(np.arange(400) < 40, np.arange(400), 7777)
    seen = apply_to_frames(random_affine(rng), query)
    found = verify(query, words, joined([(seen, words)]), settings=Settings(max_matches=500))
    assert found.tentative[0] == 40
    assert found.inliers[0] == 40
    everything = verify(query, np.zeros(400, int), joined([(seen, np.zeros(400, int))]))
    assert everything.tentative[0] == everything.inliers[0] == 0


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(1, 12), st.integers(1, 3), st.integers(1, 200))
def test_tentative_matches_are_all_pairs_of_the_rarest_words(
    seed: int, count: int, vocabulary: int, assignments: int, most: int
) -> None:
    rng = np.random.default_rng(seed)
    query, words = random_frames(rng, count), rng.integers(0, vocabulary, (count, assignments))
    images = [(random_frames(rng, n), rng.integers(0, vocabulary + 3, n)) for n in rng.integers(0, 30, 4)]
    candidates = joined(images)
    found = tentative_matches(query, words, candidates, most)
    for number, (_, image_words) in enumerate(images):
        of_word = {
            int(word): [
                (i, j) for i in range(count) for j in np.flatnonzero(image_words == word).tolist() if word in words[i]
            ]
            for word in np.unique(image_words)
        }
        crowd = {
            word: (len({i for i, _ in of_word[word]}) * len({j for _, j in of_word[word]}), word) for word in of_word
        }
        expected: list[tuple[int, int]] = []
        for word in sorted(of_word, key=crowd.__getitem__):
            if len(expected) + len(of_word[word]) > most:
                break
            expected += of_word[word]
        mine = np.flatnonzero(found.image == number)
        assert sorted(zip(found.query[mine], found.row[mine] - candidates.offsets[number], strict=True)) == sorted(
            expected
        )
    assert (np.diff(found.image) >= 0).all()


def test_a_rendered_wall() -> None:
    from hardnet_match.world import World

    world = World(seed=3, texel=0.05)
    first, second, elsewhere = (world.cameras(6)[i] for i in (1, 3, 5))
    rng = np.random.default_rng(11)

    def seen(homography: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Frames as a homography moves them: its derivative at the centre does what it does to a small patch."""
        points = np.concatenate([frames[:, :, 2], np.ones((len(frames), 1))], axis=1) @ homography.T
        centre = points[:, :2] / points[:, 2:]
        slope = (homography[None, :2, :2] - centre[:, :, None] * homography[None, 2:, :2]) / points[:, 2, None, None]
        return np.concatenate([slope @ frames[:, :, :2], centre[:, :, None]], axis=2).astype(np.float32)

    query, words = random_frames(rng, 200, 640), rng.integers(0, 400, 200)
    query[:, 1, 2] *= 480 / 640
    right = world.homography(first, second, "house")
    wall = seen(right, query[:120])
    images = joined(
        [
            (np.concatenate([wall, random_frames(rng, 150)]), np.concatenate([words[:120], rng.integers(0, 400, 150)])),
            (random_frames(rng, 300), rng.integers(0, 400, 300)),
            (seen(world.homography(first, elsewhere, "house"), query[:30]), words[:30]),
        ]
    )
    found = verify(query, words, images, threshold=15.0)
    truth = {(i, i) for i in range(120)}
    pairs = set(map(tuple, found.pairs_of(0).tolist()))
    # An affine transform is not a homography: of a wall seen obliquely it takes in the larger part.
    assert len(pairs & truth) >= 70
    assert len(pairs - truth) <= 8
    assert found.inliers[1] <= 6
    assert found.inliers[2] >= 12


def test_what_cannot_be_verified_is_told() -> None:
    lafs, words = make_lafs([[1, 2]], 3.0), np.array([1])
    one = Candidates(lafs, words, np.array([0, 1]))
    empty = verify(EMPTY, np.zeros((0, 3), np.uint32), one)
    assert empty.inliers.tolist() == [0]
    assert len(verify(lafs, words, Candidates(EMPTY, np.zeros(0, np.uint32), np.array([0])))) == 0
    assert verify(lafs, words, one).inliers.tolist() == [1]
    for wrong in (
        Candidates(lafs, words[:0], one.offsets),
        Candidates(lafs, words, np.array([0, 2])),
        Candidates(lafs[0], words, one.offsets),
        Candidates(lafs, words, np.array([0, 2, 1])),
    ):
        with pytest.raises(DataError):
            verify(lafs, words, wrong)
    with pytest.raises(DataError):
        verify(lafs, np.array([1, 2]), one)
    with pytest.raises(DataError):
        verify(lafs, np.array([-1]), one)
    with pytest.raises(OptionError):
        verify(lafs, words, one, threshold=0.0)
    with pytest.raises(OptionError):
        Limits(scale=0.5)
    for setting in ({"max_matches": 10**6}, {"refined": 0}, {"rounds": -1}, {"agreement": (0.5, 30.0)}):
        with pytest.raises(OptionError):
            Settings(**setting)


def test_least_squares_and_frames_agree_on_exact_matches() -> None:
    rng = np.random.default_rng(12)
    truth, frames = random_affine(rng), random_frames(rng, 9).astype(np.float64)
    seen = np.concatenate([truth[:, :2] @ frames[..., :2], truth[:, :2] @ frames[..., 2:] + truth[:, 2:]], axis=2)
    np.testing.assert_allclose(from_frames(frames, seen), np.broadcast_to(truth, (9, 2, 3)), atol=1e-8)
    sums = moments(frames, seen)
    np.testing.assert_allclose(least_squares(sums.sum(axis=0)), truth, atol=1e-8)
    np.testing.assert_allclose(least_squares(sums), np.broadcast_to(truth, (9, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(apply_to_frames(invert(truth), seen), frames, rtol=1e-5, atol=1e-3)
    assert not np.isfinite(least_squares(np.zeros(12))).any()
    np.testing.assert_allclose(make_upright(frames)[:, 0, 1], 0)


def test_rerank_puts_the_verified_first_and_leaves_the_rest() -> None:
    scores, inliers = [0.9, 0.8, 0.7, 0.6, 0.5], [3, 10, 0, 25, 10]
    assert rerank(scores, inliers, minimum=5).tolist() == [3, 1, 4, 0, 2]
    assert rerank(scores, inliers, minimum=11).tolist() == [3, 0, 1, 2, 4]
    assert rerank([], []).tolist() == []
    with pytest.raises(DataError):
        rerank([1.0], [1, 2])
