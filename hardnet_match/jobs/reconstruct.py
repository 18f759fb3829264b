"""A folder of photos to a COLMAP model: extract, pairs, match, database, verify, map; each stage goes on."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import HardnetMatchError, OptionError, ReconstructionError
from ..images import list_images
from ..sfm import MAPPERS, reconstruct
from ..store import FeatureReader, MatchReader, read_pairs, write_pairs
from ..whole import replacing
from .alone import alone
from .database import make_database
from .extract import extract_folder
from .match import match_features
from .pairs import MODES, choose_pairs
from .picture import picture_of_matches
from .reconstruct_page import Places, write_reconstruct_page
from .stages import Stages, fingerprint

if TYPE_CHECKING:
    from ..extractor import FeatureExtractor

log = logging.getLogger(__name__)

RETRIEVAL = "retrieval"


@dataclass(frozen=True)
class ReconstructSummary:
    """What `reconstruct_folder` reached. `models` are sorted, the largest (in `sparse/0`) first; `seconds` by stage."""

    output: str
    images: int
    registered: int
    points: int
    observations: int
    track_length: float
    reprojection_error: float
    keypoints: int
    pairs: int
    verified_pairs: int
    inliers: int
    models: list[dict[str, Any]]
    seconds: dict[str, float]
    reused: list[str]
    unregistered: list[str]
    settings: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)

    def words(self) -> str:
        """The summary for a reader."""
        lines = [
            f"{self.output}: {self.registered} of {self.images} images registered, {self.points} points, "
            f"mean track {self.track_length:.2f}, mean reprojection error {self.reprojection_error:.3f} px",
            f"{self.keypoints} keypoints; {self.verified_pairs} of {self.pairs} pairs verified, {self.inliers} inliers",
            f"page to look at: {self.output}/report.html",
            "seconds: " + ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items()),
        ]
        if self.reused:
            lines.append(f"reused from an earlier run: {', '.join(self.reused)}")
        if len(self.models) > 1:
            parts = ", ".join(str(model["registered"]) for model in self.models)
            lines.append(f"the photos fell into {len(self.models)} models, of {parts} images; sparse/0 is the largest")
        if self.unregistered:
            lines.append(f"not registered: {', '.join(self.unregistered)}")
        return "\n".join(lines)


def reconstruct_folder(
    folder: str | Path,
    output: str | Path,
    extractor: FeatureExtractor,
    *,
    masks: str | Path | None = None,
    max_size: int | None = 1600,
    pairs: str | Path = "exhaustive",
    overlap: int = 10,
    method: str = "smnn",
    ratio: float = 0.9,
    camera_mode: str = "auto",
    camera_model: str = "SIMPLE_RADIAL",
    mapper: str = "incremental",
    device: str = "auto",
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> ReconstructSummary:
    """Reconstruct the cameras and points of a folder of photos with COLMAP, from this package's features.

    Leaves in `output`: `features.h5`, `matches.h5`, `pairs.txt`, `database.db`, `sparse/0` (binary COLMAP model; more
    numbers if the photos fall apart), `matches.jpg` (a telling pair), `report.json`, and `report.html`, a page to look
    at. A second run reuses every stage whose input is the same and goes on in the others.

    Args:
        folder: of the images, subfolders included.
        output: folder for the results, made if missing (its parent exists).
        extractor: what to extract with.
        masks, max_size, workers: as in `extract_folder`.
        pairs: `exhaustive`, `sequential`, `spatial`, `retrieval` (each image with the 20 that show the same most
            likely), or a pairs file.
        overlap: of sequential pairs.
        method, ratio, device: as in `match_features`.
        camera_mode: `auto`, `single`, `per-folder` or `per-image`: which images share a camera.
        camera_model: COLMAP's name of the camera model.
        mapper: `incremental` or `global`.
        overwrite: start anew, in every stage.
        quiet: no progress bars.

    Raises:
        OptionError: an option cannot work, or the folder has no images.
        StoreError: the output holds results of other settings, or another run is at work there.
        ReconstructionError: nothing could be reconstructed; features, matches and database are there all the same.
    """
    folder, output = Path(folder), Path(output)
    if mapper not in MAPPERS:
        raise OptionError(f"mapper {mapper!r} is unknown: choose one of {', '.join(MAPPERS)}")
    names = list_images(folder)
    if len(names) < 2:
        raise OptionError(f"{folder}: a reconstruction needs two images or more, found {len(names)}")
    if str(pairs) not in (*MODES, RETRIEVAL) and not Path(pairs).is_file():
        raise OptionError(f"pairs {str(pairs)!r} is neither one of {', '.join((*MODES, RETRIEVAL))} nor a file")
    output.mkdir(exist_ok=True)
    with alone(output):
        features, matches, database = output / "features.h5", output / "matches.h5", output / "database.db"
        stages = Stages(output / "stages.json", overwrite)

        with stages.timed("extract"):
            extracted = extract_folder(
                folder, features, extractor,
                names=names, masks=masks, max_size=max_size, workers=workers, overwrite=overwrite, quiet=quiet,
            )  # fmt: skip
        if not extracted.extracted:
            stages.reused.append("extract")
        with stages.timed("match"):
            whole = [name for name in names if name not in extracted.skipped]
            wanted: Any = pairs
            chosen_skipped: dict[str, str] = {}
            if str(pairs) in MODES:
                chosen = choose_pairs(folder, str(pairs), names=whole, overlap=overlap)
                wanted, chosen_skipped = chosen.pairs, chosen.skipped
                write_pairs(output / "pairs.txt", wanted)
            elif str(pairs) == RETRIEVAL:
                wanted = _retrieved(stages, features, whole, output / "pairs.txt", quiet)
            matched = match_features(
                features, matches, wanted,
                method=method, ratio=ratio, device=device, overwrite=overwrite, quiet=quiet,
            )  # fmt: skip
        if not matched.matched:
            stages.reused.append("match")

        source = _source(features, matches, whole, camera_mode, camera_model)
        made = stages.result("database", source) if database.is_file() else None
        if made is None:
            with stages.timed("database"):
                made = asdict(
                    make_database(
                        features,
                        matches,
                        folder,
                        database,
                        names=whole,
                        camera_mode=camera_mode,
                        camera_model=camera_model,
                        verified=True,
                        overwrite=True,
                    )
                )
            stages.record("database", source, made)
        source = fingerprint(source, mapper)
        models = stages.result("map", source) if (output / "sparse" / "0").is_dir() else None
        problem = None
        if models is None:
            try:
                with stages.timed("map"):
                    found = reconstruct(database, folder, output / "sparse", mapper, overwrite=True)
                models = [{**asdict(model), "registered": model.registered} for model in found]
                stages.record("map", source, models)
            except ReconstructionError as error:
                models, problem = [], error
        with stages.timed("picture"):
            picture_of_matches(database, features, matches, folder, output / "matches.jpg")

        skipped = {**matched.skipped, **chosen_skipped, **extracted.skipped}
        summary = _summary(output, names, skipped, made, models, stages, extracted.settings)
        _write_report(output / "report.json", summary, matched.settings)
        options = {
            "pairs": str(pairs), "method": method, "ratio": ratio,
            "camera_mode": camera_mode, "camera_model": camera_model, "mapper": mapper,
        }  # fmt: skip
        places = Places(folder, features, matches, database, output / "sparse")
        _write_page(output / "report.html", summary, places, models, options, stages, fingerprint(source, __version__))
        if problem is not None:
            raise ReconstructionError(
                f"nothing could be reconstructed: {made['verified_pairs']} of {made['pairs']} pairs were verified, "
                f"with {made['inliers']} inliers ({problem}); try more keypoints, another preset, or photos that "
                "overlap more"
            ) from problem
        return summary


def _retrieved(stages: Stages, features: Path, names: list[str], output: Path, quiet: bool) -> list[tuple[str, str]]:
    """Pairs by retrieval, those of an earlier run if they are of the same features."""
    from .pair_selection import TOP, WORDS, retrieval_pairs

    with FeatureReader(features) as reader:
        source = fingerprint(reader.settings_hash, [(name, reader.digest(name)) for name in names], TOP, WORDS)
    if stages.result("pairs", source) is not None and output.is_file():
        return read_pairs(output)
    pairs = retrieval_pairs(features, TOP, words=WORDS, names=names, quiet=quiet).pairs
    write_pairs(output, pairs)
    stages.record("pairs", source, len(pairs))
    return pairs


def _source(features: Path, matches: Path, names: list[str], *options: str) -> str:
    """Fingerprint of all that a database depends on; the files may hold more images than the folder does now."""
    known = set(names)
    with FeatureReader(features) as first, MatchReader(matches) as second:
        pairs = [pair for pair in second.pairs() if known.issuperset(pair)]
        made = [(name, first.digest(name)) for name in names]
        return fingerprint(first.settings_hash, made, second.settings_hash, pairs, *options)


def _summary(
    output: Path,
    names: list[str],
    skipped: dict[str, str],
    made: dict[str, Any],
    models: list[dict[str, Any]],
    stages: Stages,
    settings: dict[str, Any],
) -> ReconstructSummary:
    best = models[0] if models else {}
    registered = set(best.get("images", ()))
    brief = ("path", "registered", "points", "observations", "track_length", "reprojection_error")
    return ReconstructSummary(
        output=str(output),
        images=len(names),
        registered=len(registered),
        points=best.get("points", 0),
        observations=best.get("observations", 0),
        track_length=best.get("track_length", 0.0),
        reprojection_error=best.get("reprojection_error", 0.0),
        keypoints=made["keypoints"],
        pairs=made["pairs"],
        verified_pairs=made["verified_pairs"],
        inliers=made["inliers"],
        models=[{key: model[key] for key in brief} for model in models],
        seconds=stages.seconds,
        reused=stages.reused,
        unregistered=[name for name in names if name not in registered and name not in skipped],
        settings=settings,
        skipped=skipped,
    )


def _write_page(
    path: Path,
    summary: ReconstructSummary,
    places: Places,
    models: list[dict[str, Any]],
    options: dict[str, Any],
    stages: Stages,
    source: str,
) -> None:
    """The page of the run; where all was reused, the one that is there has the times of the run that did the work."""
    if stages.recorded("page")[0] == source and path.is_file():
        return
    try:
        write_reconstruct_page(path, summary, places, [model["images"] for model in models], options)
    except HardnetMatchError as error:  # the result is there, and the page is not it
        log.warning("%s could not be written: %s", path, error)
        return
    stages.record("page", source, None)


def _write_report(path: Path, summary: ReconstructSummary, matching: dict[str, Any]) -> None:
    report = {"version": __version__, **asdict(summary), "matching": matching}
    with replacing(path) as part:
        part.write_text(json.dumps(report, indent=2, ensure_ascii=False), encoding="utf-8")
