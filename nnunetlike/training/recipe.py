"""A trainer as a value: which network, which loss, how long, how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Protocol

from torch import Tensor, nn

from nnunetlike.core.errors import UsageError
from nnunetlike.core.specs import spec_to_dict
from nnunetlike.networks import NETWORKS, NetworkSpec
from nnunetlike.plans.plans import NetworkSize
from nnunetlike.training.optimizers import OptimizerSpec


class ObjectiveSpec(Protocol):
    """Settings of an objective (a frozen dataclass)."""

    def build(
        self,
        network: nn.Module,
        *,
        batch_dice: bool,
        total: Callable[[Tensor], Tensor] | None = None,
        share: float = 1.0,
    ) -> nn.Module:
        """Return the network and its loss in one module.

        With several processes `total` sums a tensor over them, with gradient, and `share` weighs
        this one's loss, so that the mean over processes is the loss of the whole batch.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class TrainerRecipe:
    """Everything that a trainer's name stands for.

    Options of a command line are applied by `dataclasses.replace`, so one resolved recipe describes
    a run.
    """

    name: str
    network: NetworkSpec
    objective: ObjectiveSpec
    optimizer: OptimizerSpec
    epochs: int = 1000
    iterations: int = 250
    """Training batches of an epoch."""

    val_iterations: int = 50
    """Validation batches of an epoch."""

    oversample: float = 0.33
    """Share of the patches of a batch that must hold foreground."""

    batch_size: int | None = None
    """Patches per batch; None: as planned."""

    batch_per_process: Literal["plan", "shared"] = "plan"
    """With several processes: each takes the whole planned batch, or they share it."""

    save_every: int = 50
    """Epochs between two saves of `model_latest`."""

    rate_of_small_network: float | None = None
    """Learning rate where the plan asks for a small network and the user for no rate."""

    source: Literal["patches", "clips"] = "patches"
    """What a batch is made of: patches of images, or clips of videos."""

    previous_trainer: str | None = None
    """Of a cascade's full resolution: the trainer of the low resolution."""

    restarts_when_lost: bool = True
    """Begin again with less momentum when epoch 100 still has a Dice of exactly 0, as v1 does."""

    def __post_init__(self) -> None:
        for name in ("epochs", "iterations", "val_iterations", "save_every"):
            self._at_least_one(name, getattr(self, name))
        if self.batch_size is not None:
            self._at_least_one("batch_size", self.batch_size)

    def _at_least_one(self, name: str, value: int) -> None:
        if value < 1:
            raise UsageError(f"{self.name}: {name} is {value}, but must be 1 or more")

    def with_base_features(self, count: int) -> TrainerRecipe:
        """Return the recipe with another number of features at the full resolution.

        Raises:
            UsageError: the number is below 1, or the network does not let it be chosen.
        """
        self._at_least_one("base_num_features", count)
        spec: Any = self.network  # a dataclass by contract, which a protocol cannot say
        if "base_features" not in {field.name for field in fields(spec)}:
            raise UsageError(f"{self.name}: the number of features of its network is fixed")
        return replace(self, network=replace(spec, base_features=count))

    def with_rate(self, rate: float) -> TrainerRecipe:
        """Return the recipe with another learning rate to begin with.

        Raises:
            UsageError: the rate is not above 0, or the optimizer has none to choose.
        """
        if not rate > 0:
            raise UsageError(f"{self.name}: the learning rate is {rate}, but must be above 0")
        spec: Any = self.optimizer  # a dataclass by contract, which a protocol cannot say
        if "lr" not in {field.name for field in fields(spec)}:
            raise UsageError(f"{self.name}: the learning rate of its optimizer is fixed")
        return replace(self, optimizer=replace(spec, lr=rate), rate_of_small_network=None)

    def for_network_size(self, planned: NetworkSize) -> TrainerRecipe:
        """Return the recipe with the learning rate of its own or the planned size."""
        size = getattr(self.network, "size", None) or planned
        rate = self.rate_of_small_network
        return self if rate is None or size != "small" else self.with_rate(rate)

    def describe(self) -> dict[str, Any]:
        """Return the recipe in plain types, for debug.json."""
        parts = ("network", "objective", "optimizer")
        plain = {key: value for key, value in asdict(self).items() if key not in parts}
        return {
            **plain,
            "network": spec_to_dict(self.network, NETWORKS),
            "objective": _settings(self.objective),
            "optimizer": _settings(self.optimizer),
        }


def _settings(spec: Any) -> dict[str, Any]:
    return {"name": type(spec).__name__, **asdict(spec)}
