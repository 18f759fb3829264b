"""What this package's extractor and matcher do inside hloc; `register` marries them to hloc's base class.

hloc's protocol: `_init(conf)` once, then `_forward(data)` with a batch of one, tensors in and out.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ...errors import DataError
from ...extractor import FeatureExtractor
from ...features import Features, Matches
from ...frames import MR_SIZE, laf_orientation, laf_scale, make_lafs
from ...matching import match

_INT16 = 32_767
"""hloc stores matches as 16-bit integers; a larger row number would come back as another."""


class Extraction:
    """Local affine features for hloc.

    conf: `preset`, `max_keypoints`, and all else that `FeatureExtractor.from_preset` takes; the device is hloc's.

    Gives, of an image (1, C, H, W) in [0, 1], with N features:
        keypoints (1, N, 2) float64, scores (1, N) float64, descriptors (1, D, N) float32, scales (1, N) float32
        (standard deviations in pixels), oris (1, N) float32 (degrees, clockwise on the screen) and shapes
        (1, N, 2, 2) float32 (determinant one). hloc brings keypoints and scales to the original image's pixels; shapes
        need no scaling, so that a reader of the file has the affine frames: shapes * scales * 6 around the keypoints.
        Keypoints and scores are float64 because hloc's `as_half` halves what is float32: half precision rounds
        positions to whole pixels beyond 1,024, and weak responses to zero.
    """

    required_inputs: ClassVar[list[str]] = ["image"]
    default_conf: ClassVar[dict[str, Any]] = {"preset": "hesaffnet-hardnet", "max_keypoints": 4096}
    detection_noise = 1.0
    _of_hloc = ("name", "preset")

    def _init(self, conf: dict[str, Any]) -> None:
        self.preset = str(conf["preset"])
        self.options = {key: value for key, value in conf.items() if key not in self._of_hloc}
        # Made now for the sake of mistakes in the conf, and again should hloc work on another device.
        self.extractor = self._made(torch.device("cpu"))

    def _made(self, device: torch.device) -> FeatureExtractor:
        return FeatureExtractor.from_preset(self.preset, device=str(device), **self.options)

    def _forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        image = data["image"]
        if image.ndim != 4 or len(image) != 1:
            raise DataError(f"hloc gives one image at a time, (1, C, H, W), not {tuple(image.shape)}")
        if image.device != self.extractor.device:
            self.extractor = self._made(image.device)
        features = self.extractor.extract(image)
        sizes = laf_scale(features.lafs)
        rows = {
            "keypoints": features.keypoints.astype(np.float64),
            "scores": features.scores.astype(np.float64),
            "descriptors": np.ascontiguousarray(features.descriptors.astype(np.float32).T),
            "scales": sizes / np.float32(MR_SIZE),
            "oris": -laf_orientation(features.lafs),
            "shapes": features.lafs[:, :, :2] / sizes[:, None, None],
        }
        return {key: torch.from_numpy(value)[None].to(image.device) for key, value in rows.items()}


class Matching:
    """This package's matching methods for hloc.

    conf: `method` (`smnn`, `mnn`, `snn`, `fginn`, `adalam`, or a plugin's) and `ratio`, and what else `matching.match`
    takes. Reads features of any extractor; `fginn` and `adalam` also look at the keypoints, `adalam` at `scales`,
    `oris` and `shapes` where they are there.
    """

    required_inputs: ClassVar[list[str]] = ["descriptors0", "descriptors1", "keypoints0", "keypoints1"]
    default_conf: ClassVar[dict[str, Any]] = {"method": "smnn", "ratio": 0.9}

    def _init(self, conf: dict[str, Any]) -> None:
        self.options = {key: value for key, value in conf.items() if key != "name"}

    def _forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        device = data["descriptors0"].device
        first, second = (_features(data, index) for index in "01")
        found = match(first, second, device=device, **self.options)
        matches, scores = rows_of(found, len(first))
        if len(matches) and int(matches.max()) > _INT16:
            raise DataError(
                f"hloc's match files hold row numbers up to {_INT16}, but there are {len(second)} keypoints; "
                "take fewer, or match with `hardnet-match match`, whose files hloc reads"
            )
        return {
            "matches0": torch.from_numpy(matches)[None].to(device),
            "matching_scores0": torch.from_numpy(scores)[None].to(device),
        }


def _features(data: dict[str, Tensor], index: str) -> Features:
    """What hloc read of an image's features, as this package has them."""

    def read(key: str) -> Any:
        return data[key + index][0].detach().cpu().float().numpy() if key + index in data else None

    xy, descriptors, scores = read("keypoints"), read("descriptors"), read("scores")
    sizes, clockwise, shapes = read("scales"), read("oris"), read("shapes")
    sizes = np.ones(len(xy), np.float32) if sizes is None else sizes
    if shapes is None:
        lafs = make_lafs(xy, sizes * MR_SIZE, 0.0 if clockwise is None else -clockwise)
    else:
        lafs = np.concatenate([shapes * (sizes * MR_SIZE)[:, None, None], xy[:, :, None]], axis=2).astype(np.float32)
    width, height = (
        read("image_size").astype(int) if "image_size" + index in data else xy.max(0, initial=0) + 1
    ).tolist()
    scores = np.ones(len(xy), np.float32) if scores is None else scores
    return Features(lafs, scores, np.ascontiguousarray(descriptors.T), (int(width), int(height)))


def rows_of(found: Matches, count: int) -> tuple[Any, Any]:
    """Matches as hloc has them: for each of `count` features its partner's row or -1 (int64), and a score (float32)."""
    matches, scores = np.full(count, -1, np.int64), np.zeros(count, np.float32)
    matches[found.pairs[:, 0]], scores[found.pairs[:, 0]] = found.pairs[:, 1], found.scores
    return matches, scores
