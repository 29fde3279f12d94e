"""Networks as files for other runtimes, ONNX and TorchScript, and proof that they compute the same.

Axes: B patches, C channels, K classes, then the patch, (D, H, W) or (H, W). The number of patches
is free, the size of a patch is fixed.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.typing import Size

Format = Literal["onnx", "torchscript"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torchscript": ".pt"}
OPSET = 17
"""Of ONNX; the first with all that our networks need is lower, runtimes since 2022 have this."""

TOLERANCE = 1e-4
"""Largest difference of a probability that passes: single precision, summed in another order."""

INPUT, OUTPUT = "image", "logits"
Patches = npt.NDArray[np.float32]
Runtime = Callable[[Patches], npt.NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an exported network is from the one it was made of, on some patches."""

    patches: int
    largest_difference_of_probabilities: float
    largest_difference_of_logits: float
    share_of_equal_labels: float

    @property
    def holds(self) -> bool:
        """Whether the probabilities agree within the tolerance; NaN does not."""
        return self.largest_difference_of_probabilities <= TOLERANCE

    def describe(self) -> dict[str, Any]:
        """Return the figures and the tolerance."""
        return {**asdict(self), "tolerance": TOLERANCE}


def require_exporter(kind: Format) -> None:
    """Do nothing if what a format needs is installed.

    Raises:
        UsageError: it is not.
    """
    if kind == "torchscript":
        return
    for package in ("onnx", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f'ONNX needs the package {package} ({error}): pip install "nnunetlike[onnx]". '
                "--torchscript needs no further package"
            ) from None


def write_network(network: nn.Module, example: Patches, path: Path, kind: Format) -> None:
    """Write a network for another runtime.

    Args:
        network: in evaluation mode on the CPU; gives logits (B, K, *patch).
        example: (B, C, *patch).
        path: file to write.
        kind: its format.
    """
    patches = torch.from_numpy(example)
    with torch.no_grad(), _complaints_of_tracing_unheard():
        if kind == "torchscript":
            torch.jit.save(torch.jit.trace(network, patches, check_trace=False), str(path))
            return
        # torch 2.9 and later have another exporter by default, which needs a further package
        choice: dict[str, Any] = {"dynamo": False} if _knows_dynamo() else {}
        torch.onnx.export(
            network, (patches,), str(path), opset_version=OPSET,
            input_names=[INPUT], output_names=[OUTPUT],
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}}, **choice,
        )  # fmt: skip


def load_network(path: Path, kind: Format) -> Runtime:
    """Return an exported network as a function of patches, computed on the CPU."""
    if kind == "torchscript":
        with _complaints_of_tracing_unheard():
            module = torch.jit.load(str(path), map_location="cpu")
        return lambda patches: _logits(module, patches)
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(patches: Patches) -> npt.NDArray[np.float32]:
        """Return the logits."""
        found: npt.NDArray[np.float32] = session.run([OUTPUT], {INPUT: patches})[0]
        return found

    return run


def compare(network: nn.Module, exported: Runtime, batches: Sequence[Patches]) -> Parity:
    """Return how far an exported network is from the original on batches (B, C, *patch)."""
    probabilities = logits = 0.0
    equal = voxels = 0
    for patches in batches:
        ours, theirs = _logits(network, patches), exported(patches)
        logits = max(logits, float(np.abs(ours - theirs).max()))
        apart = np.abs(_softmax(ours) - _softmax(theirs)).max()
        probabilities = float(np.maximum(probabilities, apart))  # keeps NaN
        equal += int((ours.argmax(1) == theirs.argmax(1)).sum())
        voxels += ours[:, 0].size
    return Parity(
        patches=sum(map(len, batches)),
        largest_difference_of_probabilities=probabilities,
        largest_difference_of_logits=logits,
        share_of_equal_labels=equal / voxels,
    )


def require_parity(parity: Parity, name: str, where: str) -> None:
    """Do nothing if an exported network computes what the original does.

    Raises:
        DataError: it does not.
    """
    if not parity.holds:
        raise DataError(
            f"{name}: on {where} the exported network differs by up to "
            f"{parity.largest_difference_of_probabilities:.2g} of a probability, more than "
            f"{TOLERANCE:g}; nothing is written. Try other versions of torch and onnxruntime, or "
            "--torchscript"
        )


def random_patches(channels: int, patch: Size, counts: Sequence[int]) -> list[Patches]:
    """Return batches of so many patches of standard normal values, the same at every call."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((n, channels, *patch), np.float32) for n in counts]


def _logits(network: nn.Module, patches: Patches) -> npt.NDArray[np.float32]:
    with torch.no_grad():
        found: npt.NDArray[np.float32] = network(torch.from_numpy(patches)).float().numpy()
    return found


def _softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    result: npt.NDArray[np.float32] = powers / powers.sum(1, keepdims=True)
    return result


def _knows_dynamo() -> bool:
    return "dynamo" in inspect.signature(torch.onnx.export).parameters


@contextmanager
def _complaints_of_tracing_unheard() -> Iterator[None]:
    """Leave out warnings on tracing and its future; parity is measured afterwards."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
