"""Weights of heads and targets of lower resolution against nnU-Net v1's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nnunetlike.training.objectives.segmentation import head_weights, resize_nearest


def test_head_weights_are_v1s(golden: Path) -> None:
    schedules = json.loads((golden / "training" / "schedules.json").read_text())
    known = schedules["ds_weights_by_num_pool"]
    for heads, expected in known.items():
        assert head_weights(int(heads), "v1") == pytest.approx(expected, abs=1e-12)
    assert len(known) == 8


def test_targets_of_lower_resolution_are_v1s(golden: Path) -> None:
    arrays = np.load(golden / "arrays" / "deep_supervision_targets.npz")
    text = (golden / "arrays" / "deep_supervision_targets.json").read_text()
    cases: list[dict[str, Any]] = json.loads(text)
    for case in cases:
        name = case["case"]
        label = torch.from_numpy(arrays[f"{name}_in"])[:, 0].to(torch.int16)
        for index in range(case["n_outputs"]):
            expected = arrays[f"{name}_out{index}"][:, 0]
            ours = resize_nearest(label, expected.shape[1:])
            np.testing.assert_array_equal(ours.numpy(), expected)
        weights = head_weights(case["n_outputs"], "v1")
        assert weights == pytest.approx(case["loss_weights"], abs=1e-12)
    assert len(cases) == 4
