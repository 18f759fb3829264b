"""The whole pipeline on a rendered scene: what comes out is compared with the cameras that took the pictures."""

from __future__ import annotations

import json
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..sfm import compare_cameras
from ..world import write_scene
from .alone import alone
from .reconstruct import ReconstructSummary, reconstruct_folder

if TYPE_CHECKING:
    from ..extractor import FeatureExtractor

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DemoSummary:
    """What the demo reached against the known cameras.

    Rotation errors in degrees, position errors in percent of the known cameras' extent, after the best similarity.
    """

    output: str
    picture: str
    rotation_error_median: float
    rotation_error_max: float
    position_error_median: float
    position_error_max: float
    reconstruction: ReconstructSummary

    def words(self) -> str:
        """The summary for a reader."""
        run = self.reconstruction
        width = 20
        rows = [
            ("images registered", f"{run.registered} of {run.images}"),
            ("3-D points", f"{run.points}, seen in {run.track_length:.1f} images on average"),
            ("reprojection error", f"{run.reprojection_error:.3f} px"),
            (
                "rotation error",
                f"median {self.rotation_error_median:.3f}, largest {self.rotation_error_max:.3f} degrees",
            ),
            (
                "position error",
                f"median {self.position_error_median:.3f}, largest {self.position_error_max:.3f} % of the extent",
            ),
            ("time", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run.seconds.items()) + " s"),
            ("pictures", f"{self.output}/images"),
            ("features, matches", f"{run.output}/features.h5, {run.output}/matches.h5"),
            ("COLMAP model", f"{run.output}/sparse/0"),
            ("picture of matches", self.picture),
            ("page to look at", f"{run.output}/report.html"),
        ]
        return "\n".join(f"{name + ':':{width}}{value}" for name, value in rows)


def run_demo(
    output: str | Path,
    extractor: FeatureExtractor,
    *,
    views: int = 10,
    size: tuple[int, int] = (640, 480),
    seed: int = 0,
    mapper: str = "incremental",
    device: str = "auto",
    overwrite: bool = False,
    quiet: bool = False,
) -> DemoSummary:
    """Render a scene, reconstruct it, and compare the cameras with the known ones.

    Leaves in `output`: `images`, `cameras.json` (the truth), and what `reconstruct_folder` leaves.

    Args:
        output: folder for it all, made if missing (its parent exists).
        views: pictures to take.
        size: (width, height) of the pictures.
        seed: another seed is another scene.
        extractor, mapper, device, overwrite, quiet: as in `reconstruct_folder`.

    Raises:
        StoreError: the output holds results of other settings.
        ReconstructionError: nothing could be reconstructed.
    """
    output = Path(output)
    output.mkdir(exist_ok=True)
    asked = {"seed": seed, "size": list(size), "views": views}
    with alone(output):
        truth = _rendered(output, asked)
        if truth is None:
            log.info("taking %d pictures of a rendered scene", views)
            started = time.perf_counter()
            # Other pictures under the same names: nothing of an earlier demo may survive them.
            overwrite = True
            shutil.rmtree(output / "images", ignore_errors=True)
            (output / "cameras.json").unlink(missing_ok=True)
            truth = write_scene(output, n_views=views, size=size, seed=seed)
            log.info("done in %.1f s", time.perf_counter() - started)
    summary = reconstruct_folder(
        output / "images",
        output,
        extractor,
        camera_mode="single",
        mapper=mapper,
        device=device,
        overwrite=overwrite,
        quiet=quiet,
    )
    known = {name: (pose["R"], pose["t"]) for name, pose in truth["images"].items()}
    errors = compare_cameras(output / "sparse" / "0", known).summary()
    return DemoSummary(
        output=str(output),
        picture=str(output / "matches.jpg"),
        rotation_error_median=errors["rotation_median_degrees"],
        rotation_error_max=errors["rotation_max_degrees"],
        position_error_median=100 * errors["position_median"],
        position_error_max=100 * errors["position_max"],
        reconstruction=summary,
    )


def _rendered(output: Path, asked: dict[str, Any]) -> dict[str, Any] | None:
    """The truth of the pictures that are there, if they are those asked for."""
    try:
        truth = json.loads((output / "cameras.json").read_text(encoding="utf-8"))
        there = {"seed": truth["seed"], "size": truth["size"], "views": len(truth["images"])}
        whole = all((output / "images" / name).is_file() for name in truth["images"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return truth if whole and there == asked else None
