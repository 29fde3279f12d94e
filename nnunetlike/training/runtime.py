"""Where and how training computes: device, precision, processes."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nnunetlike.core.errors import UsageError
from nnunetlike.training.objectives import Batch
from nnunetlike.training.sources import ArrayBatch

Precision = Literal["fp32", "fp16", "bf16"]
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class Runtime(Protocol):
    """What the loop asks of the process or processes it runs in."""

    device: torch.device
    precision: Precision
    rank: int
    world_size: int

    @property
    def is_main(self) -> bool:
        """This process logs, plots and saves."""
        ...

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Return the objective as it is called in training (DDP wraps it)."""
        ...

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        ...

    def to_device(self, batch: ArrayBatch) -> Batch:
        """Return a batch as tensors on the device."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the objective is called."""
        ...

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
        """Differentiate the loss, clip the gradients and change the weights."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep (v1's `amp_grad_scaler`)."""
        ...

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        ...


class SingleProcess:
    """The runtime of one process on one device.

    Args:
        device: where weights and batches lie.
        precision: `fp16` scales the loss, as small gradients would vanish; `bf16` need not.
    """

    rank = 0
    world_size = 1
    is_main = True

    def __init__(self, device: torch.device, precision: Precision = "fp32") -> None:
        self.device = device
        self.precision: Precision = precision
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Return the objective itself."""
        return objective

    def sum(self, value: Tensor) -> Tensor:
        """Return the value itself."""
        return value

    def to_device(self, batch: ArrayBatch) -> Batch:
        """Return a batch as tensors on the device, copied without waiting where possible."""
        image, label = torch.from_numpy(batch["image"]), torch.from_numpy(batch["label"])
        if self.device.type == "cuda":
            image, label = image.pin_memory(), label.pin_memory()
        return {
            "image": image.to(self.device, non_blocking=True),
            "label": label.to(self.device, non_blocking=True),
            "case_ids": batch["case_ids"],
        }

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast of the precision, or nothing for `fp32`."""
        return autocast(self.device, self.precision)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float) -> None:
        """Differentiate the loss, clip the gradients to `clip_norm` and change the weights."""
        optimizer.zero_grad(set_to_none=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.scaler is None:
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, clip_norm)
            optimizer.step()
            return
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, clip_norm)
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the loss scale under v1's key, if there is one."""
        return {} if self.scaler is None else {"amp_grad_scaler": self.scaler.state_dict()}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take up the loss scale of a checkpoint, if both have one."""
        if self.scaler is not None and content.get("amp_grad_scaler"):
            self.scaler.load_state_dict(content["amp_grad_scaler"])


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context that computes convolutions in a precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def autocast_dtype(precision: Precision) -> torch.dtype | None:
    """Return the type that autocast computes in, or None for `fp32`."""
    return _DTYPES.get(precision)


def choose_device(name: str | None) -> torch.device:
    """Return the device a user asked for; by default CUDA where there is one, else the CPU.

    Raises:
        UsageError: torch knows no such device, or it is not there.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"torch knows no device {name!r}; give cpu, cuda or cuda:1") from None
    if device.type == "cuda" and not _cuda_holds(device):
        raise UsageError(
            f"device {name} was asked for, but torch sees {torch.cuda.device_count()} CUDA "
            "device(s). Give another with --device, or install torch with CUDA"
        )
    return device


def _cuda_holds(device: torch.device) -> bool:
    return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()


def choose_precision(device: torch.device, *, fp32: bool) -> Precision:
    """Return the fastest safe precision of a device: fp16 on CUDA, bf16 on CPUs that have it."""
    if fp32:
        return "fp32"
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and cpu_has_bfloat16() else "fp32"


def cpu_has_bfloat16() -> bool:
    """Tell whether the CPU multiplies bfloat16 in hardware (AVX512_BF16 or AMX).

    torch tells from 2.5 on; before, the kernel's list of flags does.
    """
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    found = [getattr(torch.cpu, name)() for name in probes if hasattr(torch.cpu, name)]
    flags = Path("/proc/cpuinfo")
    if found or not flags.is_file():
        return any(bool(answer) for answer in found)
    text = flags.read_text(encoding="ascii", errors="replace")
    return re.search(r"\b(avx512_bf16|amx_bf16)\b", text) is not None


def seed_everything(seed: int, *, deterministic: bool) -> None:
    """Seed torch and numpy's global generator, and choose cuDNN's way of finding algorithms."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    facts = Path("/proc/meminfo")
    if not facts.is_file():
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", facts.read_text(encoding="ascii"))
    return int(found[1]) * 1024 if found else None
