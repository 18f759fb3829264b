"""An index that grew is one that was built at once, and growing is cheap."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_helpers import CODEBOOK, IMAGES, QUERY, built, same_ranking, stored
from retrieval_helpers import SETTINGS, make_images

from hardnet_match.retrieval import index as index_module
from hardnet_match.retrieval import merging
from hardnet_match.retrieval.index import Index
from hardnet_match.retrieval.merging import MERGE_AT, to_merge

pytestmark = pytest.mark.usefixtures("quick_disk")


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cuts=st.lists(st.integers(0, len(IMAGES)), max_size=10),
    method=st.sampled_from(["asmk", "bow"]),
    reopen=st.booleans(),
    at_once=st.sampled_from([1, 40, 1 << 20]),
)
def test_adding_is_rebuilding_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    cuts: list[int],
    method: str,
    reopen: bool,
    at_once: int,
) -> None:
    folder = tmp_path_factory.mktemp("index")
    bounds = [0, *sorted(cuts), len(IMAGES)]
    groups = [IMAGES[start:end] for start, end in itertools.pairwise(bounds)]
    parameters = {"idf": True} if method == "asmk" else {}
    whole = built(folder / "whole", [IMAGES], method, **parameters)
    monkeypatch.setattr(merging, "POSTINGS_AT_ONCE", at_once)
    if reopen:
        Index.create(folder / "grown", CODEBOOK, method, SETTINGS, **parameters).close()
        for group in groups:
            with Index.open(folder / "grown") as index:
                index.add_many(group)
        grown = Index.open(folder / "grown")
    else:
        grown = built(folder / "grown", groups, method, **parameters)
    assert grown.names == whole.names
    assert same_ranking(grown, whole)
    assert np.array_equal(grown.view.norms, whole.view.norms)
    with grown:
        grown.compact()
        assert same_ranking(grown, whole)
    assert stored(folder / "grown") == stored(folder / "whole")


def test_many_small_additions_make_few_segments(tmp_path: Path) -> None:
    images = make_images(CODEBOOK, 70, features=4)
    index = built(tmp_path / "index", [[image] for image in images])
    assert index.names == [name for name, _ in images]
    assert len(index.view.segments) <= 2 * MERGE_AT
    on_disk = {path.name for path in (tmp_path / "index" / "segments").iterdir()}
    assert on_disk == {segment.path.name for segment in index.view.segments}
    assert same_ranking(index, built(tmp_path / "whole", [images]))


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=400))
def test_a_posting_is_copied_a_logarithmic_number_of_times(sizes: list[int]) -> None:
    segments: list[int] = []
    copied = 0
    for size in sizes:
        segments.append(size)
        while (span := to_merge(segments)) is not None:
            start, stop = span
            assert stop - start >= MERGE_AT
            copied += sum(segments[start:stop])
            segments[start:stop] = [sum(segments[start:stop])]
    assert sum(segments) == sum(sizes)
    assert copied <= sum(sizes) * (np.log2(sum(sizes) + 2) + 1)
    assert len(segments) <= MERGE_AT * (np.log2(sum(sizes) + 2) + 1)


def test_a_reader_keeps_what_it_opened_while_segments_are_merged(tmp_path: Path) -> None:
    reader = built(tmp_path / "index", [[image] for image in IMAGES[:5]])
    before = reader.rank(QUERY)
    with Index.open(tmp_path / "index") as writer:
        writer.compact()
    after = reader.rank(QUERY)
    assert np.array_equal(before.images, after.images)
    assert len(list((tmp_path / "index" / "segments").iterdir())) == 1


def test_opening_while_segments_are_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "index"
    built(folder, [[image] for image in IMAGES[:5]])
    read = index_module.Manifest.read
    turns = []

    def late(place: Path) -> Any:
        manifest = read(place)
        if not turns:  # between our reading of the manifest and of the segments
            turns.append(place)
            with Index.open(folder) as writer:
                writer.compact()
        return manifest

    monkeypatch.setattr(index_module.Manifest, "read", staticmethod(late))
    assert len(Index.open(folder)) == 5
