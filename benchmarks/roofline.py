"""What a training step cannot be faster than: its operations and bytes against the device's own.

usage: python benchmarks/roofline.py [--network unet_plus_plus|unet] [--patch 128 128 128]
           [--batch 2] [--features 32] [--device cpu] [--measure [--compile]]

Operations and bytes are counted in a rehearsal without memory: each operation reads its inputs from
memory and writes its outputs there once, as it does unless it is fused with the next. What the
device can do is measured here: a matrix product, and a copy of a large array. With both it prints

  arithmetic   operations by the rate of the product: no kernel of convolutions is faster;
  memory       bytes by the rate of the copy: what fusing operations could save is in here.

`--measure` also times steps of the network (median of five after two), which needs the memory;
with `--compile` as nnUNet_train --compile computes them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.compiling import compile_network
from nnunetlike.networks.rehearsal import step
from nnunetlike.plans.topology import Topology

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WARM_UP, STEPS = 2, 5
SIDE = {"cpu": 2048, "cuda": 8192}
COPIED = {"cpu": 2**28, "cuda": 2**32}
"""Bytes of the array that is copied."""


def main() -> None:
    """Print the table of what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=("unet", "unet_plus_plus"), default="unet_plus_plus")
    parser.add_argument("--patch", type=int, nargs=3, default=[128, 128, 128])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--features", type=int, default=32, help="features of the first level")
    parser.add_argument("--poolings", type=int, default=5)
    parser.add_argument("--classes", type=int, default=3, help="with background")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--measure", action="store_true", help="also time steps")
    parser.add_argument("--compile", action="store_true", help="with --measure: compiled steps")
    args = parser.parse_args()
    patch = " x ".join(map(str, args.patch))
    print(f"{args.network}, {args.batch} patches of {patch}, {args.features} features, a step")
    print(f"{'':9}  {'operations':>11} {'bytes':>9}   {'product':>12} {'copy':>10}   "
          f"{'arithmetic':>10} {'memory':>9} {'measured':>9}")  # fmt: skip
    for name, dtype in TYPES.items():
        report(args, name, dtype)


def report(args: argparse.Namespace, name: str, dtype: torch.dtype) -> None:
    """Print the line of one type of numbers."""
    operations, bytes_moved = counted(args, dtype)
    product, copy = product_rate(args.device, dtype), copy_rate(args.device)
    seconds = timed_steps(args, dtype) if args.measure else None
    bound = operations / product
    measured = "" if seconds is None else f"{seconds:8.3f} s ({bound / seconds:.0%} of arithmetic)"
    print(f"{name:9}  {operations / 1e12:7.2f} TFLOP {bytes_moved / 1e9:6.1f} GB   "
          f"{product / 1e12:5.2f} TFLOP/s {copy / 1e9:5.0f} GB/s   "
          f"{bound:8.3f} s {bytes_moved / copy:7.3f} s {measured}")  # fmt: skip


def build(args: argparse.Namespace) -> nn.Module:
    """Return the network of the command line."""
    pools, kernels = [[2] * 3] * args.poolings, [[3] * 3] * (args.poolings + 1)
    task = NetworkTask(
        channels=1, classes=args.classes, topology=Topology.of(pools, kernels),
        base_features=args.features,
    )  # fmt: skip
    return NETWORKS.get(args.network)().build(task)


class _Bytes(TorchDispatchMode):
    """Adds up what operations read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not func.is_view and "empty" not in func.name():
            tensors = [x for x in tree_leaves((args, output)) if isinstance(x, torch.Tensor)]
            self.moved[func.name()] += sum(x.numel() * x.element_size() for x in tensors)
        return output


def counted(args: argparse.Namespace, dtype: torch.dtype) -> tuple[int, int]:
    """Return the operations (additions and multiplications of convolutions) and the bytes."""
    with torch.device("meta"):
        network = build(args).to(dtype)
        image = torch.empty(args.batch, 1, *args.patch, dtype=dtype)
    flops = FlopCounterMode(display=False)
    with flops:
        step(network, image)
    network.zero_grad()
    with _Bytes() as moved:
        step(network, image)
    return int(flops.get_total_flops()), moved.moved.total()


def product_rate(device: str, dtype: torch.dtype) -> float:
    """Return the operations per second of a product of square matrices."""
    side = SIDE[torch.device(device).type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / median_time(lambda: a @ b, device)


def copy_rate(device: str) -> float:
    """Return the bytes per second that a copy reads and writes."""
    source = torch.ones(COPIED[torch.device(device).type] // 4, device=device)
    target = torch.empty_like(source)
    return 8 * source.numel() / median_time(lambda: target.copy_(source), device)


def timed_steps(args: argparse.Namespace, dtype: torch.dtype) -> float:
    """Return the seconds of a step, forward and backward, the weights in single precision."""
    network = build(args).to(args.device)
    image = torch.randn(args.batch, 1, *args.patch, device=args.device)
    kind = torch.device(args.device).type
    if args.compile:
        compile_network(network, torch.device(args.device))

    def once() -> None:
        with torch.autocast(kind, dtype=dtype, enabled=dtype != torch.float32):
            step(network, image)

    return median_time(once, args.device)


def median_time(call: Callable[[], object], device: str) -> float:
    """Return the median of five times of a call, after two that are not counted."""
    times = []
    for _ in range(WARM_UP + STEPS):
        begin = time.perf_counter()
        call()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM_UP:])


if __name__ == "__main__":
    main()
