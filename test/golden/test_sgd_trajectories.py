"""Eight real optimisation steps of nnU-Net v1, with its network, loss, clipping and optimizer."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nnunetlike.networks import NetworkTask
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.networks.v1_weights import (
    load_v1_state_dict,
    parameters_in_v1_order,
    state_dict_to_v1,
)
from nnunetlike.plans.topology import Topology
from nnunetlike.training.objectives.segmentation import DeepSupervision
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.runtime import SingleProcess

RUNS = ("t3d", "t3d_batchdice_aniso", "t2d")


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("kind", "tolerance"), [("float64", 1e-12), ("float32", 1e-3)])
def test_eight_steps_are_those_of_v1(golden: Path, run: str, kind: str, tolerance: float) -> None:
    content = json.loads((golden / "training" / "sgd_trajectories.json").read_text())
    setup, expected = content[f"{run}_setup"], content[f"{run}_{kind}"]
    dtype = getattr(torch, kind)
    network = _network(setup).to(dtype)
    objective = DeepSupervision().build(network, batch_dice=setup["batch_dice"]).train()
    spec = PolySGD()
    optimizer = spec.build(parameters_in_v1_order(network))
    runtime = SingleProcess(torch.device("cpu"))
    draws = np.random.RandomState(setup["seed"])
    losses = []
    for _ in range(8):
        shape = (2, setup["input_channels"], *setup["patch"])
        image = torch.from_numpy(draws.standard_normal(shape)).to(dtype)
        label = draws.randint(0, setup["num_classes"], (2, 1, *setup["patch"]))[:, 0]
        batch = {"image": image, "label": torch.from_numpy(label), "case_ids": []}
        loss = objective(batch).loss
        losses.append(float(loss.detach()))
        runtime.step(loss, optimizer, spec.clip_norm)
    np.testing.assert_allclose(losses, expected["losses"], rtol=tolerance, atol=tolerance)
    norms = {n: float(w.double().norm()) for n, w in state_dict_to_v1(network).items()}
    assert norms == pytest.approx(expected["final_l2"], rel=tolerance, abs=tolerance)
    momentum = [s["momentum_buffer"].double().norm() for s in optimizer.state.values()]
    assert float(sum(momentum)) == pytest.approx(expected["momentum_l2_sum"], rel=tolerance)


def _network(setup: dict) -> nn.Module:
    task = NetworkTask(
        channels=setup["input_channels"],
        classes=setup["num_classes"],
        topology=Topology.of(setup["pool_op_kernel_sizes"], setup["conv_kernel_sizes"]),
        base_features=setup["base_num_features"],
    )
    network = UNetSpec().build(task)  # v1's weights were rounded to float32 first
    weights = {
        name: torch.from_numpy(_rule(name, tuple(value.shape)))
        for name, value in state_dict_to_v1(network).items()
    }
    load_v1_state_dict(network, weights)
    return network


def _rule(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight rule of the golden numbers: a stream per name, scaled by fan-in."""
    values = np.random.RandomState(zlib.crc32(name.encode("ascii"))).standard_normal(shape)
    if name.endswith(".weight") and values.ndim > 1:
        return values * np.sqrt(2.0 / np.prod(shape[1:]))
    return 1 + 0.1 * values if name.endswith(".weight") else 0.1 * values
