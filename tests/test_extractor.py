"""The extractor: every composition, what travels out of it, and the same result however it is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from kornia import feature as KF

import hardnet_match
from hardnet_match import Features, frames
from hardnet_match.descriptors import HardNet
from hardnet_match.errors import DataError, OptionError, WeightsError
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.orientation import OriNet
from hardnet_match.patches import extract_patches
from hardnet_match.presets import Composition
from hardnet_match.pyramid import as_image, patch_pyramid
from hardnet_match.shape import AffNet


def picture(seed: int = 0, height: int = 180, width: int = 240) -> np.ndarray:
    """Blurred noise of several sizes: something to find at every scale."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width), np.float32)
    for cell in (4, 8, 16, 32):
        coarse = torch.from_numpy(rng.normal(size=(1, 1, height // cell + 2, width // cell + 2)).astype(np.float32))
        image += torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0, 0].numpy()
    image = (image - image.min()) / (image.max() - image.min())
    return (image * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    return FeatureExtractor.from_preset(max_keypoints=200)


@pytest.mark.parametrize(
    "composition",
    [
        Composition(),
        Composition(orientation="orinet"),
        Composition("dog", "affnet", "dominant", "hardnet"),
        Composition("dog-opencv", "none", "upright", "rootsift"),
        Composition("harris", "baumberg", "orinet", "rootsift"),
        Composition("gftt", "none", "dominant", "hardnet"),
    ],
    ids=str,
)
def test_every_part_composes(composition: Composition) -> None:
    features = FeatureExtractor(composition, max_keypoints=150).extract(picture())
    assert isinstance(features, Features)
    assert 20 < len(features) <= 150
    assert features.descriptors.shape == (len(features), 128)
    assert features.descriptors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features.descriptors, axis=1), 1, atol=1e-5)
    assert features.image_size == (240, 180)
    assert (np.diff(features.scores) <= 0).all()
    assert (np.abs(np.linalg.det(features.lafs[:, :, :2])) > 1).all()
    if composition.orientation == "upright":
        assert (features.lafs[:, 0, 1] == 0).all()
        assert (features.lafs[:, 0, 0] > 0).all()


@pytest.mark.skipif(
    not hasattr(KF, "laf_is_filled"), reason="kornia before 0.9 cuts patches up to half a pixel beside their frames"
)
def test_the_stages_are_those_of_kornia() -> None:
    """The same frames and networks out of kornia's modules give the same shapes, turns and descriptors."""
    extractor = FeatureExtractor.from_preset(max_keypoints=120, orientation="orinet")
    image = as_image(picture(3))
    features = extractor.extract(picture(3))
    state = {
        name: hardnet_match.weights.load_state_dict(f"{name}-bundled", name) for name in ("affnet", "orinet", "hardnet")
    }
    shape, orientation, descriptor = KF.LAFAffNetShapeEstimator(False), KF.LAFOrienter(32), KF.HardNet(False)
    orientation.angle_detector = KF.OriNet(False)
    hardnet_match.weights.load_into(AffNet(), state["affnet"], "affnet")  # the names are checked there
    for module, name in ((shape, "affnet"), (orientation.angle_detector, "orinet"), (descriptor, "hardnet")):
        module.load_state_dict(state[name], strict=False)
        module.eval()
    with torch.no_grad():
        circles, _ = extractor.detector(image, None, 400)
        ours = torch.from_numpy(features.lafs)
        scale = torch.from_numpy(frames.laf_scale(features.lafs))
        # One place may hold frames of several scales: the shape keeps the area, so the scale tells them apart.
        both = (circles[None, :, :, 2] - ours[:, None, :, 2]).norm(dim=2) + (
            circles[None, :, 0, 0] - scale[:, None]
        ).abs()
        row = both.argmin(1)
        theirs = orientation(shape(circles[row][None], image), image)
        patches = KF.extract_patches_from_pyramid(image, theirs, 32)[0]
        described = descriptor(patches)
    difference = (theirs[0] - ours).abs().flatten(1).amax(1) / scale
    assert difference.quantile(0.95) < 0.01
    cosine = (described * torch.from_numpy(features.descriptors)).sum(1)
    assert cosine.quantile(0.05) > 0.9999


def test_a_batch_gives_each_image_what_it_gets_alone(extractor: FeatureExtractor) -> None:
    images = [picture(1), picture(2, 90, 130), np.full((50, 60), 128, np.uint8), picture(4)]
    together = extractor.extract_batch(images)
    for image, features in zip(images, together, strict=True):
        alone = extractor.extract(image)
        np.testing.assert_array_equal(features.lafs, alone.lafs)
        np.testing.assert_array_equal(features.descriptors, alone.descriptors)
        assert features.image_size == image.shape[::-1]
    assert len(together[2]) == 0
    assert together[2].descriptors.shape == (0, 128)


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (8, 8), (33, 31, 3)])
def test_tiny_and_flat_pictures_are_valid_and_empty(extractor: FeatureExtractor, shape: tuple[int, ...]) -> None:
    features = extractor.extract(np.full(shape, 77, np.uint8))
    assert len(features) == 0
    assert features.image_size == (shape[1], shape[0])


def test_grey_colour_and_float_are_one_picture(extractor: FeatureExtractor) -> None:
    grey = picture(5)
    expected = extractor.extract(grey)
    for same in (np.repeat(grey[:, :, None], 3, axis=2), grey.astype(np.float32) / 255, torch.from_numpy(grey)):
        features = extractor.extract(same)
        assert abs(len(features) - len(expected)) <= 1
        np.testing.assert_allclose(features.lafs[:20], expected.lafs[:20], atol=0.05)


def test_the_mask_is_honoured(extractor: FeatureExtractor) -> None:
    mask = np.zeros((180, 240), bool)
    mask[:, :120] = True
    features = extractor.extract(picture(), mask)
    assert len(features) > 10
    assert (features.keypoints[:, 0] <= 119.5).all()
    assert len(extractor.extract(picture(), np.zeros((180, 240), bool))) == 0


def test_half_precision_stays_within_its_bound() -> None:
    exact = FeatureExtractor.from_preset(max_keypoints=200, device="cpu").extract(picture(6))
    half = FeatureExtractor.from_preset(max_keypoints=200, device="cpu", precision="half").extract(picture(6))
    np.testing.assert_array_equal(half.lafs, exact.lafs)
    assert (half.descriptors * exact.descriptors).sum(axis=1).min() > 0.99


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_finds_the_same() -> None:
    cpu = FeatureExtractor.from_preset(max_keypoints=200, device="cpu").extract(picture(7))
    gpu = FeatureExtractor.from_preset(max_keypoints=200, device="cuda").extract(picture(7))
    distance = np.linalg.norm(cpu.keypoints[:, None] - gpu.keypoints[None], axis=2)
    assert (distance.min(axis=1) < 0.05).mean() > 0.95


def test_settings_tell_what_the_result_depends_on() -> None:
    settings = FeatureExtractor.from_preset(max_keypoints=300, orientation="orinet").settings
    assert settings["descriptor"] == "hardnet"
    assert settings["max_keypoints"] == 300
    assert set(settings["weights"]) == {"shape", "orientation", "descriptor"}
    assert settings != FeatureExtractor.from_preset(max_keypoints=300, orientation="upright").settings


def test_own_weights_are_used(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"epoch": 1, "state_dict": HardNet().state_dict()}, tmp_path / "mine.pth")
    mine = FeatureExtractor.from_preset(max_keypoints=50, weights=str(tmp_path / "mine.pth"))
    default = FeatureExtractor.from_preset(max_keypoints=50)
    assert mine.settings["weights"]["descriptor"] != default.settings["weights"]["descriptor"]
    a, b = mine.extract(picture()), default.extract(picture())
    np.testing.assert_array_equal(a.lafs, b.lafs)
    assert not np.allclose(a.descriptors, b.descriptors)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(OriNet().state_dict(), tmp_path / "orinet.pth")
    with pytest.raises(WeightsError, match=r"orinet\.pth"):
        FeatureExtractor.from_preset(weights=str(tmp_path / "orinet.pth"))


@pytest.mark.parametrize(
    "options",
    [
        {"max_keypoints": 0},
        {"precision": "int4"},
        {"device": "toaster"},
        {"detector": "sift"},
        {"descriptor": "rootsift", "weights": "hardnet++"},
    ],
    ids=str,
)
def test_options_that_cannot_work_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        FeatureExtractor.from_preset(**options)


@pytest.mark.parametrize("image", [np.zeros((2, 3, 4, 5)), np.zeros((5, 5, 2)), np.full((20, 20), np.nan)], ids=str)
def test_what_is_no_image_is_refused(extractor: FeatureExtractor, image: np.ndarray) -> None:
    with pytest.raises(DataError, match="image"):
        extractor.extract(image)


def test_a_mask_of_another_size_is_refused(extractor: FeatureExtractor) -> None:
    with pytest.raises(DataError, match="mask"):
        extractor.extract(picture(), np.ones((3, 3), bool))


def test_patches_of_described_frames_are_upright_in_content(extractor: FeatureExtractor) -> None:
    """A picture turned by a quarter has the same features: orientation and description go with the content."""
    image = picture(8)
    a, b = extractor.extract(image), extractor.extract(np.ascontiguousarray(np.rot90(image)))
    moved = np.stack([a.keypoints[:, 1], image.shape[1] - 1 - a.keypoints[:, 0]], axis=1)
    distance = np.linalg.norm(moved[:, None] - b.keypoints[None], axis=2)
    partner = distance.argmin(axis=1)
    same = (distance.min(axis=1) < 0.5) & (
        np.abs(np.log2(frames.laf_scale(a.lafs) / frames.laf_scale(b.lafs)[partner])) < 0.2
    )
    assert same.mean() > 0.8
    cosine = (a.descriptors * b.descriptors[partner]).sum(axis=1)[same]
    assert np.median(cosine) > 0.9
    pyramid = patch_pyramid(as_image(image))
    assert extract_patches(pyramid, torch.from_numpy(a.lafs)).std() > 0.01


def test_8_bits_are_near_float32() -> None:
    pytest.importorskip("openvino", reason="precision int8 is an extra")
    plain, quick = (FeatureExtractor(max_keypoints=200, precision=name) for name in ("float32", "int8"))
    expected, found = plain.extract(picture(5)), quick.extract(picture(5))
    assert plain.settings != quick.settings
    # Where the detector put a keypoint does not depend on it; what a few of the networks say may turn over.
    both = min(len(expected), len(found))
    assert np.abs(expected.keypoints[:both] - found.keypoints[:both]).max(axis=1).mean() < 0.5
    cosine = (expected.descriptors[:both] * found.descriptors[:both]).sum(axis=1)
    assert np.median(cosine) > 0.99


def test_8_bits_where_they_cannot_be() -> None:
    pytest.importorskip("openvino", reason="precision int8 is an extra")
    with pytest.raises(OptionError, match="8-bit form"):
        FeatureExtractor.from_preset(descriptor="rootsift", precision="int8")
