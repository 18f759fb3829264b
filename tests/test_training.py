"""Mining, augmentation and the three training runs, on made-up scenes."""

from __future__ import annotations

import math
import zlib  # noqa: F401  (before pycolmap)
from pathlib import Path

import cv2
import numpy as np
import pycolmap
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hardnet_match import weights
from hardnet_match.descriptors import HardNet, RootSIFT
from hardnet_match.errors import DataError
from hardnet_match.frames import make_lafs, to_colmap
from hardnet_match.orientation import Dominant, OriNet
from hardnet_match.shape import AffNet, Baumberg
from hardnet_match.training.augment import (
    Light,
    Warp,
    crop,
    flip_or_transpose,
    random_frames,
    random_tilt,
    relight,
    rotation_matrix,
)
from hardnet_match.training.card import write_card
from hardnet_match.training.export import load_bundled, save_bundled
from hardnet_match.training.judge import descriptor_figures, hold_out, orientation_figures, shape_figures
from hardnet_match.training.loop import Schedule, train_descriptor, train_orientation, train_shape
from hardnet_match.training.mining import Filters, mine_keypoints, mine_model
from hardnet_match.training.sources.cutting import stored_patches
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sampling import PairSampler


def texture(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Noise at several scales, so that every place looks different at every size."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width))
    for cell in (4, 9, 20, 45):
        small = rng.random((height // cell + 3, width // cell + 3))
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(total / 4 * 255, 0, 255), dtype=np.uint8)


def made_up_set(tracks: int, views: int = 3, seed: int = 0) -> PatchSet:
    """Tracks of one textured plane, seen with small changes of frame; the second half are single observations."""
    rng = np.random.default_rng(seed)
    photo = texture(900, 900, seed)
    xy, scale = 60 + 780 * rng.random((tracks, 2)), 12 + 20 * rng.random(tracks)
    rows = np.repeat(np.arange(tracks), np.where(np.arange(tracks) < tracks // 2, views, 1))
    count = len(rows)
    noise = rng.normal(size=(count, 4))
    lafs = make_lafs(xy[rows] + noise[:, :2], scale[rows] * np.exp(0.08 * noise[:, 2]), 4 * noise[:, 3])
    direction = rng.normal(size=(count, 3)).astype(np.float32)
    return PatchSet(
        stored_patches(photo, lafs),
        rows.astype(np.int64),
        np.arange(count, dtype=np.int32),
        (rows >= tracks // 2).astype(np.int32),
        direction / np.linalg.norm(direction, axis=1, keepdims=True),
        np.c_[xy[rows], np.zeros(count)].astype(np.float32),
        scale[rows].astype(np.float32),
    )


# pairs -----------------------------------------------------------------------------------------------


def test_pairs_are_of_one_track_and_of_different_views_where_there_are_several() -> None:
    observations = made_up_set(200)
    sampler, rng = PairSampler(observations), np.random.default_rng(0)
    seen = set()
    for _ in range(30):
        first, second = sampler.pairs(64, rng)
        tracks = observations.track[first]
        assert (tracks == observations.track[second]).all()
        assert len(set(tracks.tolist())) == len(tracks) == 64
        assert ((first == second) == (tracks >= 100)).all()
        seen |= set(first.tolist())
    assert len(seen) > 0.9 * len(observations)  # every member is drawn, the last of a track too


def test_more_pairs_than_tracks_gives_what_there_is() -> None:
    first, _ = PairSampler(made_up_set(20)).pairs(500, np.random.default_rng(0))
    assert 10 <= len(first) <= 20


def test_the_wider_partner_is_taken() -> None:
    observations = made_up_set(200, views=5)
    sampler = PairSampler(observations)
    mean = []
    for wide in (False, True):
        first, second = sampler.pairs(100, np.random.default_rng(1), wide=wide)
        several = first != second
        mean.append((observations.direction[first] * observations.direction[second]).sum(1)[several].mean())
    assert mean[1] < mean[0] - 0.1


def test_neighbours_are_no_negatives() -> None:
    observations = made_up_set(100)
    sampler = PairSampler(observations)
    first, second = sampler.pairs(60, np.random.default_rng(0))
    same = sampler.same_place(first, second)
    for i in range(len(first)):
        for j in range(len(second)):
            a, b = first[i], second[j]
            gap = np.linalg.norm(observations.position[a] - observations.position[b])
            near = gap < 0.5 * max(observations.size[a], observations.size[b])
            assert same[i, j] == (near and observations.scene[a] == observations.scene[b])
    assert same.diagonal().all()


def test_a_set_comes_back_from_its_file_and_joins_without_mixing_tracks(tmp_path: Path) -> None:
    one, other = made_up_set(12), made_up_set(8, seed=1)
    one.save(tmp_path / "set.h5")
    again = PatchSet.load(tmp_path / "set.h5")
    assert (again.patches == one.patches).all()
    assert (again.track == one.track).all()
    both = PatchSet.joined([again, other])
    assert len(set(both.track.tolist())) == 20
    assert len(set(both.scene.tolist())) == 4
    (tmp_path / "no.h5").write_bytes(b"nothing")
    with pytest.raises(DataError, match="patch set"):
        PatchSet.load(tmp_path / "no.h5")
    with pytest.raises(DataError, match="sorted"):
        one.select(np.arange(len(one))[::-1])


# mining ----------------------------------------------------------------------------------------------


def made_up_model(folder: Path, photos: Path) -> list[NDArray[np.float64]]:
    """Three cameras before a textured plane z = 10, a COLMAP model and database of points on it, and the photos.

    Returns the homographies plane (x, y) -> pixels (pixel centres at integers).
    """
    rng = np.random.default_rng(0)
    wall = texture(1000, 1400, 5)
    pixels_a_unit, focal, width, height = 100.0, 500.0, 640, 480
    points = np.c_[1.5 + 11 * rng.random(150), 1.5 + 7 * rng.random(150)]
    centres = np.array([[6.5, 4.8, 0.0], [7.2, 5.0, 0.5], [6.9, 4.4, -0.6]])
    rec = pycolmap.Reconstruction()
    camera = pycolmap.Camera.create_from_model_name(1, "SIMPLE_PINHOLE", focal, width, height)
    rec.add_camera_with_trivial_rig(camera)
    database = folder / "database.db"
    folder.mkdir()
    photos.mkdir()
    k = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    homographies, rows = [], []
    for index, centre in enumerate(centres):
        turn = cv2.Rodrigues(np.array([0.02, -0.03, 0.15]) * index)[0]
        shift = -turn @ centre
        to_corner = k @ np.c_[turn[:, 0], turn[:, 1], turn[:, 2] * 10 + shift]
        to_pixel = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1.0]]) @ to_corner
        # wall pixel (i, j) has its centre at plane ((i + .5) / 100, (j + .5) / 100)
        wall_to_plane = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, pixels_a_unit]]) / pixels_a_unit
        photo = cv2.warpPerspective(wall, to_pixel @ wall_to_plane, (width, height), flags=cv2.INTER_AREA)
        cv2.imwrite(str(photos / f"v {index}.png"), photo)
        xy = cv2.perspectiveTransform(points[None], to_pixel)[0]
        depth = (points @ turn[2, :2]) + turn[2, 2] * 10 + shift[2]
        lafs = make_lafs(xy, 0.45 * focal / depth, np.rad2deg(-0.15 * index))
        rows.append(to_colmap(lafs))
        homographies.append(to_pixel)
    names = [f"v {index}.png" for index in range(3)]
    pycolmap.Database.open(database).close()
    pycolmap.import_images(database, photos, pycolmap.CameraMode.SINGLE, image_names=names)
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        for name, row in zip(names, rows, strict=True):
            opened.write_keypoints(ids[name], row)
    for index, name in enumerate(names):
        turn = cv2.Rodrigues(np.array([0.02, -0.03, 0.15]) * index)[0]
        image = pycolmap.Image(
            name=name, keypoints=rows[index][:, :2].astype(np.float64), camera_id=1, image_id=ids[name]
        )
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(turn), -turn @ centres[index])
        rec.add_image_with_trivial_frame(image, pose)
    for number, point in enumerate(points):
        track = pycolmap.Track()
        for name in names:
            track.add_element(ids[name], number)
        rec.add_point3D(np.r_[point, 10.0], track)
    rec.write(folder)
    return homographies


def test_mined_patches_sit_where_the_frames_say(tmp_path: Path) -> None:
    homographies = made_up_model(tmp_path / "model", tmp_path / "photos")
    found = mine_model(
        tmp_path / "model", tmp_path / "model" / "database.db", tmp_path / "photos", Filters(contrast=1.0, max_views=6)
    )
    assert len(found) > 250
    assert found.position[:, 2] == pytest.approx(10)
    assert np.median(found.size) == pytest.approx(0.45, rel=0.05)
    # by hand: the inner 32x32 cells of a stored patch, through the homography, out of the photo
    steps = (2 * np.arange(32) + 1) / 32 - 1
    photos = sorted((tmp_path / "photos").glob("*.png"))
    images = {i + 1: cv2.imread(str(photo), 0).astype(np.float32) for i, photo in enumerate(photos)}
    errors = []
    for row in range(0, len(found), 7):
        image = int(found.image[row])
        centre = cv2.perspectiveTransform(
            found.position[row, :2].astype(np.float64)[None, None], homographies[image - 1]
        )
        in_plane = found.position[row, :2].astype(np.float64)
        edge = cv2.perspectiveTransform((in_plane + np.array([0.01, 0]))[None, None], homographies[image - 1])
        scale = 0.45 * np.linalg.norm(edge - centre) / 0.01
        axes = make_lafs(centre[0], scale, np.rad2deg(-0.15 * (image - 1)))[0, :, :2]
        x = centre[0, 0, 0] + axes[0, 0] * steps[None] + axes[0, 1] * steps[:, None]
        y = centre[0, 0, 1] + axes[1, 0] * steps[None] + axes[1, 1] * steps[:, None]
        expected = cv2.remap(images[image], x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
        errors.append(np.abs(expected - found.patches[row, 16:48, 16:48]).mean() / expected.std())
    assert np.median(errors) < 0.1
    # patches of one track look alike, of different tracks they do not
    held = hold_out(found, 100)
    assert descriptor_figures(RootSIFT(), held)["rank1"] > 0.9


def test_observations_off_the_mark_are_dropped(tmp_path: Path) -> None:
    made_up_model(tmp_path / "model", tmp_path / "photos")
    database = tmp_path / "model" / "database.db"
    before = mine_model(tmp_path / "model", database, tmp_path / "photos", Filters(contrast=1.0))
    with pycolmap.Database.open(database) as opened:
        image = opened.read_all_images()[0].image_id
        rows = np.asarray(opened.read_keypoints(image)).copy()
        rows[0:30, :2] += 3  # away from the projection
        rows[30:60, 2:] *= 2  # an octave too large
        rows[60:90, 2:] *= -1  # upside down
        opened.update_keypoints(image, rows)
    after = mine_model(tmp_path / "model", database, tmp_path / "photos", Filters(contrast=1.0))
    dropped = (before.image == image).sum() - (after.image == image).sum()
    assert dropped >= 0.9 * (before.image == image).sum() * 90 / 150
    assert (after.image != image).sum() >= 0.97 * (before.image != image).sum()


def test_keypoints_of_single_photos_are_tracks_of_one(tmp_path: Path) -> None:
    made_up_model(tmp_path / "model", tmp_path / "photos")
    found = mine_keypoints(tmp_path / "model" / "database.db", tmp_path / "photos", per_photo=50, contrast=1.0)
    assert len(set(found.track.tolist())) == len(found) > 90
    sampler = PairSampler(found)
    rows = np.arange(len(found))
    assert not sampler.same_place(rows, rows)[found.image[:, None] != found.image[None]].any()


# augmentation ----------------------------------------------------------------------------------------


def test_the_unchanged_crop_is_the_inner_half_to_the_bit() -> None:
    stored = torch.from_numpy(made_up_set(10).patches)
    frames = random_frames(len(stored), Warp(), torch.Generator())
    torch.testing.assert_close(crop(stored, frames)[:, 0], stored[:, 16:48, 16:48] / 255, atol=1e-5, rtol=0)


def test_a_crop_through_a_turned_frame_is_the_turned_crop() -> None:
    stored = torch.from_numpy(made_up_set(10).patches)
    quarter = rotation_matrix(torch.full((len(stored),), math.pi / 2))
    frames = torch.cat([quarter, torch.zeros(len(stored), 2, 1)], dim=2)
    # the frame turns counter-clockwise on the screen, so the content turns clockwise
    expected = stored[:, 16:48, 16:48].rot90(-1, (1, 2)) / 255
    torch.testing.assert_close(crop(stored, frames)[:, 0], expected, atol=1e-5, rtol=0)


def test_random_frames_stay_within_their_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    frames = random_frames(2000, Warp(rotation=20, octaves=0.5, shift=2, tilt=1.0), generator)
    axes = frames[:, :, :2]
    assert torch.linalg.det(axes).sqrt().log2().abs().max() <= 0.5 + 1e-4
    assert torch.rad2deg(torch.atan2(axes[:, 0, 1], axes[:, 0, 0])).abs().max() <= 20 + 1e-3
    assert frames[:, :, 2].abs().max() <= 2 * 2 / 32
    tilts = random_tilt(2000, 3.0, generator)
    ratio = torch.linalg.svdvals(tilts)
    torch.testing.assert_close(torch.linalg.det(tilts), torch.ones(2000), atol=1e-4, rtol=0)
    assert 2.8 < float((ratio[:, 0] / ratio[:, 1]).max()) <= 3.0 + 1e-4


def test_both_of_a_pair_are_mirrored_alike() -> None:
    patches = torch.rand(64, 1, 32, 32)
    one, other = flip_or_transpose(torch.stack([patches, patches]), torch.Generator().manual_seed(0))
    assert torch.equal(one, other)
    forms = {
        name: sum(bool(torch.equal(out, form(patch))) for out, patch in zip(one, patches, strict=True))
        for name, form in {
            "same": lambda p: p,
            "transposed": lambda p: p.mT,
            "mirrored": lambda p: p.flip(-1),
            "both": lambda p: p.mT.flip(-1),
        }.items()
    }
    assert sum(forms.values()) == 64
    assert min(forms.values()) > 5


def test_light_changes_leave_the_content() -> None:
    patches = crop(torch.from_numpy(made_up_set(60).patches), random_frames(120, Warp(), torch.Generator()))
    lit = relight(patches, Light(), torch.Generator().manual_seed(0))
    flat, other = patches.flatten(1), lit.flatten(1)
    correlation = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(flat, other, strict=True)])
    assert correlation.median() > 0.75
    assert correlation.min() > 0
    assert (lit - patches).abs().mean() > 0.02
    torch.testing.assert_close(relight(patches, Light(0, 0, 0, 0), torch.Generator()), patches, atol=2e-3, rtol=0)


# training --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sampler() -> PairSampler:
    return PairSampler(made_up_set(400))


def losses(history: list[dict[str, float]]) -> tuple[float, float]:
    return history[0]["loss"], history[-1]["loss"]


@pytest.mark.slow
def test_a_short_run_teaches_the_descriptor(sampler: PairSampler) -> None:
    torch.manual_seed(0)
    network = HardNet()
    held, error = hold_out(made_up_set(200, seed=7), 90), Warp(25, 0.4, 3, 1.6)
    before = descriptor_figures(network, held, error, Light())
    history = train_descriptor(network, sampler, Schedule(steps=20, batch=48, rate=3e-3, report=5))
    first, last = losses(history.reports)
    after = descriptor_figures(network, held, error, Light())
    assert last < first - 0.1
    assert after["fpr95"] < 0.8 * before["fpr95"]
    assert history.steps == 20
    assert not network.training


@pytest.mark.slow
def test_a_short_run_teaches_the_shape(sampler: PairSampler) -> None:
    torch.manual_seed(0)
    network, descriptor = AffNet(), HardNet()
    held = hold_out(made_up_set(200, seed=7), 90)
    weights = [parameter.clone() for parameter in descriptor.parameters()]
    before = shape_figures(network, descriptor, held)["covariance"]
    train_shape(network, descriptor, sampler, Schedule(steps=40, batch=32, rate=3e-3, report=10), guided=0.7)
    after = shape_figures(network, descriptor, held)["covariance"]
    assert after < 0.9 * before
    assert after < 0.9 * shape_figures(None, descriptor, held)["covariance"]
    assert all(torch.equal(a, b) for a, b in zip(weights, descriptor.parameters(), strict=True))


@pytest.mark.slow
def test_a_short_run_teaches_the_orientation(sampler: PairSampler) -> None:
    torch.manual_seed(0)
    network = OriNet()
    held = hold_out(made_up_set(200, seed=7), 90)
    before = orientation_figures(network, HardNet(), held)["within20"]
    history = train_orientation(network, sampler, Schedule(steps=90, batch=32, rate=3e-3, report=10))
    first, last = losses(history.reports)
    assert last < first - 0.5
    assert orientation_figures(network, HardNet(), held)["within20"] > before + 0.1


def test_the_figures_reward_what_is_right() -> None:
    held = hold_out(made_up_set(200, views=2, seed=3), 90)
    plain = shape_figures(None, RootSIFT(), held)
    assert shape_figures(Baumberg(), RootSIFT(), held)["covariance"] < plain["covariance"]
    turned = orientation_figures(None, RootSIFT(), held)
    oriented = orientation_figures(Dominant(), RootSIFT(), held)
    assert oriented["rank1"] > turned["rank1"] + 0.3
    assert oriented["within20"] > 0.5 > turned["within20"]


def test_training_stops_at_its_time(sampler: PairSampler) -> None:
    history = train_orientation(OriNet(), sampler, Schedule(steps=10**6, seconds=0.5, batch=16, report=1))
    assert 1 <= history.steps < 1000


def test_the_rate_rises_and_falls_to_nothing() -> None:
    schedule = Schedule(rate=1e-2, warm_up=0.1)
    rates = [schedule.at(progress) for progress in np.linspace(0, 1, 51)]
    assert max(rates) == pytest.approx(1e-2, rel=0.02)
    assert int(np.argmax(rates)) == 5
    assert rates[-1] < 1e-4
    assert (np.diff(rates[6:]) < 0).all()


def test_float16_files_lose_nothing_that_matters(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = HardNet()
    with torch.no_grad():
        for _ in range(3):
            network.train()(torch.rand(64, 1, 32, 32))
    network.eval()
    save_bundled(network, tmp_path / "made.safetensors", {"licence": "Apache-2.0"})
    again = HardNet()
    load_bundled(again, tmp_path / "made.safetensors")
    patches: Tensor = torch.rand(20, 1, 32, 32)
    cosine = (again.eval()(patches) * network(patches)).sum(1)
    assert cosine.min() > 0.9999
    assert (tmp_path / "made.safetensors").stat().st_size < 2_800_000
    with torch.no_grad():
        network.features[0].weight[0, 0, 0, 0] = 1e6
    with pytest.raises(ValueError, match=r"features\.0\.weight"):
        save_bundled(network, tmp_path / "bad.safetensors")


def test_a_card_keeps_what_a_person_wrote_and_gets_new_figures(tmp_path: Path) -> None:
    card = tmp_path / "x.md"
    tables = {"a place": {"ours": {"fpr95": 0.0123, "rank1": 0.5}, "theirs": {"fpr95": 0.2, "rank1": 0.25}}}
    write_card(card, "x", "Made by hand.", tables)
    assert "| ours | 1.23 | 50.00 |" in card.read_text()
    card.write_text(card.read_text().replace("Made by hand.", "A person's words.") + "\n## Licence\n\nApache-2.0\n")
    write_card(card, "y", "", {"a place": {"ours": {"covariance": 0.0007}}})
    text = card.read_text()
    assert "A person's words." in text
    assert text.endswith("## Licence\n\nApache-2.0\n")
    assert "| ours | 0.0007 |" in text
    assert "1.23" not in text
    assert text.count("## Figures") == 1


def test_the_bundled_weights_do_what_their_cards_say() -> None:
    """On texture that no photo holds: far from their training, so the margins are wide."""
    folder = Path(weights.__file__).parent
    networks = {"hardnet": HardNet(), "affnet": AffNet(), "orinet": OriNet()}
    for name, network in networks.items():
        load_bundled(network, folder / f"{name}-bundled.safetensors")
        card = (folder / f"{name}-bundled.md").read_text()
        assert all(word in card for word in ("## Data", "## Training", "## Figures", "Apache-2.0"))
    hardnet, affnet, orinet = (network.eval() for network in networks.values())
    held, error = hold_out(made_up_set(300, views=2, seed=3), 140), Warp(15, 0.3, 2, 1.5)
    ours, sift = (descriptor_figures(network, held, error, Light())["fpr95"] for network in (hardnet, RootSIFT()))
    assert ours < 0.5 * sift
    adapted, plain = (shape_figures(shape, hardnet, held) for shape in (affnet, None))
    assert adapted["covariance"] < 0.4 * plain["covariance"]
    assert adapted["rank1"] >= plain["rank1"]
    oriented, turned = (orientation_figures(network, hardnet, held) for network in (orinet, None))
    assert oriented["within20"] > 3 * turned["within20"]
