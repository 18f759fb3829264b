"""Extracting a folder: what cannot be read is named, the rest is done; a second run goes on where the first stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hardnet_match.errors import DataError, OptionError, StoreError
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.features import Features
from hardnet_match.images import read_image
from hardnet_match.images.workers import DecodeWorkers
from hardnet_match.jobs import extract as job
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.store import FeatureReader


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_preset("dog-rootsift", orientation="dominant", max_keypoints=200, device="cpu")


@pytest.fixture
def photos(rendered: dict[str, Any], tmp_path: Path) -> Path:
    """Three pictures, one in a folder of its own, with a name that few tools survive."""
    folder = tmp_path / "photos"
    (folder / "day 2").mkdir(parents=True)
    for i, name in enumerate(["a.jpg", "b.jpg", "day 2/für dich.jpg"]):
        shutil.copy(rendered["folder"] / f"view_00{i}.jpg", folder / name)
    return folder


def read_all(path: Path) -> dict[str, Features]:
    with FeatureReader(path) as reader:
        return {name: reader.read(name) for name in reader.names()}


def assert_same(first: dict[str, Features], second: dict[str, Features]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name].lafs, second[name].lafs)
        np.testing.assert_array_equal(first[name].descriptors, second[name].descriptors)


def test_all_images_as_one_by_one(photos: Path, tmp_path: Path, extractor: FeatureExtractor) -> None:
    summary = extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)
    assert (summary.images, summary.extracted, summary.reused, summary.skipped) == (3, 3, 0, {})
    stored = read_all(tmp_path / "f.h5")
    assert set(stored) == {"a.jpg", "b.jpg", "day 2/für dich.jpg"}
    assert summary.keypoints == sum(map(len, stored.values())) == 600
    for name, features in stored.items():
        alone = extractor.extract(read_image(photos / name).pixels)
        np.testing.assert_allclose(features.lafs, alone.lafs, atol=1e-4)
        np.testing.assert_allclose(features.descriptors, alone.descriptors, atol=3e-4)


def test_coordinates_are_those_of_the_file(photos: Path, tmp_path: Path, extractor: FeatureExtractor) -> None:
    extract_folder(photos, tmp_path / "f.h5", extractor, names=["a.jpg"], max_size=240, quiet=True)
    features = read_all(tmp_path / "f.h5")["a.jpg"]
    assert features.image_size == (480, 360)
    assert features.keypoints[:, 0].max() > 300
    picture = read_image(photos / "a.jpg", max_size=240)
    expected = picture.to_original(extractor.extract(picture.pixels).lafs)
    np.testing.assert_allclose(features.lafs, expected, atol=1e-4)


def test_masks_hide_keypoints(photos: Path, tmp_path: Path, extractor: FeatureExtractor) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    mask = np.zeros((360, 480), np.uint8)
    mask[:, 240:] = 255
    Image.fromarray(mask).save(masks / "a.jpg.png")
    Image.fromarray(mask[:100]).save(masks / "b.jpg.png")
    summary = extract_folder(photos, tmp_path / "f.h5", extractor, masks=masks, quiet=True)
    stored = read_all(tmp_path / "f.h5")
    assert stored["a.jpg"].keypoints[:, 0].min() >= 239
    assert len(stored["day 2/für dich.jpg"]) == 200  # it has no mask
    assert stored.keys() == {"a.jpg", "day 2/für dich.jpg"}
    assert "480x360" in summary.skipped["b.jpg"]


def test_what_cannot_be_read_is_skipped_and_named(photos: Path, tmp_path: Path, extractor: FeatureExtractor) -> None:
    whole = (photos / "a.jpg").read_bytes()
    bad = {
        "cut.jpg": whole[: len(whole) // 2],
        "empty.png": b"",
        "text.jpg": b"this is no picture",
        "day 2/cut.png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    }
    for name, data in bad.items():
        (photos / name).write_bytes(data)
    Image.new("L", (300, 200), 128).save(photos / "flat.png")
    summary = extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)
    assert summary.skipped.keys() == bad.keys()
    assert all(reason and str(photos) not in reason for reason in summary.skipped.values())
    assert "cut off" in summary.skipped["cut.jpg"]
    stored = read_all(tmp_path / "f.h5")
    assert stored.keys() == {"a.jpg", "b.jpg", "day 2/für dich.jpg", "flat.png"}
    assert len(stored["flat.png"]) == 0  # nothing to see is a whole record, not a failure

    again = extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)
    assert (again.extracted, again.reused) == (0, 4)
    assert again.skipped == summary.skipped


def test_going_on_gives_the_same_as_one_run(
    photos: Path, tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract_folder(photos, tmp_path / "whole.h5", extractor, quiet=True)
    monkeypatch.setattr(job, "BATCH_IMAGES", 1)
    real, calls = FeatureExtractor.extract_batch, 0

    def stopped(self: FeatureExtractor, *args: Any) -> list[Features]:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(FeatureExtractor, "extract_batch", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)
    assert len(read_all(tmp_path / "f.h5")) == 2
    summary = extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)
    assert (summary.extracted, summary.reused) == (1, 2)
    assert_same(read_all(tmp_path / "f.h5"), read_all(tmp_path / "whole.h5"))


def test_one_image_that_breaks_the_batch(
    photos: Path, tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FeatureExtractor._detect
    bad = read_image(photos / "b.jpg").pixels

    def picky(self: FeatureExtractor, pixels: Any, mask: Any) -> Any:
        if np.array_equal(pixels, bad):
            raise DataError("not to my taste")
        return real(self, pixels, mask)

    monkeypatch.setattr(FeatureExtractor, "_detect", picky)
    summary = extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)
    assert summary.skipped == {"b.jpg": "not to my taste"}
    assert summary.extracted == 2


def test_other_settings_are_refused_with_both_shown(photos: Path, tmp_path: Path, extractor: FeatureExtractor) -> None:
    extract_folder(photos, tmp_path / "f.h5", extractor, max_size=320, quiet=True)
    with pytest.raises(StoreError, match="max_size: 320 -> 240"):
        extract_folder(photos, tmp_path / "f.h5", extractor, max_size=240, quiet=True)
    summary = extract_folder(photos, tmp_path / "f.h5", extractor, max_size=240, overwrite=True, quiet=True)
    assert summary.extracted == 3


def test_decoding_stays_a_few_images_ahead(
    photos: Path, tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(30):
        shutil.copy(photos / "a.jpg", photos / f"c{i}.jpg")
    monkeypatch.setattr(job, "BATCH_IMAGES", 2)
    started: list[str] = []
    most_ahead = 0
    real_load, real_batches = DecodeWorkers.load, job._batches

    def load(self: DecodeWorkers, name: str) -> Any:
        started.append(name)
        return real_load(self, name)

    def batches(*args: Any) -> Iterator[Any]:
        nonlocal most_ahead
        used = 0
        for batch in real_batches(*args):
            most_ahead = max(most_ahead, len(started) - used)
            used += len(batch)
            yield batch

    monkeypatch.setattr(DecodeWorkers, "load", load)
    monkeypatch.setattr(job, "_batches", batches)
    summary = extract_folder(photos, tmp_path / "f.h5", extractor, workers=2, quiet=True)
    assert summary.extracted == 33
    assert len(started) == 33
    assert most_ahead <= 2 + 2 + 2 + 1  # those waiting, the batch in work, and the one that did not fit into it


@pytest.mark.parametrize("option", [{"max_size": 3}, {"workers": 0}, {"masks": "nowhere"}, {"names": []}])
def test_options_that_cannot_work(
    photos: Path, tmp_path: Path, extractor: FeatureExtractor, option: dict[str, Any]
) -> None:
    with pytest.raises(OptionError):
        extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True, **option)
    assert not (tmp_path / "f.h5").exists()


def test_memory_freed_by_the_end_is_given_back(
    photos: Path, tmp_path: Path, extractor: FeatureExtractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the last features and the file took, too: a process that extracts folder after folder stays small."""
    writing: list[bool] = []
    monkeypatch.setattr(job, "release_memory", lambda: writing.append((tmp_path / "f.h5.lock").exists()))
    extract_folder(photos, tmp_path / "f.h5", extractor, quiet=True)
    assert len(writing) >= 3
    assert not writing[-1]
