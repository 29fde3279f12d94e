"""What a training step needs, found without any memory."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from nnunetlike.networks import NetworkTask
from nnunetlike.networks.memory import inference_bytes, training_bytes
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from nnunetlike.plans.topology import Topology

SPECS = [UNetSpec(), UNetPlusPlusSpec()]

REAL = """
import sys, torch
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.unet_plus_plus import UNetPlusPlusSpec
from dataclasses import replace
torch.set_num_threads(1)

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

def step(network, optimizer, image):
    optimizer.zero_grad()
    losses = [-h.log_softmax(1)[:, 0].mean() - h.softmax(1)[:, 1].mean() for h in network(image)]
    torch.stack(losses).sum().backward()
    optimizer.step()

def trained(spec, task, size, steps):
    network = spec.build(task)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99)
    for _ in range(steps):
        step(network, optimizer, torch.randn(1, 1, *size))

spec, task = {"unet": UNetSpec, "unet_plus_plus": UNetPlusPlusSpec}[sys.argv[1]].tiny(3)
spec = replace(spec, checkpoint_nodes=sys.argv[2] == "True")
trained(spec, task, (8, 8, 8), 1)
before = peak()
trained(spec, replace(task, base_features=16), (32, 64, 64), 2)
print(peak() - before)
"""


def kept_bytes(spec: UNetSpec | UNetPlusPlusSpec, task: NetworkTask, shape: tuple[int, ...]) -> int:
    """Return what autograd really keeps for a backward pass, weights aside."""
    network = spec.build(task)
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        heads = network(torch.randn(shape))
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    del heads
    return sum(t.untyped_storage().nbytes() for k, t in kept.items() if k not in weights)


@pytest.mark.parametrize("checkpoint_nodes", [False, True])
@pytest.mark.parametrize("spec", SPECS, ids=["unet", "unet_plus_plus"])
def test_the_estimate_covers_what_autograd_keeps_and_not_much_more(
    spec: UNetSpec | UNetPlusPlusSpec, checkpoint_nodes: bool
) -> None:
    spec = replace(spec, checkpoint_nodes=checkpoint_nodes)
    task = replace(spec.tiny(3)[1], base_features=8)
    patch = (16, 32, 32)
    kept = kept_bytes(spec, task, (2, 1, *patch))
    parameters = sum(p.numel() for p in spec.build(task).parameters())
    in_flight = training_bytes(spec, task, patch, 2) - 8 * parameters - kept
    largest_node_again = 2.0 if checkpoint_nodes else 0.5
    assert 0 < in_flight < largest_node_again * kept


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's peak memory")
@pytest.mark.parametrize(
    ("name", "checkpoint_nodes"),
    [("unet", False), ("unet_plus_plus", False), ("unet_plus_plus", True)],
)
def test_the_estimate_is_within_15_percent_of_the_memory_of_a_process(
    name: str, checkpoint_nodes: bool
) -> None:
    environment = {
        **os.environ,  # memory that is freed must go back, or the peak is that of the allocator
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", REAL, name, str(checkpoint_nodes)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    spec = SPECS[name == "unet_plus_plus"]
    task = replace(spec.tiny(3)[1], base_features=16)
    spec = replace(spec, checkpoint_nodes=checkpoint_nodes)
    estimate = training_bytes(spec, task, (32, 64, 64), 1)
    assert estimate == pytest.approx(int(done.stdout), rel=0.15)


@pytest.mark.parametrize("spec", SPECS, ids=["unet", "unet_plus_plus"])
def test_activations_grow_with_the_batch(spec: UNetSpec | UNetPlusPlusSpec) -> None:
    task = spec.tiny(2)[1]
    one, two, three = (training_bytes(spec, task, (64, 64), batch) for batch in (1, 2, 3))
    assert three - two == pytest.approx(two - one, rel=1e-3)
    assert one > 0


@pytest.mark.parametrize("spec", SPECS, ids=["unet", "unet_plus_plus"])
def test_half_precision_needs_little_more_than_half(spec: UNetSpec | UNetPlusPlusSpec) -> None:
    task = spec.tiny(2)[1]
    full = training_bytes(spec, task, (128, 128), 4)
    half = training_bytes(spec, task, (128, 128), 4, bytes_per_value=2)
    assert 0.5 < half / full < 0.65


def test_checkpointed_nodes_of_the_liver_plan_need_far_less() -> None:
    topology = Topology.of([[2] * 3] * 5, [[3] * 3] * 6)
    task = NetworkTask(channels=1, classes=3, topology=topology, base_features=32)
    plain, frugal, unet = (
        training_bytes(spec, task, (128, 128, 128), 2)
        for spec in (UNetPlusPlusSpec(), UNetPlusPlusSpec(checkpoint_nodes=True), UNetSpec())
    )
    assert frugal < 0.6 * plain
    assert unet < frugal


def test_a_prediction_needs_less_than_training() -> None:
    for spec in SPECS:
        task = spec.tiny(2)[1]
        assert inference_bytes(spec, task, (64, 64)) < training_bytes(spec, task, (64, 64), 1)
