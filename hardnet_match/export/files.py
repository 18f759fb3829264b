"""A network to a file of the form its suffix says, checked before it takes its place."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ..architectures import Loaded, load_network
from ..errors import ExportError, OptionError
from ..inference import PatchNetwork
from ..weights import save_checkpoint, save_weights
from ..whole import replacing
from .check import worst_difference
from .graph import for_export

FORMS = {
    ".onnx": "onnx",
    ".pt": "torchscript",
    ".jitpt": "torchscript",
    ".safetensors": "safetensors",
    ".pth": "checkpoint",
}
"""Form of a file by its suffix."""
OUTPUTS = {"descriptor": "descriptors", "shape": "shapes", "orientation": "angles"}

LIMITS = {"float32": 1e-4, "float32 with patches": 1e-3, "float16": 5e-2}
"""Largest difference from the network that passes. With patches there is the rounding of coordinates on top (at 600
pixels up to 2e-5 in the patches' values)."""
UNSURE = 10.0
"""Angles may differ by so many times as much: where a patch has no clear direction, little decides on one."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    `inputs` and `output` name the graph's (empty for weights); `difference` is the largest one found between file and
    network over `patches` patches, None where nothing could run the file, and `checked` tells what ran it.
    """

    file: str
    form: str
    network: str
    source: str
    inputs: list[str]
    output: str
    half: bool
    bytes: int
    difference: float | None
    patches: int
    checked: str
    seconds: float


def form_of(output: str | Path, *, with_patches: bool = False, half: bool = False) -> str:
    """The form a file name asks for.

    Raises:
        OptionError: the suffix is not known, or the form cannot hold what is asked for.
    """
    suffix = Path(output).suffix.lower()
    if suffix not in FORMS:
        raise OptionError(f"{output}: the suffix says the form: {', '.join(FORMS)}")
    form = FORMS[suffix]
    if with_patches and form not in ("onnx", "torchscript"):
        raise OptionError(f"{output}: weights alone hold no patch extraction; .onnx and .pt do")
    if half and form == "checkpoint":
        raise OptionError(f"{output}: checkpoints stay float32, training goes on from them; .safetensors may be half")
    return form


def export_network(loaded: Loaded, output: str | Path, *, with_patches: bool = False, half: bool = False) -> Exported:
    """Write a network as a graph or as weights, and compare what was written with the network.

    Graphs take `patches` (N, 1, 32, 32) float32 in [0, 1], or with `with_patches` an `image` (1, 1, H, W) float32 in
    [0, 1] and `lafs` (N, 2, 3) float32 in its pixels (centre of the top-left pixel at (0, 0)), N, H and W free; they
    give `descriptors` (N, D), `shapes` (N, 2, 2) or `angles` (N,) float32.

    Args:
        loaded: as `architectures.open_network` or `load_network` gives it.
        output: its suffix says the form (`FORMS`): ONNX, TorchScript, safetensors, or a checkpoint with the originals'
            layout.
        half: weights in float16; in graphs the layers compute in it, inputs and outputs stay float32.

    Raises:
        OptionError: the suffix is unknown, the form cannot hold what is asked for, or onnx is not installed.
        ExportError: the exporter fails on this network, or the file does not compute what the network does; no file
            is left, and one that was there is untouched.
    """
    output, started = Path(output), time.perf_counter()
    form = form_of(output, with_patches=with_patches, half=half)
    graph = form in ("onnx", "torchscript")
    if not loaded.architecture.trainable and (half or not graph):
        raise OptionError(f"{loaded.architecture.name} has no weights: it goes to .onnx or .pt, in float32")
    if form == "onnx":
        from .onnx import check_installed

        check_installed()
    about = {
        **(loaded.about if form == "safetensors" else {}),
        "architecture": loaded.architecture.name,
        "source": Path(loaded.source).name,
        "precision": "float16" if half else "float32",
    }
    with replacing(output) as part:
        try:
            _write(loaded, part, form, about, with_patches=with_patches, half=half)
        except (RuntimeError, TypeError, NotImplementedError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ExportError(f"{output}: {loaded.architecture.name} cannot be exported: {reason}") from error
        difference, patches, checked = _checked(loaded, part, form, with_patches=with_patches)
        limit = LIMITS["float16" if half else "float32 with patches" if with_patches else "float32"]
        limit *= UNSURE if loaded.architecture.kind == "orientation" else 1
        if difference is not None and not difference <= limit:
            raise ExportError(
                f"{output}: what was written differs from the network by {difference:.2g}, more than {limit:g}; "
                "not kept"
            )
        size = part.stat().st_size
    return Exported(
        file=str(output),
        form=form,
        network=loaded.architecture.name,
        source=loaded.source,
        inputs=(["image", "lafs"] if with_patches else ["patches"]) if graph else [],
        output=OUTPUTS[loaded.architecture.kind] if graph else "",
        half=half,
        bytes=size,
        difference=difference,
        patches=patches,
        checked=checked,
        seconds=round(time.perf_counter() - started, 3),
    )


def _write(loaded: Loaded, path: Path, form: str, about: dict[str, str], *, with_patches: bool, half: bool) -> None:
    name, network = loaded.architecture.name, loaded.network
    if form == "safetensors":
        save_weights(path, network.state_dict(), name, about, half=half)
    elif form == "checkpoint":
        epoch = loaded.about.get("epoch", "0")
        save_checkpoint(path, network.state_dict(), name, epoch=int(epoch) if epoch.isdigit() else 0)
    elif form == "onnx":
        from .onnx import write_onnx

        output = OUTPUTS[loaded.architecture.kind]
        write_onnx(for_export(network, half=half), path, about, output, with_patches=with_patches)
    else:
        from .torchscript import write_torchscript

        write_torchscript(for_export(network, half=half), path, about, with_patches=with_patches)


def _checked(loaded: Loaded, path: Path, form: str, *, with_patches: bool) -> tuple[float | None, int, str]:
    """Largest difference, over how many patches, and what ran the file."""
    reference: PatchNetwork = loaded.network.fused()
    angles = loaded.architecture.kind == "orientation"
    if form in ("safetensors", "checkpoint"):
        again = load_network(path, loaded.architecture.name).network
        return *worst_difference(reference, again, with_patches=False, angles=angles), "read back"
    if form == "onnx":
        from .onnx import onnx_runner

        run = onnx_runner(path)
        if run is None:
            return None, 0, "not checked: onnxruntime is not installed"
        return *worst_difference(reference, run, with_patches=with_patches, angles=angles), "onnxruntime"
    from .torchscript import torchscript_runner

    run = torchscript_runner(path)
    return *worst_difference(reference, run, with_patches=with_patches, angles=angles), "torch.jit"
