"""Where and how training computes: device, precision, processes."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from nnunetlike.core import resources
from nnunetlike.core.errors import UsageError
from nnunetlike.core.team import Alone
from nnunetlike.training.device_augmentation.batches import augmented
from nnunetlike.training.feeding import feeder, pinned
from nnunetlike.training.objectives import Batch
from nnunetlike.training.sources import HostBatch

T = TypeVar("T")
Precision = Literal["fp32", "fp16", "bf16"]
WIDTH: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
"""From the type that overflows first to the one that does last."""

SMALLEST_SCALE = 1.0
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

    def total(self) -> Callable[[Tensor], Tensor] | None:
        """Return a sum over all processes with gradient; None if there is but one process."""
        ...

    def any(self, value: bool) -> bool:
        """Tell whether the value is true in any process; all must ask."""
        ...

    def gather(self, items: Sequence[str]) -> list[str]:
        """Return the items of all processes; all must ask."""
        ...

    def first(self, value: T) -> T:
        """Return the value that the main process has; all must ask."""
        ...

    def meet(self, place: str) -> None:
        """Return when every process has come to a place, see `core.team.Team`."""
        ...

    def to_device(self, batch: HostBatch) -> Batch:
        """Return a batch as tensors on the device, augmented there if that is still to be done."""
        ...

    def feed(self, batches: Iterator[HostBatch]) -> Iterator[Batch]:
        """Return endless batches on the device, see `training.feeding`."""
        ...

    def arrived(self, batch: HostBatch) -> HostBatch:
        """Return a batch that a worker has made in the memory from which it is to be copied."""
        ...

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which the objective is called."""
        ...

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float) -> bool:
        """Differentiate the loss, clip the gradients and change the weights.

        Returns:
            False, and the weights are as before, if the loss or its gradient is not finite.
        """
        ...

    def widen(self) -> bool:
        """Compute in the next wider type from now on; False if there is none."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep (v1's `amp_grad_scaler`)."""
        ...

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        ...


class SingleProcess(Alone):
    """The runtime of one process on one device.

    Args:
        device: where weights and batches lie.
        precision: `fp16` scales the loss, as small gradients would vanish; `bf16` need not.
    """

    is_main = True

    def __init__(self, device: torch.device, precision: Precision = "fp32") -> None:
        self.device = device
        self.precision: Precision = precision
        self.scaler = torch.amp.GradScaler(device.type) if precision == "fp16" else None
        self._widened = False

    def wrap(self, objective: nn.Module) -> nn.Module:
        """Return the objective itself."""
        return objective

    def sum(self, value: Tensor) -> Tensor:
        """Return the value itself."""
        return value

    def total(self) -> Callable[[Tensor], Tensor] | None:
        """Return None: there is nothing to add."""
        return None

    def any(self, value: bool) -> bool:
        """Return the value itself."""
        return value

    def gather(self, items: Sequence[str]) -> list[str]:
        """Return the items themselves."""
        return list(items)

    def first(self, value: T) -> T:
        """Return the value itself."""
        return value

    def to_device(self, batch: HostBatch) -> Batch:
        """Return a batch as tensors on the device, copied without waiting where possible."""
        batch = self.arrived(batch)
        if "orders" in batch:
            return augmented(batch, self.device)
        image, label = torch.as_tensor(batch["image"]), torch.as_tensor(batch["label"])
        return {
            "image": image.to(self.device, non_blocking=True),
            "label": label.to(self.device, non_blocking=True),
            "case_ids": batch["case_ids"],
        }

    def feed(self, batches: Iterator[HostBatch]) -> Iterator[Batch]:
        """Return endless batches on the device; on CUDA one is on its way ahead."""
        return feeder(batches, self.to_device, self.device)

    def arrived(self, batch: HostBatch) -> HostBatch:
        """Return a batch in pinned memory for CUDA, else as it is; one that is pinned stays."""
        if self.device.type != "cuda":
            return batch
        with torch.cuda.device(self.device):  # whatever thread this is
            return pinned(batch)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the autocast of the precision, or nothing for `fp32`."""
        return autocast(self.device, self.precision)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer, clip_norm: float) -> bool:
        """Differentiate the loss, clip the gradients to `clip_norm` and change the weights.

        A scaled loss may overflow now and then; the scale then is halved and the step left out,
        which is no fault unless the scale is below 1 already.

        Returns:
            False, and the weights are as before, if the loss or its gradient is not finite.
        """
        optimizer.zero_grad(set_to_none=True)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.scaler is None:
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
            finite = _are_finite(loss, norm)
            if finite:
                optimizer.step()
            return finite
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(parameters, clip_norm)
        finite = _are_finite(loss, norm)
        is_overflow = not finite and _are_finite(loss) and self.scaler.get_scale() >= SMALLEST_SCALE
        if finite:
            self.scaler.step(optimizer)
        self.scaler.update()
        return finite or is_overflow

    def widen(self) -> bool:
        """Compute in the next wider type: bf16 after fp16 where there is one, else fp32."""
        wider = wider_precision(self.device, self.precision)
        if wider is None:
            return False
        self._take_precision(wider)
        return True

    def _take_precision(self, precision: Precision) -> None:
        self.precision, self.scaler, self._widened = precision, None, True

    def state_dict(self) -> dict[str, Any]:
        """Return the loss scale under v1's key, if there is one, and a precision it came to."""
        scale = {} if self.scaler is None else {"amp_grad_scaler": self.scaler.state_dict()}
        return {**scale, **({"widened_to": self.precision} if self._widened else {})}

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Take up the precision that a run had to go to, and the loss scale, if both have one."""
        wider = content.get("widened_to")
        if wider is not None and WIDTH.index(wider) > WIDTH.index(self.precision):
            self._take_precision(wider)
        if self.scaler is not None and content.get("amp_grad_scaler"):
            self.scaler.load_state_dict(content["amp_grad_scaler"])


def _are_finite(*values: Tensor) -> bool:
    """Ask the device once, which waits for it."""
    return bool(torch.stack([value.detach().float() for value in values]).isfinite().all())


def wider_precision(device: torch.device, precision: Precision) -> Precision | None:
    """Return the next wider type that a device computes in; None after `fp32`."""
    if precision == "fp32":
        return None
    if precision == "fp16" and _has_bfloat16(device):
        return "bf16"
    return "fp32"


def _has_bfloat16(device: torch.device) -> bool:
    return torch.cuda.is_bf16_supported() if device.type == "cuda" else cpu_has_bfloat16()


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return the context that computes convolutions in a precision."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def prediction_dtype(device: torch.device, precision: Precision) -> torch.dtype | None:
    """Return the type to predict in after a training, as `nnUNet_predict` does; None is float32.

    So a CPU, which trains in bfloat16 where it can, predicts in float32, and predictions of
    validation cases are those that the command makes.
    """
    return None if device.type == "cpu" else _DTYPES.get(precision)


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
    """Seed the global generators of python, numpy and torch, and choose repeatable algorithms.

    Args:
        seed: 0 or more.
        deterministic: take cuDNN's and torch's deterministic algorithms; torch warns of an
            operation that has none. Otherwise cuDNN looks for the fastest.
    """
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    torch.backends.cudnn.deterministic = deterministic
    torch.backends.cudnn.benchmark = not deterministic
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def free_memory(device: torch.device) -> int | None:
    """Return the bytes that are free on a device; None where the system does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return resources.free_memory()
