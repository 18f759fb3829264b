"""Weights files to state dicts, running nothing that is in them.

Known forms: safetensors; torch.save of a state dict, bare or wrapped as {'state_dict': ...}, old or zip form; the same
with a pickled scikit-learn PCA beside it; TorchScript archives, of which only the tensors are read.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import WeightsError
from .inert import Array, InertUnpickler, Placeholder, Refused, inert_pickle

if TYPE_CHECKING:
    from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "model.")
_OURS_AT_ROOT = ("components", "mean")  # of a TorchScript module's own tensors; others are constants of its code
MAX_BYTES = 2 * 1024**3
EXPORTED = "hardnet_match.json"  # what an exported TorchScript archive has beside its code
WAY_OUT = (
    "Nothing of it was run or loaded. If you trust it, open it where it was made and save its tensors alone: "
    "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a weights file holds.

    Args:
        state: names to tensors, floating ones float32, on the processor.
        about: the file's own words: safetensors' metadata, or the plain values beside a state dict (`epoch`,
            `model_arch`, `save_name`, ...) as text.
        optimizer: the optimiser's state dict, where a checkpoint has one.
    """

    state: dict[str, Tensor]
    about: Mapping[str, str] = field(default_factory=dict)
    optimizer: Mapping[str, Any] | None = None

    @property
    def epoch(self) -> int:
        """Epochs done when it was written; 0 where it does not say."""
        told = self.about.get("epoch", "0")
        return int(told) if told.isdigit() else 0


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a weights file; see `read_checkpoint`."""
    return read_checkpoint(path).state


def read_checkpoint(path: str | Path) -> Checkpoint:
    """A weights file: its state dict, what it says of itself, and the optimiser's state where it has one.

    Prefixes that wrappers leave (`module.`) are taken off, and `SIFT.*` (left in HardTFeat's file) is dropped. A PCA
    becomes the buffers `components` (D, d) and `mean` (D,) that kornia's HardNet8 has.

    Raises:
        WeightsError: missing, cut off, damaged, of an unknown form, or referring to code.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file() or size == 0 or size > MAX_BYTES:
            raise WeightsError(f"{path}: not a weights file ({'empty' if size == 0 else f'{size} bytes'})")
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        content = _read(path, head, size)
    except WeightsError as error:
        reason = str(error)
        raise WeightsError(reason if reason.startswith(str(path)) else f"{path}: {reason}. {WAY_OUT}") from error
    except Exception as error:  # readers raise anything on damaged files
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{path}: damaged or cut off ({size} bytes; {first}); fetch it again from its source"
        ) from error
    return Checkpoint(_tidy(content, path), _about(content, path, head), _optimizer(content))


def _about(content: Any, path: Path, head: bytes) -> dict[str, str]:
    if head[8:9] == b"{":
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    if not isinstance(content, Mapping):
        return {}
    return {str(key): str(value) for key, value in content.items() if isinstance(value, str | int | float)}


def _optimizer(content: Any) -> Mapping[str, Any] | None:
    found = content.get("optimizer") if isinstance(content, Mapping) else None
    return found if isinstance(found, Mapping) else None


def _read(path: Path, head: bytes, size: int) -> Any:
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        from safetensors.torch import load_file

        return load_file(str(path))
    if head.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith(f"/extra/{EXPORTED}") for name in archive.namelist()):
                raise WeightsError(
                    f"{path}: exported for use elsewhere, with its layers merged; take the weights it was exported from"
                )
            if any(name.endswith("/constants.pkl") for name in archive.namelist()):
                return _read_torchscript(archive)
    elif head[:1] != b"\x80":
        raise WeightsError(
            f"{path}: not a weights file (its first bytes are {head[:4]!r}, {size} bytes); expected safetensors, "
            "a torch.save file or a TorchScript archive. A web page or a Git LFS pointer is a failed download; an ONNX "
            "file is for use elsewhere, its weights are in the file it was exported from"
        )
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "weights_only" not in str(error) and "Unsupported" not in str(error):
            raise
        # a name that torch does not know: perhaps the PCA, which can be read without running it
        return torch.load(path, map_location="cpu", weights_only=False, pickle_module=inert_pickle)


def _read_torchscript(archive: zipfile.ZipFile) -> dict[str, Any]:
    """The tensors of a TorchScript module by their names, from its pickle; its code is not even parsed.

    Archives of 2020 do not list BatchNorm's statistics as buffers, so that torch.jit.load(...).state_dict() lacks
    them; here they are.
    """
    import torch

    entries = {info.filename: info for info in archive.infolist()}
    (name,) = [entry for entry in entries if entry.endswith("/data.pkl") and entry.count("/") == 1]
    root = name[: -len("data.pkl")]
    if sum(info.file_size for info in entries.values()) > MAX_BYTES:
        raise WeightsError("the archive claims to be larger than 2 GiB")

    class Unpickler(InertUnpickler):
        def persistent_load(self, key: Any) -> Any:
            tag, dtype, number, _device, count = key[:5]  # old archives have a sixth, a view
            info = entries[f"{root}data/{number}"]
            if tag != "storage" or info.compress_type != zipfile.ZIP_STORED:
                raise Refused("a storage in the archive has an unknown form")
            values = torch.frombuffer(bytearray(archive.read(info)), dtype=dtype)
            if len(values) != count:
                raise WeightsError(f"storage {number} of the archive has {len(values)} of its {count} numbers")
            return values

        def find_class(self, module: str, name: str) -> Any:
            if module == "torch" and name in _STORAGES:
                return getattr(torch, _STORAGES[name])
            return super().find_class(module, name)

        @staticmethod
        def rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Any:
            return torch.empty(0, dtype=storage.dtype).set_(storage.untyped_storage(), offset, size, stride).clone()

    module = Unpickler(io.BytesIO(archive.read(name))).load()
    if not isinstance(module, Placeholder):
        raise WeightsError("the archive holds no module")
    state: dict[str, Any] = {}

    def collect(part: Placeholder, prefix: str) -> None:
        for key, value in part.state.items():
            if isinstance(value, Placeholder):
                collect(value, f"{prefix}{key}.")
            elif isinstance(value, torch.Tensor) and (prefix or key in _OURS_AT_ROOT):
                state[prefix + key] = value

    collect(module, "")
    return state


_STORAGES = {
    "FloatStorage": "float32", "DoubleStorage": "float64", "HalfStorage": "float16", "LongStorage": "int64",
    "IntStorage": "int32", "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8",
    "BoolStorage": "bool", "BFloat16Storage": "bfloat16",
}  # fmt: skip


def _tidy(content: Any, path: Path) -> dict[str, Tensor]:
    import torch

    pca, projection = (content.get(key) if isinstance(content, Mapping) else None for key in ("pca", "projection"))
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path}: holds {type(content).__name__} where a state dict (names to tensors) is expected")
    state: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsError(f"{path}: entry {key!r} is {type(value).__name__}, not a tensor. {WAY_OUT}")
        if key.startswith("SIFT."):
            continue
        state[key] = (value.float() if value.is_floating_point() else value).detach()
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key[len(prefix) :]: value for key, value in state.items()}
    if pca is not None:
        state.update(_pca_buffers(pca, path))
    if isinstance(projection, Mapping):  # as `writing.save_checkpoint` keeps it
        buffers = {key: projection.get(key) for key in ("components", "mean")}
        if not all(isinstance(value, torch.Tensor) for value in buffers.values()):
            raise WeightsError(f"{path}: its projection is not two tensors, components and mean")
        state.update({key: value.float() for key, value in buffers.items() if value is not None})
    for key, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise WeightsError(f"{path}: {key} holds NaN or infinity; the file is damaged or its training failed")
    return state


def _pca_buffers(pca: Any, path: Path) -> dict[str, Tensor]:
    """`components` (D, d) and `mean` (D,) out of a scikit-learn PCA that was not rebuilt."""
    import torch

    if not isinstance(pca, Placeholder) or pca.kind != "PCA":
        raise WeightsError(f"{path}: its 'pca' is {type(pca).__name__}, not a scikit-learn PCA. {WAY_OUT}")
    components, mean = pca.state.get("components_"), pca.state.get("mean_")
    if pca.state.get("whiten") or not isinstance(components, Array) or not isinstance(mean, Array):
        raise WeightsError(f"{path}: its PCA is not fitted, or whitens; only plain fitted projections are known")
    rows, centre = components.real(), mean.real()
    if rows.ndim != 2 or centre.shape != rows.shape[1:]:
        raise WeightsError(f"{path}: its PCA has components {rows.shape} and mean {centre.shape}")
    return {"components": torch.from_numpy(rows.T.copy()).float(), "mean": torch.from_numpy(centre).float()}


def load_into(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load a state dict into a network after comparing names and shapes.

    BatchNorm's `num_batches_tracked`, which old files lack and nothing here uses, may be missing or left over.

    Raises:
        WeightsError: a name is missing or too many, or a shape differs; says which, and what the file seems to be for.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in own and not key.endswith("num_batches_tracked")]
    shapes = [
        f"{key} is {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or extra or shapes:
        parts = [
            *([f"it lacks {_few(missing)}"] if missing else []),
            *([f"it has {_few(extra)} too many"] if extra else []),
            *([_few(shapes)] if shapes else []),
        ]
        raise WeightsError(
            f"{source}: made for another network than {type(module).__name__}: {'; '.join(parts)}. "
            "Choose the weights made for this network, or the network these weights were made for"
        )
    wanted = {key: state[key] for key in own if key in state}
    module.load_state_dict(wanted, strict=False)


def _few(items: list[str]) -> str:
    shown = ", ".join(items[:3])
    return shown if len(items) <= 3 else f"{shown} and {len(items) - 3} more"
