"""Average precision and precision at k against lists worked out by hand and against a slow walk down the ranking."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardnet_match.errors import DataError
from hardnet_match.metrics.ranking import (
    RankedQuery,
    locate,
    precision_at,
    revisited_protocols,
    score_rankings,
    trapezoidal_ap,
)


def walk(ranking: list[int], positives: set[int], junk: set[int]) -> Fraction:
    """Area under precision over recall, image by image, in exact fractions: the definition, slowly."""
    area, recall, precision, seen, hits = Fraction(0), Fraction(0), Fraction(1), 0, 0
    for image in ranking:
        if image in junk:
            continue
        seen += 1
        hits += image in positives
        now = Fraction(hits, len(positives)), Fraction(hits, seen)
        area += (now[0] - recall) * (precision + now[1]) / 2
        recall, precision = now
    return area


@pytest.mark.parametrize(
    ("ranking", "positives", "junk", "expected"),
    [
        # all found first: every trapezoid is full
        ("ab", "ab", "", Fraction(1)),
        # rank 1 of one: precision goes 1/1; then second positive at rank 3: from 1/2 to 2/3
        ("axb", "ab", "", (Fraction(1) + (Fraction(1, 2) + Fraction(2, 3)) / 2) / 2),
        # junk before it does not count: as if it were not there
        ("jab", "ab", "j", Fraction(1)),
        ("ajxb", "ab", "j", (Fraction(1) + (Fraction(1, 2) + Fraction(2, 3)) / 2) / 2),
        # the only positive second: from 0/1 to 1/2
        ("xa", "a", "", Fraction(1, 4)),
        # one of two positives never found: its half of the recall is lost
        ("a", "ab", "", Fraction(1, 2)),
        ("x", "ab", "", Fraction(0)),
        ("", "ab", "", Fraction(0)),
        # third of three, after two junk and one wrong: 0/1 -> 1/2, then 1/2 -> 2/3, then 2/3 -> 3/4
        ("jxkabc", "abc", "jk", (Fraction(1, 4) + Fraction(7, 12) + Fraction(17, 24)) / 3),
    ],
)
def test_average_precision_by_hand(ranking: str, positives: str, junk: str, expected: Fraction) -> None:
    got = trapezoidal_ap(locate(list(ranking), set(positives), set(junk)))
    assert got == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("ranking", "positives", "junk", "k", "expected"),
    [
        ("axbxx", "ab", "", 1, 1.0),
        ("xabxx", "ab", "", 1, 0.0),
        ("abxxx", "ab", "", 5, 1.0),  # cut at the last positive
        ("axbxx", "ab", "", 5, 2 / 3),
        ("jaxbx", "ab", "j", 5, 2 / 3),
        ("axxxx", "ab", "", 5, 1 / 5),  # the other one is missing: no cut
        ("axxxxb", "ab", "", 5, 1 / 5),
        ("xxxxx", "ab", "", 5, 0.0),
    ],
)
def test_precision_by_hand(ranking: str, positives: str, junk: str, k: int, expected: float) -> None:
    labels = [letter if letter != "x" else f"x{place}" for place, letter in enumerate(ranking)]
    assert precision_at(locate(labels, set(positives), set(junk)), k) == pytest.approx(expected)


@given(st.data())
def test_average_precision_is_the_slow_walk(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 30))
    ranking = data.draw(st.permutations(range(count)))
    kinds = data.draw(st.lists(st.sampled_from("pjn"), min_size=count, max_size=count))
    positives = {image for image in range(count) if kinds[image] == "p"}
    junk = {image for image in range(count) if kinds[image] == "j"}
    shown = ranking[: data.draw(st.integers(0, count))]
    got = trapezoidal_ap(locate(shown, positives, junk))
    if positives:
        assert got == pytest.approx(float(walk(shown, positives, junk)), abs=1e-12)
        assert 0 <= got <= 1
    else:
        assert math.isnan(got)


@given(st.permutations(range(12)), st.sets(st.integers(0, 11), min_size=1), st.integers(0, 11))
def test_moving_a_positive_up_never_hurts(ranking: list[int], positives: set[int], which: int) -> None:
    before = trapezoidal_ap(locate(ranking, positives, ()))
    place = ranking.index(sorted(positives)[which % len(positives)])
    if place:
        ranking[place - 1], ranking[place] = ranking[place], ranking[place - 1]
    assert trapezoidal_ap(locate(ranking, positives, ())) >= before - 1e-12


def test_queries_without_positives_are_left_out_of_the_means() -> None:
    scores = score_rankings([locate("ab", "a", ""), locate("ab", "", "a"), locate("ba", "a", "")], (1, 5))
    assert scores.counted == 2
    assert scores.mean_average_precision == pytest.approx((1 + 0.25) / 2)
    assert scores.mean_precision == pytest.approx({1: 0.5, 5: 0.75})
    assert math.isnan(scores.average_precision[1])
    assert math.isnan(score_rankings([RankedQuery(np.zeros(0, np.int64), 0)]).mean_average_precision)


def test_revisited_setups() -> None:
    setups = revisited_protocols(easy=[1, 2], hard=[3], junk=[9])
    assert setups == {"easy": ({1, 2}, {3, 9}), "medium": ({1, 2, 3}, {9}), "hard": ({3}, {1, 2, 9})}
    ranking = [9, 3, 7, 1, 2]
    scores = {name: trapezoidal_ap(locate(ranking, *setup)) for name, setup in setups.items()}
    # easy sees 7 1 2, medium 3 7 1 2, hard 3 7
    assert scores["easy"] == pytest.approx((1 / 4 + (1 / 2 + 2 / 3) / 2) / 2)
    assert scores["medium"] == pytest.approx((1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3)
    assert scores["hard"] == 1


@pytest.mark.parametrize(
    ("ranking", "positives", "junk", "words"),
    [("aba", "b", "", "twice"), ("ab", "a", "a", "both")],
    ids=["ranked twice", "positive and junk"],
)
def test_contradictions_are_refused(ranking: str, positives: str, junk: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        locate(ranking, positives, junk)


def test_precision_needs_a_k() -> None:
    with pytest.raises(DataError, match="1 or more"):
        precision_at(locate("a", "a", ""), 0)
