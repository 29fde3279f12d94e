"""How much memory a patch may cost, and how many patches make a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from nnunetlike.core.typing import Size
from nnunetlike.experiment_planning.planners.common import Pooling, memory_estimate
from nnunetlike.networks import NetworkTask
from nnunetlike.networks.sketch import planned_training_bytes
from nnunetlike.plans.topology import Topology

REFERENCE_3D = 520_000_000 * 32 / 30
"""v1's estimate that fills 8 GB with two 3D patches, for 32 features instead of 30."""

REFERENCE_GB = 8
"""Memory of the device that v1's references are for."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a data set asks of the network, as far as memory goes."""

    channels: int
    classes: int
    """With background."""

    base_features: int = 32
    conv_per_stage: int = 2


class MemoryRule(Protocol):
    """Decides which patches fit."""

    def fits(self, pooling: Pooling, demand: Demand) -> bool:
        """Tell whether the smallest batch (two patches) can be trained."""
        ...

    def batch_size(self, pooling: Pooling, demand: Demand) -> int:
        """Return how many patches can be trained at a time; at least 2 for a patch that fits."""
        ...

    def within(self, gigabytes: float) -> MemoryRule:
        """Return the rule for a device of that size, mixed precision."""
        ...


@dataclass(frozen=True)
class FormulaMemory:
    """v1's rule for 3D: the formula's estimate of a U-Net against a reference.

    Args:
        reference: estimate at which a batch of two patches fills the memory.
    """

    reference: float = REFERENCE_3D

    def fits(self, pooling: Pooling, demand: Demand) -> bool:
        """Tell whether the estimate stays within the reference."""
        return self._estimate(pooling, demand) <= self.reference

    def batch_size(self, pooling: Pooling, demand: Demand) -> int:
        """Return twice the room left, rounded down, and at least 2."""
        return math.floor(max(self.reference / self._estimate(pooling, demand), 1) * 2)

    def within(self, gigabytes: float) -> FormulaMemory:
        """Return the rule whose reference is v1's for 8 GB, in proportion."""
        return FormulaMemory(REFERENCE_3D * gigabytes / REFERENCE_GB)

    def _estimate(self, pooling: Pooling, demand: Demand) -> int:
        return memory_estimate(
            pooling,
            channels=demand.channels,
            classes=demand.classes,
            base_features=demand.base_features,
            conv_per_stage=demand.conv_per_stage,
        )


@dataclass(frozen=True)
class NetworkMemory:
    """Bytes the network itself needs to train, against those of v1's U-Net at the same reference.

    The budget is what a U-Net needs for two patches at which v1's formula gives the reference:
    about 128 x 128 x 128 voxels, one channel, two classes.

    Args:
        network: registered name of the network to train.
        formula: v1's rule, which is tried first because it is cheap: no network here is smaller
            than the U-Net it estimates.
    """

    network: str
    formula: FormulaMemory = FormulaMemory()

    def fits(self, pooling: Pooling, demand: Demand) -> bool:
        """Tell whether two patches stay within the budget."""
        if not self.formula.fits(pooling, demand):
            return False
        return self._bytes(pooling, demand, 2) <= self.budget_bytes

    def batch_size(self, pooling: Pooling, demand: Demand) -> int:
        """Return how many patches stay within the budget, at least 2; each adds the same."""
        one, two = (self._bytes(pooling, demand, batch_size) for batch_size in (1, 2))
        return 2 + max(0, self.budget_bytes - two) // (two - one)

    def within(self, gigabytes: float) -> NetworkMemory:
        """Return the rule whose budget is what a U-Net needs at the reference for that size."""
        return NetworkMemory(self.network, self.formula.within(gigabytes))

    @property
    def budget_bytes(self) -> int:
        """Bytes that a U-Net needs for two patches at the formula's reference."""
        return _budget_bytes(self.formula.reference)

    def _bytes(self, pooling: Pooling, demand: Demand, batch_size: int) -> int:
        return _bytes(self.network, demand, pooling.topology, pooling.patch_size, batch_size)


@cache
def _bytes(
    network: str, demand: Demand, topology: Topology, patch_size: Size, batch_size: int
) -> int:
    task = NetworkTask(
        channels=demand.channels,
        classes=demand.classes,
        topology=topology,
        base_features=demand.base_features,
        conv_per_stage=demand.conv_per_stage,
    )
    return planned_training_bytes(network, task, patch_size, batch_size)


@cache
def _budget_bytes(reference: float) -> int:
    topology = Topology.of([[2, 2, 2]] * 5, [[3, 3, 3]] * 6)
    pooling = Pooling(topology, (128, 128, 128), (5, 5, 5))
    demand = Demand(channels=1, classes=3)
    one, two = (
        _bytes("unet", demand, topology, pooling.patch_size, batch_size) for batch_size in (1, 2)
    )
    estimate = memory_estimate(pooling, channels=1, classes=3)
    return int(2 * one - two + 2 * (two - one) * reference / estimate)
