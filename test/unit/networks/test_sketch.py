"""A sketch of a network needs the memory that the network is found to need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nnunetlike.networks import NETWORKS, NetworkTask
from nnunetlike.networks.memory import training_bytes
from nnunetlike.networks.sketch import planned_training_bytes
from nnunetlike.plans.topology import Topology

LIMIT_S = 120
FLAT = Topology.of([[2, 2], [2, 1]], [[3, 3], [1, 3], [3, 3]])
DEEP = Topology.of([[1, 2, 2], [2, 2, 2], [2, 2, 1]], [[1, 3, 3], *[[3, 3, 3]] * 3])

PLAN = """
import sys
import nnunetlike.run.plan_and_preprocess
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.experiment_planning.summarize import Memory, describe_memory
from nnunetlike.plans.fingerprint import Fingerprint

found = Fingerprint(
    sizes=((40, 64, 64),), spacings=((1.0, 1.0, 1.0),), classes=(1,), modalities={0: "MRI"},
    intensities=None, size_reductions={"a": 1.0},
)
for name in ("ExperimentPlanner3D_v21", "ExperimentPlanner2D_v21"):
    print(describe_memory(PLANNERS.get(name).plan(found), Memory("card", 2**40)))
print([name for name in ("torch", "scipy.ndimage", "blosc2") if name in sys.modules])
"""


@pytest.mark.parametrize("network", ["unet", "unet_plus_plus"])
@pytest.mark.parametrize(
    ("topology", "patch", "batch_size", "conv_per_stage", "classes"),
    [(FLAT, (24, 16), 3, 1, 2), (FLAT, (8, 64), 1, 3, 12), (DEEP, (8, 24, 16), 2, 2, 3)],
)
@pytest.mark.parametrize("bytes_per_value", [2, 4])
def test_the_sketch_tells_what_a_rehearsal_finds(
    network: str,
    topology: Topology,
    patch: tuple[int, ...],
    batch_size: int,
    conv_per_stage: int,
    classes: int,
    bytes_per_value: int,
) -> None:
    """To the byte with torch 2.13; others may hold a few values more for a norm."""
    task = NetworkTask(
        channels=2, classes=classes, topology=topology, base_features=8,
        conv_per_stage=conv_per_stage,
    )  # fmt: skip
    found = planned_training_bytes(
        network, task, patch, batch_size, bytes_per_value=bytes_per_value
    )
    expected = training_bytes(
        NETWORKS.get(network)(), task, patch, batch_size, bytes_per_value=bytes_per_value
    )
    assert found == pytest.approx(expected, rel=0.01)


def test_a_network_without_a_sketch_is_rehearsed() -> None:
    spec, task = NETWORKS.get("gdkvm").tiny(2)
    task = NetworkTask(
        channels=task.channels, classes=task.classes, topology=task.topology, base_features=4
    )
    expected = training_bytes(type(spec)(), task, (1, 32, 32), 1)
    assert planned_training_bytes("gdkvm", task, (1, 32, 32), 1) == expected


def test_plans_are_made_and_described_without_what_takes_long_to_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PLAN], capture_output=True, text=True, timeout=LIMIT_S, check=True
    )
    assert done.stdout.count("UNet++") == 2
    assert done.stdout.splitlines()[-1] == "[]"
