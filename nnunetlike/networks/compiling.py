"""Networks through torch.compile, and what happens where that does not work.

Only the call of the network's `forward` is replaced, so names of weights, hooks and copies stay as
they are. Whatever a compiler may fail at is told once, in one line; eager execution then goes on,
with the same numbers up to rounding.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from typing import Any

import torch
from torch import Tensor, nn

from nnunetlike.networks.memory_format import channels_first, channels_last

FAULTS = (
    RuntimeError,  # all of dynamo's and most of inductor's
    OSError,
    ImportError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    subprocess.SubprocessError,
)
"""What torch's compilers were seen to raise."""

LEAST_CAPABILITY = (7, 0)
"""Of CUDA devices that Triton compiles for."""

MODES = {"cuda": "reduce-overhead"}
"""How predictions are compiled: on a GPU as CUDA graphs, since windows have one shape."""

MOST_TEXT = 200
logger = logging.getLogger(__name__)


def obstacle(network: nn.Module, device: torch.device) -> str | None:
    """Return why a network cannot be compiled for a device; None where nothing is known to hinder.

    Args:
        network: of images; those of videos go from frame to frame and are not compiled.
        device: where it lies.
    """
    if hasattr(network, "init_state"):
        return "a network for videos is not compiled"
    if os.name == "nt":
        return "torch.compile is not used on Windows"
    if device.type == "cuda":
        return _obstacle_of_cuda(device)
    if device.type != "cpu":
        return f"torch.compile is not used on {device.type}"
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler}; set CXX to another)"
    return None


def _obstacle_of_cuda(device: torch.device) -> str | None:
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if torch.cuda.get_device_capability(device) < LEAST_CAPABILITY:
        return f"{torch.cuda.get_device_name(device)} is too old for Triton"
    return None


class CompiledForward:
    """The forward pass of a network as torch.compile makes it, or eager once that has failed.

    Args:
        network: whose `forward` it takes the place of.
        mode: of torch.compile; with one, results are copied out of what its graphs use again.
    """

    def __init__(self, network: nn.Module, mode: str | None = None) -> None:
        self._network = network
        self._eager = network.forward
        self._mode = mode
        self._compiled: Any = None
        try:
            self._compiled = torch.compile(network.forward, dynamic=False, mode=mode)
        except FAULTS as error:
            self.give_up(error)

    def __call__(self, image: Tensor) -> Any:
        """Return what the network does."""
        if self._compiled is not None:
            try:
                found = self._compiled(image)
                return found if self._mode is None else found.clone()
            except torch.cuda.OutOfMemoryError:
                raise
            except FAULTS as error:
                self.give_up(error)
        return self._eager(image)

    @property
    def works(self) -> bool:
        """Nothing has failed yet."""
        return self._compiled is not None

    def give_up(self, error: BaseException) -> None:
        """Say why, and go on without; in channels-first, which is faster so."""
        logger.warning(
            "the network is not compiled, training or prediction goes on without: torch %s says: "
            "%s",
            torch.__version__,
            _first_line(error),
        )
        self._compiled = None
        channels_first(self._network)


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:MOST_TEXT]


def compiled_forward(network: nn.Module) -> CompiledForward | None:
    """Return what `compile_network` has put in place; None if it was not called."""
    forward = vars(network).get("forward")
    return forward if isinstance(forward, CompiledForward) else None


def is_compiled(network: nn.Module) -> bool:
    """Tell whether a network's calls go through torch.compile, if that has not failed since."""
    forward = compiled_forward(network)
    return forward is not None and forward.works


def compile_network(network: nn.Module, device: torch.device, mode: str | None = None) -> None:
    """Let a network's next calls go through torch.compile; channels-last on a CPU, where it pays.

    Args:
        network: that has no `obstacle`. One that failed is not tried again.
        device: where it lies.
        mode: of torch.compile.
    """
    if compiled_forward(network) is not None:
        return
    if device.type == "cpu":
        channels_last(network)
    network.forward = CompiledForward(network, mode)


def as_before(network: nn.Module) -> None:
    """Take `compile_network` back."""
    if compiled_forward(network) is not None:
        del network.forward
        channels_first(network)
