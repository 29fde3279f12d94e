"""What devices can compute at best, as far as their makers say so."""

from __future__ import annotations

import re

import torch

from nnunetlike.training.runtime import Precision

DATA_SHEETS: tuple[tuple[str, float, float, float], ...] = (
    (r"V100-PCIE", 14.0, 14.0, 112.0),
    (r"V100-SXM2", 15.7, 15.7, 125.0),
    (r"T4", 8.1, 8.1, 65.0),
    (r"A30", 10.3, 82.0, 165.0),
    (r"A40", 37.4, 74.8, 149.7),
    (r"A100", 19.5, 156.0, 312.0),
    (r"L4", 30.3, 60.0, 121.0),
    (r"L40S", 91.6, 183.0, 362.0),
    (r"H100 PCIe", 51.0, 378.0, 756.0),
    (r"H100 80GB HBM3", 67.0, 494.0, 989.0),
    (r"H200(?! NVL)", 67.0, 494.0, 989.0),
)
"""Part of the device's name as torch tells it; 10^12 operations per second in float32,
TensorFloat-32 (float32 where the device has none) and half precision (float16 or bfloat16), without
sparsity.

Source: NVIDIA's data sheets of these cards.
"""


def peak_operations(device: torch.device, precision: Precision) -> float | None:
    """Return the operations per second that a device reaches at best in a precision.

    None for CPUs and for cards of which no data sheet is listed here. For `fp32` it is the rate of
    TensorFloat-32 where convolutions may use that.
    """
    if device.type != "cuda":
        return None
    return peak_of_card(
        torch.cuda.get_device_name(device), precision, tf32=torch.backends.cudnn.allow_tf32
    )


def peak_of_card(name: str, precision: Precision, *, tf32: bool) -> float | None:
    """Return the peak of a card by the name torch tells; None if it is not listed."""
    for part, single, tensor_float, half in DATA_SHEETS:
        if re.search(rf"\b{part}(?![0-9A-Za-z])", name):
            rate = half if precision != "fp32" else tensor_float if tf32 else single
            return rate * 1e12
    return None
