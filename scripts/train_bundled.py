"""Train the weights that the package carries, from a folder of photos to safetensors, in one command.

    python scripts/train_bundled.py CORPUS --work WORK

CORPUS holds one folder a place (photos of it overlap) and may hold one folder of unrelated photos (`--singles`).
Reconstructions, patch sets and networks are kept in WORK; what is there is not made again. Every stage may be run alone
with `--only`. Figures are measured on the folders of `--held-out`, which training never sees.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from hardnet_match.descriptors import HardNet, HardTFeat, RootSIFT, TFeat
from hardnet_match.errors import DataError
from hardnet_match.inference import PatchNetwork
from hardnet_match.orientation import Dominant, OriNet
from hardnet_match.shape import AffNet, Baumberg
from hardnet_match.training.augment import Light, Warp
from hardnet_match.training.card import write_card
from hardnet_match.training.corpus import detect, reconstruct_scene
from hardnet_match.training.export import load_bundled, save_bundled
from hardnet_match.training.judge import (
    SECOND_VIEW_ERROR,
    Held,
    descriptor_figures,
    hold_out,
    orientation_figures,
    shape_figures,
)
from hardnet_match.training.loop import History, Schedule, train_descriptor, train_orientation, train_shape
from hardnet_match.training.mining import mine_keypoints, mine_model
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sampling import PairSampler

log = logging.getLogger("train_bundled")
TURNED_VIEW_ERROR = Warp(octaves=0.2, shift=1.0, tilt=1.3)
STAGES = ("mine", "hardnet", "affnet", "orinet", "figures")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is made on the way")
    parser.add_argument("--out", type=Path, help="folder of the safetensors and their cards (default: WORK)")
    parser.add_argument("--folders", nargs="+", help="places to use (default: every folder of CORPUS)")
    parser.add_argument("--singles", default="singles", help="folder of unrelated photos, for warps of one photo")
    parser.add_argument("--held-out", nargs="+", default=["porta_nigra", "banana"])
    parser.add_argument("--first-octave", type=int, default=-1, choices=(-1, 0), help="of SIFT; -1 doubles the photo")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    for name, seconds, rate, batch in (
        ("hardnet", 3000, 3e-3, 384),
        ("affnet", 600, 3e-3, 256),
        ("orinet", 600, 3e-3, 384),
    ):
        parser.add_argument(
            f"--{name}-seconds", type=float, default=seconds, help="at most so long (default: %(default)s)"
        )
        parser.add_argument(f"--{name}-steps", type=int, default=10**6, help="at most so many batches")
        parser.add_argument(
            f"--{name}-rate", type=float, default=rate, help="peak learning rate (default: %(default)s)"
        )
        parser.add_argument(f"--{name}-batch", type=int, default=batch, help="pairs (default: %(default)s)")
    parser.add_argument("--affnet-guided", type=float, default=0.6, help="share of the run drawn to the second moments")
    parser.add_argument("--affnet-matching", type=float, default=1.0, help="weight of the descriptor's loss; 0: none")
    parser.add_argument("--affnet-modesty", type=float, default=0.02, help="weight of staying near a circle")
    parser.add_argument("--orinet-guided", type=float, default=0.4, help="share of the run drawn to the gradient")
    parser.add_argument("--start-from", type=Path, help="folder with *-bundled.safetensors to go on from")
    parser.add_argument(
        "--compare", type=Path, help="folder with the originals' AffNet.pth, OriNet.pth, HardTFeat.pth, ..."
    )
    parser.add_argument("--judge", nargs="+", choices=STAGES[1:4], default=STAGES[1:4], help="whose figures and cards")
    parser.add_argument("--pairs", type=int, default=1000, help="held-out pairs a place, for the figures")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def mine(options: argparse.Namespace) -> None:
    """Reconstruct every place and cut its patches; detect and cut those of the single photos."""
    sets = options.work / "sets"
    sets.mkdir(parents=True, exist_ok=True)
    places = options.folders or sorted(
        p.name for p in options.corpus.iterdir() if p.is_dir() and p.name != options.singles
    )
    for place in places:
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


def sets_of(options: argparse.Namespace, *, held: bool) -> PatchSet:
    """The patch sets for training, or those kept from it."""
    files = sorted((options.work / "sets").glob("*.h5"))
    chosen = [file for file in files if (file.stem.rpartition("-")[0] in options.held_out) == held]
    return PatchSet.joined(PatchSet.load(file) for file in chosen)


def networks(options: argparse.Namespace, training: Sequence[str] = ()) -> dict[str, PatchNetwork]:
    """The three networks: one to be trained is new or that of `--start-from`, another one that of `--out` first."""
    torch.manual_seed(options.seed)
    out: dict[str, PatchNetwork] = {"hardnet": HardNet(), "affnet": AffNet(), "orinet": OriNet()}
    for name, network in out.items():
        folders = [options.start_from] if name in training else [options.out, options.start_from]
        files = [folder / f"{name}-bundled.safetensors" for folder in folders if folder]
        found = next((file for file in files if file.exists()), None)
        if found is not None:
            load_bundled(network, found)
    return out


def load_original(network: PatchNetwork, folder: Path | None, name: str) -> PatchNetwork | None:
    """One of the originals' networks found by its file name below a folder; None where it is not there."""
    found = sorted(folder.rglob(name)) if folder else []
    if not found:
        return None
    state = torch.load(found[0], map_location="cpu", weights_only=True)
    network.load_state_dict(state.get("state_dict", state))
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
    options.out = options.out or options.work
    options.out.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(options.threads)
    if "mine" in options.only:
        mine(options)
    training = [stage for stage in ("hardnet", "affnet", "orinet") if stage in options.only]
    made = networks(options, training)
    if training:
        sampler = PairSampler(sets_of(options, held=False))
        held = hold_out(sets_of(options, held=True), 1000, options.seed)
        log.info("%d patches of %d tracks", len(sampler.set), len(sampler.counts))
    for stage in training:
        seconds, steps, rate, batch = (
            getattr(options, f"{stage}_{key}") for key in ("seconds", "steps", "rate", "batch")
        )
        schedule = Schedule(steps=steps, seconds=seconds, batch=batch, rate=rate)
        network, judge = made[stage], made["hardnet"]
        target = options.out / f"{stage}-bundled.safetensors"

        def check(
            network: PatchNetwork = network, target: Path = target, judge: PatchNetwork = judge
        ) -> dict[str, float]:
            save_bundled(network, target)
            if isinstance(network, HardNet):
                return descriptor_figures(network, held, SECOND_VIEW_ERROR, Light())
            return (
                shape_figures(network, judge, held)
                if isinstance(network, AffNet)
                else orientation_figures(network, judge, held)
            )

        started = time.monotonic()
        history: History
        if isinstance(network, HardNet):
            history = train_descriptor(
                network, sampler, schedule, check=check, device=options.device, seed=options.seed
            )
        elif isinstance(network, AffNet):
            history = train_shape(
                network,
                judge,
                sampler,
                schedule,
                modesty=options.affnet_modesty,
                matching=options.affnet_matching,
                guided=options.affnet_guided,
                check=check,
                device=options.device,
                seed=options.seed,
            )
        else:
            assert isinstance(network, OriNet)
            history = train_orientation(
                network,
                sampler,
                schedule,
                guided=options.orinet_guided,
                check=check,
                device=options.device,
                seed=options.seed,
            )
        network.cpu()
        save_bundled(network, target)
        log.info("%s: %d steps of %d pairs in %.0f s", stage, history.steps, batch, time.monotonic() - started)
    if "figures" in options.only:
        found = figures(options, networks(options))
        (options.work / "figures.json").write_text(json.dumps(found, indent=1) + "\n")
        for name in options.judge:
            own = {title: rows for title, rows in found.items() if f"{name}-bundled" in rows}
            run = f"Made by `{' '.join(sys.argv)}`."
            write_card(options.out / f"{name}-bundled.md", f"{name}-bundled", run, own)


if __name__ == "__main__":
    main()
