"""Networks, described by specs and found by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from nnunetlike.core.registry import Registry
from nnunetlike.plans.plans import NetworkSize
from nnunetlike.plans.topology import Topology

if TYPE_CHECKING:  # planning needs none of torch
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class NetworkTask:
    """What a data set asks of a network."""

    channels: int
    """Input channels C."""

    classes: int
    """Output channels K, background included."""

    topology: Topology
    base_features: int
    conv_per_stage: int = 2
    memory_stride: int = 16
    """Of networks for videos: pixels per token of the memory, 8 or 16."""

    network_size: NetworkSize = "base"
    """Of networks for videos that leave their size to the plan."""

    @classmethod
    def tiny(cls, dimension: int = 3) -> NetworkTask:
        """Return a task small enough for tests."""
        pools, kernels = [[2] * dimension] * 2, [[3] * dimension] * 3
        topology = Topology.of(pools, kernels)
        return cls(channels=1, classes=3, topology=topology, base_features=4)


class NetworkSpec(Protocol):
    """Settings of a network (a frozen dataclass).

    Contract: `build` gives a module with the attributes `deep_supervision` (bool, writable),
    `classes` and `input_divisor`; `forward(image (B, C, *patch))` gives a list of logits, the full
    resolution first, when `deep_supervision` is true, else the first alone (B, K, *patch).

    With the strategy `frame_stream` the patch is a clip (T, H, W), `input_divisor` is of H and W,
    and the module also has `init_state(batch, height, width, device=..., dtype=...)`, which gives a
    state, and `step(frame (B, C, H, W), state)`, which gives logits (B, K, H, W) and the next
    state. A spec whose `build` reads weights has `build_empty(task)`, which does not.
    """

    strategy: ClassVar[str]
    """Name of the inference strategy, `sliding_window` or `frame_stream`."""

    def build(self, task: NetworkTask) -> nn.Module:
        """Return an initialised network."""
        ...


NETWORKS: Registry[type[NetworkSpec]] = Registry("network", "nnunetlike.networks")
