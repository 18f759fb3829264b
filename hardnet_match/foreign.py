"""Modules of others as parts of the extractor: kornia's, a plugin's, yours.

Which signature a module has is told by its `forward`:

| part | the house's | kornia's |
|---|---|---|
| detector | (image, mask, max_keypoints) -> frames (N, 2, 3), responses (N,) | (img, mask) -> the same with a batch |
| shape | (patches) -> (N, 2, 2) | (laf, img) -> laf; or (patches) -> (N, 1, 3), second moments |
| orientation | (patches) -> (N,) radians | (laf, img) -> laf |
| descriptor | (patches) -> (N, D) | (img, lafs) -> (1, N, D) |

kornia's detectors fill up with zero frames, which are left out.
What comes out is checked, so that a wrong shape is told with the part's name instead of far away.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
from typing import Any

import torch
from torch import Tensor, nn

from .errors import HardnetMatchError, PluginError

_NUMBER = "num_features"
"""What kornia's detectors call the number of frames they give."""


def adapted(part: str, module: nn.Module, label: str) -> nn.Module:
    """A module of somebody else's in the house's signature, with its output checked.

    Args:
        part: "detector", "shape", "orientation" or "descriptor".
        module: it is used as it is, not copied.
        label: what errors call it.

    Returns:
        For a detector what a `ScaleSpaceDetector` takes and gives. Else a module over patches (N, 1, P, P) with a
        `.patch_size`; or, where the module looks at frames in an image itself, one with `.of_frames` set that takes
        the image (1, 1, H, W) and the frames (N, 2, 3). Either gives shapes (N, 2, 2), angles (N,) in radians or
        descriptors (N, D).
    """
    parameters = _parameters(module)
    if part == "detector":
        return _Detector(module, label, takes_number="max_keypoints" in parameters or len(parameters) > 2)
    frames = [name for name in parameters if name.startswith("laf")]
    if not frames:
        return _OverPatches(part, module, label)
    return _OverFrames(part, module, label, image_first=parameters.index(frames[0]) > 0)


def identity(module: nn.Module) -> dict[str, str]:
    """What the settings of a file say of a module: its class, and a hash of its weights and of its own numbers."""
    digest = hashlib.sha256(repr(module).encode())
    for name, child in module.named_modules():
        # What steers the number of keypoints is set by the extractor, whose settings have it.
        numbers = {
            key: value
            for key, value in vars(child).items()
            if isinstance(value, bool | int | float | str) and key not in ("training", _NUMBER)
        }
        digest.update(f"{name}{sorted(numbers.items())}".encode())
    for name, tensor in module.state_dict().items():
        if isinstance(tensor, Tensor):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return {"class": class_name(module), "hash": digest.hexdigest()[:16]}


def class_name(module: nn.Module) -> str:
    """The module's class as one would import it."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


class _Foreign(nn.Module):
    def __init__(self, module: nn.Module, label: str) -> None:
        super().__init__()
        self.module, self.label = module, label

    def _call(self, *given: Any) -> Any:
        try:
            return self.module(*given)
        except (HardnetMatchError, MemoryError):
            raise
        except Exception as error:
            if "out of memory" in str(error).lower():
                raise
            raise PluginError(f"{self.label} failed: {type(error).__name__}: {error}") from error

    def _wrong(self, wanted: str, got: Any) -> PluginError:
        told = f"of shape {tuple(got.shape)}" if isinstance(got, Tensor) else f"a {type(got).__name__}"
        return PluginError(f"{self.label} must give {wanted}, but gave {told}")


class _Detector(_Foreign):
    def __init__(self, module: nn.Module, label: str, *, takes_number: bool) -> None:
        super().__init__(module, label)
        self.takes_number = takes_number

    def forward(self, image: Tensor, mask: Tensor | None = None, max_keypoints: int = 4096) -> tuple[Tensor, Tensor]:
        if self.takes_number:
            found = self._call(image, mask, max_keypoints)
        else:
            if hasattr(self.module, _NUMBER):
                setattr(self.module, _NUMBER, max_keypoints)
            found = self._call(image, None if mask is None else mask[None, None])
        if not isinstance(found, tuple | list) or len(found) < 2:
            raise self._wrong("frames (N, 2, 3) and responses (N,)", found)
        lafs, scores = found[0], found[1]
        if isinstance(lafs, Tensor) and lafs.ndim == 4 and len(lafs) == 1:
            lafs, scores = lafs[0], scores[0]
        if not isinstance(lafs, Tensor) or lafs.ndim != 3 or tuple(lafs.shape[1:]) != (2, 3):
            raise self._wrong("frames (N, 2, 3)", lafs)
        if not isinstance(scores, Tensor) or scores.shape != lafs.shape[:1]:
            raise self._wrong(f"responses ({len(lafs)},) as there are {len(lafs)} frames", scores)
        lafs, scores = lafs.to(image.device, torch.float32), scores.to(image.device, torch.float32)
        if not (lafs.isfinite().all() and scores.isfinite().all()):
            raise PluginError(f"{self.label} gave frames or responses that are NaN or infinite")
        keep = torch.linalg.det(lafs[:, :, :2].double()) != 0
        if mask is not None:
            height, width = mask.shape
            column, row = lafs[:, :, 2].round().long().unbind(1)
            keep &= mask[row.clamp(0, height - 1), column.clamp(0, width - 1)]
        lafs, scores = lafs[keep], scores[keep]
        best = torch.sort(scores, descending=True, stable=True).indices[:max_keypoints]
        return lafs[best], scores[best]


class _OverPatches(_Foreign):
    def __init__(self, part: str, module: nn.Module, label: str) -> None:
        super().__init__(module, label)
        self.part = part
        size = getattr(module, "patch_size", 32)
        self.patch_size = int(size[0] if isinstance(size, tuple | list) else size)

    def forward(self, patches: Tensor) -> Tensor:
        out = self._call(patches)
        count = len(patches)
        if not isinstance(out, Tensor) or out.ndim < 1 or len(out) != count:
            raise self._wrong(f"a row for each of {count} patches", out)
        out = out.float()
        if self.part == "orientation":
            if out.numel() != count:
                raise self._wrong(f"angles ({count},)", out)
            return out.reshape(count).nan_to_num(0.0, 0.0, 0.0)
        if self.part == "shape":
            if out.numel() == 3 * count and out.shape[-1] == 3:
                return _shapes_of_moments(out.reshape(count, 3))
            if tuple(out.shape[1:]) != (2, 2):
                raise self._wrong(f"shapes ({count}, 2, 2) or second moments ({count}, 1, 3)", out)
            return _unit(out)
        return _described(self, out.flatten(1))


class _OverFrames(_Foreign):
    of_frames = True

    def __init__(self, part: str, module: nn.Module, label: str, *, image_first: bool) -> None:
        super().__init__(module, label)
        self.part, self.image_first = part, image_first

    def forward(self, image: Tensor, lafs: Tensor) -> Tensor:
        if not len(lafs):  # a frame there is, for the sake of the output's width
            height, width = image.shape[-2:]
            whole = lafs.new_tensor([[[width / 2, 0, width / 2], [0, height / 2, height / 2]]])
            return self.forward(image, whole)[:0]
        given = (image, lafs[None]) if self.image_first else (lafs[None], image)
        out = self._call(*given)
        if self.part == "descriptor":
            if not isinstance(out, Tensor) or out.ndim < 3 or tuple(out.shape[:2]) != (1, len(lafs)):
                raise self._wrong(f"descriptors (1, {len(lafs)}, D)", out)
            return _described(self, out[0].flatten(1).float())
        if not isinstance(out, Tensor) or tuple(out.shape) != (1, len(lafs), 2, 3):
            raise self._wrong(f"frames (1, {len(lafs)}, 2, 3)", out)
        # What the module did to each frame, in the frame's own coordinates.
        change = torch.linalg.solve(lafs[:, :, :2].double(), out[0, :, :, :2].double()).float()
        if self.part == "shape":
            return _unit(change)
        return torch.atan2(change[:, 0, 1], change[:, 0, 0]).nan_to_num(0.0, 0.0, 0.0)


def _described(part: _Foreign, rows: Tensor) -> Tensor:
    if not rows.isfinite().all():
        raise PluginError(f"{part.label} gave descriptors that are NaN or infinite")
    return rows


def _unit(shapes: Tensor) -> Tensor:
    """Shapes of determinant one; the identity where there is no area."""
    det = torch.linalg.det(shapes.double()).float()
    good = shapes.isfinite().flatten(1).all(dim=1) & (det > 1e-12)
    safe = torch.where(good[:, None, None], shapes, torch.eye(2, device=shapes.device))
    return safe * torch.where(good, det, torch.ones_like(det)).rsqrt()[:, None, None]


def _shapes_of_moments(moments: Tensor) -> Tensor:
    """Up-is-up shapes S with S S^T the inverse of [[a, b], [b, c]], but for its size."""
    a, b, c = moments.unbind(1)
    zero = torch.zeros_like(a)
    rest = (a - b * b / c).clamp(min=0)
    return _unit(torch.stack([rest.rsqrt(), zero, -b / c * rest.rsqrt(), c.rsqrt()], dim=1).reshape(-1, 2, 2))


def _parameters(module: nn.Module) -> list[str]:
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):  # compiled, and silent about itself
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [name for name, parameter in signature.parameters.items() if parameter.kind in kinds]


def copied(module: nn.Module) -> nn.Module:
    """A copy to work with: the extractor moves modules about and sets them, which their owner should not notice."""
    return copy.deepcopy(module).eval().requires_grad_(False)
