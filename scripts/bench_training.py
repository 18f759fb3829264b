"""Speed of a training step of HardNet, next to the machine's own limit, and the share of its parts.

    python scripts/bench_training.py [SETS.h5 ...] [--batch 512 1024] [--threads 1 2] [--precision bfloat16 float32]

The limit is what the step's convolutions would take if they were nothing but matrix products at the speed this machine
multiplies matrices of their shapes: forward, gradient of the input and gradient of the weights, each as one product of
the unfolded shape (for the first layer without the gradient of its input). BatchNorm, ReLU, the loss, augmentation, and
the optimiser come on top. Without patch sets, random patches stand in: the step takes as long, reading them does not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hardnet_match.devices import choose_device
from hardnet_match.training.assemble import make_network, make_task
from hardnet_match.training.parallel import Processes
from hardnet_match.training.patchset import PatchSet
from hardnet_match.training.recipe import find, read
from hardnet_match.training.sampling import PairSampler
from hardnet_match.training.schedules import Optimiser, Schedule, build
from hardnet_match.training.tasks import Moment
from hardnet_match.training.trainer import Trainer, choose_precision


def random_set(tracks: int) -> PatchSet:
    """Two random patches a track, in memory."""
    rng = np.random.default_rng(0)
    count = 2 * tracks
    zeros = np.zeros(count, dtype=np.int32)
    patches = rng.integers(0, 256, (count, 64, 64), dtype=np.uint8)
    return PatchSet(patches, np.repeat(np.arange(tracks), 2), np.arange(count, dtype=np.int32), zeros)


CLOCK: list[Callable[[], float]] = [time.perf_counter]


def seconds_of(work: Callable[[], object], device: torch.device, least: float) -> float:
    """Median seconds of a call, over `least` seconds of calls and three at least, the first left out."""
    clock = CLOCK[0]

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    work()
    wait()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        started = clock()
        work()
        wait()
        times.append(clock() - started)
    return float(np.median(times))


def products(network: nn.Module, patches: int) -> list[tuple[int, int, int]]:
    """(m, k, n) of the matrix products of a training step's convolutions over so many patches."""
    shapes: list[tuple[int, int, int]] = []

    def noted(layer: nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        assert isinstance(layer, nn.Conv2d)
        rows = patches * out.shape[2] * out.shape[3]
        inner = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        shapes.append((rows, inner, layer.out_channels))  # forward
        shapes.append((inner, rows, layer.out_channels))  # gradient of the weights
        if layer.in_channels > 1:
            shapes.append((rows, layer.out_channels, inner))  # gradient of the input

    hooks = [m.register_forward_hook(noted) for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        network.eval()(torch.rand(1, 1, 32, 32))
    for hook in hooks:
        hook.remove()
    return shapes


def limit(shapes: list[tuple[int, int, int]], dtype: torch.dtype, device: torch.device) -> tuple[float, float]:
    """Seconds of all the products at this machine's speed, and that speed in 1e9 operations a second, over them all."""
    total, operations = 0.0, 0.0
    for m, k, n in shapes:
        # long ones in part: the speed is the same, the memory is not
        small_m, small_k = min(m, 16384), min(k, 16384)
        one = torch.randn(small_m, small_k, device=device).to(dtype)
        other = torch.randn(small_k, n, device=device).to(dtype)
        took = seconds_of(lambda a=one, b=other: a @ b, device, 0.05)  # type: ignore[misc]
        total += took * (m / small_m) * (k / small_k)
        operations += 2.0 * m * k * n
    return total, operations / total / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path, help="patch sets to draw from")
    parser.add_argument("--batch", nargs="+", type=int, default=[512, 1024], help="pairs")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seconds", type=float, default=10.0, help="of measuring a step")
    parser.add_argument(
        "--processor-time", action="store_true", help="not the clock's: on a machine that is busy otherwise; one thread"
    )
    options = parser.parse_args()
    if options.processor_time:
        CLOCK[0] = time.process_time
        options.threads = [1]
    device = choose_device(options.device)
    observations = PatchSet.joined(PatchSet.load(path) for path in options.sets) if options.sets else random_set(4096)
    sampler = PairSampler(observations)
    recipe = read(find("bundled-hardnet"))
    print(
        "| threads | precision | pairs | step, s | patches/s | forward and backward | augmentation | optimiser | "
        "batch drawn beside it | waiting | products alone, s | their speed, 1e9/s | step / products |"
    )
    print("|" + "---|" * 13)
    for threads in options.threads:
        torch.set_num_threads(threads)
        for name in options.precision:
            precision = choose_precision(name, device)
            for batch in options.batch:
                print(_row(recipe, sampler, batch, threads, name, precision, device, options.seconds), flush=True)


def _row(
    recipe: object,
    sampler: PairSampler,
    batch: int,
    threads: int,
    name: str,
    precision: torch.dtype | None,
    device: torch.device,
    seconds: float,
) -> str:
    from hardnet_match.training.recipe import Recipe

    assert isinstance(recipe, Recipe)
    network = make_network(recipe)
    shapes = products(network, 2 * batch)
    task = make_task(recipe, network, None)
    task.prepare(device)
    network.train()
    optimiser = build(network, Optimiser())
    generator = torch.Generator(device).manual_seed(0)
    drawn = sampler.batch(batch, np.random.default_rng(0)).on(device)
    moment = Moment(0.0, 0.0, generator, device, precision, Processes())

    def learn() -> None:
        optimiser.zero_grad(set_to_none=True)
        task.loss(drawn, moment).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    step = seconds_of(learn, device, seconds)
    augment = seconds_of(lambda: task.augment(drawn, generator), device, seconds / 10)  # type: ignore[attr-defined]
    update = seconds_of(optimiser.step, device, seconds / 10)
    rng = np.random.default_rng(0)
    draw = seconds_of(lambda: sampler.batch(batch, rng), device, seconds / 10)
    floor, speed = limit(shapes, precision or torch.float32, device)
    steps = max(int(seconds / step), 3)
    schedule = Schedule(steps=steps + 1, batch=batch, report=steps + 1)
    trainer = Trainer(task, sampler, schedule, device=device, precision=name)
    waiting = trainer.run().reports[-1]["waiting"]
    rest = step - augment - update
    shown = str(precision or torch.float32).removeprefix("torch.")
    return (
        f"| {threads} | {shown} | {batch} | {step:.3f} | {2 * batch / step:.0f} | {100 * rest / step:.0f} % "
        f"| {100 * augment / step:.1f} % | {100 * update / step:.1f} % | {draw:.4f} s, {100 * draw / step:.1f} % "
        f"| {100 * waiting:.2f} % | {floor:.3f} | {speed:.0f} | {step / floor:.1f} |"
    )


if __name__ == "__main__":
    main()
