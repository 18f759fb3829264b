"""Recipes: those that ship, what is refused, and the way to a file and back."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from training_helpers import made_up_set

from hardnet_match.architectures import load_network
from hardnet_match.errors import OptionError, WeightsError
from hardnet_match.jobs.train import train
from hardnet_match.training import assemble
from hardnet_match.training import recipe as recipes
from hardnet_match.training.confusable import ConfusableSampler
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.recipe import DataPart, NetworkPart, Recipe, RunPart, SchedulePart
from hardnet_match.training.sampling import MixedSampler, PairSampler, TupleSampler

SHIPPED = recipes.names()
PLAIN: dict[str, Any] = {"task": "descriptor", "network": {"name": "hardnet"}, "data": {"train": ["a"]}}


def test_the_originals_and_ours_ship() -> None:
    assert {
        "hardnet-lib", "hardnet-lib-plus", "6brown", "hpatches-a", "hpatches-b", "hpatches-c", "hpatches-view",
        "hpatches-illum", "hardnet8-univ", "hardnet8-ptv2", "affnet", "orinet", "bundled-hardnet", "bundled-affnet",
        "bundled-hardnet-frames", "bundled-orinet",
    } == set(SHIPPED)  # fmt: skip


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_makes_a_run(name: str, tmp_path: Path) -> None:
    """It is valid, comes back from its file, and its network, sampler, loss and augmentation go together."""
    recipe = recipes.read(recipes.find(name))
    (tmp_path / "r.toml").write_text(recipes.to_toml(recipe))
    assert recipes.read(tmp_path / "r.toml") == recipe
    assert recipe.about
    network = assemble.make_network(recipe)
    descriptor = None if recipe.task == "descriptor" else assemble.make_network(recipes.from_values(PLAIN))
    task = assemble.make_task(recipe, network, descriptor)
    sets = [made_up_set(30, seed=seed) for seed in range(len(recipe.data.train))]
    sampler = assemble.make_sampler(recipe, sets)
    schedule, optimiser = assemble.make_schedule(recipe), assemble.make_optimiser(recipe)
    assert schedule.steps > 1000
    assert sampler.views == recipe.data.views
    batch = sampler.batch(12, assemble.np.random.default_rng(0), progress=0.0).on("cpu")
    from hardnet_match.training.parallel import Processes
    from hardnet_match.training.tasks import Moment

    task.prepare(torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    for progress in (0.0, 0.9):
        loss = task.loss(batch, Moment(progress, 0.0, generator, torch.device("cpu"), None, Processes()))
        assert torch.isfinite(loss)
        loss.backward()
    assert any(parameter.grad is not None for parameter in network.parameters())
    assert optimiser.name == recipe.optimiser.name


def test_the_originals_numbers() -> None:
    lib = recipes.read(recipes.find("hardnet-lib"))
    assert (lib.schedule.batch, lib.schedule.epochs, lib.schedule.pairs_an_epoch) == (1024, 10, 5_000_000)
    assert (lib.optimiser.rate, lib.optimiser.momentum, lib.optimiser.dampening) == (10.0, 0.9, 0.9)
    assert lib.optimiser.weight_decay == 1e-4
    assert lib.augment == {}
    assert recipes.read(recipes.find("hardnet-lib-plus")).augment == {"fliprot": {}}
    assert recipes.read(recipes.find("6brown")).schedule.pairs_an_epoch == 30_000_000
    ptv2 = recipes.read(recipes.find("hardnet8-ptv2"))
    assert (ptv2.network.name, ptv2.schedule.batch, ptv2.loss.margin, ptv2.data.few_images) == (
        "h8E512",
        9000,
        0.5,
        True,
    )
    univ = recipes.read(recipes.find("hardnet8-univ"))
    assert (univ.network.name, univ.loss.name, univ.schedule.kind) == ("h8", "triplet_margin++", "one-cycle")
    affnet = recipes.read(recipes.find("affnet"))
    assert (affnet.optimiser.rate, affnet.loss.name, affnet.schedule.epochs) == (0.005, "hardnegc", 20)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("schedule.bach=2", ["unknown key schedule.bach", "schedule.batch"]),
        ("sede=2", ["unknown key sede", "seed"]),
        ("optimizer.rate=1", ["unknown key optimizer", "optimiser"]),
        ("schedule.batch=2.5", ["schedule.batch", "whole number"]),
        ("schedule.batch=true", ["schedule.batch", "whole number"]),
        ("optimiser.rate=fast", ["optimiser.rate", "number", "fast"]),
        ("optimiser.rate=nan", ["optimiser.rate", "nan"]),
        ("optimiser.rate=0", ["optimiser.rate"]),
        ("data.wide=1", ["data.wide", "true or false"]),
        ("data.train=a", ["data.train", "list"]),
        ("data.train=[]", ["data.train"]),
        ("data.train=[1]", ["data.train", "text"]),
        ("data=3", ["data is a table"]),
        ("task=describe", ["task", "describe", "descriptor"]),
        ("network.name=hardnett", ["hardnett", "did you mean 'hardnet'"]),
        ("network.name=affnet", ["affnet", "shape", "descriptor"]),
        ("data.evaluate=[\"a\"]", ["trained on and evaluated on"]),
        ("data.weights=[1, 2]", ["data.weights", "2 numbers for 1"]),
        ("schedule.pairs_an_epoch=7", ["epoch of 7", "1024"]),
        ("network=hardnet", ["network is a table"]),
        ("augment={fliprot = 3}", ["augment.fliprot", "table"]),
        ("learn.teacher=moon", ["moon", "frame"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(change: str, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('task = "descriptor"\n[network]\nname = "hardnet"\n[data]\ntrain = ["a"]\n')
    recipes.read(path)
    with pytest.raises(OptionError) as told:
        recipes.read(path, [change])
    assert str(told.value).startswith(str(path))
    for word in words:
        assert word in str(told.value)


def test_every_set_has_the_pieces_that_name_it() -> None:
    univ = recipes.read(recipes.find("hardnet8-univ"))
    augment = assemble.make_augmentations(univ)
    assert [[type(piece).__name__ for piece in one.geometry] for one in augment.each] == [
        ["FlipRot", "Amos"],
        ["FlipRot"],
    ]


def test_what_does_not_go_together_is_told() -> None:
    for values, word in (
        ({"augment": {"amos": {"sets": ["b"]}}}, "augment.amos.sets.*'b'"),
        ({"augment": {"amos": {"sets": "a"}}}, "augment.amos.sets"),
        ({"augment": {"amos": {"sets": ["a"]}}, "data": {"train": ["a", "b"]}}, "data.mix batch or epoch"),
        ({"augment": ["flip"]}, "flip"),
        ({"loss": {"name": "tripletmargin"}}, "tripletmargin"),
        ({"data": {"train": ["a"], "views": 4}}, "views"),
    ):
        recipe = recipes.from_values({**PLAIN, **values})
        with pytest.raises(OptionError, match=word):
            assemble.make_task(recipe, assemble.make_network(recipe), None)
    recipe = recipes.from_values(
        {**PLAIN, "loss": {"mining": "random_global"}, "data": {"train": ["a"], "few_images": True}}
    )
    with pytest.raises(OptionError, match="random_global"):
        assemble.make_sampler(recipe, [made_up_set(10)])
    with pytest.raises(OptionError, match=r"network\.start"):
        assemble.make_sampler(
            recipes.from_values({**PLAIN, "data": {"train": ["a"], "confusable": ["a"]}}), [made_up_set(10)]
        )


def test_normalisation_is_kept_and_batches_are_of_what_looks_alike(tmp_path: Path) -> None:
    """The weights learn, their normalisation does not; what comes out has its own names."""
    made_up_set(60).save(tmp_path / "a.h5")
    made_up_set(40, seed=1).save(tmp_path / "b.h5")
    values = {
        **PLAIN,
        "network": {"name": "hardnet", "start": "hardnet-bundled", "normalisation": "kept"},
        "data": {"train": ["a", "b"], "mix": "batch", "confusable": ["a"]},
        "augment": {"photometric": {"defocus": 1.5}},
        "schedule": {"batch": 16, "epochs": 1, "pairs_an_epoch": 64},
        "optimiser": {"precision": "float32"},
    }
    recipe = recipes.from_values(values)
    sampler = assemble.make_sampler(recipe, [PatchSet.load(tmp_path / "a.h5"), PatchSet.load(tmp_path / "b.h5")])
    assert isinstance(sampler, MixedSampler)
    assert [type(one) for one in sampler.samplers] == [ConfusableSampler, PairSampler]
    summary = train(recipe, tmp_path / "run", data=tmp_path, device="cpu", tensorboard=False)
    before, after = (
        load_network("hardnet-bundled").network.state_dict(),
        load_network(summary.last).network.state_dict(),
    )
    for name, value in after.items():
        assert torch.equal(value, before[name].float()) == (not name.endswith("weight")), name
    with pytest.raises(OptionError, match="kept is for descriptors"):
        recipes.from_values({**PLAIN, "task": "shape", "network": {"name": "affnet", "normalisation": "kept"}})
    for wrong in ({"confusable": ["c"]}, {"confusable": ["a"], "views": 3}, {"confusable": ["a"], "wide": True}):
        with pytest.raises(OptionError, match=r"data\.confusable"):
            recipes.from_values({**PLAIN, "data": {"train": ["a"], **wrong}})


def test_missing_keys_and_files_are_told(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="task, network, data must be given"):
        recipes.from_values({})
    with pytest.raises(OptionError, match="hardnet-lib"):
        recipes.find("hardnet-lbi")
    (tmp_path / "no.toml").write_text("task = ")
    with pytest.raises(OptionError, match=r"no\.toml.*Invalid value"):
        recipes.read(tmp_path / "no.toml")
    with pytest.raises(OptionError, match="key=value"):
        recipes.read(recipes.find("hardnet-lib"), ["schedule.batch"])
    with pytest.raises(OptionError, match="not a table"):
        recipes.read(recipes.find("hardnet-lib"), ["task.name=3"])


@given(
    about=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])) | st.just('a "b" \\ c\n\td'),
    rate=st.floats(1e-12, 1e12), minutes=st.floats(1e-3, 1e6) | st.just(math.inf), batch=st.integers(2, 5000),
    focus=st.floats(0, 1), names=st.lists(st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True), min_size=1, unique=True),
    shift=st.floats(0, 3),
)  # fmt: skip
def test_a_recipe_comes_back_from_its_file(
    about: str, rate: float, minutes: float, batch: int, focus: float, names: list[str], shift: float
) -> None:
    recipe = Recipe(
        "descriptor", NetworkPart("h8"), DataPart(tuple(names), make={"a b": "make {file}"}, focus=focus), about=about,
        augment={"fliprot": {}, "jitter": {"shift": shift}}, optimiser=recipes.OptimiserPart(rate=rate),
        schedule=SchedulePart(batch=batch, minutes=minutes),
    )  # fmt: skip
    from hardnet_match.training.typed import tomllib

    assert recipes.from_values(tomllib.loads(recipes.to_toml(recipe))) == recipe


def test_what_decides_the_weights_is_the_identity() -> None:
    recipe = recipes.from_values(PLAIN)
    same = dataclasses.replace(
        recipe,
        about="other words",
        run=RunPart(report=7),
        schedule=SchedulePart(minutes=5),
        network=NetworkPart("hardnet"),
    )
    assert recipes.identity(recipe) == recipes.identity(same)
    for change in (
        {"seed": 1}, {"schedule": {"batch": 512}}, {"augment": {"jitter": {"shift": 1}}}, {"data": {"train": ["b"]}}
    ):  # fmt: skip
        other = recipes.from_values({**PLAIN, **change})
        assert recipes.identity(recipe) != recipes.identity(other)


def test_sets_are_mixed_as_asked() -> None:
    sets = [made_up_set(20), made_up_set(60, seed=1)]

    def sampler(**data: Any) -> Any:
        return assemble.make_sampler(recipes.from_values({**PLAIN, "data": {"train": ["a", "b"], **data}}), sets)

    joined = sampler()
    assert isinstance(joined, MixedSampler)
    assert (joined.by, joined.labels) == ("within", 80)
    assert joined.share.tolist() == [0.25, 0.75]
    assert sampler(mix="batch", weights=[3, 1]).share.tolist() == [0.75, 0.25]
    few = sampler(mix="epoch", few_images=True).samplers[0]
    assert type(few) is TupleSampler
    assert few.few_images
    assert isinstance(sampler(mix="within", focus=0.5).samplers[1], PairSampler)


def test_the_seed_decides_the_start_and_weights_may_take_its_place() -> None:
    plain = assemble.make_network(recipes.from_values(PLAIN))
    again = assemble.make_network(recipes.from_values(PLAIN))
    other = assemble.make_network(recipes.from_values({**PLAIN, "seed": 1}))
    started = assemble.make_network(
        recipes.from_values({**PLAIN, "network": {"name": "hardnet", "start": "hardnet-bundled", "dropout": 0.1}})
    )
    weight = [network.state_dict()["features.0.weight"] for network in (plain, again, other, started)]
    assert torch.equal(weight[0], weight[1])
    assert not torch.equal(weight[0], weight[2])
    assert not torch.equal(weight[0], weight[3])
    assert [m.p for m in started.modules() if isinstance(m, torch.nn.Dropout)] == [0.1]
    with pytest.raises(WeightsError, match="another network"):
        assemble.make_network(recipes.from_values({**PLAIN, "network": {"name": "h8", "start": "hardnet-bundled"}}))


def test_recipes_are_read_without_torch() -> None:
    code = (
        "import sys; from hardnet_match.training import recipe as r; r.read(r.find('affnet'));"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
