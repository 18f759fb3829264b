"""A whole search on made-up images whose every feature is known: geometry reorders, expansion reaches further."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from hardnet_match.errors import OptionError
from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.retrieval.codebook import Codebook
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.search import UNVERIFIED, Plan, search

WORDS, DIM = 600, 32
RNG = np.random.default_rng(7)
CENTROIDS = RNG.normal(size=(WORDS, DIM)).astype(np.float32)
CENTROIDS /= np.linalg.norm(CENTROIDS, axis=1, keepdims=True)
# Feature i of the made-up world looks like this wherever it is seen, and lies there in the first picture.
LOOKS = CENTROIDS + RNG.normal(scale=0.02, size=CENTROIDS.shape).astype(np.float32)
PLACES = RNG.uniform(50, 450, (WORDS, 2))
SIZES = RNG.uniform(10, 30, WORDS)
MOVE = np.array([[0.8, -0.3, 120], [0.3, 0.8, -20]])


def image(ids: NDArray[np.int64], moved: bool = False, scrambled: int | None = None) -> Features:
    """The features `ids`, as they are, moved by `MOVE`, or thrown about."""
    lafs = make_lafs(PLACES[ids], SIZES[ids], np.zeros(len(ids))).astype(np.float64)
    if moved:
        lafs = MOVE[:, :2] @ lafs
        lafs[:, :, 2] += MOVE[:, 2]
    if scrambled is not None:
        rng = np.random.default_rng(scrambled)
        lafs = make_lafs(
            rng.uniform(0, 500, (len(ids), 2)), rng.uniform(5, 60, len(ids)), rng.uniform(0, 360, len(ids))
        )
    return Features(lafs.astype(np.float32), np.ones(len(ids), np.float32), LOOKS[ids], (500, 500))


QUERY, REST = np.arange(120), np.arange(300, WORDS)
SEEN = np.arange(40)  # what the query and `true` share
BEYOND = np.arange(150, 250)  # what `true` and `far` share, and the query lacks


@pytest.fixture(scope="module", params=["asmk", "bow", "hqe"])
def index(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    codebook = Codebook(CENTROIDS)
    parameters = {"expand": False} if request.param == "hqe" else {}
    sample = np.repeat(LOOKS, 8, axis=0) + RNG.normal(scale=0.02, size=(WORDS * 8, DIM)).astype(np.float32)
    folder: Path = tmp_path_factory.mktemp("search") / "index"
    with Index.create(folder, codebook, request.param, {}, sample=sample, **parameters) as made:
        made.add("itself", image(QUERY))
        made.add("true", image(np.concatenate([SEEN, BEYOND]), moved=True))
        made.add("false", image(np.arange(30, 120), scrambled=1))
        made.add("far", image(np.concatenate([BEYOND, REST[:20]])))
        for number in range(6):
            rows = np.random.default_rng(number).choice(REST, 80, replace=False)
            made.add(f"other{number}", image(np.concatenate([rows, QUERY[number : number + 3]]), scrambled=number))
        made.add("bare", image(np.arange(0)))
    return Index.open(folder)


def names(index: Index, found: NDArray[np.int64]) -> list[str]:
    return [index.names[number] for number in found.tolist()]


def test_the_ranking_alone(index: Index) -> None:
    found = search(index, index.query(image(QUERY)))
    ranking = index.rank(index.query(image(QUERY)))
    np.testing.assert_array_equal(found.images, ranking.images)
    np.testing.assert_array_equal(found.scores, ranking.scores)
    assert (found.inliers == UNVERIFIED).all()
    assert not found.pairs
    assert names(index, found.images)[:3] == ["itself", "false", "true"]  # more words in common, all in the wrong place


def test_geometry_puts_what_agrees_first(index: Index) -> None:
    query = image(QUERY)
    found = search(index, index.query(query), Plan(verify=6))
    order = names(index, found.images)
    assert order[:2] == ["itself", "true"]
    assert found.inliers[0] == len(QUERY)
    assert found.inliers[1] == len(SEEN)
    assert found.inliers[order.index("false")] < 5
    assert (found.inliers[6:] == UNVERIFIED).all()
    np.testing.assert_allclose(found.transforms[1], MOVE, atol=1e-2)
    rows = found.pairs[1]
    lafs, _ = index.geometry(int(found.images[1]))
    seen = query.keypoints[rows[:, 0]] @ MOVE[:, :2].T + MOVE[:, 2]
    np.testing.assert_allclose(lafs[rows[:, 1], :, 2], seen, atol=1e-2)


def test_expansion_finds_what_the_query_does_not_show(index: Index) -> None:
    query = index.query(image(QUERY))
    before = search(index, query, Plan(verify=8))
    assert "far" not in names(index, before.images)[:3]
    after = search(index, query, Plan(verify=8, expand=True))
    order = names(index, after.images)
    assert set(order[:3]) == {"itself", "true", "far"}
    place = order.index("far")
    assert after.inliers[place] >= 50
    # What was added lies where the query would show it: `far` shows the world as the query does.
    rows = after.pairs[place]
    lafs, _ = index.geometry(int(after.images[place]))
    np.testing.assert_allclose(after.lafs[rows[:, 0], :, 2], lafs[rows[:, 1], :, 2], atol=0.5)


def test_the_querys_own_image_can_be_left_out(index: Index) -> None:
    query = index.query(image(QUERY))
    for plan in (Plan(), Plan(verify=3), Plan(verify=8, expand=True)):
        found = search(index, query, plan, 4, without=index.number("itself"))
        assert "itself" not in names(index, found.images)
        assert len(found) == 4
        if plan.verify:
            assert names(index, found.images)[0] == "true"


@pytest.mark.parametrize("plan", [Plan(), Plan(verify=5), Plan(verify=5, expand=True)])
def test_asking_for_fewer_gives_the_first(index: Index, plan: Plan) -> None:
    query = index.query(image(QUERY))
    whole = search(index, query, plan, 9)
    for top in (1, 3, 7):
        part = search(index, query, plan, top)
        np.testing.assert_array_equal(part.images, whole.images[:top])
        np.testing.assert_array_equal(part.inliers, whole.inliers[:top])
        assert sorted(part.pairs) == sorted(place for place in whole.pairs if place < top)


def test_a_query_like_nothing(index: Index) -> None:
    found = search(index, index.query(image(np.arange(0))), Plan(verify=5, expand=True), 10)
    assert len(found) == 0


def test_plans_that_cannot_be() -> None:
    for wrong in ({"verify": -1}, {"minimum": 0}, {"expand": True}):
        with pytest.raises(OptionError):
            Plan(**wrong)  # type: ignore[arg-type]
