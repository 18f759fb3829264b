"""Remake the weights that the package carries, from a folder of photos to safetensors, in one command.

    python scripts/train_bundled.py CORPUS --work WORK

CORPUS holds one folder a place (photos of it overlap) and may hold one folder of unrelated photos (`--singles`). What
is made stays in WORK, and what is there is not made again: reconstructions (`models`), patch sets (`sets`, joined in
`data`), runs of the recipes bundled-hardnet, bundled-affnet and bundled-orinet (`runs`, gone on from where they were
stopped). HardNet learns twice: from patches in SIFT's frames, which need no network (recipe bundled-hardnet), and then
from patches in the frames that this package's extraction gives with what it learned first (stages `frames` and
`hardnet-frames`, recipe bundled-hardnet-frames). Stages may be run alone with `--only`. Figures are taken on the places
of `--held-out`, which training never sees; the weights taken are a run's last, not those that did best on them.

To train on another machine, with a GPU say, that has torch, numpy, h5py and OpenCV and nothing else, pack the patches
where the photos are, and carry the file and this repository there:

    python scripts/train_bundled.py CORPUS --work WORK --only mine pack          # WORK/corpus.pack, under 60 MiB
    python scripts/train_bundled.py --packed corpus.pack --work WORK --only hardnet affnet orinet --device cuda
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from hardnet_match.architectures import load_network
from hardnet_match.descriptors import HardTFeat, RootSIFT, TFeat
from hardnet_match.errors import DataError, HardnetMatchError
from hardnet_match.inference import PatchNetwork
from hardnet_match.jobs.train import train
from hardnet_match.orientation import Dominant, OriNet
from hardnet_match.shape import AffNet, Baumberg
from hardnet_match.training.augment import Light
from hardnet_match.training.card import write_card
from hardnet_match.training.checkpoint import LAST, LAST_WEIGHTS
from hardnet_match.training.evaluation import TURNED_VIEW_ERROR
from hardnet_match.training.export import save_bundled
from hardnet_match.training.judge import (
    SECOND_VIEW_ERROR,
    Held,
    descriptor_figures,
    hold_out,
    orientation_figures,
    shape_figures,
)
from hardnet_match.training.pack import choose, pack, packed_loss, unpack
from hardnet_match.training.patchset import PatchSet, save_joined
from hardnet_match.weights import load_into
from hardnet_match.weights.reading import read_state

log = logging.getLogger("train_bundled")
NETWORKS = ("hardnet", "affnet", "orinet")
HELD_PACKED = 6000
"""Held-out patches that are packed: figures while training need no more."""
AGAIN = "hardnet-frames"
STAGES = ("mine", "hardnet", "frames", "pack", AGAIN, "affnet", "orinet", "figures")
KEYPOINTS, VIEWS, ALL_PAIRS = 4096, 8, 50
"""Of the frames: keypoints a photo, most patches of a track, most photos of a place whose pairs are all matched."""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", help="folder of the photos; none with --packed")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--out", type=Path, help="folder of the safetensors and their cards (default: WORK)")
    parser.add_argument("--only", nargs="+", choices=STAGES, help="stages (default: all but pack)")
    parser.add_argument("--packed", type=Path, help="train on this file of packed patches")
    parser.add_argument("--folders", nargs="+", help="places to use (default: every folder of CORPUS)")
    parser.add_argument("--singles", default="singles", help="folder of unrelated photos, for warps of one photo")
    parser.add_argument("--held-out", nargs="+", default=["porta_nigra", "banana"])
    parser.add_argument("--first-octave", type=int, default=-1, choices=(-1, 0), help="of SIFT; -1 doubles the photo")
    parser.add_argument("--megabytes", type=float, default=59.0, help="of the packed file, at most (MiB)")
    parser.add_argument("--quality", type=int, default=75, help="of its JPEG")
    parser.add_argument(
        "--minutes", nargs="+", default=[], metavar="NETWORK=M", help="time for a network (default: its recipe's steps)"
    )
    parser.add_argument(
        "--set", nargs="+", default=[], dest="changes", metavar="NETWORK:KEY=VALUE", help="put over a recipe"
    )
    parser.add_argument("--start-from", type=Path, help="folder with *-bundled.safetensors to go on from")
    parser.add_argument(
        "--compare", type=Path, help="folder with the originals' AffNet.pth, OriNet.pth, HardTFeat.pth, ..."
    )
    parser.add_argument("--judge", nargs="+", choices=NETWORKS, default=NETWORKS, help="whose figures and cards")
    parser.add_argument("--pairs", type=int, default=1000, help="held-out pairs a place, for the figures")
    parser.add_argument("--precision", default="auto", help="of the extraction for the frames; int8 is fastest")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out = options.out or options.work
    options.only = options.only or [stage for stage in STAGES if stage != "pack"]
    if "mine" in options.only and options.corpus is None:
        if options.packed is None:
            parser.error("CORPUS is missing: the folder of photos (or --packed)")
        options.only = [stage for stage in options.only if stage not in ("mine", "frames")]
    return options


def mine(options: argparse.Namespace) -> None:
    """Reconstruct every place and cut its patches; detect and cut those of the single photos; join them."""
    from hardnet_match.training.corpus import detect, reconstruct_scene
    from hardnet_match.training.mining import mine_keypoints, mine_model

    sets = options.work / "sets"
    sets.mkdir(parents=True, exist_ok=True)
    for place in places_of(options):
        photos, folder = options.corpus / place, options.work / "models" / place
        models = reconstruct_scene(photos, folder, first_octave=options.first_octave, threads=options.threads)
        for model in models:
            target = sets / f"{place}-{model.name}.h5"
            if target.exists():
                continue
            try:
                found = mine_model(model, folder / "database.db", photos)
            except DataError as error:
                log.warning("%s left out: %s", place, error)
                continue
            found.save(target)
            log.info("%s: %d patches", target.stem, len(found))
    singles = options.corpus / options.singles
    if singles.is_dir() and not (sets / "singles.h5").exists():
        database = options.work / "singles.db"
        detect(singles, database, first_octave=options.first_octave, threads=options.threads)
        mine_keypoints(database, singles, seed=options.seed).save(sets / "singles.h5")


def join(options: argparse.Namespace) -> None:
    """`data/corpus.h5` and `data/held.h5`: of the packed file, or else of all that was mined."""
    data = options.work / "data"
    data.mkdir(parents=True, exist_ok=True)
    frames = sorted(file for file in (options.work / "sets-frames").glob("*.h5") if file.stem not in options.held_out)
    if frames and not (data / "frames.h5").exists():
        save_joined(data / "frames.h5", [PatchSet.load(file) for file in frames])
    if all((data / f"{name}.h5").exists() for name in ("corpus", "held")):
        return
    if options.packed is not None:
        for name, found in unpack(options.packed).items():
            found.save(data / f"{name}.h5")
            log.info("%s: %d patches", name, len(found))
        return
    for name in ("corpus", "held"):
        save_joined(data / f"{name}.h5", [PatchSet.load(file) for file in sets_of(options, held=name == "held")])


def cut_frames(options: argparse.Namespace) -> None:
    """Reconstruct every place from this package's own features, and cut the patches of its tracks: `sets-frames`."""
    from hardnet_match.extractor import FeatureExtractor
    from hardnet_match.images import list_images
    from hardnet_match.jobs import reconstruct_folder
    from hardnet_match.training.mining import mine_model
    from hardnet_match.training.sources.filters import Filters

    sets = options.work / "sets-frames"
    sets.mkdir(parents=True, exist_ok=True)
    weights = str(options.out / "hardnet-bundled.safetensors")
    extractor = FeatureExtractor.from_preset(max_keypoints=KEYPOINTS, weights=weights, precision=options.precision)
    for place in places_of(options):
        photos, folder, target = options.corpus / place, options.work / "frames" / place, sets / f"{place}.h5"
        if target.exists():
            continue
        pairs = "exhaustive" if len(list_images(photos)) <= ALL_PAIRS else "sequential"
        try:
            reconstruct_folder(photos, folder, extractor, max_size=1024, pairs=pairs, overlap=12, quiet=True)
            found = mine_model(folder / "sparse" / "0", folder / "features.h5", photos, Filters(max_views=VIEWS))
        except HardnetMatchError as error:
            log.warning("%s left out: %s", place, error)
            continue
        found.save(target)
        log.info("%s: %d patches", place, len(found))


def places_of(options: argparse.Namespace) -> list[str]:
    """The folders of the corpus that show a place each."""
    there = (p.name for p in options.corpus.iterdir() if p.is_dir() and p.name != options.singles)
    return list(options.folders) if options.folders else sorted(there)


def split(options: argparse.Namespace) -> None:
    """`data/tracks.h5` and `data/singles.h5`: what `data/corpus.h5` joins."""
    data = options.work / "data"
    if (data / "tracks.h5").exists() and (data / "singles.h5").exists():
        return
    corpus = PatchSet.load(data / "corpus.h5")
    _, label, counts = np.unique(corpus.track, return_inverse=True, return_counts=True)
    for name, rows in (("tracks", counts[label] > 1), ("singles", counts[label] == 1)):
        if rows.any():
            corpus.select(np.flatnonzero(rows)).save(data / f"{name}.h5")


def sets_of(options: argparse.Namespace, *, held: bool) -> list[Path]:
    """Files of the patch sets for training, or of those kept from it."""
    files = sorted((options.work / "sets").glob("*.h5"))
    chosen = [file for file in files if (file.stem.rpartition("-")[0] in options.held_out) == held]
    if not chosen:
        kind = f"held-out place ({', '.join(options.held_out)})" if held else "place to learn from"
        raise SystemExit(f"{options.work / 'sets'} has no patches of any {kind}; run the stage `mine` first")
    return chosen


def make_pack(options: argparse.Namespace) -> None:
    """`WORK/corpus.pack`, and what it leaves out."""
    data = options.work / "data"
    names = [name for name in ("corpus", "frames", "held") if (data / f"{name}.h5").exists()]
    sets = {name: PatchSet.load(data / f"{name}.h5") for name in names}
    sets["held"] = sets["held"].select(choose(sets["held"], HELD_PACKED))
    target = options.work / "corpus.pack"
    kept = pack(sets, target, options.megabytes, quality=options.quality, seed=options.seed)
    log.info("%s: %.1f MiB", target, target.stat().st_size / 2**20)
    for name, found in sets.items():
        error = packed_loss(found, options.quality, options.seed)
        log.info("%s: %d of %d patches; JPEG errs by %.1f of 255, rms", name, kept[name], len(found), error)


def learn(options: argparse.Namespace, name: str) -> None:
    """One stage by its recipe, in `runs/NAME`; its last weights to `OUT/NETWORK-bundled.safetensors`."""
    changes = [text.split(":", 1)[1] for text in options.changes if text.startswith(f"{name}:")]
    minutes = dict(text.split("=", 1) for text in options.minutes).get(name)
    own = options.work / "runs" / "hardnet" / LAST  # which torch alone can read
    again = options.work / "runs" / AGAIN / LAST
    if name not in ("hardnet", AGAIN) and (own.exists() or again.exists()):
        changes.insert(0, f'network.descriptor="{again if again.exists() else own}"')
    start = options.start_from / f"{name}-bundled.safetensors" if options.start_from else None
    if name == AGAIN:
        split(options)
        start = options.start_from / "hardnet-bundled.safetensors" if options.start_from else own
    summary = train(
        f"bundled-{name}",
        options.work / "runs" / name,
        data=options.work / "data",
        changes=[f"seed={options.seed}", *changes],
        device=options.device,
        minutes=None if minutes is None else float(minutes),
        start=start,
    )
    log.info("%s: %s", name, summary.words())
    finish(options, name)


def finish(options: argparse.Namespace, name: str) -> None:
    """The run's last weights as the package carries them; where safetensors is not installed, that is for later."""
    if find_spec("safetensors") is None:
        log.warning("no safetensors here: carry WORK/runs home, where the stage `figures` writes %s-bundled", name)
        return
    network = load_network(options.work / "runs" / name / LAST_WEIGHTS).network
    save_bundled(network, options.out / f"{name.partition('-')[0]}-bundled.safetensors")


def made(options: argparse.Namespace) -> dict[str, PatchNetwork]:
    """The three networks of `--out`, or else those of `--start-from`."""
    out: dict[str, PatchNetwork] = {}
    for name in NETWORKS:
        files = [folder / f"{name}-bundled.safetensors" for folder in (options.out, options.start_from) if folder]
        found = next((file for file in files if file.exists()), None)
        runs = [AGAIN, name] if name == "hardnet" else [name]
        run = next((run for run in runs if (options.work / "runs" / run / LAST_WEIGHTS).exists()), None)
        if found is None and run is not None:
            finish(options, run)
            found = files[0]
        out[name] = load_network(found or f"{name}-bundled", name).network
    return out


def load_original(network: PatchNetwork, folder: Path | None, name: str) -> PatchNetwork | None:
    """One of the originals' networks found by its file name below a folder; None where it is not there."""
    found = sorted(folder.rglob(name)) if folder else []
    if not found:
        return None
    load_into(network, read_state(found[0]), str(found[0]))
    return network.eval()


def figures(options: argparse.Namespace, made: dict[str, PatchNetwork]) -> dict[str, dict[str, dict[str, float]]]:
    """Every network beside its rivals, on each held-out place."""
    descriptors: dict[str, PatchNetwork | None] = {
        "RootSIFT": RootSIFT(),
        "TFeat (liberty)": load_original(TFeat(), options.compare, "tfeat-liberty.params"),
        "HardTFeat": load_original(HardTFeat(), options.compare, "HardTFeat.pth"),
        "hardnet-bundled": made["hardnet"],
    }
    shapes: dict[str, PatchNetwork | None] = {
        "Baumberg": Baumberg(),
        "AffNet (original)": load_original(AffNet(), options.compare, "AffNet.pth"),
        "affnet-bundled": made["affnet"],
    }
    orientations: dict[str, PatchNetwork | None] = {
        "dominant gradient": Dominant(),
        "OriNet (original)": load_original(OriNet(), options.compare, "OriNet.pth"),
        "orinet-bundled": made["orinet"],
    }
    out: dict[str, dict[str, dict[str, float]]] = {}

    def table(
        title: str, rivals: dict[str, PatchNetwork | None], judge: Callable[[PatchNetwork], dict[str, float]]
    ) -> None:
        out[title] = {name: judge(network) for name, network in rivals.items() if network is not None}
        for name, row in out[title].items():
            log.info("%s | %s | %s", title, name, " ".join(f"{key} {value:.4f}" for key, value in row.items()))

    for place in options.held_out:
        files = sorted((options.work / "sets").glob(f"{place}-*.h5"))
        held: Held = hold_out(PatchSet.joined(PatchSet.load(file) for file in files), options.pairs, options.seed)
        if "hardnet" in options.judge:
            table(f"{place}, second view", descriptors, lambda n, h=held: descriptor_figures(n, h))  # type: ignore[misc]
            table(
                f"{place}, second view with errors of frame and light",
                descriptors,
                lambda n, h=held: descriptor_figures(n, h, SECOND_VIEW_ERROR, Light()),  # type: ignore[misc]
            )
        for other in ("HardTFeat", "hardnet-bundled"):
            judge = descriptors[other]
            if judge is None:
                continue
            if "affnet" in options.judge:
                title = f"{place}, stretched up to 3, described by {other}"
                table(title, shapes, lambda n, h=held, j=judge: shape_figures(n, j, h))  # type: ignore[misc]
                out[title]["none"] = shape_figures(None, judge, held)
            if "orinet" in options.judge:
                table(
                    f"{place}, turned at random, described by {other}",
                    orientations,
                    lambda n, h=held, j=judge: orientation_figures(n, j, h, TURNED_VIEW_ERROR),  # type: ignore[misc]
                )
    return out


def main() -> None:
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    if "mine" in options.only:
        mine(options)
    for stage in ("hardnet", "frames", "pack", AGAIN, "affnet", "orinet"):
        if stage not in options.only:
            continue
        if stage == "frames":
            cut_frames(options)
            continue
        join(options)
        if stage == "pack":
            make_pack(options)
        else:
            learn(options, stage)
    if "figures" in options.only:
        found = figures(options, made(options))
        (options.work / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
        for name in options.judge:
            own = {title: rows for title, rows in found.items() if f"{name}-bundled" in rows}
            run = f"Made by `{' '.join(sys.argv)}`."
            write_card(options.out / f"{name}-bundled.md", f"{name}-bundled", run, own)


if __name__ == "__main__":
    try:
        main()
    except HardnetMatchError as error:
        sys.exit(f"train_bundled: {error}")
