"""A descriptor fine-tuned on one's own photos: reconstruct, mine, hold out, learn, measure, say whether it helped."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from .. import weights as weight_files
from ..architectures import Loaded, open_network
from ..devices import choose_device
from ..errors import DataError, OptionError, TrainingError
from ..images import list_images
from ..inference import PatchNetwork
from ..sfm.views import find_frames, read_views
from ..store import FeatureReader
from ..training.adapt import Plan, adapt
from ..training.checkpoint import replace_file
from ..training.holdout import choosing_points, learning_points, make_split
from ..training.measure import Answers, Figures, describe_views, held_pairs, measure
from ..training.mining import mine_model
from ..training.patchset import PatchSet
from .finetune_page import Scene, write_finetune_page
from .finetune_summary import FinetuneSummary, change_error, verdict
from .reconstruct import reconstruct_folder
from .stages import Stages, fingerprint

if TYPE_CHECKING:
    from ..extractor import FeatureExtractor
    from ..features import Features

log = logging.getLogger(__name__)


def finetune(
    photos: str | Path,
    output: str | Path,
    extractor_options: Mapping[str, Any] | None = None,
    *,
    start: str = "hardnet",
    model: str | Path | None = None,
    work: str | Path | None = None,
    minutes: float = 30.0,
    hold_out: float = 0.2,
    max_size: int | None = 1600,
    pairs: str | Path = "exhaustive",
    overlap: int = 10,
    plan: Plan | None = None,
    device: str = "auto",
    seed: int = 0,
    overwrite: bool = False,
    quiet: bool = False,
) -> FinetuneSummary:
    """Fine-tune a descriptor on a folder of photos, and measure whether it helped on photos and points held out.

    Without a model the photos are reconstructed first, with the starting descriptor. What is held out, and why, is
    told in `training.holdout`. The new weights are written only if they do better there: the matching mAP rose, and no
    more than 1 % of the correct matches were lost. Otherwise the output holds the weights it started from, so that
    whatever comes next works either way. A second run reuses every stage whose input is the same and goes on in the
    others.

    Args:
        photos: folder of the images.
        output: weights file (.safetensors) to write; a page of the same name with `.html` comes beside it.
        extractor_options: preset, parts and limits of `FeatureExtractor.from_preset` for the reconstruction; the
            descriptor is the one that is fine-tuned.
        start: a descriptor's name (its default weights), a registered name of weights, or a weights file.
        model: folder of a COLMAP model of these photos, with its database or features file in it or up to two folders
            above.
        work: folder for what is made on the way (made); the output's name with `-finetune` behind it if None.
        minutes: training time at most.
        hold_out: share of the photos that nothing is learned from.
        max_size: photos are shrunk to this longer side, as in extraction.
        pairs, overlap: of the reconstruction, as in `reconstruct_folder`.
        plan: how to train.
        device: `auto`, `cpu`, `cuda`, `mps`.
        seed: of everything random.
        overwrite: start anew, and replace an output that another run made.
        quiet: no progress bars.

    Raises:
        OptionError: an option cannot work, or the output is there and is another run's.
        DataError, ReconstructionError: there are too few photos, points or matches.
        WeightsError, ImageError, StoreError, TrainingError: as the stages.
    """
    photos, output = Path(photos), Path(output)
    work = Path(work) if work is not None else output.with_name(f"{output.stem}-finetune")
    if not 0 < hold_out < 1:
        raise OptionError(f"the share to hold out is between 0 and 1, got {hold_out}")
    if not minutes > 0:
        raise OptionError(f"minutes must be more than 0, got {minutes}")
    if output.suffix != ".safetensors":
        raise OptionError(f"{output}: the weights are written as safetensors; give the file that ending")
    where = choose_device(device)
    loaded = _start(start)
    names = list_images(photos)
    if not names:
        raise OptionError(f"{photos}: no images found in it")
    work.mkdir(exist_ok=True)
    with _alone(work):
        stages = Stages(work / "stages.json", overwrite)
        _check_output(output, stages, overwrite)
        return _run(
            photos, output, work, loaded, start, extractor_options or {}, model, hold_out, max_size, pairs, overlap,
            replace(plan or Plan(), seconds=60 * minutes), str(where), seed, stages, overwrite, quiet,
        )  # fmt: skip


def _run(
    photos: Path,
    output: Path,
    work: Path,
    loaded: Loaded,
    start: str,
    extractor_options: Mapping[str, Any],
    model: str | Path | None,
    hold_out: float,
    max_size: int | None,
    pairs: str | Path,
    overlap: int,
    plan: Plan,
    device: str,
    seed: int,
    stages: Stages,
    overwrite: bool,
    quiet: bool,
) -> FinetuneSummary:
    skipped: dict[str, str] = {}
    if model is None:
        with stages.timed("reconstruct"):
            made = reconstruct_folder(
                photos, work / "reconstruction", _extractor(loaded, extractor_options, device),
                max_size=max_size, pairs=pairs, overlap=overlap, device=device, overwrite=overwrite, quiet=quiet,
            )  # fmt: skip
        skipped = made.skipped
        model, frames = work / "reconstruction" / "sparse" / "0", work / "reconstruction" / "features.h5"
    else:
        model = Path(model)
        frames = find_frames(model)
    views = read_views(model, frames)
    scene = Scene(photos, views, make_split(views, hold_out, seed), max_size)
    digest = weight_files.file_hash(loaded.source)
    source = fingerprint(_stamp(model), _stamp(frames), scene.split.plain(), max_size)
    learn, choose = _patches(scene, model, frames, work, stages, source)
    source = fingerprint(source, digest, asdict(plan), seed)
    done = _done_before(output, skipped, stages, source)
    if done is not None:
        return done
    with stages.timed("train"):
        _clear_other_run(work / "training", stages, source)
        came = adapt(
            loaded.network, learn, choose, plan,
            out=work / "training", device=device, seed=seed, identity={"run": source},
        )  # fmt: skip
    about = {"photos": str(len(views)), "held_out": str(len(scene.split.held)), "seed": str(seed)}
    candidate = work / "candidate.safetensors"
    if came.share:
        _save(candidate, loaded, came.network, {**about, "share": f"{came.share:g}", "step": str(came.step)})
    with stages.timed("measure"):
        stored = frames if _describes(frames, digest, max_size) else None
        measured = _measured(scene, loaded, stored, candidate if came.share else None, device)
    before, after = measured[0][0], measured[1][0] if came.share else None
    improved, reason = verdict(before, after)
    if improved:
        replace_file(output, lambda path: shutil.copyfile(candidate, path))
    else:
        _save(output, loaded, loaded.network, {**about, "share": "0"})
    summary = FinetuneSummary(
        output=str(output), page=str(output.with_suffix(".html")), work=str(work), improved=improved, reason=reason,
        start=start, share=came.share, step=came.step, photos=len(views), held=list(scene.split.held),
        points=len(np.unique(learn.track)), patches=len(learn), steps=came.history.steps,
        before=asdict(before), after=None if after is None else asdict(after),
        error=None if after is None else change_error(before, after),
        seconds=stages.seconds, reused=list(dict.fromkeys(stages.reused)),
        settings={"start_hash": digest, "hold_out": hold_out, "max_size": max_size, "seed": seed, **asdict(plan)},
        skipped=skipped,
    )  # fmt: skip
    write_finetune_page(Path(summary.page), summary, scene, came, learn, before, after, measured[0][1], measured[1][1])
    stages.record("output", source, {"hash": weight_files.file_hash(output), "summary": asdict(summary)})
    return summary


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """The work folder to ourselves; TrainingError if another process works there."""
    lock = FileLock(work / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TrainingError(f"{work}: another fine-tuning is at work there") from error
    try:
        yield
    finally:
        lock.release()


def _describes(frames: Path, digest: str, max_size: int | None) -> bool:
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


def _measured(
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


def _start(start: str) -> Loaded:
    loaded = open_network(start)
    if loaded.architecture.kind != "descriptor":
        raise OptionError(f"{start} is no descriptor but gives the {loaded.architecture.kind}")
    if not loaded.architecture.trainable or not loaded.source:
        raise OptionError(f"{start} has no weights to fine-tune; choose hardnet, another learned descriptor, or a file")
    return loaded


def _extractor(loaded: Loaded, options: Mapping[str, Any], device: str) -> FeatureExtractor:
    from ..extractor import FeatureExtractor

    return FeatureExtractor.from_preset(
        **{**options, "descriptor": loaded.architecture.family, "weights": loaded.source, "device": device}
    )


def _check_output(output: Path, stages: Stages, overwrite: bool) -> None:
    """OptionError if another run's weights are in the way."""
    if output.exists() and not overwrite and _written(stages).get("hash") != weight_files.file_hash(output):
        raise OptionError(
            f"{output} is there and was not made from this work folder; name another file, or --overwrite"
        )


def _written(stages: Stages) -> dict[str, Any]:
    _, result = stages.recorded("output")
    return result if isinstance(result, dict) else {}


def _done_before(output: Path, skipped: dict[str, str], stages: Stages, source: str) -> FinetuneSummary | None:
    """The summary of the run that wrote what is there, if it was this very one."""
    written = stages.result("output", source)
    if not written or not output.is_file() or weight_files.file_hash(output) != written["hash"]:
        return None
    if not output.with_suffix(".html").is_file():
        return None
    summary = FinetuneSummary(**written["summary"])
    return replace(summary, reused=list(dict.fromkeys(stages.reused)), skipped=skipped)


def _stamp(path: Path) -> list[Any]:
    """Names, sizes and times of the files of a model, or of one file, to tell whether it is still the same."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]


def _patches(
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


def _clear_other_run(folder: Path, stages: Stages, source: str) -> None:
    """Training that was begun from other patches or with other settings is done anew."""
    if stages.recorded("training")[0] != source:
        if folder.exists():
            log.info("the patches or the settings are not those of the training so far: it starts anew")
            shutil.rmtree(folder)
        stages.record("training", source, None)


def _save(path: Path, loaded: Loaded, network: PatchNetwork, about: Mapping[str, str]) -> None:
    about = {"made_by": "hardnet-match finetune", "start": Path(loaded.source).name, **about}
    weight_files.save_weights(path, network.state_dict(), loaded.architecture.name, about, half=True)
