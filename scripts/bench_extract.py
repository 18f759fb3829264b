"""Time and memory of extraction: this package against the same composition out of kornia's stock modules, paired.

    python scripts/bench_extract.py PHOTO... [--keypoints 2048 4096] [--repeats 3] [--stages]

Each repeat runs both on the same photo in turn, A B A B, so that a machine whose speed drifts slows both; the ratio
of the medians is
what to quote. Both have the same weights (kornia's modules carry ours), the same number of keypoints, and OriNet.
Peak memory
is of a
process of its own for each.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hardnet_match import weights
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images import read_image

Run = Callable[[NDArray[np.uint8]], int]


def ours(keypoints: int, precision: str = "float32") -> Run:
    extractor = FeatureExtractor.from_preset(max_keypoints=keypoints, precision=precision, orientation="orinet")
    return lambda image: len(extractor.extract(image))


def kornias(keypoints: int) -> Run:
    """Hessian + AffNet + OriNet + HardNet as kornia puts them together."""
    from kornia import feature
    from kornia.geometry import ScalePyramid

    shape, turn, describe = feature.LAFAffNetShapeEstimator(False), feature.LAFOrienter(32), feature.HardNet(False)
    turn.angle_detector = feature.OriNet(False)
    parts = ((shape, "affnet"), (turn.angle_detector, "orinet"), (describe, "hardnet"))
    for module, name in parts:
        module.load_state_dict(weights.load_state_dict(f"{name}-bundled", name), strict=False)
    detector = feature.ScaleSpaceDetector(
        keypoints,
        resp_module=feature.BlobHessian(),
        scale_pyr_module=ScalePyramid(3, 1.6, 32, double_image=True),
        ori_module=turn,
        aff_module=shape,
        mr_size=6.0,
    )
    local = feature.LocalFeature(detector, feature.LAFDescriptor(describe, 32)).eval()

    @torch.inference_mode()
    def run(image: NDArray[np.uint8]) -> int:
        tensor = torch.from_numpy(image).float()[None, None] / 255
        return int(feature.laf_is_filled(local(tensor)[0]).sum())

    return run


MAKERS: dict[str, Callable[[int], Run]] = {
    "ours": ours,
    "ours-half": lambda keypoints: ours(keypoints, "half"),
    "ours-int8": lambda keypoints: ours(keypoints, "int8"),
    "kornia": kornias,
}


def one(who: str, photo: Path, keypoints: int, max_size: int) -> None:
    """A process of its own: one extraction, then the peak memory in MB."""
    MAKERS[who](keypoints)(np.asarray(read_image(photo, max_size=max_size).pixels))
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def stages(extractor: FeatureExtractor, image: NDArray[np.uint8]) -> str:
    from torch.profiler import ProfilerActivity, profile, record_function

    for name in ("detector", "shape", "orientation", "descriptor"):
        module = getattr(extractor, name)
        forward = module.forward

        def timed(*inputs: Any, forward: Any = forward, name: str = name) -> Any:
            with record_function(f"stage {name}"):
                return forward(*inputs)

        module.forward = timed
    with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("stage all"):
        extractor.extract(image)
    totals = {
        event.key: event.cpu_time_total / 1e6 for event in profiler.key_averages() if event.key.startswith("stage ")
    }
    return ", ".join(f"{name.removeprefix('stage ')} {seconds:.2f} s" for name, seconds in totals.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--keypoints", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-size", type=int, default=1152, help="1152 makes a 4:3 photo one megapixel")
    parser.add_argument("--stages", action="store_true", help="seconds of each stage of ours as well")
    parser.add_argument("--one", choices=MAKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.photos[0], options.keypoints[0], options.max_size)
        return
    print("| keypoints | who | median s | min-max s | kornia / it | peak MB |\n|" + "---|" * 6)
    for keypoints in options.keypoints:
        runs = {who: make(keypoints) for who, make in MAKERS.items()}
        times: dict[str, list[float]] = {who: [] for who in runs}
        for photo in options.photos:
            image = np.asarray(read_image(photo, max_size=options.max_size).pixels)
            for repeat in range(options.repeats + 1):
                for who, run in runs.items():
                    start = time.perf_counter()
                    run(image)
                    if repeat:  # the first one warms up
                        times[who].append(time.perf_counter() - start)
        medians = {who: statistics.median(seconds) for who, seconds in times.items()}
        for who, seconds in times.items():
            command = [sys.executable, __file__, str(options.photos[0]), "--one", who, "--keypoints", str(keypoints)]
            memory = subprocess.run(
                [*command, "--max-size", str(options.max_size)], capture_output=True, text=True, check=True
            )
            ratio = medians["kornia"] / medians[who]
            spread = f"{min(seconds):.2f}-{max(seconds):.2f}"
            print(
                f"| {keypoints} | {who} | {medians[who]:.2f} | {spread} | {ratio:.1f} | {float(memory.stdout):.0f} |",
                flush=True,
            )
        if options.stages:
            extractor = FeatureExtractor.from_preset(max_keypoints=keypoints, orientation="orinet")
            extractor.extract(image)
            print(f"\nstages at {keypoints}: {stages(extractor, image)}\n")


if __name__ == "__main__":
    main()
