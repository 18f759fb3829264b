"""Time and memory of extraction, folder to file, beside the same composition out of kornia's stock modules and COLMAP.

    python scripts/bench_extract.py PHOTOS... [--keypoints 2048 4096 8000] [--repeats 3] [--who ours kornia ...]

Each repeat runs all of them over the same photos in turn, A B C A B C, so that a machine whose speed drifts slows all;
the ratio of the medians, of seconds a photo, is what to quote. Ours is `hardnet-match extract` without starting Python:
decoding, and writing a features file, included. kornia's modules carry our weights and decode with our reader; they
write nothing. COLMAP's SIFT decodes and writes its database. All are asked for as many keypoints; ours and kornia's
have OriNet. Peak memory is of a process of its own for each, over all the photos.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from hardnet_match import weights
from hardnet_match.extractor import FeatureExtractor
from hardnet_match.images import read_image
from hardnet_match.jobs import extract_folder

Run = Callable[[Path, Path], None]
"""Features of a folder of photos, anything written into another."""


def ours(keypoints: int, max_size: int, preset: str = "hesaffnet-hardnet", precision: str = "float32") -> Run:
    extractor = FeatureExtractor.from_preset(
        preset, max_keypoints=keypoints, precision=precision, orientation="orinet", device="cpu"
    )

    def run(photos: Path, out: Path) -> None:
        extract_folder(photos, out / "features.h5", extractor, max_size=max_size, overwrite=True, quiet=True)

    return run


def kornias(keypoints: int, max_size: int) -> Run:
    """Hessian + AffNet + OriNet + HardNet as kornia puts them together."""
    from kornia import feature
    from kornia.geometry import ScalePyramid

    shape, turn, describe = feature.LAFAffNetShapeEstimator(False), feature.LAFOrienter(32), feature.HardNet(False)
    turn.angle_detector = feature.OriNet(False)
    for module, name in ((shape, "affnet"), (turn.angle_detector, "orinet"), (describe, "hardnet")):
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
    def run(photos: Path, out: Path) -> None:
        del out
        for photo in sorted(photos.iterdir()):
            pixels = np.asarray(read_image(photo, max_size=max_size).pixels)
            local(torch.from_numpy(pixels).float()[None, None] / 255)

    return run


def colmaps(keypoints: int, max_size: int, *, affine: bool = False) -> Run:
    """COLMAP's SIFT on the processor; `affine`: with affine shape and domain-size pooling."""
    from hardnet_match.sfm.colmap import pycolmap, quietly

    def run(photos: Path, out: Path) -> None:
        (out / "sift.db").unlink(missing_ok=True)
        options = pycolmap.FeatureExtractionOptions()
        options.max_image_size, options.use_gpu = max_size, False
        options.sift.max_num_features = keypoints
        options.sift.estimate_affine_shape = options.sift.domain_size_pooling = affine
        with quietly():
            pycolmap.extract_features(out / "sift.db", photos, extraction_options=options)

    return run


MAKERS: dict[str, Callable[[int, int], Run]] = {
    "ours": ours,
    "ours, half": lambda keypoints, size: ours(keypoints, size, precision="half"),
    "ours, int8": lambda keypoints, size: ours(keypoints, size, precision="int8"),
    "ours, DoG": lambda keypoints, size: ours(keypoints, size, "dog-affnet-hardnet"),
    "ours, DoG, int8": lambda keypoints, size: ours(keypoints, size, "dog-affnet-hardnet", "int8"),
    "kornia": kornias,
    "COLMAP SIFT": colmaps,
    "COLMAP SIFT, affine, DSP": lambda keypoints, size: colmaps(keypoints, size, affine=True),
}


def peak(who: str, photos: Path, keypoints: int, max_size: int) -> float:
    """MB of a process of its own that does it once."""
    command = [sys.executable, __file__, str(photos), "--one", who, "--keypoints", str(keypoints)]
    done = subprocess.run([*command, "--max-size", str(max_size)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def one(who: str, photos: Path, keypoints: int, max_size: int) -> None:
    with tempfile.TemporaryDirectory() as out:
        MAKERS[who](keypoints, max_size)(photos, Path(out))
    # Not getrusage: its maximum is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--keypoints", type=int, nargs="+", default=[2048, 4096, 8000])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-size", type=int, default=1152, help="1152 makes a 4:3 photo one megapixel")
    parser.add_argument("--who", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--one", choices=MAKERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.photos[0], options.keypoints[0], options.max_size)
        return
    print(f"{len(options.photos)} photos, {os.cpu_count()} cores, {options.repeats} repeats\n")
    print("| keypoints | who | seconds a photo, median | least to most | times as fast as kornia | peak MB |")
    print("|" + "---|" * 6, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        photos, out = Path(scratch) / "photos", Path(scratch) / "out"
        photos.mkdir()
        out.mkdir()
        for number, photo in enumerate(options.photos):
            shutil.copyfile(photo, photos / f"{number:03}{photo.suffix}")
        for keypoints in options.keypoints:
            runs = {who: MAKERS[who](keypoints, options.max_size) for who in options.who}
            times: dict[str, list[float]] = {who: [] for who in runs}
            for _ in range(options.repeats):
                for who, run in runs.items():
                    start = time.perf_counter()
                    run(photos, out)
                    times[who].append((time.perf_counter() - start) / len(options.photos))
            medians = {who: statistics.median(seconds) for who, seconds in times.items()}
            for who, seconds in times.items():
                ratio = f"{medians['kornia'] / medians[who]:.1f}" if "kornia" in medians else ""
                spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
                memory = peak(who, photos, keypoints, options.max_size)
                print(f"| {keypoints} | {who} | {medians[who]:.2f} | {spread} | {ratio} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
