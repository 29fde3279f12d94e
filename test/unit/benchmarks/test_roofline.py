from __future__ import annotations

import argparse

import pytest
import torch
from torch import nn

from benchmarks import roofline
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.arithmetic import training_operations
from nnunetlike.networks.unet import UNetSpec
from nnunetlike.plans.topology import Topology

ARGS = argparse.Namespace(
    network="unet",
    patch=[8, 8, 8],
    batch=2,
    features=4,
    poolings=1,
    classes=3,
    device="cpu",
    compile=False,
)


def test_operations_are_those_of_a_training_step_of_each_patch() -> None:
    task = NetworkTask(
        channels=1, classes=3, topology=Topology.of([[2] * 3], [[3] * 3] * 2), base_features=4
    )
    operations, _ = roofline.counted(ARGS, torch.float32)
    assert operations == 2 * training_operations(UNetSpec(), task, (8, 8, 8))


def test_half_as_wide_numbers_are_half_the_bytes() -> None:
    wide, narrow = (roofline.counted(ARGS, dtype)[1] for dtype in roofline.TYPES.values())
    assert wide == pytest.approx(2 * narrow, rel=0.001)  # few numbers are of a type of their own


def test_an_operation_moves_its_inputs_and_outputs_and_a_view_nothing() -> None:
    a, b = torch.ones(6, 4), torch.ones(4, 5)
    with roofline._Bytes() as moved:
        nn.Flatten()(a.t()).t() @ b
    assert moved.moved == {"aten::mm": 4 * (24 + 20 + 30)}


def test_the_table_says_what_bounds_a_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline, "product_rate", lambda *_: 1e9)
    monkeypatch.setattr(roofline, "copy_rate", lambda *_: 1e9)
    monkeypatch.setattr(roofline, "counted", lambda *_: (int(2e9), int(3e9)))
    monkeypatch.setattr(roofline, "timed_steps", lambda *_: 4.0)
    roofline.report(argparse.Namespace(**vars(ARGS), measure=True), "float32", torch.float32)
    line = capsys.readouterr().out
    assert "2.000 s   3.000 s" in line
    assert "4.000 s (50% of arithmetic)" in line
