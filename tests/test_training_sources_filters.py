"""Which observations of a track are kept."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardnet_match.errors import OptionError
from hardnet_match.training.mining import Filters
from hardnet_match.training.sources.filters import _blocks_of_tracks, agrees_in_looks, agrees_in_size, evenly


@settings(max_examples=30)
@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 5), st.integers(0, 9))
def test_filters_over_sorted_tracks_do_what_a_loop_does(counts: list[int], most: int, seed: int) -> None:
    track = np.repeat(np.arange(len(counts), dtype=np.int64) * 7, counts)
    rng = np.random.default_rng(seed)
    size = np.exp2(rng.normal(scale=0.6, size=len(track))).astype(np.float32)
    near, some = agrees_in_size(track, size, 0.5), evenly(track, most)
    for label in set(track.tolist()):
        rows = np.flatnonzero(track == label)
        median = np.sort(np.log2(size[rows]))[len(rows) // 2]
        assert near[rows].tolist() == (np.abs(np.log2(size[rows]) - median) < 0.5).tolist()
        assert some[rows].sum() == min(len(rows), most)
        assert some[rows[0]]
        gaps = np.diff(np.flatnonzero(some[rows]))
        assert not len(gaps) or gaps.max() - gaps.min() <= 1
    blocks = list(_blocks_of_tracks(track))
    assert np.concatenate([np.arange(len(track))[b] for b in blocks] or [track[:0]]).tolist() == list(range(len(track)))


def test_the_odd_one_of_a_track_is_found_by_its_looks() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (2, 16, 16)).astype(np.float32)
    looks = np.kron(base, np.ones((4, 4)))[[0, 0, 0, 1, 1, 0]]  # row 5 is no view of track 1
    noisy = np.clip(looks + rng.normal(scale=10, size=looks.shape), 0, 255).astype(np.uint8)
    track = np.array([0, 0, 0, 1, 1, 1])
    assert agrees_in_looks(track, noisy, 0.25).tolist() == [True, True, True, True, True, False]
    # two that disagree leave nothing of their track
    assert not agrees_in_looks(track[:2], noisy[[0, 3]], 0.25).any()
    with pytest.raises(OptionError, match="two views"):
        Filters(max_views=1)
