"""The training loop: epochs of training and validation batches. There is only this one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnunetlike.networks.initialization import initialize
from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.objectives import Batch
from nnunetlike.training.recipe import TrainerRecipe
from nnunetlike.training.runtime import Runtime
from nnunetlike.training.sources import ArrayBatch
from nnunetlike.training.state import TrainState

RESCUE_EPOCH = 100
RESCUE_MOMENTUM = 0.95


@dataclass
class _Sums:
    """What one pass over batches gave."""

    loss: float
    counts: Tensor | None
    wait_s: float


class TrainLoop:
    """Trains an objective as a recipe says.

    Args:
        recipe: resolved recipe; `epochs`, `iterations`, `val_iterations` and the schedule are read.
        objective: network and loss in one module, with the attribute `network`.
        optimizer: of the objective's parameters.
        runtime: device, precision and processes.
        hooks: told of every step and epoch, in this order.
    """

    def __init__(
        self,
        recipe: TrainerRecipe,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        runtime: Runtime,
        hooks: Sequence[Hook] = (),
    ) -> None:
        self.recipe = recipe
        self.objective = objective
        self.optimizer = optimizer
        self.runtime = runtime
        self.hooks = tuple(hooks)
        self._wrapped = runtime.wrap(objective)

    @property
    def network(self) -> nn.Module:
        """The network inside the objective."""
        return self.objective.get_submodule("network")

    def fit(
        self,
        training: Iterator[ArrayBatch],
        validation: Iterator[ArrayBatch],
        state: TrainState | None = None,
    ) -> TrainState:
        """Train up to the recipe's last epoch and return the final state.

        Args:
            training: endless training batches, starting with those of the first epoch to come.
            validation: endless validation batches.
            state: where an earlier run stopped; None starts anew.
        """
        state = state or TrainState()
        self._set_rate(state.epoch)
        for hook in self.hooks:
            hook.on_fit_start(self, state)
        while state.epoch < self.recipe.epochs:
            state, report = self._epoch(training, validation, state)
            for hook in self.hooks:
                hook.on_epoch_end(self, state, report)
            self._restart_if_nothing_was_learnt(state)
        for hook in self.hooks:
            hook.on_fit_end(self, state)
        return state

    def _epoch(
        self,
        training: Iterator[ArrayBatch],
        validation: Iterator[ArrayBatch],
        state: TrainState,
    ) -> tuple[TrainState, EpochReport]:
        begin = time.monotonic()
        lr = self.optimizer.param_groups[0]["lr"]
        train = self._train(training, state)
        val = self._validate(validation, state)
        dice = class_dice(val.counts)
        next_lr = self._set_rate(state.epoch + 1)
        total_s = time.monotonic() - begin
        wait_s = train.wait_s + val.wait_s
        report = EpochReport(
            epoch=state.epoch,
            train_loss=train.loss,
            val_loss=val.loss,
            dice=dice,
            lr=lr,
            next_lr=next_lr,
            wait_s=wait_s,
            compute_s=max(total_s - wait_s, 0.0),
            total_s=total_s,
        )
        metric = None if val.counts is None else mean_dice(dice)
        return state.after_epoch(train.loss, val.loss, metric, next_lr), report

    def _train(self, batches: Iterator[ArrayBatch], state: TrainState) -> _Sums:
        self._wrapped.train()
        losses: list[Tensor] = []
        waited = 0.0
        for step in range(self.recipe.iterations):
            batch, wait_s = self._next(batches)
            waited += wait_s
            with self.runtime.autocast():
                output = self._wrapped(batch)
            self.runtime.step(output.loss, self.optimizer, self.recipe.optimizer.clip_norm)
            losses.append(output.loss.detach())
            self._tell_step(state, step)
        return _Sums(self._mean(losses), None, waited)

    @torch.no_grad()
    def _validate(self, batches: Iterator[ArrayBatch], state: TrainState) -> _Sums:
        self._wrapped.eval()
        losses: list[Tensor] = []
        counts: Tensor | None = None
        waited = 0.0
        for step in range(self.recipe.val_iterations):
            batch, wait_s = self._next(batches)
            waited += wait_s
            with self.runtime.autocast():
                output = self.objective(batch)
            losses.append(output.loss.detach())
            if output.counts is not None:
                found = output.counts.double()
                counts = found if counts is None else counts + found
            self._tell_step(state, self.recipe.iterations + step)
        if counts is not None:
            counts = self.runtime.sum(counts)
        return _Sums(self._mean(losses), counts, waited)

    def _next(self, batches: Iterator[ArrayBatch]) -> tuple[Batch, float]:
        begin = time.monotonic()
        batch = next(batches)
        return self.runtime.to_device(batch), time.monotonic() - begin

    def _mean(self, losses: Sequence[Tensor]) -> float:
        total = self.runtime.sum(torch.stack(list(losses)).double().mean())
        return float(total) / self.runtime.world_size

    def _set_rate(self, epoch: int) -> float:
        rate = self.recipe.optimizer.rate(epoch, self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _tell_step(self, state: TrainState, step: int) -> None:
        total = self.recipe.iterations + self.recipe.val_iterations
        for hook in self.hooks:
            hook.on_step_end(self, state, step, total)

    def _restart_if_nothing_was_learnt(self, state: TrainState) -> None:
        """Start again with less momentum when epoch 100 still has a Dice of exactly 0.

        The state of the optimizer and its rate stay.

        Source: nnU-Net v1.
        """
        if state.epoch - 1 != RESCUE_EPOCH or state.metrics[-1:] != (0.0,):
            return
        for group in self.optimizer.param_groups:
            group["momentum"] = RESCUE_MOMENTUM
        initialize(self.network)


def class_dice(counts: Tensor | None) -> tuple[float | None, ...]:
    """Return the Dice of each foreground class from summed counts.

    Args:
        counts: (K - 1, 3) true positives, false positives, false negatives; None gives ().

    Returns:
        One value per class; None for a class that is neither in the labels nor predicted.
    """
    if counts is None:
        return ()
    return tuple(
        2 * tp / (2 * tp + fp + fn) if tp + fp + fn > 0 else None
        for tp, fp, fn in counts.double().tolist()
    )


def mean_dice(dice: Sequence[float | None]) -> float:
    """Return the mean over the classes that occurred; NaN when none did."""
    present = [value for value in dice if value is not None]
    return sum(present) / len(present) if present else math.nan
