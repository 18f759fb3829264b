"""A descriptor fine-tuned on one's own photos: reconstruct, mine, hold out, learn, measure, say whether it helped."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import weights as weight_files
from ..architectures import Loaded, open_network
from ..devices import choose_device
from ..errors import OptionError
from ..images import list_images
from ..sfm.views import find_frames, read_views
from ..training.adapt import Plan, adapt
from ..training.holdout import make_split
from ..whole import replacing
from .alone import alone
from .finetune_page import Scene, write_finetune_page
from .finetune_stages import clear_other_run, describes, digest_of, measured_of, patches_of, save_weights
from .finetune_summary import FinetuneSummary, change_error, verdict
from .reconstruct import reconstruct_folder
from .stages import Stages, fingerprint


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
    job = _Job(
        photos, output, work, loaded, start, None if model is None else Path(model), extractor_options or {},
        {"pairs": pairs, "overlap": overlap, "overwrite": overwrite, "quiet": quiet},
        hold_out, max_size, replace(plan or Plan(), seconds=60 * minutes), str(where), seed,
    )  # fmt: skip
    with alone(work):
        stages = Stages(work / "stages.json", overwrite)
        _check_output(output, stages, overwrite)
        return _run(job, stages)


@dataclass(frozen=True)
class _Job:
    """The arguments of `finetune`, checked."""

    photos: Path
    output: Path
    work: Path
    loaded: Loaded
    start: str
    model: Path | None
    extraction: Mapping[str, Any]
    mapping: Mapping[str, Any]
    hold_out: float
    max_size: int | None
    plan: Plan
    device: str
    seed: int


def _run(job: _Job, stages: Stages) -> FinetuneSummary:
    model, frames, skipped = _model(job, stages)
    views = read_views(model, frames)
    scene = Scene(job.photos, views, make_split(views, job.hold_out, job.seed), job.max_size)
    digest = weight_files.file_hash(job.loaded.source)
    source = fingerprint(digest_of(views, job.photos), scene.split.plain(), job.max_size)
    learn, choose = patches_of(scene, model, frames, job.work, stages, source)
    source = fingerprint(source, digest, asdict(job.plan), job.seed)
    done = _done_before(job.output, skipped, stages, source)
    if done is not None:
        return done
    with stages.timed("train"):
        clear_other_run(job.work / "training", stages, source)
        came = adapt(
            job.loaded.network, learn, choose, job.plan,
            out=job.work / "training", device=job.device, seed=job.seed, identity={"run": source},
        )  # fmt: skip
    about = {"photos": str(len(views)), "held_out": str(len(scene.split.held)), "seed": str(job.seed)}
    candidate = job.work / "candidate.safetensors"
    if came.share:
        save_weights(candidate, job.loaded, came.network, {**about, "share": f"{came.share:g}", "step": f"{came.step}"})
    with stages.timed("measure"):
        stored = frames if describes(frames, digest, job.max_size) else None
        measured = measured_of(scene, job.loaded, stored, candidate if came.share else None, job.device)
    before, after = measured[0][0], measured[1][0] if came.share else None
    improved, reason = verdict(before, after)
    taken = candidate
    if not improved:
        taken = job.work / "start.safetensors"
        save_weights(taken, job.loaded, job.loaded.network, {**about, "share": "0"})
    # Written down first: killed in between, the next run knows the output for its own.
    stages.record("written", source, {"hash": weight_files.file_hash(taken)})
    with replacing(job.output) as part:
        shutil.copyfile(taken, part)
    summary = FinetuneSummary(
        output=str(job.output), page=str(job.output.with_suffix(".html")), work=str(job.work), improved=improved,
        reason=reason, start=job.start, share=came.share, step=came.step, photos=len(views),
        held=list(scene.split.held), points=len(np.unique(learn.track)), patches=len(learn),
        steps=came.history.steps, before=asdict(before), after=None if after is None else asdict(after),
        error=None if after is None else change_error(before, after),
        seconds=stages.seconds, reused=list(dict.fromkeys(stages.reused)),
        settings={
            "start_hash": digest, "hold_out": job.hold_out, "max_size": job.max_size, "seed": job.seed,
            **asdict(job.plan),
        },
        skipped=skipped,
    )  # fmt: skip
    write_finetune_page(Path(summary.page), summary, scene, came, learn, before, after, measured[0][1], measured[1][1])
    stages.record("done", source, asdict(summary))
    return summary


def _model(job: _Job, stages: Stages) -> tuple[Path, Path, dict[str, str]]:
    """The model's folder, the file of its frames, and the photos that could not be read."""
    if job.model is not None:
        return job.model, find_frames(job.model), {}
    from ..extractor import FeatureExtractor

    family, folder = job.loaded.architecture.family, job.work / "reconstruction"
    with stages.timed("reconstruct"):
        extractor = FeatureExtractor.from_preset(
            **{**job.extraction, "descriptor": family, "weights": job.loaded.source, "device": job.device}
        )
        made = reconstruct_folder(
            job.photos, folder, extractor, max_size=job.max_size, device=job.device, **job.mapping
        )
    return folder / "sparse" / "0", folder / "features.h5", made.skipped


def _start(start: str) -> Loaded:
    loaded = open_network(start)
    if loaded.architecture.kind != "descriptor":
        raise OptionError(f"{start} is no descriptor but gives the {loaded.architecture.kind}")
    if not loaded.architecture.trainable or not loaded.source:
        raise OptionError(f"{start} has no weights to fine-tune; choose hardnet, another learned descriptor, or a file")
    return loaded


def _check_output(output: Path, stages: Stages, overwrite: bool) -> None:
    """OptionError if another run's weights are in the way."""
    if not output.exists() or overwrite:
        return
    _, written = stages.recorded("written")
    if not isinstance(written, dict) or written.get("hash") != weight_files.file_hash(output):
        raise OptionError(
            f"{output} is there and was not made from this work folder; name another file, or --overwrite"
        )


def _done_before(output: Path, skipped: dict[str, str], stages: Stages, source: str) -> FinetuneSummary | None:
    """The summary of the run that wrote what is there, if it was this very one; whose output it is was checked."""
    done = stages.result("done", source)
    if not done or not output.is_file() or not output.with_suffix(".html").is_file():
        return None
    return replace(FinetuneSummary(**done), reused=list(dict.fromkeys(stages.reused)), skipped=skipped)
