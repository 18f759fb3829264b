"""kornia's pipelines with this package's parts, and this package's extractor with kornia's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import kornia
import kornia.feature as KF
import numpy as np
import pytest
import torch
from kornia.geometry.transform import warp_perspective
from torch import Tensor, nn

from hardnet_match import FeatureExtractor
from hardnet_match.descriptors import HardNet
from hardnet_match.detectors import DETECTORS
from hardnet_match.errors import OptionError, PluginError
from hardnet_match.foreign import identity
from hardnet_match.images import read_image
from hardnet_match.orientation import Dominant
from hardnet_match.parts import open_part
from hardnet_match.plugins.kornia import AffineShape, Descriptor, Detector, LocalFeature, Orientation

COUNT = 60
OLD = tuple(int(part) for part in kornia.__version__.split(".")[:2]) < (0, 9)
as_kornia_has_it = pytest.mark.skipif(
    OLD, reason="kornia before 0.9 samples patches, and fills up detections, otherwise"
)


@pytest.fixture(scope="module")
def photo(rendered: dict[str, Any]) -> np.ndarray:
    picture = read_image(rendered["folder"] / "view_000.jpg", color=True, max_size=240).pixels
    return picture


@pytest.fixture(scope="module")
def image(photo: np.ndarray) -> Tensor:
    return torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255


@pytest.fixture(scope="module")
def grey(image: Tensor) -> Tensor:
    return image.mul(image.new_tensor([0.2126, 0.7152, 0.0722])[:, None, None]).sum(dim=1, keepdim=True)


@pytest.fixture(scope="module")
def feature() -> LocalFeature:
    return LocalFeature(num_features=COUNT).eval()


def filled_slots(lafs: Tensor) -> Tensor:
    return (lafs != 0).flatten(-2).any(dim=-1)


# ---- ours in kornia


@pytest.mark.parametrize("preset", ["hesaffnet-hardnet", "dog-rootsift"])
def test_it_gives_what_the_extractor_gives(preset: str, photo: np.ndarray, image: Tensor) -> None:
    expected = FeatureExtractor.from_preset(preset, max_keypoints=COUNT).extract(photo)
    feature = LocalFeature(preset, COUNT).eval()
    assert isinstance(feature, KF.LocalFeature)
    with torch.no_grad():
        lafs, responses, descriptors = feature(image)
    assert lafs.shape == (1, COUNT, 2, 3)
    assert responses.shape == (1, COUNT)
    np.testing.assert_allclose(lafs[0], expected.lafs, atol=1e-2)
    np.testing.assert_allclose(responses[0], expected.scores, rtol=1e-4)
    np.testing.assert_allclose(descriptors[0], expected.descriptors, atol=1e-3)


def test_a_batch_is_padded_with_frames_that_kornia_knows_as_unfilled(feature: LocalFeature, image: Tensor) -> None:
    flat = torch.zeros_like(image)
    with torch.no_grad():
        lafs, responses, descriptors = feature(torch.cat([image, flat]))
        alone = feature(image)
    filled = filled_slots(lafs)
    assert filled.sum(dim=1).tolist() == [COUNT, 0]
    assert descriptors.shape == (2, COUNT, 128)
    assert (responses[1] == 0).all()
    torch.testing.assert_close(lafs[0], alone[0][0])
    torch.testing.assert_close(descriptors[0], alone[2][0], atol=1e-4, rtol=1e-4)


def test_masks(feature: LocalFeature, image: Tensor) -> None:
    mask = torch.zeros(1, 1, *image.shape[-2:])
    mask[..., : image.shape[-1] // 2] = 1
    for given in (mask, mask.bool(), mask.expand(2, -1, -1, -1)):
        batch = image.expand(len(given), -1, -1, -1)
        with torch.no_grad():
            lafs, _, _ = feature(batch, given)
        places = lafs[filled_slots(lafs)][:, 0, 2]
        assert len(places) > 10
        assert (places <= image.shape[-1] / 2).all()


def test_kornias_matcher_matches_with_it(feature: LocalFeature, grey: Tensor) -> None:
    truth = torch.tensor([[[0.95, 0.2, -20.0], [-0.2, 0.95, 25.0], [0, 0, 1]]])
    other = warp_perspective(grey, truth, tuple(grey.shape[-2:]))
    matcher = KF.LocalFeatureMatcher(LocalFeature(num_features=200).eval(), KF.DescriptorMatcher("smnn", 0.9))
    with torch.no_grad():
        found = matcher({"image0": grey, "image1": other})
    there = torch.nn.functional.pad(found["keypoints0"], (0, 1), value=1.0) @ truth[0].T
    error = (there[:, :2] / there[:, 2:] - found["keypoints1"]).norm(dim=1)
    assert len(error) > 30
    assert (error < 2).float().mean() > 0.8
    with torch.no_grad():
        nothing = matcher({"image0": grey, "image1": torch.zeros_like(grey)})
    assert len(nothing["keypoints0"]) == 0


def test_each_part_fits_where_kornia_has_its_own(grey: Tensor) -> None:
    theirs = KF.ScaleSpaceDetector(COUNT, ori_module=Orientation(), aff_module=AffineShape()).eval()
    ours = Detector("dog", COUNT, KF.LAFAffineShapeEstimator(), KF.LAFOrienter(32)).eval()
    with torch.no_grad():
        for detector in (theirs, ours):
            for descriptor in (Descriptor("rootsift"), KF.LAFDescriptor(HardNet(), 32)):
                lafs, _, descriptors = KF.LocalFeature(detector, descriptor)(grey)
                assert lafs.shape == (1, COUNT, 2, 3)
                assert descriptors.shape == (1, COUNT, 128)
                assert descriptors.isfinite().all()


def frames(grey: Tensor) -> Tensor:
    with torch.no_grad():
        lafs, _ = Detector("hessian", COUNT)(grey)
    turn = torch.linspace(-170, 170, COUNT)[None, :, None]
    return KF.set_laf_orientation(lafs, turn)


@as_kornia_has_it
def test_shape_keeps_what_kornias_keeps(grey: Tensor) -> None:
    """The same weights: our AffNet in our module and in kornia's give the same frames."""
    lafs = frames(grey)
    theirs = KF.LAFAffNetShapeEstimator(False).eval()
    theirs.load_state_dict(open_part("shape", "affnet").module.state_dict())
    with torch.no_grad():
        expected, found = theirs(lafs, grey), AffineShape().eval()(lafs, grey)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-3)
    zero = torch.cat([lafs, torch.zeros(1, 2, 2, 3)], dim=1)
    with torch.no_grad():
        assert (AffineShape()(zero, grey)[:, -2:] == 0).all()
        assert (Orientation()(zero, grey)[:, -2:] == 0).all()


@as_kornia_has_it
def test_orientation_turns_as_kornias_turns(grey: Tensor) -> None:
    lafs = frames(grey)
    with torch.no_grad():
        found = Orientation("dominant")(lafs, grey)
        expected = KF.LAFOrienter(32, angle_detector=Dominant())(lafs, grey)
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)


@as_kornia_has_it
def test_descriptors_are_kornias_of_the_same_weights(grey: Tensor) -> None:
    lafs = frames(grey)
    theirs = KF.HardNet(False).eval()
    theirs.load_state_dict(open_part("descriptor", "hardnet").module.state_dict())
    with torch.no_grad():
        expected = KF.get_laf_descriptors(grey, lafs, theirs, 32)
        found = Descriptor("hardnet").eval()(grey, lafs)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
    assert Descriptor("hardnet")(grey, lafs[:, :0]).shape == (1, 0, 128)


# ---- gradients


@pytest.mark.parametrize("detector", [name for name in DETECTORS if name not in ("keynet", "dog-opencv")])
def test_frames_and_responses_have_gradients(detector: str, grey: Tensor) -> None:
    picture = grey[..., 40:140, 60:180].clone().requires_grad_(True)
    lafs, responses = Detector(detector, 20)(picture)
    for output in (lafs[..., 2].sum(), responses.sum()):
        (gradient,) = torch.autograd.grad(output, picture, retain_graph=True)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_a_response_changes_as_its_gradient_says(grey: Tensor) -> None:
    picture = grey[..., 40:140, 60:180].clone().requires_grad_(True)
    _, responses = Detector("hessian", 1)(picture)
    (gradient,) = torch.autograd.grad(responses.sum(), picture)
    step = 0.02 * gradient / gradient.norm()
    with torch.no_grad():
        after = Detector("hessian", 1)(picture + step)[1].sum()
    promised = (gradient * step).sum()
    assert abs((after - responses.detach().sum()) / promised - 1) < 0.3


def test_everything_has_gradients(feature: LocalFeature, grey: Tensor) -> None:
    picture = grey.clone().requires_grad_(True)
    lafs, _, descriptors = feature(picture)
    assert lafs.requires_grad
    (gradient,) = torch.autograd.grad(descriptors[..., 0].sum(), picture, retain_graph=True)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    weights = [part for part in feature.descriptor.parameters() if part.requires_grad]
    gradients = torch.autograd.grad(descriptors[..., 0].sum(), weights)
    assert any(one.abs().sum() > 0 for one in gradients)


@as_kornia_has_it
def test_descriptors_have_gradients_of_the_frames(grey: Tensor) -> None:
    lafs = frames(grey).requires_grad_(True)
    descriptor = Descriptor("hardnet").eval()
    weight = torch.randn(1, COUNT, 128, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((descriptor(grey, lafs) * weight).sum(), lafs)
    assert gradient.isfinite().all()
    theirs = lafs.detach().clone().requires_grad_(True)
    expected = (KF.get_laf_descriptors(grey, theirs, descriptor.network, 32) * weight).sum()
    (kornias,) = torch.autograd.grad(expected, theirs)
    assert torch.cosine_similarity(gradient.flatten(), kornias.flatten(), dim=0) > 0.999
    torch.testing.assert_close(gradient, kornias, atol=0.1, rtol=1e-2)


def test_it_can_be_trained(grey: Tensor) -> None:
    torch.manual_seed(0)
    descriptor = Descriptor("hardnet").train()
    lafs = frames(grey)
    optimiser = torch.optim.SGD(descriptor.parameters(), 0.1)
    before = descriptor.network.features[0].weight.detach().clone()
    descriptor(grey, lafs)[..., :4].sum().backward()
    optimiser.step()
    assert not torch.equal(before, descriptor.network.features[0].weight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(feature: LocalFeature, image: Tensor) -> None:
    with torch.no_grad():
        here = feature(image)
        there = LocalFeature(num_features=COUNT).eval().cuda()(image.cuda())
    assert there[0].device.type == "cuda"
    torch.testing.assert_close(here[1], there[1].cpu(), rtol=1e-3, atol=1e-5)


# ---- kornia's in ours


class Wrapped(nn.Module):
    """A descriptor of the house's kind, defined elsewhere."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches.flatten(1)[:, ::16]


KORNIAS: dict[str, Callable[[], tuple[str, nn.Module]]] = {
    "ScaleSpaceDetector": lambda: ("detector", KF.ScaleSpaceDetector(30)),
    "KeyNetDetector": lambda: ("detector", KF.KeyNetDetector(False, 30)),
    "LAFAffineShapeEstimator": lambda: ("shape", KF.LAFAffineShapeEstimator()),
    "PatchAffineShapeEstimator": lambda: ("shape", KF.PatchAffineShapeEstimator(32)),
    "LAFAffNetShapeEstimator": lambda: ("shape", KF.LAFAffNetShapeEstimator(False)),
    "LAFOrienter": lambda: ("orientation", KF.LAFOrienter(32)),
    "PassLAF": lambda: ("orientation", KF.PassLAF()),
    "OriNet": lambda: ("orientation", KF.OriNet(False)),
    "PatchDominantGradientOrientation": lambda: ("orientation", KF.PatchDominantGradientOrientation(32)),
    "SIFTDescriptor": lambda: ("descriptor", KF.SIFTDescriptor(41)),
    "LAFDescriptor": lambda: ("descriptor", KF.LAFDescriptor(KF.SIFTDescriptor(41), 41)),
    "HardNet": lambda: ("descriptor", KF.HardNet(False)),
    "SOSNet": lambda: ("descriptor", KF.SOSNet(False)),
    "TFeat": lambda: ("descriptor", KF.TFeat(False)),
    "one of one's own": lambda: ("descriptor", Wrapped()),
}


@pytest.mark.parametrize("name", KORNIAS)
def test_kornias_modules_are_parts(name: str, photo: np.ndarray) -> None:
    torch.manual_seed(1)  # with some, a network of random weights finds nothing
    part, module = KORNIAS[name]()
    extractor = FeatureExtractor.from_preset("dog-affnet-rootsift", max_keypoints=30, **{part: module})
    features = extractor.extract(photo)
    assert 10 < len(features) <= 30
    assert np.isfinite(features.descriptors).all()
    assert (np.diff(features.scores) <= 0).all()
    assert set(extractor.settings["modules"]) == {part}
    assert extractor.settings[part].endswith(type(module).__name__)
    # A KeyNet of random weights sees the border of a flat picture; an old kornia sees features everywhere in it.
    if name != "KeyNetDetector" and not OLD:
        assert len(extractor.extract(np.zeros((70, 70), np.uint8))) == 0


@as_kornia_has_it
def test_they_do_what_ours_do_with_the_same_weights(photo: np.ndarray) -> None:
    parts = {"shape": KF.LAFAffNetShapeEstimator(False), "orientation": KF.LAFOrienter(32, angle_detector=Dominant())}
    parts["shape"].load_state_dict(open_part("shape", "affnet").module.state_dict())
    parts["descriptor"] = KF.HardNet(False)
    parts["descriptor"].load_state_dict(open_part("descriptor", "hardnet").module.state_dict())
    expected = FeatureExtractor(max_keypoints=COUNT).extract(photo)
    features = FeatureExtractor(parts=parts, max_keypoints=COUNT).extract(photo)
    np.testing.assert_allclose(features.lafs, expected.lafs, atol=2e-2)
    np.testing.assert_allclose(features.descriptors, expected.descriptors, atol=5e-3)


def test_baumberg_of_kornia_is_about_ours(photo: np.ndarray) -> None:
    options = {"max_keypoints": COUNT, "orientation": "upright", "descriptor": "rootsift"}
    ours = FeatureExtractor.from_preset(shape="baumberg", **options).extract(photo)
    for module in (KF.PatchAffineShapeEstimator(32), KF.LAFAffineShapeEstimator(32)):
        theirs = FeatureExtractor.from_preset(shape=module, **options).extract(photo)
        ratio = [np.linalg.cond(side.lafs[:20, :, :2].astype(float)) for side in (ours, theirs)]
        assert np.corrcoef(*ratio)[0, 1] > 0.8


@as_kornia_has_it
def test_a_kornia_detector_gives_as_many_as_are_wanted(photo: np.ndarray) -> None:
    detector = KF.ScaleSpaceDetector(500)
    options = {"detector": detector, "shape": "none", "descriptor": "rootsift"}
    assert len(FeatureExtractor.from_preset(max_keypoints=20, **options).extract(photo)) == 20
    assert detector.num_features == 500  # the user's own is not touched
    mask = np.zeros(photo.shape[:2], bool)
    mask[60:] = True
    masked = FeatureExtractor.from_preset(max_keypoints=20, **options).extract(photo, mask)
    assert len(masked) > 5
    assert (masked.keypoints[:, 1] >= 59.5).all()


def test_the_module_given_stays_as_it_was() -> None:
    module = KF.HardNet(False).train()
    FeatureExtractor.from_preset(descriptor=module, max_keypoints=5)
    assert module.training
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_settings_tell_modules_apart() -> None:
    torch.manual_seed(0)
    first, second = KF.HardNet(False), KF.HardNet(False)
    assert identity(first) == identity(first)
    assert identity(first) != identity(second)
    second.load_state_dict(first.state_dict())
    assert identity(first) == identity(second)
    assert identity(KF.SIFTDescriptor(32)) != identity(KF.SIFTDescriptor(41))
    assert identity(KF.SIFTDescriptor(32, rootsift=True)) != identity(KF.SIFTDescriptor(32, rootsift=False))


def test_our_own_networks_are_modules_too(photo: np.ndarray) -> None:
    network = open_part("descriptor", "hardnet").module
    given = FeatureExtractor.from_preset(descriptor=network, max_keypoints=20).extract(photo)
    np.testing.assert_array_equal(given.descriptors, FeatureExtractor(max_keypoints=20).extract(photo).descriptors)


class Odd(nn.Module):
    def forward(self, patches: Tensor) -> Tensor:
        return patches[:1].flatten(1)


class Blind(nn.Module):
    def forward(self, patches: Tensor) -> Tensor:
        return patches.flatten(1) * float("nan")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"descriptor": Odd()}, r"Odd must give a row for each of"),
        ({"descriptor": Blind()}, r"Blind gave descriptors that are NaN"),
        ({"detector": nn.Flatten()}, r"Flatten"),
        ({"shape": nn.Flatten()}, r"shapes .*, but gave of shape \(\d+, 1024\)"),
        ({"descriptor": KF.SIFTDescriptor(16), "shape": "none"}, None),
        ({"orientation": nn.Linear(7, 7)}, r"Linear failed: RuntimeError"),
    ],
)
def test_modules_that_do_not_fit_are_named(parts: dict[str, Any], words: str | None, photo: np.ndarray) -> None:
    extractor = FeatureExtractor.from_preset("dog-hardnet", max_keypoints=9, **parts)
    if words is None:
        assert len(extractor.extract(photo)) == 9  # any patch size will do
        return
    with pytest.raises(PluginError, match=words):
        extractor.extract(photo)


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(OptionError, match="no part 'matcher'"):
        FeatureExtractor(parts={"matcher": nn.Identity()})
    with pytest.raises(OptionError, match="8-bit"):
        FeatureExtractor(parts={"descriptor": KF.SIFTDescriptor(32)}, precision="int8", device="cpu")
    with pytest.raises(OptionError, match="has its weights"):
        FeatureExtractor(parts={"descriptor": KF.SIFTDescriptor(32)}, weights="hardnet++")
    with pytest.raises(OptionError, match="num_features"):
        LocalFeature(num_features=0)
