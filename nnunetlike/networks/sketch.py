"""How much memory a training step of a U-Net or UNet++ needs, told without torch.

What autograd keeps, makes and frees is followed on a sketch of the network: tensors are numbers of
values, and the steps of the backward pass are the steps forward in reverse. `networks.memory`
rehearses the very network instead, of any kind; where both can tell, they tell the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import prod

from nnunetlike.core.typing import Size
from nnunetlike.networks import NETWORKS, NetworkTask

FEATURE_CAP = {2: 480, 3: 320}
"""Most features of a level, by dimension. Source: nnU-Net v1."""

FLOAT32 = 4
LOSS_COPIES = 3
"""Tensors as large as the logits that a loss keeps: logits, softmax and log-softmax in float32."""


def features_of(task: NetworkTask, base_features: int | None = None) -> tuple[int, ...]:
    """Return the features of each level: they double from level to level up to the cap.

    Args:
        task: what the data set asks for.
        base_features: features of level 0; those of the task when absent.
    """
    cap = FEATURE_CAP[task.topology.dimension]
    base = base_features or task.base_features
    return tuple(min(base * 2**i, cap) for i in range(task.topology.num_pools + 1))


@dataclass(frozen=True)
class StepValues:
    """What a training step holds, in numbers of values. What counts says `training_bytes`."""

    peak: int
    """Alive at once; parameters do not count."""

    in_logits: int
    parameters: int

    def in_bytes(self, bytes_per_value: int) -> int:
        """Return the bytes of a step, with weights and momentum in float32.

        Args:
            bytes_per_value: size of an activation: 4, or 2 under autocast, which copies the weights
                and leaves the loss and the gradients of weights in float32.
        """
        half = FLOAT32 - bytes_per_value
        mixed = half * LOSS_COPIES * self.in_logits + (FLOAT32 * self.parameters if half else 0)
        return 2 * FLOAT32 * self.parameters + self.peak * bytes_per_value + mixed


def planned_training_bytes(
    network: str,
    task: NetworkTask,
    patch_size: Size,
    batch_size: int,
    *,
    bytes_per_value: int = FLOAT32,
) -> int:
    """Return `training_bytes` of a network by its name, without torch if there is a sketch of it.

    Args:
        network: registered name.
        task: channels, classes and topology.
        patch_size: axes of the patch, in voxels, multiples of the topology's divisor.
        batch_size: patches per step on the device.
        bytes_per_value: size of an activation: 4, or 2 under autocast.
    """
    if network in _SKETCHES:
        step = sketched_step(network, task, patch_size, batch_size)
        return step.in_bytes(bytes_per_value)
    from nnunetlike.networks.memory import training_bytes  # with torch, which takes a second

    spec = NETWORKS.get(network)()
    return training_bytes(spec, task, patch_size, batch_size, bytes_per_value=bytes_per_value)


@lru_cache(maxsize=64)
def sketched_step(network: str, task: NetworkTask, patch_size: Size, batch_size: int) -> StepValues:
    """Return what a training step of a network as planned holds.

    Args:
        network: `unet` or `unet_plus_plus`.
        task: channels, classes and topology.
        patch_size: axes of the patch, in voxels, multiples of the topology's divisor.
        batch_size: patches per step on the device.
    """
    sketch = _Sketch(task, patch_size, batch_size)
    heads = _SKETCHES[network](sketch)
    for head in heads:
        sketch.lose(head)
    sketch.backward()
    in_logits = sum(head.storage.values for head in heads)
    return StepValues(sketch.peak, in_logits, sketch.parameters)


def _unet(sketch: _Sketch) -> list[_Tensor]:
    """Go forward as `networks.unet.UNet` does and return the logits."""
    skips = sketch.encode()
    features = skips.pop()
    heads: list[_Tensor] = []
    for level in reversed(range(len(skips))):
        features = sketch.node(level, features, skips.pop())
        heads.insert(0, sketch.head(level, features))
    return heads


def _unet_plus_plus(sketch: _Sketch) -> list[_Tensor]:
    """Go forward as `networks.unet_plus_plus.UNetPlusPlus` does and return the logits."""
    rows = [[features] for features in sketch.encode()]
    while len(rows) > 1:
        for level, (row, row_below) in enumerate(pairwise(rows)):
            row.append(sketch.node(level, row_below[-1], *row))
        rows.pop()
    return [sketch.head(0, node) for node in rows[0][1:]][::-1]


@dataclass(eq=False)
class _Storage:
    """Memory for some values, until all who hold it let go."""

    values: int
    holders: int = 1


@dataclass(eq=False)
class _Slot:
    """Where the gradient of a tensor is collected."""

    values: int
    gradient: _Storage | None = None

    def take(self) -> _Storage:
        """Return what was collected, to be forgotten here."""
        gradient, self.gradient = self.gradient, None
        assert gradient is not None
        return gradient


@dataclass(frozen=True, eq=False)
class _Tensor:
    """What a step forward made."""

    storage: _Storage
    slot: _Slot


class _Sketch:
    """Follows what is alive while a step goes forward and back."""

    def __init__(self, task: NetworkTask, patch_size: Size, batch_size: int) -> None:
        self.task, self.batch_size = task, batch_size
        self.features = features_of(task)
        sizes = [patch_size]
        for stride in task.topology.pool_op_kernel_sizes:
            sizes.append(tuple(n // s for n, s in zip(sizes[-1], stride, strict=True)))
        self.voxels = [batch_size * prod(size) for size in sizes]
        self.peak = self.parameters = self._alive = 0
        self._way_back: list[Callable[[], None]] = []
        self.image = self._tensor(task.channels * self.voxels[0])

    def backward(self) -> None:
        """Go back through all that was done, from a loss with its gradient."""
        self._hold(2)
        while self._way_back:
            self._way_back.pop()()

    def encode(self) -> list[_Tensor]:
        """Return the features of every level, full resolution first."""
        kernels, last = self.task.topology.conv_kernel_sizes, len(self.features) - 1
        levels, inputs, features = [], self.task.channels, self.image
        for level, (outputs, kernel) in enumerate(zip(self.features, kernels, strict=True)):
            for _ in range(self._node_units if level == last else self.task.conv_per_stage):
                features = self._unit(features, level, inputs, kernel)
                inputs = outputs
            levels.append(features)
        return levels

    def node(self, level: int, below: _Tensor, *skips: _Tensor) -> _Tensor:
        """Up-convolve what comes from below, join it with the skips, and convolve."""
        features, topology = self.features[level], self.task.topology
        stride, kernel = topology.pool_op_kernel_sizes[level], topology.conv_kernel_sizes[level + 1]
        weights = self.features[level + 1] * features * prod(stride)
        up = self._plain(below, features * self.voxels[level], weights)
        joined = self._joined(*skips, up)
        result, inputs = joined, (len(skips) + 1) * features
        for _ in range(self._node_units):
            result = self._unit(result, level, inputs, kernel)
            inputs = features
        self._free(up.storage, joined.storage)
        return result

    def head(self, level: int, features: _Tensor) -> _Tensor:
        """Return the logits of a level."""
        classes = self.task.classes
        return self._plain(features, classes * self.voxels[level], classes * self.features[level])

    def lose(self, logits: _Tensor) -> None:
        """Take softmax and log-softmax, as `networks.rehearsal.step` does."""
        values = logits.slot.values
        kept = [self._hold(values), self._hold(values)]

        def back() -> None:
            """Go back through both, the latter first."""
            both = []
            for shares in reversed(kept):
                both.append(self._hold(values))
                self._free(shares)
            logits.slot.gradient = self._hold(values)
            self._free(*both)

        self._way_back.append(back)

    @property
    def _node_units(self) -> int:
        return max(self.task.conv_per_stage, 2)

    def _hold(self, values: int) -> _Storage:
        self._alive += values
        self.peak = max(self.peak, self._alive)
        return _Storage(values)

    def _free(self, *storages: _Storage) -> None:
        for storage in storages:
            storage.holders -= 1
            self._alive -= 0 if storage.holders else storage.values

    def _tensor(self, values: int) -> _Tensor:
        return _Tensor(self._hold(values), _Slot(values))

    def _joined(self, *parts: _Tensor) -> _Tensor:
        result = self._tensor(sum(part.slot.values for part in parts))

        def back() -> None:
            """Give each part its share of the gradient."""
            gradient = result.slot.take()
            for part in parts:  # which gets a view
                gradient.holders += 1
                self._collect(part.slot, gradient)
            self._free(gradient)

        self._way_back.append(back)
        return result

    def _collect(self, slot: _Slot, gradient: _Storage) -> None:
        """Add a gradient to what came before."""
        before, slot.gradient = slot.gradient, gradient
        if before is not None:
            slot.gradient = self._hold(slot.values)
            self._free(before, gradient)

    def _plain(self, source: _Tensor, values: int, weights: int) -> _Tensor:
        """Convolve without bias: an up-convolution, or a head."""
        result = self._tensor(values)
        self.parameters += weights
        source.storage.holders += 1
        self._way_back.append(lambda: self._convolve_back(result.slot.take(), source, (weights,)))
        return result

    def _unit(self, source: _Tensor, level: int, inputs: int, kernel: Size) -> _Tensor:
        """Convolve, normalise each instance, and apply LeakyReLU in place."""
        features, rows = self.features[level], self.batch_size * self.features[level]
        values, weights = features * self.voxels[level], inputs * features * prod(kernel)
        source.storage.holders += 1
        of_norm = [self._hold(values), self._hold(rows)]
        shift = self._hold(rows)
        result = self._tensor(values)
        of_norm.append(self._hold(2 * rows))
        self._free(shift)
        self.parameters += weights + 3 * features

        def back() -> None:
            """Go back through activation, norm and convolution."""
            gradient = self._activate_back(result)
            gradient = self._normalise_back(gradient, of_norm, rows, features)
            self._convolve_back(gradient, source, (weights, features))

        self._way_back.append(back)
        return result

    def _activate_back(self, result: _Tensor) -> _Storage:
        """Go back through an activation that was written over its input."""
        gradient = result.slot.take()
        found = self._hold(result.slot.values)
        self._free(gradient, result.storage)
        return found

    def _normalise_back(
        self, gradient: _Storage, kept: Sequence[_Storage], rows: int, features: int
    ) -> _Storage:
        """Go back through an instance norm, whose weights were repeated for each instance."""
        result, repeated = self._hold(gradient.values), [self._hold(rows), self._hold(rows)]
        self._free(gradient, *kept)
        for of_instances in repeated:
            self._hold(features)
            self._free(of_instances)
        return result

    def _convolve_back(
        self, gradient: _Storage, source: _Tensor, parameters: Sequence[int]
    ) -> None:
        """Go back through a convolution; what its parameters get stays."""
        wanted = source is not self.image
        result = self._hold(source.slot.values) if wanted else None
        for values in parameters:
            self._hold(values)
        self._free(gradient, source.storage)
        if result is not None:
            self._collect(source.slot, result)


_SKETCHES: Mapping[str, Callable[[_Sketch], list[_Tensor]]] = {
    "unet": _unet,
    "unet_plus_plus": _unet_plus_plus,
}
