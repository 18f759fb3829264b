"""Query expansion: which features of verified images join the query, and what each method makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardnet_match.errors import DataError, OptionError
from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.retrieval.affine import apply_to_frames, invert
from hardnet_match.retrieval.bits import pack_signs, unpack_signs
from hardnet_match.retrieval.codebook import Codebook
from hardnet_match.retrieval.expansion import SAME, Expansion, expand, extent, features_inside
from hardnet_match.retrieval.hqe import HQE
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.search import Plan, search
from hardnet_match.retrieval.snapshot import Geometry
from hardnet_match.retrieval.verification import verify

DIM, WORDS = 32, 400
METHODS: dict[str, dict[str, Any]] = {
    "bow": {},
    "asmk": {"binary": True},
    "asmk-full": {"binary": False},
    "hqe": {"bits": DIM, "threshold": 12, "sigma": 8.0, "strict": 7, "expand": False},
}


def unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


class Town:
    """A wall of 300 features, seen by cameras that each see another part of it, and images of other things.

    Image 0 sees the middle, 1 to 4 the middle and more to one side each, 5 and 6 only what is far from the middle,
    7 to 14 something else.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.codebook = Codebook(unit(rng.normal(size=(WORDS, DIM))))
        place = rng.uniform(0, 1500, (300, 2))
        wall = make_lafs(place, rng.uniform(8, 25, 300), rng.uniform(-180, 180, 300))
        looks = unit(rng.normal(size=(300, DIM)))
        windows = [(500, 1000), (400, 1000), (500, 1150), (300, 900), (600, 1300), (1100, 1500), (0, 420)]
        self.images: list[Features] = []
        self.wall_rows: list[np.ndarray] = []
        for low, high in windows:
            rows = np.flatnonzero((place[:, 0] > low) & (place[:, 0] < high) & (rng.random(300) < 0.75))
            turn = np.deg2rad(rng.uniform(-30, 30))
            a = rng.uniform(0.6, 1.4) * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            seen = apply_to_frames(np.concatenate([a, rng.uniform(-200, 200, (2, 1))], axis=1), wall[rows])
            seen[:, :, 2] += rng.normal(0, 1, (len(rows), 2))
            self._add(seen, unit(looks[rows] + rng.normal(0, 0.2 / np.sqrt(DIM), (len(rows), DIM))), 30, rng)
            self.wall_rows.append(rows)
        for _ in range(8):
            self._add(np.zeros((0, 2, 3), np.float32), np.zeros((0, DIM), np.float32), 150, rng)

    def _add(self, lafs: np.ndarray, descriptors: np.ndarray, others: int, rng: np.random.Generator) -> None:
        clutter = make_lafs(
            rng.uniform(0, 1200, (others, 2)), rng.uniform(8, 25, others), rng.uniform(-180, 180, others)
        )
        lafs = np.concatenate([lafs, clutter]).astype(np.float32)
        descriptors = np.concatenate([descriptors, unit(rng.normal(size=(others, DIM)))])
        self.images.append(Features(lafs, np.ones(len(lafs), np.float32), descriptors, (1200, 1200)))

    def index(self, folder: Path, method: str, **parameters: Any) -> Index:
        options = {**METHODS[method], **parameters}
        with Index.create(folder, self.codebook, method.split("-")[0], **options) as index:
            for number, image in enumerate(self.images):
                index.add(f"{number:02d}.jpg", image)
                if number == 3:
                    index.flush()
        return Index.open(folder)


@pytest.fixture(scope="module")
def town() -> Town:
    return Town()


@pytest.fixture(scope="module")
def indices(town: Town, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Index]:
    return {method: town.index(tmp_path_factory.mktemp("town") / method, method) for method in METHODS}


def asked(index: Index, town: Town, assignments: int = 1) -> Any:
    """The query of image 0, all images but itself, and what verification found of them."""
    query = index.query(town.images[0], assignments)
    images = np.arange(1, len(town.images))
    found = verify(query.lafs, query.words, index.geometries(images))
    ranking = index.rank(query)
    scores = np.zeros(len(town.images))
    scores[ranking.images] = ranking.scores
    return query, images, found, scores[images]


def grown(index: Index, town: Town, how: Expansion | None = None, **options: Any) -> Any:
    query, images, found, scores = asked(index, town)
    return query, expand(index, query, images, found.inliers, found.transforms, scores, how, **options)


@settings(max_examples=40)
@given(st.integers(0, 10**6), st.integers(0, 5))
def test_features_inside_against_a_plain_loop(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    images = [
        (
            make_lafs(rng.uniform(0, 200, (n, 2)), 5.0, rng.uniform(-180, 180, n)),
            rng.integers(0, 6, n).astype(np.uint32),
        )
        for n in rng.integers(0, 30, count)
    ]
    transforms = np.array([[[1.2, 0.3, 10], [-0.2, 0.9, 5]]] * count).reshape(-1, 2, 3) * rng.uniform(
        0.7, 1.3, (count, 1, 1)
    )
    lafs = np.concatenate([np.zeros((0, 2, 3), np.float32), *(lafs for lafs, _ in images)])
    words = np.concatenate([np.zeros(0, np.uint32), *(words for _, words in images)])
    region = (20.0, 30.0, 120.0, 90.0)

    class View:
        def geometry(self, numbers: Any) -> Geometry:
            assert list(numbers) == list(range(count))
            return Geometry(lafs, words, np.cumsum([0, *(len(words) for _, words in images)]))

    view: Any = View()
    found = features_inside(view, np.arange(count), transforms, region)
    expected = []
    for number, (frames, of_image) in enumerate(images):
        a, t = transforms[number][:, :2], transforms[number][:, 2]
        before: dict[int, int] = {}
        for frame, word in zip(frames, of_image.tolist(), strict=True):
            x, y = np.linalg.solve(a, frame[:, 2].astype(float) - t)
            if 20 <= x <= 120 and 30 <= y <= 90:
                expected.append((number, word, before.get(word, 0), x, y))
            before[word] = before.get(word, 0) + 1
    assert [(int(p), int(w), int(n)) for p, w, n in zip(found.place, found.words, found.nth, strict=True)] == [
        row[:3] for row in expected
    ]
    np.testing.assert_allclose(found.lafs[:, :, 2], np.array([row[3:] for row in expected]).reshape(-1, 2), atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_only_verified_images_take_part(method: str, indices: dict[str, Index], town: Town) -> None:
    _, result = grown(indices[method], town)
    assert sorted(result.images.tolist()) == [1, 2, 3, 4]
    np.testing.assert_array_equal(result.weights, 1)
    _, none = grown(indices[method], town, Expansion(minimum=10**6))
    assert none is None
    _, best = grown(indices[method], town, Expansion(images=2))
    _, images, found, _ = asked(indices[method], town)
    assert best.images.tolist() == images[np.argsort(-found.inliers, kind="stable")[:2]].tolist()


def test_added_features_are_inside_and_where_the_query_would_show_them(indices: dict[str, Index], town: Town) -> None:
    index = indices["bow"]
    query, result = grown(index, town)
    own = len(query)
    np.testing.assert_array_equal(result.lafs[:own], query.lafs)
    np.testing.assert_array_equal(result.words[:own], query.words)
    x0, y0, x1, y1 = extent(query.lafs)
    added = result.lafs[own:]
    assert len(added) > 20
    assert (added[:, 0, 2] >= x0).all() and (added[:, 0, 2] <= x1).all()  # noqa: PT018
    assert (added[:, 1, 2] >= y0).all() and (added[:, 1, 2] <= y1).all()  # noqa: PT018
    # Features of the wall the query has not seen itself are where its camera would have put them.
    query_rows = town.wall_rows[0]
    truth = np.linalg.lstsq(
        np.column_stack([town.images[1].lafs[: len(town.wall_rows[1]), :, 2], np.ones(len(town.wall_rows[1]))])[
            np.isin(town.wall_rows[1], query_rows)
        ],
        town.images[0].lafs[: len(query_rows), :, 2][np.isin(query_rows, town.wall_rows[1])],
        rcond=None,
    )[0].T
    there = apply_to_frames(truth, town.images[1].lafs)
    x, y = there[:, 0, 2], there[:, 1, 2]
    inside = (x > x0 + 5) & (x < x1 - 5) & (y > y0 + 5) & (y < y1 - 5)
    for place in there[inside][:, :, 2]:
        distance = np.linalg.norm(result.lafs[:, :, 2] - place, axis=1)
        assert distance.min() < 2 * SAME


def test_a_smaller_region_takes_less(indices: dict[str, Index], town: Town) -> None:
    query, whole = grown(indices["bow"], town)
    x0, y0, x1, y1 = extent(query.lafs)
    region = (x0, y0, (x0 + x1) / 2, y1)
    _, half = grown(indices["bow"], town, region=region)
    assert len(query) < len(half.lafs) < len(whole.lafs)
    assert (half.lafs[len(query) :, 0, 2] <= region[2]).all()


def test_counts_are_the_weighted_mean(indices: dict[str, Index], town: Town) -> None:
    index = indices["bow"]
    for how in (Expansion(), Expansion("alpha", alpha=2.0)):
        query, result = grown(index, town, how)
        _, images, found, scores = asked(index, town)
        verified = {int(i): k for k, i in enumerate(images) if i in result.images}
        expected = np.bincount(query.words[:, 0], minlength=WORDS).astype(float)
        top = max(scores[k] for k in verified.values())
        total = 1.0
        for image, k in verified.items():
            weight = (scores[k] / top) ** 2 if how.kind == "alpha" else 1.0
            lafs, words = index.geometry(image)
            back = apply_to_frames(invert(found.transforms[k]), lafs)
            x0, y0, x1, y1 = extent(query.lafs)
            x, y = back[:, 0, 2], back[:, 1, 2]
            inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
            expected += weight * np.bincount(words[inside], minlength=WORDS)
            total += weight
            assert result.weights[result.images.tolist().index(image)] == pytest.approx(weight)
        counts = np.zeros(WORDS)
        counts[result.postings.words] = result.postings.payload["counts"]
        np.testing.assert_allclose(counts, expected / total, atol=1e-12)


@pytest.mark.parametrize("method", ["asmk", "asmk-full"])
def test_aggregates_are_what_the_features_would_have_given(method: str, indices: dict[str, Index], town: Town) -> None:
    """One word at a time, from the descriptors the index no longer has."""
    index = indices[method]
    query, result = grown(index, town)
    _, images, found, _ = asked(index, town)
    x0, y0, x1, y1 = extent(query.lafs)
    members: dict[int, list[np.ndarray]] = {}
    own = index.scorer.represent(query)
    key = next(iter(index.scorer.payload))

    def vectors(packed: np.ndarray) -> np.ndarray:
        return 2.0 * unpack_signs(packed, DIM) - 1 if packed.dtype == np.uint64 else packed.astype(float)

    for word, vector in zip(own.words.tolist(), vectors(own.payload[key]), strict=True):
        members.setdefault(word, []).append(vector * (1 + 1e-6))
    for image in result.images.tolist():
        features = town.images[image]
        words = town.codebook.assign(features.descriptors)[:, 0]
        back = apply_to_frames(invert(found.transforms[int(np.flatnonzero(images == image)[0])]), features.lafs)
        x, y = back[:, 0, 2], back[:, 1, 2]
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        for word in np.unique(words[inside]).tolist():
            residual = (features.descriptors[words == word] - town.codebook.centroids[word]).sum(axis=0)
            vector = np.where(residual > 0, 1.0, -1.0) if method == "asmk" else residual / np.linalg.norm(residual)
            members.setdefault(word, []).append(vector)
    assert result.postings.words.tolist() == sorted(members)
    got = result.postings.payload[key]
    for row, word in enumerate(sorted(members)):
        total = np.sum(members[word], axis=0)
        if method == "asmk-full":
            np.testing.assert_allclose(got[row].astype(float), total / np.linalg.norm(total), atol=2e-3)
        else:
            decided = np.abs(total) > 1e-9
            signs = unpack_signs(got[row : row + 1], DIM)[0]
            assert (signs[decided] == (total > 0)[decided]).all()


@pytest.mark.parametrize("kind", ["average", "alpha"])
def test_signatures_are_those_of_the_features_inside(kind: str, indices: dict[str, Index], town: Town) -> None:
    index = indices["hqe"]
    method = index.scorer
    assert isinstance(method, HQE)
    query, result = grown(index, town, Expansion(kind))
    _, images, found, _ = asked(index, town)
    own = method.represent(query)
    rows = [(int(w), tuple(s), 1.0) for w, s in zip(own.words, own.payload["signatures"].tolist(), strict=True)]
    x0, y0, x1, y1 = extent(query.lafs)
    for image, weight in zip(result.images.tolist(), result.weights.tolist(), strict=True):
        features = town.images[image]
        back = apply_to_frames(invert(found.transforms[int(np.flatnonzero(images == image)[0])]), features.lafs)
        x, y = back[:, 0, 2], back[:, 1, 2]
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        words = town.codebook.assign(features.descriptors)[:, 0]
        signs = method.embedding.signatures(features.descriptors[inside], words[inside])
        rows += [(int(w), tuple(s), weight) for w, s in zip(words[inside], signs.tolist(), strict=True)]
    payload = result.postings.payload
    got = zip(result.postings.words, payload["signatures"].tolist(), payload["weights"].tolist(), strict=True)
    assert sorted((int(w), tuple(s), v) for w, s, v in got) == sorted(rows)
    assert (np.diff(result.postings.words.astype(int)) >= 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_expansion_finds_what_shares_little_with_the_query(method: str, town: Town, indices: dict[str, Index]) -> None:
    """Query with a few features of image 0: images 1 to 4 stand out more against the others after expansion."""
    index = indices[method]
    rng = np.random.default_rng(4)
    gain = []
    for _ in range(8):
        rows = np.sort(rng.choice(len(town.wall_rows[0]), 30, replace=False))
        features = town.images[0].select(rows)
        gaps = []
        for plan in (Plan(verify=15), Plan(verify=15, expand=True, expansion=Expansion(minimum=8))):
            found = search(index, index.query(features, 1), plan)
            scores = np.zeros(len(town.images))
            scores[found.images] = found.scores
            gaps.append(scores[1:5].mean() / (scores[7:].max() + 1e-9))
        gain.append(gaps[1] / gaps[0])
    assert np.median(gain) > 1.03


def test_a_search_with_expansion_verifies_with_all_features(town: Town, indices: dict[str, Index]) -> None:
    index = indices["asmk"]
    query = index.query(town.images[0])
    plain = search(index, query, Plan(verify=10))
    full = search(index, query, Plan(verify=10, expand=True))
    assert len(full.lafs) > len(plain.lafs) == len(query)
    for found in (plain, full):
        assert len(found.pairs) == 10
        assert 0 in found.images[:5]
        for place, pairs in found.pairs.items():
            assert len(pairs) == found.inliers[place]
            assert not len(pairs) or pairs[:, 0].max() < len(found.lafs)
    before = {int(i): int(n) for i, n in zip(plain.images, plain.inliers, strict=True)}
    after = {int(i): int(n) for i, n in zip(full.images, full.inliers, strict=True)}
    assert all(after[image] >= before[image] for image in (1, 2, 3, 4))
    nothing = search(index, query, Plan(verify=10, expand=True, expansion=Expansion(minimum=10**6)))
    np.testing.assert_array_equal(nothing.images, plain.images)


def test_features_of_no_weight_are_not_there(town: Town, indices: dict[str, Index]) -> None:
    for method in METHODS:
        index = indices[method]
        query, images, found, scores = asked(index, town)
        silent = np.where(np.arange(len(images)) == int(np.argmax(scores)), scores, 0.0)
        one = expand(index, query, images, found.inliers, found.transforms, silent, Expansion("alpha"))
        assert one is not None
        only = int(np.argmax(scores))
        alone = expand(index, query, images[[only]], found.inliers[[only]], found.transforms[[only]], scores[[only]])
        assert alone is not None
        np.testing.assert_array_equal(one.postings.words, alone.postings.words)
        for key, value in one.postings.payload.items():
            np.testing.assert_allclose(value, alone.postings.payload[key])


def test_what_cannot_be_expanded_is_told(town: Town, indices: dict[str, Index]) -> None:
    index = indices["bow"]
    query, images, found, scores = asked(index, town)
    with pytest.raises(DataError, match="one each"):
        expand(index, query, images[:3], found.inliers, found.transforms, scores)
    assert expand(index, query, [], [], np.zeros((0, 2, 3)), []) is None
    for wrong in ({"kind": "max"}, {"alpha": -1.0}, {"minimum": 0}, {"images": 0}):
        with pytest.raises(OptionError):
            Expansion(**wrong)
    assert extent(np.zeros((0, 2, 3), np.float32)) == (0, 0, 0, 0)
    bits = pack_signs(np.ones((1, DIM)))
    assert bits.dtype == np.uint64
