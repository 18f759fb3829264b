"""Arrays on their way into a features file and out of it: half precision, transposing, NaN; old files go on."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from store_helpers import SETTINGS, make_features

from hardnet_match.errors import OptionError, StoreError
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.store import FeatureReader, FeatureWriter, kept_as
from hardnet_match.store.arrays import finite, turned


@given(
    arrays.arrays(
        st.sampled_from([np.float32, np.float16, np.uint8, np.float64, np.dtype(">f4")]),
        st.tuples(st.integers(0, 70), st.integers(0, 70)),
    )
)
def test_turned_is_the_transpose(matrix: np.ndarray[Any, Any]) -> None:
    for given_matrix in (matrix, matrix[::2, 1:]):
        out = turned(given_matrix)
        assert (out.dtype, out.shape) == (given_matrix.dtype, given_matrix.shape[::-1])
        assert out.flags.c_contiguous
        np.testing.assert_array_equal(out, given_matrix.T)


def test_finite_of_every_half_float() -> None:
    every = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(np.float16)
    assert [finite(every[at : at + 1]) for at in range(1 << 16)] == np.isfinite(every).tolist()
    assert finite(every[np.isfinite(every)])
    assert not finite(every)
    assert finite(every[:0])


def test_kept_as_rounds_float32_only() -> None:
    features = make_features(9, seed=1)
    half = kept_as(features, "float16")
    assert half.descriptors.dtype == np.float16
    np.testing.assert_array_equal(half.descriptors, features.descriptors.astype(np.float16))
    np.testing.assert_array_equal(half.lafs, features.lafs)
    assert kept_as(features, "float32") is features
    for dtype in (np.uint8, np.float16):
        other = make_features(9, seed=1, dtype=dtype)
        assert kept_as(other, "float16") is other


def test_what_does_not_fit_is_refused() -> None:
    features = make_features(3)
    features.descriptors[1, 1] = 7e4
    with pytest.raises(StoreError, match="float32"):
        kept_as(features, "float16")


def test_threads_read_one_reader_without_mixing_images(tmp_path: Path) -> None:
    images = {f"{i}.jpg": make_features(40 + i, seed=i) for i in range(8)}
    with FeatureWriter(tmp_path / "f.h5", SETTINGS) as writer:
        for name, features in images.items():
            writer.write(name, features)
    wrong: list[str] = []
    with FeatureReader(tmp_path / "f.h5") as reader:

        def read(mine: list[str]) -> None:
            for _ in range(20):
                got = {name: reader.read(name) for name in mine}
                wrong.extend(
                    name for name in mine if (got[name].descriptors.tobytes() != images[name].descriptors.tobytes())
                )

        names = list(images)
        threads = [threading.Thread(target=read, args=(names[at::2],)) for at in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


# ---- what extract keeps


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_preset("dog-rootsift", orientation="upright", max_keypoints=40, device="cpu")


def dtypes(path: Path) -> set[str]:
    with h5py.File(path) as h5:
        return {str(h5[name]["descriptors"].dtype) for name in h5}


def test_half_unless_asked_and_an_old_file_goes_on_as_it_is(
    rendered: dict[str, Any], tmp_path: Path, extractor: FeatureExtractor
) -> None:
    folder = rendered["folder"]
    names = [f"view_00{i}.jpg" for i in range(2)]
    new, old = tmp_path / "new.h5", tmp_path / "old.h5"
    summary = extract_folder(folder, new, extractor, names=names[:1], quiet=True)
    assert summary.settings["store"] == "float16"
    assert dtypes(new) == {"float16"}
    # Files made before there was a choice have float32 and say nothing of it.
    assert "store" not in extract_folder(folder, old, extractor, names=names[:1], store="float32", quiet=True).settings
    again = extract_folder(folder, old, extractor, names=names, quiet=True)
    assert (again.extracted, again.reused) == (1, 1)
    assert dtypes(old) == {"float32"}
    for path, other in ((new, "float32"), (old, "float16")):
        with pytest.raises(StoreError, match=r"store: .*float16"):
            extract_folder(folder, path, extractor, names=names, store=other, quiet=True)
    assert (
        extract_folder(folder, old, extractor, names=names, overwrite=True, quiet=True).settings["store"] == "float16"
    )
    with pytest.raises(OptionError, match="float16 or float32"):
        extract_folder(folder, new, extractor, store="float8", quiet=True)
    with FeatureReader(new) as reader:
        stored = reader.read(names[0])
    assert stored.descriptors.dtype == np.float16
    assert len(stored) == 40
