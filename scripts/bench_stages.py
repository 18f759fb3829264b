"""Seconds of each network beside what its multiply-adds would cost at this machine's matrix-product rate.

    python scripts/bench_stages.py [--patches 2048] [--threads 1] [--repeats 5]

The rate is that of `torch.mm` of 1,536 x 1,536 float32 matrices, the best of its repeats, measured in turn with the
networks; a network's figure is its median. int8 has units of its own in a processor, so that it may cost less than 1.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hardnet_match.architectures import load_network
from hardnet_match.inference import run_tiled
from hardnet_match.quantised import quantise

SIDE = 1536
NETWORKS = {"AffNet": "affnet-bundled", "OriNet": "orinet-bundled", "HardNet": "hardnet-bundled"}


def multiply_adds(network: nn.Module) -> int:
    """Of the convolutions, for one patch."""
    counted = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        assert isinstance(module, nn.Conv2d)
        counted += output[0].numel() * module.weight[0].numel()

    hooks = [part.register_forward_hook(count) for part in network.modules() if isinstance(part, nn.Conv2d)]
    with torch.inference_mode():
        network(torch.rand(1, 1, 32, 32))
    for hook in hooks:
        hook.remove()
    return counted


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    patches = torch.rand(options.patches, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    square = torch.rand(SIDE, SIDE)
    print("| network | precision | million multiply-adds a patch | microseconds a patch | at the rate | ratio |")
    print("|" + "---|" * 6)
    for name, weights in NETWORKS.items():
        plain = load_network(weights).network
        for precision, ready in (("float32", plain.fused()), ("int8", quantise(plain))):
            run_tiled(ready, patches)
            products, times = [], []
            for _ in range(options.repeats):
                products.append(seconds(lambda: square @ square))
                times.append(seconds(lambda ready=ready: run_tiled(ready, patches)))  # type: ignore[misc]
            rate = SIDE**3 / min(products)
            adds = multiply_adds(plain)
            took, floor = statistics.median(times) / options.patches, adds / rate
            cells = (name, precision, f"{adds / 1e6:.1f}", f"{1e6 * took:.0f}", f"{1e6 * floor:.0f}")
            print("| " + " | ".join((*cells, f"{took / floor:.2f}")) + " |", flush=True)
    print(f"\nrate: {2 * rate / 1e9:.0f} GFLOP/s on {options.threads} threads")


if __name__ == "__main__":
    main()
