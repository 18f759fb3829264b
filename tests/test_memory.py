"""Memory stays within what docs/reliability.md states, for one huge photo and for ten thousand small ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from cli_helpers import SMALL

from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images.decode import _strip_to_8_bits, _to_8_bits
from hardnet_match.jobs.extract import extract_folder
from hardnet_match.store import FeatureReader

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


def peak(place: Path, *arguments: str) -> int:
    """Megabytes of the largest process of a command, its decoders among them."""
    process = subprocess.Popen([sys.executable, "-m", "hardnet_match", *arguments], cwd=place, stdout=subprocess.PIPE)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return int(usage.ru_maxrss) // 1024


def held() -> float:
    """Megabytes this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
def test_a_photo_of_100_megapixels(tmp_path: Path) -> None:
    for folder, side in (("small", 100), ("huge", 10_000)):
        (tmp_path / folder).mkdir()
        coarse = np.random.default_rng(0).integers(0, 256, (50, 50, 3), np.uint8)
        cv2.imwrite(str(tmp_path / folder / "a.jpg"), cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR))
    small = peak(tmp_path, "extract", "small", "-o", "s.h5", *SMALL)
    huge = peak(tmp_path, "extract", "huge", "-o", "h.h5", *SMALL)
    with FeatureReader(tmp_path / "h.h5") as reader:
        assert reader.image_size("a.jpg") == (10_000, 10_000)
        assert len(reader.read("a.jpg")) == 20
    assert huge < small + 700  # 400 MB decoded, the file, and the interpreter


@pytest.mark.slow
def test_ten_thousand_small_photos_take_no_more_than_a_thousand(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    kinds = [cv2.imencode(".png", np.full((10, 12), shade, np.uint8))[1].tobytes() for shade in range(0, 250, 10)]
    for number in range(10_000):
        (folder / f"{number:05d}.png").write_bytes(kinds[number % len(kinds)])
    extractor = FeatureExtractor.from_preset(
        "dog-rootsift", detector="harris", orientation="upright", max_keypoints=5, device="cpu"
    )
    names = sorted(os.listdir(folder))
    extract_folder(folder, tmp_path / "f.h5", extractor, names=names[:1000], quiet=True)
    before = held()
    summary = extract_folder(folder, tmp_path / "f.h5", extractor, quiet=True)
    assert (summary.extracted, summary.reused, summary.skipped) == (9000, 1000, {})
    assert held() < before + 60
    with FeatureReader(tmp_path / "f.h5") as reader:
        assert reader.names() == names


def test_deep_pictures_are_converted_in_strips_to_the_same_pixels() -> None:
    rng = np.random.default_rng(0)
    for samples in (
        rng.integers(0, 65536, (700, 3000, 3), np.uint16),
        rng.integers(0, 65536, (700, 3000), np.uint16),
        rng.random((700, 3000), np.float32) * 1.2 - 0.1,
        rng.integers(0, 256, (700, 3000, 3), np.uint8),
    ):
        for color in (False, True):
            np.testing.assert_array_equal(_to_8_bits(samples, color), _strip_to_8_bits(samples, color))
