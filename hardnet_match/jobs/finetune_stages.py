"""The stages of a fine-tuning between the reconstruction and the verdict: patches, and what is measured."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import weights as weight_files
from ..architectures import Loaded, open_network
from ..errors import DataError
from ..inference import PatchNetwork
from ..sfm.views import View
from ..store import FeatureReader
from ..training.holdout import choosing_points, learning_points
from ..training.measure import Answers, Figures, describe_views, held_pairs, measure
from ..training.mining import mine_model
from ..training.patchset import PatchSet
from .finetune_page import Scene
from .stages import Stages

if TYPE_CHECKING:
    from ..features import Features

log = logging.getLogger(__name__)


def digest_of(views: Sequence[View], photos: Path) -> str:
    """Short hash of all that the stages take from a model and its photos, to tell whether they are still the same."""
    digest = hashlib.sha256()
    for view in views:
        digest.update(f"{view.name}\0{(photos / view.name).stat().st_size}\n".encode("utf-8", "surrogateescape"))
        for values in (view.lafs, view.point, view.position, view.rays, view.rotation, view.translation):
            digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()[:16]


def patches_of(
    scene: Scene, model: Path, frames: Path, work: Path, stages: Stages, source: str
) -> tuple[PatchSet, PatchSet]:
    """Patches to learn from and to choose by; photos that are held out are not even read."""
    files = work / "learn.h5", work / "choose.h5"
    if stages.result("patches", source) is None or not all(file.is_file() for file in files):
        with stages.timed("patches"):
            names = [view.name for view in scene.views if view.name not in scene.split.held]
            found = mine_model(model, frames, scene.photos, only=names, max_size=scene.max_size)
            for file, ids in zip(
                files,
                (learning_points(scene.views, scene.split), choosing_points(scene.views, scene.split)),
                strict=True,
            ):
                rows = np.flatnonzero(np.isin(found.track, ids))
                if not len(rows):
                    raise DataError(
                        "too few points are left to learn from once photos and points are held out; take more photos, "
                        "more keypoints, or hold out less"
                    )
                found.select(rows).save(file)
            stages.record("patches", source, [file.stat().st_size for file in files])
    learn, choose = (PatchSet.load(file) for file in files)
    log.info("%d patches to learn from, %d to choose by", len(learn), len(choose))
    return learn, choose


def clear_other_run(folder: Path, stages: Stages, source: str) -> None:
    """Training that was begun from other patches or with other settings is done anew."""
    if stages.recorded("training")[0] != source:
        if folder.exists():
            log.info("the patches or the settings are not those of the training so far: it starts anew")
            shutil.rmtree(folder)
        stages.record("training", source, None)


def describes(frames: Path, digest: str, max_size: int | None) -> bool:
    """Whether a features file holds what the starting weights say of its frames, as we would describe them."""
    if frames.suffix != ".h5":
        return False
    with FeatureReader(frames) as reader:
        settings = reader.settings
    known = settings.get("weights")
    return (
        isinstance(known, dict)
        and known.get("descriptor") == digest
        and settings.get("max_size") == max_size
        and settings.get("precision") == "float32"
    )


def measured_of(
    scene: Scene, loaded: Loaded, stored: Path | None, candidate: Path | None, device: str
) -> list[tuple[Figures, list[Answers]]]:
    """Figures and answers of the weights started from and of the candidate; twice the same without a candidate."""
    pairs = held_pairs(scene.views, scene.split)
    wanted = sorted({place for pair in pairs for place in pair})

    def figures(features: Mapping[int, Features]) -> tuple[Figures, list[Answers]]:
        return measure(features, scene.views, pairs, scene.split, device=device)

    def described(network: PatchNetwork) -> dict[int, Features]:
        return describe_views(network, scene.views, wanted, scene.photos, max_size=scene.max_size, device=device)

    if stored is None:
        first = figures(described(loaded.network))
    else:
        with FeatureReader(stored) as reader:
            first = figures({place: reader.read(scene.views[place].name) for place in wanted})
    if candidate is None:
        return [first, first]
    return [first, figures(described(open_network(candidate).network))]


def save_weights(path: Path, loaded: Loaded, network: PatchNetwork, about: Mapping[str, str]) -> None:
    about = {"made_by": "hardnet-match finetune", "start": Path(loaded.source).name, **about}
    weight_files.save_weights(path, network.state_dict(), loaded.architecture.name, about, half=True)
