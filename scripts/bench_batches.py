"""What the data side of a training step costs, a pair: drawing, reading, copying, augmenting; next to the step itself.

    python scripts/bench_batches.py [SET.h5 ...] [--device cuda] [--batch 1024] [--augment fliprot small]

Without a set, one of the size of Liberty is made up (450,000 patches, mapped from a file of 1.8 GB in a temporary
folder; `--patches` makes it smaller). The step is that of a HardNet under the hardest-in-batch triplet loss. The last
row is how long such steps wait for their batches when these are drawn ahead, in a thread, as training draws them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hardnet_match.descriptors import HardNet
from hardnet_match.training.augment import make_augmentation
from hardnet_match.training.losses import make_loss
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.sampling import PairSampler, TupleSampler, batches
from hardnet_match.training.trainer import choose_precision


def made_up(count: int) -> PatchSet:
    """Random patches, three a label, of 5,000 images."""
    rng = np.random.default_rng(0)
    return PatchSet(
        rng.integers(0, 256, (count, 64, 64), dtype=np.uint8),
        np.arange(count, dtype=np.int64) // 3,
        rng.integers(0, 5000, count, dtype=np.int32),
        np.zeros(count, dtype=np.int32),
        margin=1.0,
    )


def seconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The least time of several calls: the one that nobody else on the machine disturbed."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path)
    parser.add_argument("--patches", type=int, default=450_000, help="of the made-up set (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--few-images", action="store_true", help="draw from few images")
    parser.add_argument("--augment", nargs="*", default=["fliprot", "small"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        if options.sets:
            loaded = [PatchSet.load(path) for path in options.sets]
            observations = loaded[0] if len(loaded) == 1 else PatchSet.joined(loaded)
        else:
            made_up(options.patches).save(Path(folder) / "made-up.h5")
            observations = PatchSet.load(Path(folder) / "made-up.h5")
        measure(observations, options, device)


def measure(observations: PatchSet, options: argparse.Namespace, device: torch.device) -> None:
    """Print the table."""
    count = options.batch
    sampler = TupleSampler(observations, few_images=True) if options.few_images else PairSampler(observations)
    rng = np.random.default_rng(0)
    augment, loss_of = make_augmentation(options.augment), make_loss()
    network = HardNet().to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    precision = choose_precision(options.precision, device)
    generator = torch.Generator(device).manual_seed(0)
    batch = sampler.batch(count, rng)
    moved = batch.on(device)
    shown = augment(moved, generator)

    def step(patches: Tensor) -> None:
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, precision or torch.bfloat16, enabled=precision is not None):
            out = network(patches.flatten(0, 1))
        descriptors = out.float().unflatten(0, (2, count))
        loss_of(descriptors, moved.label, moved.same).backward()
        optimiser.step()

    rows = {
        "draw labels and patches": seconds(lambda: sampler.rows(count, rng), device, options.repeats),
        "draw and read": seconds(lambda: sampler.batch(count, rng), device, options.repeats),
        "to the device, and who is no negative": seconds(lambda: batch.on(device), device, options.repeats),
        "augment": seconds(lambda: augment(moved, generator), device, options.repeats),
        "training step": seconds(lambda: step(shown), device, options.repeats),
    }
    whole = rows["training step"]
    print(f"{len(observations)} patches, {count} pairs a batch, {device}, {precision or torch.float32}")
    print("| part | us a pair | of the step, % |\n|---|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {1e6 * value / count:.2f} | {100 * value / whole:.2f} |")
    waited = started = 0.0
    ready = batches(sampler, count, 1, stop=options.repeats + 3)
    for number in range(options.repeats + 3):
        asked = time.perf_counter()
        drawn = next(ready)
        waited += time.perf_counter() - asked
        if number == 2:  # from here on things run as they will
            waited, started = 0.0, time.perf_counter()
        step(augment(drawn.on(device), generator))
        if device.type == "cuda":
            torch.cuda.synchronize()
    total = time.perf_counter() - started
    print(f"| waiting, drawn ahead | {1e6 * waited / options.repeats / count:.2f} | {100 * waited / total:.2f} |")


if __name__ == "__main__":
    main()
