"""How much memory a step needs, found by rehearsing it on torch's `meta` device."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunetlike.core.typing import Size
from nnunetlike.networks import NetworkSpec, NetworkTask
from nnunetlike.networks.rehearsal import empty_image, of_clip, on_meta, step
from nnunetlike.networks.sketch import FLOAT32, StepValues


def training_bytes(
    network_spec: NetworkSpec,
    task: NetworkTask,
    patch_size: Sequence[int],
    batch_size: int,
    *,
    bytes_per_value: int = FLOAT32,
) -> int:
    """Return the bytes that are alive at the peak of one training step.

    Counted are weights and momentum in float32; the image; every tensor that autograd keeps, each
    storage once (inputs of convolutions and norms, outputs of activations and up-convolutions,
    joined tensors); gradients of weights and of activations while they are alive; nodes that are
    computed again when checkpointed; softmax and log-softmax of each head for the loss. Below four
    bytes per value also the copies of the weights that autocast makes, and what stays float32 (the
    loss, the gradients of weights). Not counted: workspaces of convolutions, fragmentation, and
    the context of the device.

    Args:
        network_spec: network to build.
        task: channels, classes and topology.
        patch_size: axes of the patch, in voxels, multiples of the topology's divisor.
        batch_size: patches per step on the device.
        bytes_per_value: size of an activation: 4, or 2 under autocast.
    """

    def measure(size: Sequence[int]) -> int:
        """Return the bytes with inputs of a size."""
        key: Any = network_spec  # a frozen dataclass, so it can be a key
        return _step_values(key, task, tuple(size), batch_size).in_bytes(bytes_per_value)

    return of_clip(network_spec, patch_size, measure)


@lru_cache(maxsize=64)
def _step_values(
    network_spec: NetworkSpec, task: NetworkTask, size: Size, batch_size: int
) -> StepValues:
    """Return what a step holds, by a rehearsal."""
    network = on_meta(network_spec, task)
    rehearsal = _Rehearsal(network)
    with rehearsal:
        in_logits = step(network, empty_image(task, size, batch_size))
    return StepValues(rehearsal.peak, in_logits, _parameters(network))


def inference_bytes(
    network_spec: NetworkSpec,
    task: NetworkTask,
    patch_size: Sequence[int],
    batch_size: int = 1,
    *,
    bytes_per_value: int = FLOAT32,
) -> int:
    """Return the bytes of the weights and of all activations alive at the peak of a prediction.

    Arguments and what is not counted are those of `training_bytes`.
    """

    def measure(size: Sequence[int]) -> int:
        """Return the bytes with inputs of a size."""
        network: Any = on_meta(network_spec, task)  # any module with the attribute of the contract
        network.deep_supervision = False
        rehearsal = _Rehearsal(network)
        with torch.no_grad(), rehearsal:
            network(empty_image(task, size, batch_size))
        return FLOAT32 * _parameters(network) + rehearsal.peak * bytes_per_value

    return of_clip(network_spec, patch_size, measure)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


class _Rehearsal(TorchDispatchMode):
    """While entered, follows the storages that operations make, until they are freed.

    `peak` is the largest number of values alive at once; those of the network's parameters, which
    exist before, do not count.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.peak: int = 0
        self._alive: int = 0
        self._known = {p.untyped_storage()._cdata for p in network.parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Carry out an operation and take note of the storages of its results."""
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._meet(leaf)
        return result

    def _meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, values = storage._cdata, storage.nbytes() // tensor.element_size()
        if key in self._known:
            return
        self._known.add(key)
        self._alive += values
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._part, key, values).atexit = False

    def _part(self, key: int, values: int) -> None:
        self._known.discard(key)
        self._alive -= values
