"""Choosing pairs: sequences in natural order, neighbours on the map against brute force, clear words without GPS."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hardnet_match.errors import OptionError
from hardnet_match.jobs.pairs import choose_pairs, exhaustive_pairs, natural_key, sequential_pairs, spatial_pairs

EARTH = 6371000.0


def haversine(a: np.ndarray, b: np.ndarray) -> float:
    """Great-circle distance in metres: another way to distances than the package's."""
    (lat0, lon0), (lat1, lon1) = np.radians(a[:2]), np.radians(b[:2])
    h = np.sin((lat1 - lat0) / 2) ** 2 + np.cos(lat0) * np.cos(lat1) * np.sin((lon1 - lon0) / 2) ** 2
    return float(2 * EARTH * np.arcsin(np.sqrt(h)))


def photo_with_gps(path: Path, latitude: float, longitude: float) -> None:
    image = Image.new("L", (32, 24))
    exif = image.getexif()

    def dms(value: float) -> tuple[float, float, float]:
        minutes = abs(value) % 1 * 60
        return (float(int(abs(value))), float(int(minutes)), round(minutes % 1 * 60, 4))

    ifd = exif.get_ifd(0x8825)
    ifd.update(
        {1: "N" if latitude >= 0 else "S", 2: dms(latitude), 3: "E" if longitude >= 0 else "W", 4: dms(longitude)}
    )
    image.save(path, exif=exif)


def test_natural_order_counts_numbers() -> None:
    names = ["img10.jpg", "img2.jpg", "a/img1.jpg", "img02.jpg", "img.jpg"]
    assert sorted(names, key=natural_key) == ["a/img1.jpg", "img02.jpg", "img2.jpg", "img10.jpg", "img.jpg"]


@given(st.lists(st.text(alphabet="a1٣ 0/.", max_size=8), unique=True))
def test_natural_key_is_a_total_order(names: list[str]) -> None:
    ordered = sorted(names, key=natural_key)
    assert sorted(reversed(names), key=natural_key) == ordered
    assert len({tuple(natural_key(name)) for name in names}) == len(names)


def test_exhaustive_has_every_pair_once() -> None:
    pairs = exhaustive_pairs(["a", "b", "c", "d"])
    assert len(pairs) == 6
    assert len({frozenset(pair) for pair in pairs}) == 6


@given(count=st.integers(0, 40), overlap=st.integers(1, 12), quadratic=st.booleans())
def test_sequential_steps(count: int, overlap: int, quadratic: bool) -> None:
    names = [f"v{i}.jpg" for i in range(count)]
    steps = set(range(1, overlap + 1)) | ({2**k for k in range(overlap)} if quadratic else set())
    expected = {(f"v{i}.jpg", f"v{i + s}.jpg") for i in range(count) for s in steps if i + s < count}
    found = sequential_pairs(names[::-1], overlap, quadratic)
    assert set(found) == expected
    assert len(found) == len(expected)


def test_spatial_agrees_with_great_circles() -> None:
    rng = np.random.default_rng(5)
    # Around a place on the date line, far south: where naive differences of degrees go wrong.
    degrees = np.column_stack([-60 + rng.uniform(-2e-3, 2e-3, 60), 180 + rng.uniform(-4e-3, 4e-3, 60)])
    degrees[:, 1] = (degrees[:, 1] + 180) % 360 - 180
    positions = np.column_stack([degrees, np.full(60, np.nan)])
    names = [str(i) for i in range(60)]
    found = set(spatial_pairs(names, positions, max_distance=80.0, neighbours=59))
    distance = {(str(i), str(j)): haversine(positions[i], positions[j]) for i in range(60) for j in range(i + 1, 60)}
    assert {pair for pair, metres in distance.items() if metres < 79.5} <= found
    assert found <= {pair for pair, metres in distance.items() if metres < 80.5}
    assert len(found) > 20


def test_spatial_keeps_the_nearest_only() -> None:
    line = np.array([[0.0, i * 1e-4, 0.0] for i in range(10)])  # about 11 m apart
    pairs = spatial_pairs([str(i) for i in range(10)], line, max_distance=1e6, neighbours=2)
    assert ("4", "5") in pairs
    assert ("4", "7") not in pairs
    assert ("0", "2") in pairs  # 1 and 2 are the nearest of an end
    assert len(pairs) == len(set(pairs))


def test_spatial_from_exif_names_what_has_none(tmp_path: Path) -> None:
    for i in range(3):
        photo_with_gps(tmp_path / f"p{i}.jpg", 55.7 + i * 1e-4, -13.2)
    Image.new("L", (32, 24)).save(tmp_path / "bare.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    summary = choose_pairs(tmp_path, "spatial", max_distance=15.0)
    assert summary.pairs == [("p0.jpg", "p1.jpg"), ("p1.jpg", "p2.jpg")]
    assert summary.skipped.keys() == {"bare.jpg", "broken.jpg"}
    assert "GPS" in summary.skipped["bare.jpg"]


@pytest.mark.parametrize(
    ("mode", "options", "word"),
    [
        ("spatial", {}, "GPS"),
        ("nearest", {}, "exhaustive, sequential, spatial"),
        ("sequential", {"overlap": 0}, "overlap"),
    ],
)
def test_what_cannot_work_is_said(tmp_path: Path, mode: str, options: dict[str, int], word: str) -> None:
    Image.new("L", (32, 24)).save(tmp_path / "bare.jpg")
    with pytest.raises(OptionError, match=word):
        choose_pairs(tmp_path, mode, **options)
