"""Detectors on pictures whose blobs are known: where, how large, how exactly, and nothing that is not there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import hardnet_match.detectors.corners
import hardnet_match.detectors.hessian
import hardnet_match.detectors.scale_space
import hardnet_match.pyramid
from hardnet_match.detectors import DETECTORS, GFTT, DoG, Harris, Hessian, OpenCVDoG
from hardnet_match.detectors.scale_space import refine
from hardnet_match.errors import OptionError
from hardnet_match.frames import MR_SIZE
from hardnet_match.images import read_image
from hardnet_match.presets import CHOICES, PRESETS, compose
from hardnet_match.pyramid import as_image

ALL = [Hessian, DoG, OpenCVDoG, Harris, GFTT]
SADDLES = Hessian(saddles=True), Hessian()


def blobs(seed: int = 0, sign: float = 1.0) -> tuple[torch.Tensor, np.ndarray]:
    """A picture of Gaussian blobs at known places (not at pixel centres) and their rows x, y, sigma."""
    rng = np.random.default_rng(seed)
    height, width = 300, 420
    image = np.full((height, width), 0.5 - 0.25 * sign)
    rows = []
    row, column = np.mgrid[:height, :width]
    for y in range(40, height - 30, 60):
        for x in range(40, width - 30, 60):
            place = (x + rng.uniform(-1, 1), y + rng.uniform(-1, 1), rng.uniform(1.6, 5))
            rows.append(place)
            image += sign * 0.5 * np.exp(-((column - place[0]) ** 2 + (row - place[1]) ** 2) / 2 / place[2] ** 2)
    return as_image((image * 255).round().astype(np.uint8)), np.array(rows)


def nearest(truth: np.ndarray, lafs: torch.Tensor) -> np.ndarray:
    centres = lafs[:, :, 2].numpy()
    return np.linalg.norm(truth[:, None, :2] - centres[None], axis=2).argmin(axis=1)


@pytest.mark.parametrize("detector", [Hessian, DoG, OpenCVDoG], ids=lambda d: d.__name__)
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["bright", "dark"])
def test_blobs_are_found_where_they_are_and_as_large(detector: Any, sign: float) -> None:
    image, truth = blobs(sign=sign)
    lafs, scores = detector()(image)
    found = lafs[nearest(truth, lafs)].numpy()
    error = found[:, :, 2] - truth[:, :2]
    close = np.linalg.norm(error, axis=1) < 0.5
    assert close.mean() > 0.85
    assert np.abs(error[close].mean(axis=0)).max() < 0.02  # no bias: a quarter of a pixel would be one
    assert error[close].std() < 0.08
    ratio = found[close, 0, 0] / 6 / truth[close, 2]
    assert 0.8 < np.median(ratio) < 1.1
    assert (torch.diff(scores) <= 0).all()


def test_saddles_are_kept_only_when_asked_for() -> None:
    image = np.zeros((120, 120), np.float32)
    image[:60, :60] = image[60:, 60:] = 1.0  # a chessboard's corner: the determinant is negative there
    far = [float((detector(as_image(image))[0][:, :, 2] - 59.5).norm(dim=1).min()) for detector in SADDLES]
    assert far[0] < 1 < far[1]


@pytest.mark.parametrize("detector", [Harris, GFTT], ids=lambda d: d.__name__)
def test_corners_are_found_at_corners(detector: Any) -> None:
    image = np.zeros((200, 200), np.float32)
    corners = [(60, 60), (139, 60), (60, 139), (139, 139)]
    image[60:140, 60:140] = 1.0
    lafs, _ = detector()(as_image(image))
    centres, sigmas = lafs[:, :, 2].numpy(), lafs[:, 0, 0].numpy() / 6
    small = sigmas < 10  # larger ones see the whole square as a blob
    centres, sigmas = centres[small], sigmas[small]
    nearest_corner = np.linalg.norm(centres[:, None] - corners, axis=2)
    assert (nearest_corner.min(axis=1) < 2 * sigmas).all()
    assert (nearest_corner.min(axis=0) < 3).all()
    assert len(np.unique(sigmas.round(3))) > 2


@pytest.mark.parametrize("detector", ALL, ids=lambda d: d.__name__)
@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (7, 9), (40, 3), (64, 64)])
def test_a_flat_picture_has_no_features_and_none_are_padded(detector: Any, shape: tuple[int, int]) -> None:
    lafs, scores = detector()(as_image(np.full(shape, 0.5, np.float32)))
    assert lafs.shape == (0, 2, 3)
    assert scores.shape == (0,)


@pytest.mark.parametrize("detector", ALL, ids=lambda d: d.__name__)
def test_frames_are_real_and_inside(detector: Any) -> None:
    rng = np.random.default_rng(1)
    image = as_image(rng.integers(0, 256, (90, 130), dtype=np.uint8))
    lafs, scores = detector()(image, None, 500)
    assert 0 < len(lafs) <= 500
    assert len(lafs) == len(scores)
    assert torch.isfinite(lafs).all()
    assert (lafs[:, 0, 0] > 1).all()
    assert (lafs[:, 0, 2] >= 0).all()
    assert (lafs[:, 0, 2] <= 129).all()
    assert (lafs[:, 1, 2] >= 0).all()
    assert (lafs[:, 1, 2] <= 89).all()
    assert len(torch.unique(lafs, dim=0)) == len(lafs)


@pytest.mark.parametrize("detector", ALL, ids=lambda d: d.__name__)
def test_the_mask_is_honoured_and_the_strongest_are_kept(detector: Any) -> None:
    image, _ = blobs()
    mask = torch.ones(image.shape[-2:], dtype=torch.bool)
    mask[:, :200] = False
    every, scores = detector()(image, None, 100_000)
    masked, _ = detector()(image, mask, 100_000)
    assert 0 < len(masked) < len(every)
    assert (masked[:, 0, 2] >= 199.4).all()
    _, few_scores = detector()(image, None, 10)
    torch.testing.assert_close(few_scores, scores[:10])


@settings(max_examples=20)
@given(st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(-0.4, 0.4), st.floats(0.5, 2), st.floats(-0.3, 0.3))
def test_refinement_is_exact_on_a_quadratic(x: float, y: float, s: float, steep: float, skew: float) -> None:
    z, v, u = np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], indexing="ij")
    value = 5 - steep * (u - x) ** 2 - (v - y) ** 2 - (z - s) ** 2 - skew * (u - x) * (v - y)
    offset, score, good = refine(torch.from_numpy(value)[None], 10.0)
    assert bool(good)
    np.testing.assert_allclose(offset[0], [x, y, s], atol=1e-5)
    assert float(score) == pytest.approx(5, abs=1e-5)


def test_an_edge_is_refused() -> None:
    z, v, u = np.meshgrid([-1, 0, 1], [-1, 0, 1], [-1, 0, 1], indexing="ij")
    _, _, good = refine(torch.from_numpy(5.0 - u**2 - 0.01 * v**2 - z**2)[None], 10.0)
    assert not bool(good)


@pytest.mark.parametrize("detector", [Hessian, DoG, Harris, GFTT], ids=lambda d: d.__name__)
def test_the_filters_of_other_devices_find_the_same(detector: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image, _ = blobs(seed=4)
    expected, _ = detector()(image, None, 40)
    for module in (
        hardnet_match.pyramid,
        hardnet_match.detectors.scale_space,
        hardnet_match.detectors.hessian,
        hardnet_match.detectors.corners,
        hardnet_match.detectors.dog,
    ):
        monkeypatch.setattr(module, "uses_opencv", lambda image: False)
    lafs, _ = detector()(image, None, 40)
    distance = torch.from_numpy(
        np.linalg.norm(expected.numpy()[:, None, :, 2] - lafs.numpy()[None, :, :, 2], axis=2).min(1)
    )
    assert (distance < 0.01).float().mean() > 0.95


@pytest.mark.parametrize("options", [{"levels": 0}, {"sigma": 0.1}, {"edge_ratio": 1.0}])
def test_options_that_cannot_work_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="scale space"):
        Hessian(**options)


def test_keynet_finds_blobs_with_the_originals_weights(shared: Any) -> None:
    from hardnet_match.detectors.keynet import KeyNet

    keynet = KeyNet()
    state = torch.load(shared / "weights/keynet/keynet_pytorch.pth", weights_only=True, map_location="cpu")
    keynet.load_state_dict(state["state_dict"])
    from kornia.feature import KeyNetDetector

    theirs = KeyNetDetector(False, num_features=100)
    theirs.model.load_state_dict(state["state_dict"])
    image, _ = blobs()
    with torch.no_grad():
        expected = theirs.eval()(image)[0][0].numpy()
        lafs, scores = keynet(image, None, 100)
    assert len(lafs) == 100
    assert (torch.diff(scores) <= 0).all()
    # The same maxima, placed between the pixels instead of on them.
    distance = np.linalg.norm(expected[:, None, :, 2] - lafs.numpy()[None, :, :, 2], axis=2).min(axis=1)
    assert (distance < 1.5).mean() > 0.9


def test_the_names_on_the_command_line_are_the_registries() -> None:
    from hardnet_match.descriptors import DESCRIPTORS
    from hardnet_match.orientation import ORIENTATIONS
    from hardnet_match.shape import SHAPES

    assert CHOICES["detector"] == tuple(DETECTORS)
    assert CHOICES["shape"] == (*SHAPES, "none")
    assert CHOICES["orientation"] == tuple(ORIENTATIONS)
    assert CHOICES["descriptor"] == tuple(DESCRIPTORS)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_composes(name: str) -> None:
    composition = compose(name)
    assert composition == compose("hesaffnet-hardnet", **vars(composition))
    assert name.endswith(composition.descriptor)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "sift"}, "no preset 'sift'; there are hesaffnet-hardnet, "),
        ({"detector": "sift"}, "no detector 'sift'; there are hessian, "),
        ({"size": "3"}, "no part 'size'; its parts are detector, "),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(wrong: dict[str, str], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        compose(**wrong)


@pytest.mark.parametrize("make", [Hessian, DoG, OpenCVDoG])
def test_frames_are_ranked_by_response_times_a_power_of_sigma(make: Any, rendered: dict[str, Any]) -> None:
    """The same frames, whatever the power; and where fewer are wanted, larger ones stay."""
    image = as_image(read_image(rendered["folder"] / "view_000.jpg").pixels)
    plain, weighted = make(scale_weight=0), make(scale_weight=2)
    lafs0, scores0 = plain(image, None, 10**6)
    lafs2, scores2 = weighted(image, None, 10**6)
    expected = scores0 * (lafs0[:, 0, 0] / MR_SIZE) ** 2
    torch.testing.assert_close(scores2, expected.sort(descending=True).values, rtol=1e-5, atol=0)
    torch.testing.assert_close(lafs2[:, 0, 0].sort().values, lafs0[:, 0, 0].sort().values)
    few = len(lafs0) // 4
    assert weighted(image, None, few)[0][:, 0, 0].median() > 1.2 * plain(image, None, few)[0][:, 0, 0].median()
