"""What a reconstruction's page warns of: each cause by name, with what to do, and nothing where all went well."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from hardnet_match.jobs.advice import BLURRED, Case, advice, outside, reason
from hardnet_match.jobs.sharpness import sharpness
from hardnet_match.sfm.pair_counts import PairCounts
from hardnet_match.world import World

NAMES = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"]
PAIRS = np.array([(i, j) for i in range(5) for j in range(i + 1, 5)], np.int64)


def counts(inliers: dict[tuple[int, int], int], matches: int = 200, keypoints: int = 1000) -> PairCounts:
    found = np.array([inliers.get((int(i), int(j)), 0) for i, j in PAIRS], np.int64)
    return PairCounts(NAMES, np.full(5, keypoints), PAIRS, np.full(10, matches), found, {"calibrated": len(inliers)})


ALL = {(int(i), int(j)): 150 for i, j in PAIRS}
GOOD = Case(
    counts(ALL), [NAMES], seen=dict.fromkeys(NAMES, 400), points=900, track_length=3.4, reprojection_error=0.4,
    settings={"max_keypoints": 2000, "max_size": 1600},
)  # fmt: skip


def test_nothing_is_said_where_all_went_well() -> None:
    assert advice(GOOD) == []
    assert outside(GOOD) == []


@pytest.mark.parametrize(
    ("inliers", "keypoints", "words"),
    [
        ({}, 1000, ["agrees with no photo", "4 pairs", "200 matches, none verified"]),
        ({(3, 4): 40}, 1000, ["agrees only with d.jpg", "not in the model either"]),
        ({(0, 4): 17, (1, 4): 22}, 1000, ["shares too little", "22 inliers with b.jpg", "2 pairs"]),
        ({}, 30, ["30 keypoints", "without texture"]),
    ],
)
def test_why_a_photo_is_not_in_the_model(inliers: dict[tuple[int, int], int], keypoints: int, words: list[str]) -> None:
    rest = {pair: 150 for pair in ALL if 4 not in pair and 3 not in pair}
    found = counts({**rest, **inliers})
    found.keypoints[4] = keypoints
    case = replace(GOOD, counts=found, models=[NAMES[:3]], seen=dict.fromkeys(NAMES[:3], 400))
    for word in words:
        assert word in reason(case, "e.jpg")
    assert "blurred" not in reason(case, "e.jpg")
    assert "looks blurred (10%" in reason(replace(case, sharpness={"e.jpg": 0.1}), "e.jpg")
    warning = next(one for one in advice(case) if one.grave)
    assert warning.what == "2 photos are not in the model."
    assert [name for name, _ in warning.names] == ["d.jpg", "e.jpg"]
    assert "--max-keypoints 4000" in warning.do
    assert "--pairs" not in warning.do
    assert "--pairs exhaustive" in advice(replace(case, pairs="sequential"))[0].do


def test_a_photo_in_no_pair_and_one_in_another_model() -> None:
    lonely = PairCounts(NAMES, np.full(5, 1000), PAIRS[:3], np.full(3, 99), np.full(3, 50), {})
    case = replace(GOOD, counts=lonely, models=[NAMES[:2], ["c.jpg", "d.jpg"]])
    assert "in no pair" in reason(case, "e.jpg")
    assert reason(case, "c.jpg") == "it is in model 1 (sparse/1), with 1 other photo"
    texts = [warning.what for warning in advice(case)]
    assert "The photos fell into 2 models, of 2, 2 photos; this page shows the first." in texts


def test_nothing_reconstructed() -> None:
    case = Case(counts({}), [], settings={"max_keypoints": 500})
    [warning] = advice(case)
    assert warning.what == "Nothing could be reconstructed."
    assert len(warning.names) == 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"skipped": {"x.jpg": "cut off"}}, ["1 photo could not be used", "x.jpg", "cut off"]),
        ({"seen": {"a.jpg": 400, "b.jpg": 20}}, ["1 photo of the model sees fewer", "b.jpg", "20 points"]),
        ({"counts": counts(ALL, matches=900)}, ["Only 17% of the matches", "--ratio 0.8"]),
        ({"track_length": 2.2}, ["2.20 photos on average", "three photos"]),
        ({"reprojection_error": 1.9}, ["1.90 pixels", "--camera-model OPENCV"]),
        ({"reprojection_error": 1.9, "camera_model": "OPENCV"}, ["--camera-model SIMPLE_RADIAL"]),
        ({"sharpness": {"b.jpg": BLURRED / 2}}, ["1 photo looks blurred", "b.jpg"]),
        ({"counts": replace(counts(ALL), kinds={"panoramic": 8, "calibrated": 2})}, ["8 of 10", "turning the camera"]),
        ({"counts": counts(ALL, keypoints=80)}, ["5 photos have fewer than 100 keypoints", "80 keypoints"]),
    ],
)
def test_each_weakness_is_told(change: dict[str, object], words: list[str]) -> None:
    [warning] = advice(replace(GOOD, **change))  # type: ignore[arg-type]
    text = f"{warning.what} {warning.do} {warning.names}"
    for word in words:
        assert word in text
    assert warning.do


def test_blur_is_seen_whatever_the_contrast() -> None:
    world = World(0, texel=0.012)
    pictures = [view.image for view in world.render(2, (400, 300))]
    sharp = [sharpness(picture) for picture in pictures]
    assert max(sharp) / min(sharp) < 2
    for picture, value in zip(pictures, sharp, strict=True):
        blurred = cv2.GaussianBlur(picture, (0, 0), 3)
        assert sharpness(blurred) < BLURRED * value
        shaken = cv2.blur(picture, (17, 1))
        assert sharpness(shaken) < 0.75 * value
        pale = (100 + picture.astype(float) * 0.2).astype(np.uint8)
        assert sharpness(pale) > 0.4 * value
    assert sharpness(np.full((300, 400, 3), 90, np.uint8)) == 0.0
