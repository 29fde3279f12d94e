"""Peaks of cards by the names that torch gives them."""

from __future__ import annotations

import pytest
import torch

from nnunetlike.training.device_peak import peak_of_card, peak_operations


@pytest.mark.parametrize(
    ("name", "half"),
    [
        ("Tesla V100-SXM2-32GB", 125e12),
        ("Tesla T4", 65e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
    ],
)
def test_cards_are_known_by_their_names(name: str, half: float) -> None:
    assert peak_of_card(name, "fp16", tf32=True) == half
    assert peak_of_card(name, "bf16", tf32=False) == half


@pytest.mark.parametrize(
    "name", ["NVIDIA A4000", "NVIDIA T400", "NVIDIA L40", "NVIDIA H200 NVL", "NVIDIA A10G", "XPU"]
)
def test_a_card_that_is_not_listed_is_not_taken_for_another(name: str) -> None:
    assert peak_of_card(name, "fp16", tf32=True) is None


def test_single_precision_is_tensor_float_where_that_may_be_used() -> None:
    assert peak_of_card("NVIDIA A100-PCIE-40GB", "fp32", tf32=True) == 156e12
    assert peak_of_card("NVIDIA A100-PCIE-40GB", "fp32", tf32=False) == 19.5e12


def test_the_peak_of_a_cpu_is_unknown() -> None:
    assert peak_operations(torch.device("cpu"), "fp32") is None
