"""Weights files of every known form load; hostile, damaged and misplaced ones are refused, and nothing of them runs."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from hardnet_match.descriptors import HardNet, HardNet8, HardNetPS, HardTFeat, TFeat
from hardnet_match.errors import WeightsError
from hardnet_match.orientation import OriNet
from hardnet_match.shape import AffNet
from hardnet_match.weights import load_into, load_state_dict, names, resolve
from hardnet_match.weights.inert import InertUnpickler
from hardnet_match.weights.reading import read_state


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 2, 3))
        self.register_buffer("components", torch.rand(6, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.features(x)


def _small() -> Small:
    torch.manual_seed(1)
    network = Small()
    network(torch.rand(8, 1, 9, 9))  # gives BatchNorm statistics of its own
    return network.eval()


def _same(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(state) == set(expected)
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value.float() if value.is_floating_point() else value, rtol=0, atol=0)


WRITERS: dict[str, Callable[[dict[str, torch.Tensor], Path], None]] = {
    "safetensors": lambda s, p: save_file(s, p),
    "bare": lambda s, p: torch.save(s, p),
    "bare-old": lambda s, p: torch.save(OrderedDict(s), p, _use_new_zipfile_serialization=False),
    "wrapped": lambda s, p: torch.save({"epoch": 3, "state_dict": s, "optimizer": {"lr": 0.1}}, p),
    "wrapped-old": lambda s, p: torch.save({"epoch": 3, "state_dict": s}, p, _use_new_zipfile_serialization=False),
    "parallel": lambda s, p: torch.save({f"module.{k}": v for k, v in s.items()}, p),
    "hardtfeat": lambda s, p: torch.save({"state_dict": {**s, "SIFT.gx.0.weight": torch.rand(3)}}, p),
    "parameters": lambda s, p: torch.save({k: nn.Parameter(v, v.is_floating_point()) for k, v in s.items()}, p),
}


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_of_a_state_dict_is_read(tmp_path: Path, form: str) -> None:
    state = _small().state_dict()
    path = tmp_path / "weights of mine.bin"
    WRITERS[form](state, path)
    found = read_state(path)
    _same(found, state)
    assert not any(value.requires_grad for value in found.values())


def test_half_precision_comes_back_as_float32(tmp_path: Path) -> None:
    state = {key: value.half() if value.is_floating_point() else value for key, value in _small().state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    assert read_state(tmp_path / "a.safetensors")["features.0.weight"].dtype == torch.float32


@pytest.mark.parametrize("make", [torch.jit.script, lambda n: torch.jit.trace(n, torch.rand(1, 1, 9, 9))])
def test_torchscript_gives_its_tensors(tmp_path: Path, make: Callable[[nn.Module], Any]) -> None:
    network = _small()
    make(network).save(tmp_path / "a.jitpt")
    _same(read_state(tmp_path / "a.jitpt"), network.state_dict())


def test_torchscript_code_is_not_even_parsed(tmp_path: Path) -> None:
    torch.jit.script(_small()).save(tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as good, zipfile.ZipFile(tmp_path / "b.pt", "w") as broken:
        for info in good.infolist():
            broken.writestr(info, b"this is no code" if info.filename.endswith(".py") else good.read(info))
    with pytest.raises(RuntimeError):
        torch.jit.load(tmp_path / "b.pt")
    _same(read_state(tmp_path / "b.pt"), _small().state_dict())


class StandIn:
    """What the pickle of a fitted scikit-learn PCA holds, where scikit-learn is not installed."""

    def __init__(self, count: int) -> None:
        self.n_components, self.whiten, self.noise_variance_ = count, False, np.float64(0.1)

    def fit(self, data: Any) -> StandIn:
        self.mean_ = data.mean(axis=0)
        self.components_ = np.linalg.svd(data - self.mean_, full_matrices=False)[2][: self.n_components]
        return self


def _pca_class() -> Any:
    try:
        from sklearn.decomposition import PCA
    except ImportError:
        for name in ("sklearn", "sklearn.decomposition", "sklearn.decomposition._pca"):
            sys.modules.setdefault(name, types.ModuleType(name))
        StandIn.__module__, StandIn.__name__, StandIn.__qualname__ = "sklearn.decomposition._pca", "PCA", "PCA"
        sys.modules["sklearn.decomposition._pca"].PCA = StandIn  # type: ignore[attr-defined]
        return StandIn
    return PCA


def _with_pca(path: Path, old: bool = False, **changes: Any) -> Any:
    data = np.random.default_rng(0).normal(size=(80, 12)).astype(np.float32)
    pca = _pca_class()(5).fit(data)
    for name, value in changes.items():
        setattr(pca, name, value)
    checkpoint = {"epoch": 1, "state_dict": _small().state_dict(), "model_arch": "h8", "save_name": "x", "pca": pca}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=not old)
    return pca


@pytest.mark.parametrize("old", [False, True])
def test_a_pickled_pca_is_read_without_scikit_learn(tmp_path: Path, old: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pca = _with_pca(tmp_path / "h8.pt", old)
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)  # an import of it would fail now
    state = read_state(tmp_path / "h8.pt")
    np.testing.assert_array_equal(state["components"].numpy(), pca.components_.T.astype(np.float32))
    np.testing.assert_array_equal(state["mean"].numpy(), pca.mean_.astype(np.float32))
    expected = {k: v for k, v in _small().state_dict().items() if k != "components"}
    _same({key: value for key, value in state.items() if key not in ("components", "mean")}, expected)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"whiten": True}, "whitens"),
        ({"components_": None}, "not fitted"),
        ({"mean_": np.zeros(3, np.float32)}, r"mean \(3,\)"),
        ({"components_": np.array([["a", None]], object)}, "not hold plain numbers|is not rebuilt"),
        ({"mean_": np.array(["text"])}, "is not rebuilt"),
    ],
)
def test_a_pca_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    _with_pca(tmp_path / "h8.pt", **changes)
    with pytest.raises(WeightsError, match=reason):
        read_state(tmp_path / "h8.pt")


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def _mark(path: Path) -> list[Any]:
    """Objects that leave a file behind if anything of them runs."""
    return [
        Call(os.system, f"touch '{path}'"),
        Call(eval, f"open({str(path)!r}, 'w').close()"),
        Call(exec, f"open({str(path)!r}, 'w').close()"),
        Call(open, str(path), "w"),
        Call(torch.save, {}, str(path)),
        Call(np.save, str(path), np.zeros(1)),
        Call(Path.touch, path),
        Call(__import__, "os"),
    ]


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("place", ["value", "beside", "pca"])
def test_hostile_pickles_are_refused_and_not_run(tmp_path: Path, number: int, old: bool, place: str) -> None:
    mark = tmp_path / "ran"
    bad = _mark(mark)[number]
    state = dict(_small().state_dict())
    content = {"value": {**state, "features.9": bad}, "beside": {"state_dict": state, "x": bad}}.get(place)
    torch.save(
        content or {"state_dict": state, "pca": bad}, tmp_path / "evil.pth", _use_new_zipfile_serialization=not old
    )
    with pytest.raises(WeightsError, match=r"evil\.pth: .*(could run code|not a tensor|not a scikit-learn)") as caught:
        read_state(tmp_path / "evil.pth")
    assert "safetensors" in str(caught.value), "the way out is told"
    assert not mark.exists()


def test_hostile_torchscript_pickles_are_refused_and_not_run(tmp_path: Path) -> None:
    torch.jit.script(_small()).save(tmp_path / "a.pt")
    mark = tmp_path / "ran"
    with zipfile.ZipFile(tmp_path / "a.pt") as good, zipfile.ZipFile(tmp_path / "b.pt", "w") as evil:
        for info in good.infolist():
            bad = pickle.dumps(Call(os.system, f"touch '{mark}'"), protocol=2)
            evil.writestr(info, bad if info.filename.endswith("/data.pkl") else good.read(info))
    with pytest.raises(WeightsError, match="could run code"):
        read_state(tmp_path / "b.pt")
    assert not mark.exists()


def test_a_pickle_cannot_change_the_functions_it_may_call() -> None:
    """BUILD on a function would set its attributes; the functions handed out have none to set."""
    for name in (b"torch._utils\n_rebuild_tensor_v2", b"_codecs\nencode", b"numpy._core.multiarray\nscalar"):
        attack = b"\x80\x02c" + name + b"\nN}(X\x0c\x00\x00\x00__defaults__)u\x86b."
        with pytest.raises(WeightsError, match="attributes of a function"):
            InertUnpickler(io.BytesIO(attack)).load()
    assert torch._utils._rebuild_tensor_v2.__defaults__ is not None


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_files_are_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(["safetensors", "bare", "bare-old"]))
    path = tmp_path / "a.bin"
    WRITERS[form](_small().state_dict(), path)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=5)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        state = read_state(path)
    except WeightsError as error:
        state, reason = {}, str(error)
    assert all(isinstance(value, torch.Tensor) for value in state.values()) if state else str(path) in reason


@pytest.mark.parametrize("form", ["safetensors", "bare", "bare-old"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.95])
def test_cut_off_files_are_refused(tmp_path: Path, form: str, part: float) -> None:
    path = tmp_path / "a.pth"
    WRITERS[form](_small().state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(WeightsError, match=r"a\.pth: .*(cut off|not a weights file)"):
        read_state(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "failed download"),
        (b"version https://git-lfs.github.com/spec/v1", "failed download"),
        (b"\x89PNG\r\n\x1a\n" * 9, "not a weights file"),
        (b"PK\x03\x04 and no more", "damaged or cut off"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=rf"a\.pth: .*{reason}"):
        read_state(tmp_path / "a.pth")


def test_contents_that_are_no_state_dict_are_refused(tmp_path: Path) -> None:
    for content in ([1, 2], {}, {"state_dict": {}}, {"a": 3}, {3: torch.rand(2)}, torch.rand(3)):
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(WeightsError, match=r"a\.pth"):
            read_state(tmp_path / "a.pth")
    torch.save({"a": torch.tensor([1.0, float("nan")])}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="a holds NaN"):
        read_state(tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_state(tmp_path / "none.pth")


NETWORKS = [HardNet, HardNet8, HardNetPS, TFeat, HardTFeat, AffNet, OriNet]


@pytest.mark.parametrize("made_for", NETWORKS)
@pytest.mark.parametrize("network", NETWORKS)
def test_weights_fit_their_own_network_and_no_other(network: type[nn.Module], made_for: type[nn.Module]) -> None:
    torch.manual_seed(3)
    state, other = made_for().state_dict(), network()
    if network is made_for:
        load_into(other, {k: v for k, v in state.items() if "num_batches" not in k}, "mine.pth")
        for key, value in other.state_dict().items():
            assert "num_batches" in key or torch.equal(value, state[key])
    else:
        before = {key: value.clone() for key, value in other.state_dict().items()}
        reason = r"(it lacks|it has|\S+ is \(.* instead of \()"
        with pytest.raises(
            WeightsError, match=rf"mine\.pth: made for another network than {network.__name__}: {reason}"
        ):
            load_into(other, state, "mine.pth")
        assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items()), "left untouched"


OFFICIAL = [
    ("affnet_repo/AffNet.pth", AffNet, "affnet"),
    ("affnet_repo/OriNet.pth", OriNet, "orinet"),
    ("affnet_repo/HardTFeat.pth", HardTFeat, "hardtfeat"),
    ("tfeat/tfeat-liberty.params", TFeat, "tfeat"),
]


@pytest.mark.parametrize(("file", "network", "architecture"), OFFICIAL)
def test_the_originals_files_load(shared: Path, file: str, network: type[nn.Module], architecture: str) -> None:
    path = shared / "weights" / file
    if not path.exists():
        pytest.skip(f"no {path}")
    module = network()
    load_into(module, load_state_dict(path, architecture), file)
    expected = torch.load(path, map_location="cpu", weights_only=True)
    expected = expected.get("state_dict", expected)
    loaded = module.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in expected.items() if not key.startswith("SIFT."))


@pytest.mark.parametrize(("file", "network"), [("AffNet", AffNet), ("OriNet", OriNet)])
def test_the_originals_torchscript_has_the_same_tensors(shared: Path, file: str, network: type[nn.Module]) -> None:
    """Also BatchNorm's statistics, which torch.jit.load(...).state_dict() leaves out for archives of 2020."""
    folder = shared / "weights" / "affnet_repo"
    if not folder.exists():
        pytest.skip(f"no {folder}")
    plain, script = read_state(folder / f"{file}.pth"), read_state(folder / f"{file}JIT.pt")
    assert set(plain) <= set(script)
    for key, value in plain.items():
        torch.testing.assert_close(script[key], value, rtol=0, atol=0)
    load_into(network(), script, file)


def test_keynet_loads_into_kornias_network(shared: Path) -> None:
    import kornia.feature as kf

    path = shared / "weights" / "keynet" / "keynet_pytorch.pth"
    if not path.exists():
        pytest.skip(f"no {path}")
    network, state = kf.KeyNet(False), load_state_dict(path, "keynet")
    load_into(network, state, "keynet")
    for key, value in network.state_dict().items():
        assert "num_batches" in key or torch.equal(value, state[key]), key


def test_bundled_names_lead_to_files_in_the_package() -> None:
    import hardnet_match.weights

    here = Path(hardnet_match.weights.__file__).parent
    for name in ("hardnet-bundled", "affnet-bundled", "orinet-bundled"):
        assert name in names()
        path = resolve(name)
        assert path.parent == here
        assert path.is_file()


def test_names_of_another_network_and_unknown_names_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"'hardnet\+\+' are for hardnet, not for affnet; .*affnet-bundled"):
        load_state_dict("hardnet++", "affnet")
    with pytest.raises(WeightsError, match=r"no weights named 'hardnet-libery'.*did you mean hardnet-liberty"):
        resolve("hardnet-libery")
    with pytest.raises(WeightsError, match=r"no/such\.pth: no such weights file"):
        resolve("no/such.pth")
