"""Kernels of the package fla-core for the gated delta rule, where it is installed.

They need a CUDA device and Triton. Half precision is their home: their own tests allow errors of
0.002 (results) to 0.008 (gradients), so float32 gets them only when they are asked for by name.

Axes: B batch, T tokens, H heads, J key heads, K features of a key, V features of a value.
"""

from __future__ import annotations

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nnunetlike.core.errors import UsageError

MIN_TOKENS = 64
"""Fewer tokens than one chunk of the kernels are not worth their launch."""

MAX_KEY_FEATURES = 256
"""Most features of a key that the kernels take."""

_LOG_OF_NOTHING = -20.0
"""Decays below 2e-9 are raised to it: the kernels add logarithms of a chunk in float32, where a
strong one would drown the weak ones after it. Half precision cannot tell the difference."""

_HALF = (torch.bfloat16, torch.float16)

logger = logging.getLogger(__name__)

Kernel = Callable[..., tuple[Tensor, Tensor]]


def worthwhile(k: Tensor, v: Tensor) -> bool:
    """Say whether kernels are installed, apply, and cost no precision.

    Args:
        k: keys, (B, T, J, K).
        v: values, (B, T, H, V).
    """
    return (
        k.device.type == "cuda"
        and k.shape[1] >= MIN_TOKENS
        and k.shape[3] <= MAX_KEY_FEATURES
        and _half_precision(k, v) is not None
        and not isinstance(find_kernel(), str)
    )


def require(k: Tensor) -> None:
    """Do nothing if kernels can be used for keys such as `k`, (B, T, J, K).

    Raises:
        UsageError: they are not installed, or the keys are on another device, too wide or float64.
    """
    kernel = find_kernel()
    if isinstance(kernel, str):
        reason = f"cannot be imported ({kernel}). Install it with: pip install 'nnunetlike[fla]'"
    elif k.device.type != "cuda":
        reason = f"needs a CUDA device, but the keys are on {k.device}"
    elif k.shape[3] > MAX_KEY_FEATURES:
        reason = f"takes keys of {MAX_KEY_FEATURES} features at most, these have {k.shape[3]}"
    elif k.dtype == torch.float64:
        reason = "has no float64"
    else:
        return
    raise UsageError(
        f"the memory's backend 'fla' {reason}; or choose 'torch', which needs nothing, or 'auto'"
    )


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    beta: Tensor,
    g: Tensor,
    scale: float,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Return answers of the dtype of `v` and the memory in float32; `require` must have passed."""
    kernel = find_kernel()
    assert not isinstance(kernel, str)
    dtype = _half_precision(k, v) or torch.float32
    answers, state = kernel(
        q=q.to(dtype),
        k=k.to(dtype),
        v=v.to(dtype),
        g=g.float().clamp(min=_LOG_OF_NOTHING),
        beta=beta.float(),
        scale=scale,
        initial_state=None if initial_state is None else initial_state.float(),
        output_final_state=True,
    )
    return answers.to(v.dtype), state.float()


@functools.cache
def find_kernel() -> Kernel | str:
    """Return the kernels' entry, or why there is none."""
    try:
        module: Any = importlib.import_module("fla.ops.gated_delta_rule")
    except ImportError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  a stranger's code may fail in any way
        logger.warning("fla-core is installed but cannot be imported, so it is not used: %s", error)
        return str(error)
    kernel: Kernel = module.chunk_gated_delta_rule
    return kernel


def _half_precision(k: Tensor, v: Tensor) -> torch.dtype | None:
    """Return the half precision that the caller computes in, or nothing."""
    if torch.float64 in (k.dtype, v.dtype):
        return None
    if torch.is_autocast_enabled(v.device.type):
        return torch.get_autocast_dtype(v.device.type)
    return v.dtype if v.dtype == k.dtype and v.dtype in _HALF else None
