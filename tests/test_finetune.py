"""Fine-tuning on one's own photos: who is held out, what is measured, what is learned, and what is told."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from hardnet_match import weights
from hardnet_match.cli import app
from hardnet_match.descriptors import HardNet
from hardnet_match.errors import DataError, OptionError, ReconstructionError
from hardnet_match.features import Features
from hardnet_match.frames import make_lafs
from hardnet_match.jobs import finetune as job
from hardnet_match.jobs import finetune_stages
from hardnet_match.jobs.finetune_summary import change_error, verdict
from hardnet_match.report.chart import line_chart
from hardnet_match.report.finetune import FinetunePage, Row, Strip, finetune_page
from hardnet_match.sfm.views import NO_POINT, View, epipolar_distance, find_frames, read_views
from hardnet_match.store import FeatureReader, FeatureWriter
from hardnet_match.training.adapt import Plan, adapt, mixed
from hardnet_match.training.confusable import ConfusableSampler
from hardnet_match.training.holdout import (
    LEARN,
    MEASURE,
    Split,
    choosing_points,
    learning_points,
    make_split,
    points_of,
)
from hardnet_match.training.measure import Figures, PairFigures, held_pairs, measure, measured
from hardnet_match.training.patchset import PatchSet
from hardnet_match.world import World

SIZE = (320, 240)
TINY = Plan(passes=1, steps=(3, 3), batch=48, evaluations=1, shares=(0.5, 1.0))


# made-up views --------------------------------------------------------------------------------------------------------


def turn(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def made_view(number: int, points: NDArray[np.float64], rng: np.random.Generator, seen: float = 1.0) -> View:
    """A camera at about z = -6 that looks at points around the origin, each a keypoint of its own."""
    rotation = turn(rng.normal(size=3), rng.uniform(0, 0.2))
    translation = np.array([rng.uniform(-1, 1), rng.uniform(-0.5, 0.5), 6.0])
    inside = points @ rotation.T + translation
    rays, focal = inside[:, :2] / inside[:, 2:], 300.0
    lafs = make_lafs(rays * focal + 160, 0.3 * focal / inside[:, 2])
    known = rng.random(len(points)) < seen
    ids = np.where(known, np.arange(len(points)), NO_POINT)
    position = np.where(known[:, None], points, np.nan)
    return View(f"{number}.jpg", number, lafs, ids, position, rays, focal, (320, 320), rotation, translation)


@pytest.fixture(scope="module")
def views() -> list[View]:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(300, 3)) * [2.0, 0.7, 0.4]
    return [made_view(number, points, rng, 0.8) for number in range(8)]


# the model's geometry -------------------------------------------------------------------------------------------------


def plain_distance(one: View, other: View, first: int, second: int) -> float:
    """The same by the fundamental matrix and a triangulation, one match at a time."""
    turned = other.rotation @ one.rotation.T
    t = other.translation - turned @ one.translation
    essential = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]]) @ turned
    x, y = np.append(one.rays[first], 1), np.append(other.rays[second], 1)
    line, back = essential @ x, essential.T @ y
    distance = max(abs(y @ line) / np.hypot(*line[:2]) * other.focal, abs(x @ back) / np.hypot(*back[:2]) * one.focal)
    a, b = np.linalg.lstsq(np.stack([turned @ x, -y], axis=1), -t, rcond=None)[0]
    return float(distance) if a > 0 and b > 0 else np.inf


def test_epipolar_distance_is_that_of_the_textbook(views: list[View]) -> None:
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, 300, (200, 2))
    found = epipolar_distance(views[0], views[3], pairs)
    wanted = [plain_distance(views[0], views[3], i, j) for i, j in pairs]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)
    assert np.isinf(found).any()
    assert np.isfinite(found).any()
    same = np.repeat(np.arange(300)[:, None], 2, axis=1)
    assert epipolar_distance(views[0], views[3], same).max() < 1e-6
    assert len(epipolar_distance(views[0], views[1], np.zeros((0, 2), int))) == 0
    with pytest.raises(DataError, match="outside"):
        epipolar_distance(views[0], views[1], np.array([[0, 300]]))


# holding out ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_nothing_measured_is_learned(views: list[View], seed: int) -> None:
    split = make_split(views, 0.25, seed)
    learn, choose = learning_points(views, split), choosing_points(views, split)
    points = points_of(views)
    assert len(split.held) == 2
    measured_ones = points.ids[split.part(points.position) == MEASURE]
    assert 0.3 < len(measured_ones) / len(points.ids) < 0.4
    assert not set(learn) & set(measured_ones) | set(learn) & set(choose) | set(choose) & set(measured_ones)
    others = np.setdiff1d(points.ids[split.part(points.position) != LEARN], [])
    for point in learn:  # plainly: no region of the one covers the centre of the other
        for other in others:
            gap = np.linalg.norm(points.position[point] - points.position[other])
            assert gap >= max(points.size[point], points.size[other])
    back = Split.from_plain(json.loads(json.dumps(split.plain())))
    np.testing.assert_array_equal(back.part(points.position), split.part(points.position))
    assert back.held == split.held


def test_size_of_a_point_is_that_of_its_largest_region(views: list[View]) -> None:
    points = points_of(views)
    assert len(points.ids) == 300
    np.testing.assert_allclose(points.size, 0.3, rtol=1e-4)  # as made_view makes every region
    np.testing.assert_allclose(
        points.position[7], views[0].position[7] if views[0].point[7] == 7 else points.position[7]
    )


def test_a_stray_point_does_not_decide_the_cut(views: list[View]) -> None:
    split = make_split(views)
    assert abs(split.axis[0]) > 0.95  # the points spread along x
    far = copy.deepcopy(views)
    for view in far:
        view.position[view.point == 5] = [0, 0, 1e6]
    assert abs(make_split(far).axis[0]) > 0.95


def test_too_little_to_hold_out_is_told(views: list[View]) -> None:
    with pytest.raises(DataError, match="4 registered photos"):
        make_split(views[:3])
    few = [made_view(n, np.random.default_rng(1).normal(size=(30, 3)), np.random.default_rng(n)) for n in range(5)]
    with pytest.raises(DataError, match="30 points"):
        make_split(few)
    assert len(make_split(views[:4], 0.9).held) == 1  # three are left to learn from


def test_keypoints_without_a_point_go_with_their_neighbours(views: list[View]) -> None:
    split = make_split(views)
    found = measured(views[0], split)
    view = views[0]
    known = np.flatnonzero(view.point != NO_POINT)
    for row in range(0, 300, 7):
        nearest = known[np.linalg.norm(view.lafs[known, :, 2] - view.lafs[row, :, 2], axis=1).argmin()]
        assert found[row] == (split.part(view.position[nearest][None])[0] == MEASURE)


# measuring ------------------------------------------------------------------------------------------------------------


def made_features(views: list[View], noise: float, seed: int = 0) -> dict[int, Features]:
    """Every point has a descriptor of its own; a photo shows it with noise."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(300, 16))
    out = {}
    for place, view in enumerate(views):
        noisy = (truth + noise * rng.normal(size=truth.shape)).astype(np.float32)
        noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
        out[place] = Features(view.lafs, np.ones(300, np.float32), noisy, view.size)
    return out


def test_figures_of_perfect_noisy_and_random_descriptors(views: list[View]) -> None:
    split = make_split(views, 0.25)
    pairs = held_pairs(views, split)
    assert all(views[one].name in split.held for one, _ in pairs)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    perfect, answers = measure(made_features(views, 0.0), views, pairs, split)
    assert (perfect.matching_map, perfect.rank1, perfect.fpr95, perfect.inlier_ratio) == (1, 1, 0, 1)
    noisy, _ = measure(made_features(views, 1.0), views, pairs, split)
    random, _ = measure(made_features(views, 50.0), views, pairs, split)
    assert perfect.matching_map > noisy.matching_map > random.matching_map
    assert perfect.correct > noisy.correct > random.correct
    assert perfect.inlier_ratio > noisy.inlier_ratio > random.inlier_ratio
    assert perfect.fpr95 < noisy.fpr95 < random.fpr95
    for one in answers:  # only keypoints of the measuring part count
        mine = measured(views[one.first], split)
        assert mine[one.queries].all()
        assert mine[one.matches[:, 0]].all()
        np.testing.assert_array_equal(views[one.first].point[one.queries], views[one.second].point[one.answers])


def test_keypoints_found_twice_are_no_mistake(views: list[View]) -> None:
    twice = [copy.deepcopy(view) for view in views]
    split = make_split(twice, 0.25)
    pairs = held_pairs(twice, split)
    features = made_features(twice, 0.0)
    one, other = pairs[0]
    row = int(np.flatnonzero(measured(twice[one], split) & (twice[one].point >= 0) & (twice[other].point >= 0))[0])
    double = 299 if row != 299 else 298
    twice[other].point[double] = NO_POINT
    twice[other].lafs[double] = twice[other].lafs[row]
    features[other].descriptors[double] = features[one].descriptors[row]
    features[other].descriptors[row] += 0.05
    figures, _ = measure(features, twice, pairs[:1], split)
    assert figures.rank1 == 1


# learning -------------------------------------------------------------------------------------------------------------


def texture_set(tracks: int, seed: int, views: int = 2) -> PatchSet:
    """Smooth noise, a picture a track, each view of it with noise of its own."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.normal(size=(tracks, 1, 12, 12)).astype(np.float32))
    fine = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic")[:, 0].numpy()
    shown = np.repeat(fine, views, axis=0) + rng.normal(0, 0.3, (tracks * views, 64, 64))
    place = np.repeat(np.arange(tracks), views)
    position = np.zeros((tracks * views, 3), np.float32)
    position[:, 0] = 10 * place
    return PatchSet(
        (128 + 40 * shown).clip(0, 255).astype(np.uint8),
        place.astype(np.int64),
        np.tile(np.arange(views), tracks).astype(np.int32),
        np.zeros(tracks * views, np.int32),
        np.tile(np.array([0, 0, 1], np.float32), (tracks * views, 1)),
        position,
        np.ones(tracks * views, np.float32),
    )


def bundled() -> HardNet:
    network = HardNet()
    weights.load_into(network, weights.load_state_dict("hardnet-bundled", "hardnet"), "hardnet-bundled")
    return network.eval()


def test_batches_are_of_points_that_look_alike() -> None:
    found = texture_set(60, 0)
    # every fourth track looks like the one before it
    patches = found.patches.copy()
    patches[8::8], patches[9::8] = patches[6:-2:8], patches[7:-1:8]
    found = PatchSet(patches, *(getattr(found, key) for key in found.columns()))
    sampler = ConfusableSampler(found, bundled(), group=2)
    assert (sampler.alike[4::4, 0] == np.arange(3, 57, 4)[: len(sampler.alike[4::4])]).all()
    assert (sampler.alike != np.arange(60)[:, None]).all()
    sampler = ConfusableSampler(texture_set(200, 0), bundled(), group=2)
    rng = np.random.default_rng(0)
    together = 0
    for _ in range(20):
        labels = sampler.choose(20, rng)
        assert len(np.unique(labels)) == 20
        together += int(np.isin(sampler.alike[labels], labels).sum())
    assert together / 20 > 1.3 * 20 * 19 * 12 / 199  # of a random choice
    assert sorted(sampler.choose(200, rng)) == list(range(200))
    same = np.random.default_rng(9), np.random.default_rng(9)
    np.testing.assert_array_equal(sampler.choose(20, same[0]), sampler.choose(20, same[1]))


def test_mixtures() -> None:
    old = {"w": torch.zeros(3), "count": torch.tensor(1)}
    new = {"w": torch.tensor([1.0, 2.0, 4.0]), "count": torch.tensor(5)}
    assert mixed(old, new, 0.5)["w"].tolist() == [0.5, 1.0, 2.0]
    assert mixed(old, new, 1.0)["w"].tolist() == [1, 2, 4]
    assert mixed(old, new, 0.0)["w"].tolist() == [0, 0, 0]


def test_adapting_keeps_statistics_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hardnet_match.training import trainer

    learn, choose, network = texture_set(64, 1), texture_set(40, 2), bundled()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    whole = adapt(network, learn, choose, TINY, out=tmp_path / "whole")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name  # what went in stays as it was
    step = trainer.Trainer._step

    def stopping(self: Any, batch: Any, progress: float) -> None:
        if self.state.step == 2:
            self._save()
            raise KeyboardInterrupt
        step(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(trainer.Trainer, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            adapt(network, learn, choose, TINY, out=tmp_path / "parts")
    parts = adapt(network, learn, choose, TINY, out=tmp_path / "parts")
    assert (parts.share, parts.step, parts.after, parts.history.steps) == (whole.share, whole.step, whole.after, 3)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, parts.network.state_dict()[name]), name
        if "running" in name:
            assert torch.equal(value, before[name]), name
    last = weights.read_checkpoint(tmp_path / "whole" / "last.safetensors").state
    assert any(not torch.equal(last[name], before[name]) for name in last)


def test_a_run_that_learns_nothing_gives_back_what_went_in(tmp_path: Path) -> None:
    network = bundled()
    plan = Plan(passes=1, steps=(2, 2), batch=32, rate=1e3, evaluations=1)  # so fast that everything is lost
    came = adapt(network, texture_set(40, 1), texture_set(20, 2), plan, out=tmp_path)
    assert (came.share, came.step, came.after) == (0, 0, came.before)
    for name, value in network.state_dict().items():
        assert torch.equal(value, came.network.state_dict()[name]), name
    with pytest.raises(DataError, match="too few points"):
        adapt(network, texture_set(10, 1), texture_set(20, 2), plan, out=tmp_path)


# the verdict and the page ---------------------------------------------------------------------------------------------


def made_figures(*precisions: float, correct: int = 100, fpr: float = 0.01) -> Figures:
    pairs = tuple(PairFigures("a.jpg", f"{n}.jpg", 50, p, p, 120, correct) for n, p in enumerate(precisions))
    total = correct * len(pairs)
    mean = float(np.mean(precisions))
    return Figures(fpr, mean, mean, 120 * len(pairs), total, total / (120 * len(pairs)), pairs)


def test_verdict() -> None:
    before = made_figures(0.8, 0.9)
    assert verdict(before, made_figures(0.82, 0.9))[0]
    better, reason = verdict(before, made_figures(0.8, 0.89))
    assert not better
    assert "not improved" in reason
    assert "85.00 -> 84.50" in reason
    assert not verdict(before, made_figures(0.9, 0.9, correct=95))[0]
    assert verdict(before, made_figures(0.9, 0.9, correct=99))[0]
    assert not verdict(before, None)[0]
    assert change_error(before, made_figures(0.82, 0.94)) == pytest.approx(0.01)
    assert change_error(made_figures(0.8), made_figures(0.9)) is None


class Strict(HTMLParser):
    """Elements closed in the order they were opened, and everything they would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("improved", [True, False])
def test_page_is_whole_and_loads_nothing(improved: bool) -> None:
    patch = np.tile(np.arange(32, dtype=np.uint8), (32, 1))
    html = finetune_page(
        FinetunePage(
            "On <photos>",
            "It helped.",
            improved,
            [Row("matching mAP", 0.5, 0.625, error=0.01), Row("FPR95", 0.01, 0.012, lower=True)],
            [("a&b.jpg", "c.jpg", 50, (0.5, 0.4), (30, 35))],
            [(1, 0.7), (2, 0.6)],
            [(0, 0.5), (2, 0.6)],
            2,
            0.5,
            {"seed": "0"},
            ["So."],
            [("pair", np.zeros((20, 30, 3), np.uint8))],
            [Strip([patch] * 3, "one")],
            [],
            np.zeros((20, 30, 3), np.uint8),
            {"gained": 1, "lost": 0},
        )
    )
    parser = Strict()
    parser.feed(html)
    assert parser.open == []
    assert len(parser.loads) == 5
    assert all(load.startswith("data:image/") for load in parser.loads)
    assert not re.search(r"https?://|<script|url\(", html)
    assert "On &lt;photos&gt;" in html
    assert "a&amp;b.jpg" in html
    assert '<span class="up">+12.50 ± 1.00</span>' in html
    assert '<span class="down">+0.200</span>' in html  # more false positives
    assert ("verdict worse" in html) != improved
    assert "prefers-color-scheme: dark" in html


def test_chart_spans_its_values() -> None:
    svg = line_chart([0, 10, 20], [0.5, 0.25, 0.75], title="t", x_name="step", level=(0.9, "start"), chosen=10)
    places = re.search(r'points="([^"]+)"', svg)
    assert places is not None
    points = np.array([[float(v) for v in pair.split(",")] for pair in places[1].split()])
    assert (np.diff(points[:, 0]) > 0).all()
    assert points[1, 1] > points[0, 1] > points[2, 1]  # down is less
    assert 'class="chosen"' in svg
    assert "Nothing" in line_chart([], [], title="t", x_name="step")
    assert "<circle" in line_chart([3], [1.0], title="t", x_name="step")


# the job --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of the rendered world with its true model: points drawn on the surfaces, seen where nothing hides them."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("scene")
    (folder / "photos").mkdir()
    (folder / "model").mkdir()
    world = World(seed=5, texel=0.012)
    shots = world.render(6, SIZE)
    rng = np.random.default_rng(0)
    points = np.concatenate([_on_surface(shot, rng, 110) for shot in shots])
    width, height = SIZE
    k = shots[0].K
    lines = {
        "cameras": [f"1 PINHOLE {width} {height} {k[0, 0]} {k[1, 1]} {k[0, 2] + 0.5} {k[1, 2] + 0.5}"],
        "images": [],
        "points3D": [],
    }
    tracks: dict[int, list[tuple[int, int]]] = {}
    with FeatureWriter(folder / "features.h5", {"made": "by hand"}) as writer:
        for number, shot in enumerate(shots, 1):
            name = f"{number}.png"
            Image.fromarray(shot.image).save(folder / "photos" / name)
            inside = points @ shot.R.T + shot.t
            xy = inside @ k.T
            xy = xy[:, :2] / xy[:, 2:]
            rows = np.flatnonzero(((xy >= 2) & (xy < np.array(SIZE) - 3)).all(axis=1) & (inside[:, 2] > 0))
            depth = shot.depth[xy[rows, 1].round().astype(int), xy[rows, 0].round().astype(int)]
            rows = rows[np.abs(depth - inside[rows, 2]) < 0.05]
            lafs = make_lafs(xy[rows], 0.45 * k[0, 0] / inside[rows, 2])
            ones = np.ones(len(rows), np.float32)
            writer.write(name, Features(lafs, ones, np.zeros((len(rows), 4), np.float32), SIZE))
            lines["images"].append(f"{number} {_quaternion(shot.R)} {' '.join(map(str, shot.t))} 1 {name}")
            lines["images"].append(
                " ".join(f"{x + 0.5} {y + 0.5} {p + 1}" for (x, y), p in zip(xy[rows], rows, strict=True))
            )
            for place, point in enumerate(rows):
                tracks.setdefault(int(point), []).append((number, place))
    single = {point for point, seen in tracks.items() if len(seen) < 2}
    for number in range(1, 12, 2):  # points seen once are none
        words = lines["images"][number].split()
        for place in range(2, len(words), 3):
            words[place] = "-1" if int(words[place]) - 1 in single else words[place]
        lines["images"][number] = " ".join(words)
    for point, seen in tracks.items():
        if point not in single:
            where = " ".join(f"{image} {place}" for image, place in seen)
            lines["points3D"].append(f"{point + 1} {' '.join(map(str, points[point]))} 0 0 0 0.1 {where}")
    for kind, text in lines.items():
        (folder / "model" / f"{kind}.txt").write_text("\n".join(text) + "\n")
    return folder


def _on_surface(shot: Any, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """World points of pixels drawn at random."""
    x, y = rng.integers(6, SIZE[0] - 6, 4 * count), rng.integers(6, SIZE[1] - 6, 4 * count)
    depth = shot.depth[y, x]
    keep = np.flatnonzero(np.isfinite(depth) & (depth < 30))[:count]
    pixels = np.stack([x, y, np.ones_like(x)], axis=1)[keep]
    inside = pixels @ np.linalg.inv(shot.K).T * depth[keep, None]
    return np.asarray((inside - shot.t) @ shot.R)


def _quaternion(rotation: NDArray[np.float64]) -> str:
    from hardnet_match.sfm.colmap import pycolmap

    x, y, z, w = pycolmap.Rotation3d(rotation).quat
    return f"{w} {x} {y} {z}"


def test_views_of_a_model(scene: Path) -> None:
    frames = find_frames(scene / "model")
    assert frames.name == "features.h5"
    views = read_views(scene / "model", frames)
    assert [view.name for view in views] == [f"{n}.png" for n in range(1, 7)]
    for one, other in ((views[0], views[1]), (views[2], views[5])):
        shared, first, second = np.intersect1d(one.point, other.point, return_indices=True)
        rows = np.flatnonzero(shared != NO_POINT)
        pairs = np.stack([first[rows], second[rows]], axis=1)
        assert len(pairs) > 20
        assert epipolar_distance(one, other, pairs).max() < 0.01
        assert (epipolar_distance(one, other, np.roll(pairs, 3, axis=0) * [1, 0] + pairs * [0, 1]) > 1).mean() > 0.7


def test_a_model_without_frames_is_told(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ReconstructionError, match=r"features\.h5"):
        find_frames(tmp_path / "a" / "b" / "c")
    with FeatureWriter(tmp_path / "features.h5", {}) as writer, FeatureReader(scene / "features.h5") as reader:
        for name in reader.names():
            writer.write(name, reader.read(name).select(slice(0, 50)))
    with pytest.raises(ReconstructionError, match="not of the same run"):
        read_views(scene / "model", tmp_path / "features.h5")


def run_job(scene: Path, output: Path, **changes: Any) -> Any:
    options: dict[str, Any] = {"model": scene / "model", "plan": TINY, "device": "cpu", "quiet": True, **changes}
    return job.finetune(scene / "photos", output, **options)


def test_job_writes_weights_and_page_and_goes_on(scene: Path, tmp_path: Path) -> None:
    output = tmp_path / "mine.safetensors"
    summary = run_job(scene, output)
    assert summary.held
    assert summary.points >= 40
    assert summary.steps == 3
    kept = weights.read_checkpoint(output)
    state, start = kept.state, weights.load_state_dict("hardnet-bundled", "hardnet")
    changed = any(not torch.equal(state[name], start[name].half().float()) for name in state)
    assert changed == summary.improved
    assert kept.about["architecture"] == "hardnet"
    page = Path(summary.page).read_text(encoding="utf-8")
    parser = Strict()
    parser.feed(page)
    assert parser.open == []
    assert summary.held[0] in page
    assert f"{100 * summary.before['matching_map']:.2f} %" in page
    # not one patch of a held-out photo was even cut
    held = {view.image_id for view in read_views(scene / "model", scene / "features.h5") if view.name in summary.held}
    for name in ("learn.h5", "choose.h5"):
        assert not held & set(PatchSet.load(Path(summary.work) / name).image.tolist())
    again = run_job(scene, output)
    assert "done" in again.reused
    assert json.dumps([again.before, again.after]) == json.dumps([summary.before, summary.after])
    Path(summary.page).unlink()
    once_more = run_job(scene, output)
    assert Path(summary.page).is_file()
    assert json.dumps(once_more.after) == json.dumps(summary.after)


def test_worse_weights_are_not_taken(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = finetune_stages.measure
    calls: list[int] = []

    def second_time_worse(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        figures, answers = real(*arguments, **options)
        return (made_figures(*[0.0] * len(figures.pairs)) if len(calls) > 1 else figures), answers

    def learned(network: Any, *arguments: Any, **options: Any) -> Any:
        came = adapt(network, *arguments, **options)
        other = copy.deepcopy(network)
        with torch.no_grad():
            next(other.parameters()).mul_(1.01)
        return job.replace(came, network=other, share=0.5, step=3)

    monkeypatch.setattr(finetune_stages, "measure", second_time_worse)
    monkeypatch.setattr(job, "adapt", learned)
    summary = run_job(scene, tmp_path / "mine.safetensors")
    assert not summary.improved
    assert "not improved" in summary.words()
    assert "not improved" in Path(summary.page).read_text().lower()
    start = weights.load_state_dict("hardnet-bundled", "hardnet")
    for name, value in weights.read_checkpoint(tmp_path / "mine.safetensors").state.items():
        assert torch.equal(value, start[name]), name


def test_what_cannot_work_is_told(scene: Path, tmp_path: Path) -> None:
    photos, model = str(scene / "photos"), str(scene / "model")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.safetensors").write_bytes(b"precious")
    for arguments, code, words in (
        ([photos, "-o", str(tmp_path / "w.pth"), "--model", model], 2, "safetensors"),
        ([photos, "-o", str(tmp_path / "other.safetensors"), "--model", model], 2, "--overwrite"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--from", "rootsift", "--model", model], 2, "no weights"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--from", "affnet", "--model", model], 2, "no descriptor"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--from", "no-such", "--model", model], 1, "no-such"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--hold-out", "1.5", "--model", model], 2, "between 0 and 1"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--minutes", "0", "--model", model], 2, "minutes"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--model", str(tmp_path / "empty")], 1, "empty"),
        ([str(tmp_path / "empty"), "-o", str(tmp_path / "w.safetensors")], 2, "no images"),
        ([photos, "-o", str(tmp_path / "w.safetensors"), "--detector", "eye"], 2, "eye"),
    ):
        result = CliRunner().invoke(app, ["finetune", *arguments, "--quiet"])
        assert result.exit_code == code, result.output
        assert words in result.output
        assert "Traceback" not in result.output
    assert (tmp_path / "other.safetensors").read_bytes() == b"precious"


def test_options_errors_are_errors(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        run_job(scene, tmp_path / "w.safetensors", hold_out=0.0)


@pytest.mark.slow
def test_command_from_photos_to_features(rendered: dict[str, Any], tmp_path: Path) -> None:
    """The whole way: photos, fine-tuning, and features by the new weights, which are told apart from the old ones'."""
    output = tmp_path / "mine.safetensors"
    command = ["finetune", str(rendered["folder"]), "-o", str(output), "--minutes", "0.05", "--max-keypoints", "700"]
    result = CliRunner().invoke(app, [*command, "--json", "--quiet"])
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert summary["photos"] >= 4
    assert output.is_file()
    assert output.with_suffix(".html").is_file()
    assert (tmp_path / "mine-finetune" / "reconstruction" / "sparse" / "0").is_dir()
    hashes = []
    for name, more in (("old.h5", []), ("new.h5", ["--weights", str(output)])):
        extract = ["extract", str(rendered["folder"]), "-o", str(tmp_path / name), "--max-keypoints", "200", *more]
        assert CliRunner().invoke(app, [*extract, "--quiet"]).exit_code == 0
        with FeatureReader(tmp_path / name) as reader:
            hashes.append(reader.settings_hash)
            assert len(reader.read(reader.names()[0])) > 0
    assert hashes[0] != hashes[1]
