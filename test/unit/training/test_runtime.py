"""Choices of device and precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from nnunetlike.core.errors import UsageError
from nnunetlike.training import runtime as runtimes
from nnunetlike.training.optimizers import PolySGD
from nnunetlike.training.runtime import (
    SingleProcess,
    choose_device,
    choose_precision,
    free_memory,
    prediction_dtype,
    seed_everything,
)

CPU = torch.device("cpu")


def test_a_device_torch_does_not_know_is_named() -> None:
    with pytest.raises(UsageError, match="knows no device 'gpu'"):
        choose_device("gpu")


def test_a_cuda_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UsageError, match="torch sees"):
        choose_device("cuda:99")


@pytest.mark.parametrize(("has", "precision"), [(True, "bf16"), (False, "fp32")])
def test_cpu_computes_in_bfloat16_where_it_can(
    has: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtimes, "cpu_has_bfloat16", lambda: has)
    assert choose_precision(CPU, fp32=False) == precision


def test_cuda_computes_in_float16_with_a_loss_scale() -> None:
    assert choose_precision(torch.device("cuda"), fp32=False) == "fp16"
    assert prediction_dtype(torch.device("cuda"), "fp16") is torch.float16
    assert prediction_dtype(torch.device("cuda"), "fp32") is None


def test_a_cpu_predicts_in_float32_whatever_it_trained_in() -> None:
    assert prediction_dtype(CPU, "bf16") is None
    assert prediction_dtype(CPU, "fp32") is None


def test_fp32_switches_autocast_off() -> None:
    assert choose_precision(torch.device("cuda"), fp32=True) == "fp32"
    a = torch.ones(2, 2)
    with SingleProcess(CPU, "fp32").autocast():
        assert (a @ a).dtype is torch.float32
    with SingleProcess(CPU, "bf16").autocast():
        assert (a @ a).dtype is torch.bfloat16


def test_batch_becomes_tensors_of_the_same_values() -> None:
    image, label = np.ones((1, 1, 2, 2), np.float32), np.zeros((1, 2, 2), np.int16)
    batch = SingleProcess(CPU).to_device({"image": image, "label": label, "case_ids": ["a"]})
    assert torch.equal(batch["image"], torch.ones(1, 1, 2, 2))
    assert batch["label"].dtype is torch.int16
    assert batch["case_ids"] == ["a"]


def test_a_loss_scale_survives_its_checkpoint() -> None:
    runtime = SingleProcess(CPU, "fp16")
    content = runtime.state_dict()
    content["amp_grad_scaler"]["scale"] = 1024.0
    other = SingleProcess(CPU, "fp16")
    other.load_state_dict(content)
    assert other.state_dict()["amp_grad_scaler"]["scale"] == 1024.0


def test_a_scaled_loss_changes_weights_as_an_unscaled_one() -> None:
    found = []
    for precision in ("fp32", "fp16"):
        weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
        optimizer = PolySGD().build([weight])
        runtime = SingleProcess(CPU, precision)
        for _ in range(3):
            runtime.step((weight**2).sum() * 10, optimizer, clip_norm=12.0)
        found.append(weight.detach().clone())
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_free_memory_is_positive() -> None:
    assert (free_memory(CPU) or 1) > 0


def test_the_same_seed_gives_the_same_weights() -> None:
    seed_everything(3, deterministic=False)
    first = torch.rand(3)
    seed_everything(3, deterministic=False)
    assert torch.equal(first, torch.rand(3))


def _step(runtime: SingleProcess, factor: float) -> tuple[bool, torch.Tensor]:
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    loss = (weight * torch.tensor(factor)).sum()
    taken = runtime.step(loss, PolySGD().build([weight]), clip_norm=12.0)
    return taken, weight.detach()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_no_weight(precision: str, factor: float) -> None:
    taken, weight = _step(SingleProcess(CPU, precision), factor)
    assert not taken
    assert weight.tolist() == [1.0, -2.0]


def test_an_overflow_of_the_scaled_loss_is_no_fault_until_the_scale_is_small() -> None:
    runtime = SingleProcess(CPU, "fp16")
    assert _step(runtime, 1e35) == (True, pytest.approx(torch.tensor([1.0, -2.0])))
    assert runtime.state_dict()["amp_grad_scaler"]["scale"] == 2.0**15


def test_precision_widens_to_single_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "cpu_has_bfloat16", lambda: True)
    runtime = SingleProcess(CPU, "fp16")
    found = []
    while runtime.widen():
        found.append(runtime.precision)
    assert found == ["bf16", "fp32"]
    assert runtime.state_dict() == {"widened_to": "fp32"}


def test_a_wider_type_is_kept_when_training_goes_on() -> None:
    first = SingleProcess(CPU, "bf16")
    first.widen()
    again = SingleProcess(CPU, "bf16")
    again.load_state_dict(first.state_dict())
    assert again.precision == "fp32"
