"""What a frame costs: its write into the memory, and the memory of a stream.

usage: python benchmarks/video_cost.py [--device cpu] [--size small|base] [--side 256]
           [--frames 20 200] [--train]

Prints, all in one run:

  the time of one frame of 16 x 16 tokens (8 heads, keys of 64, values of 32 features), written and
  read token by token, in chunks, and as a block by each rule: medians, and ratios to the first;
  the largest memory of a process that streams so many frames, on CUDA that of the device;
  frames per second of that stream, and with --train the time of a training step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional

from nnunetlike.networks import NetworkTask
from nnunetlike.networks.gated_delta import gated_delta_rule
from nnunetlike.networks.gated_delta_frames import FrameRule, gated_delta_frames
from nnunetlike.networks.gdkvm import GDKVMSpec
from nnunetlike.plans.topology import Topology
from nnunetlike.training.objectives.video import VideoSegmentation

TOKENS, HEADS, KEY, VALUE = 256, 8, 64, 32
REPEATS = 15
MIB = 2**20
CLIP, BATCH = 10, 10


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=("small", "base"), default="small")
    parser.add_argument("--side", type=int, default=256, help="pixels of a frame's side")
    parser.add_argument("--frames", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--train", action="store_true", help="also a step of 10 clips of 10 frames")
    args = parser.parse_args()
    rules(args.device)
    peaks = [streamed(args, frames) for frames in args.frames]
    for frames, (peak, rate) in zip(args.frames, peaks, strict=True):
        share = f"{peak / peaks[0][0]:.3f} of that of {args.frames[0]}"
        print(f"{frames:4} frames  {peak / MIB:8.1f} MiB  {share}  {rate:.1f} frames per s")
    if args.train:
        print(f"training step of {BATCH} clips of {CLIP} frames: {training_step(args):.3f} s")


def rules(device: str) -> None:
    """Print the time of one frame by each way to write it."""
    shape = (1, TOKENS, 1, KEY)
    q, k = (functional.normalize(torch.randn(shape, device=device), dim=-1) for _ in range(2))
    v = torch.randn(1, TOKENS, HEADS, VALUE, device=device)
    beta, g = torch.rand(1, TOKENS, HEADS, device=device), torch.zeros(1, TOKENS, HEADS)
    g = g.to(device)
    ways: dict[str, Callable[[], Any]] = {
        backend: lambda backend=backend: gated_delta_rule(q, k, v, beta, g, backend=backend)
        for backend in ("sequential", "torch")
    }
    frame = [x[:, None] for x in (q, k, v)]
    for rule in get_args(FrameRule):
        ways[f"block, {rule}"] = lambda rule=rule: gated_delta_frames(
            *frame, beta[:, :1], g[:, :1], rule=rule
        )
    with torch.inference_mode():
        times = {name: median(way, device) for name, way in ways.items()}
    for name, seconds in times.items():
        ratio = times["sequential"] / seconds
        print(f"{name:18} {1000 * seconds:8.3f} ms  {ratio:5.1f} times as fast as sequential")


def median(work: Callable[[], Any], device: str) -> float:
    """Return the median seconds of some work."""
    found = []
    for _ in range(REPEATS + 2):
        begin = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begin)
    return statistics.median(found[2:])


def network_of(args: argparse.Namespace, frames: int = 1) -> tuple[Any, Tensor]:
    """Return a network of random weights, and a clip of one frame for it."""
    topology = Topology.of([[2, 2]] * 4, [[3, 3]] * 5)
    task = NetworkTask(
        channels=1, classes=2, topology=topology, base_features=32,
        memory_stride=16 if args.side >= 128 else 8, network_size=args.size,
    )  # fmt: skip
    torch.manual_seed(0)
    network = GDKVMSpec().build(task).to(args.device)
    return network, torch.randn(1, 1, frames, args.side, args.side, device=args.device)


def streamed(args: argparse.Namespace, frames: int) -> tuple[float, float]:
    """Return the bytes at the peak of a process that streams, and its frames per second."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(stream, (args, frames))


@torch.inference_mode()
def stream(args: argparse.Namespace, frames: int) -> tuple[float, float]:
    """Stream frames in this process."""
    network, image = network_of(args)
    network = network.eval()
    network.deep_supervision = False
    state = network.init_state(1, args.side, args.side)
    begin = 0.0
    for t in range(frames):
        logits, state = network.step(image[:, :, 0], state)
        logits.argmax(1).cpu()
        begin = time.perf_counter() if t == 0 else begin
    rate = (frames - 1) / max(time.perf_counter() - begin, 1e-9)
    if args.device != "cpu":
        return float(torch.cuda.max_memory_allocated()), rate
    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, rate


def training_step(args: argparse.Namespace) -> float:
    """Return the median seconds of forward and backward of a batch."""
    network, image = network_of(args, CLIP)
    objective = VideoSegmentation().build(network, batch_dice=False)
    image = image.expand(BATCH, -1, -1, -1, -1)
    label = torch.randint(0, 2, (BATCH, *image.shape[2:]), device=args.device)
    batch: Any = {"image": image, "label": label, "case_ids": []}
    precision = torch.autocast("cuda", torch.bfloat16, enabled=args.device != "cpu")

    def step() -> None:
        """Do one step."""
        with precision:
            loss = objective(batch).loss
        loss.backward()

    return median(step, args.device)


if __name__ == "__main__":
    main()
