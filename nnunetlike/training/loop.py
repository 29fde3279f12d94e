"""The training loop: epochs of training and validation batches. There is only this one."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError, InterruptedRunError, PeerError, WorkerError
from nnunetlike.networks.initialization import initialize
from nnunetlike.training.hooks import EpochReport, Hook
from nnunetlike.training.objectives import Batch
from nnunetlike.training.progress import EpochProgress, FaultCounter, SkippedStep
from nnunetlike.training.recipe import TrainerRecipe
from nnunetlike.training.runtime import Runtime
from nnunetlike.training.sources import HostBatch
from nnunetlike.training.state import TrainState

RESCUE_EPOCH = 100
RESCUE_MOMENTUM = 0.95
logger = logging.getLogger(__name__)


class TrainLoop:
    """Trains an objective as a recipe says.

    Args:
        recipe: resolved recipe; `epochs`, `iterations`, `val_iterations` and the schedule are read.
        objective: network and loss in one module, with the attribute `network`.
        optimizer: of the objective's parameters.
        runtime: device, precision and processes.
        hooks: told of every step and epoch, in this order, and asked for reasons to stop.

    Attributes:
        progress: of the epoch in hand; empty between two epochs.
        faults: steps skipped of late.
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
        self.progress = EpochProgress()
        self.faults = FaultCounter()
        self._wrapped = runtime.wrap(objective)

    @property
    def network(self) -> nn.Module:
        """The network inside the objective."""
        return self.objective.get_submodule("network")

    def fit(
        self,
        training: Iterator[HostBatch],
        validation: Iterator[HostBatch],
        state: TrainState | None = None,
    ) -> TrainState:
        """Train up to the recipe's last epoch, or until a hook has a reason to end before.

        Args:
            training: endless training batches, starting with the next one to come: that of the
                first step of `state.epoch`, or later in that epoch if `progress` was set.
            validation: endless validation batches, likewise.
            state: where an earlier run stopped; None starts anew.

        Returns:
            The final state.

        Raises:
            InterruptedRunError: a hook had a reason to leave; all hooks were told.
            DataError: the loss stays not finite in single precision.
        """
        state = state or TrainState()
        self._set_rate(state.epoch)
        on_device = self.runtime.feed(training), self.runtime.feed(validation)
        for hook in self.hooks:
            hook.on_fit_start(self, state)
        ended = False
        while state.epoch < self.recipe.epochs and not ended:
            state, report = self._epoch_or_leave(*on_device, state)
            self._restart_if_nothing_was_learnt(state)
            for hook in self.hooks:
                hook.on_epoch_end(self, state, report)
            ended = self._is_to_end(state)
        for hook in self.hooks:
            hook.on_fit_end(self, state)
        return state

    def _epoch_or_leave(
        self,
        training: Iterator[Batch],
        validation: Iterator[Batch],
        state: TrainState,
    ) -> tuple[TrainState, EpochReport]:
        """Do an epoch, or tell the hooks that training is left in its middle.

        When another process of the run is gone, the weights are still those of the last step that
        all have taken, and are saved.
        """
        try:
            return self._epoch(training, validation, state)
        except PeerError:
            self._interrupt(state)
            raise
        except InterruptedRunError as reason:
            self._share_progress()
            self._interrupt(state)
            self.runtime.meet("interrupted")
            done = self.progress.train_steps
            raise InterruptedRunError(
                f"{reason} in epoch {state.epoch} after {done} training batches; all is saved"
            ) from None

    def _share_progress(self) -> None:
        """Make the epoch in hand that of all processes, as the checkpoint of one must keep it."""
        done, runtime = self.progress, self.runtime
        done.train_losses, done.val_losses = (
            list(runtime.sum(torch.stack(losses)) / runtime.world_size) if losses else []
            for losses in (done.train_losses, done.val_losses)
        )
        done.counts = None if done.counts is None else runtime.sum(done.counts)

    def _interrupt(self, state: TrainState) -> None:
        for hook in self.hooks:
            hook.on_interrupt(self, state)

    def _epoch(
        self,
        training: Iterator[Batch],
        validation: Iterator[Batch],
        state: TrainState,
    ) -> tuple[TrainState, EpochReport]:
        begin = time.monotonic()
        lr = self.optimizer.param_groups[0]["lr"]
        wait_s = self._train(training, state) + self._validate(validation, state)
        done, self.progress = self.progress, EpochProgress()
        counts = None if done.counts is None else self.runtime.sum(done.counts)
        train_loss, val_loss = self._mean(done.train_losses), self._mean(done.val_losses)
        dice = class_dice(counts)
        next_lr = self._set_rate(state.epoch + 1)
        total_s = time.monotonic() - begin
        report = EpochReport(
            epoch=state.epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            dice=dice,
            lr=lr,
            next_lr=next_lr,
            wait_s=wait_s,
            compute_s=max(total_s - wait_s, 0.0),
            total_s=total_s,
            skipped=tuple(done.skipped),
        )
        metric = None if counts is None else mean_dice(dice)
        return state.after_epoch(train_loss, val_loss, metric, next_lr), report

    def _train(self, batches: Iterator[Batch], state: TrainState) -> float:
        """Do what is left of the epoch's training batches; return the time spent waiting."""
        self._wrapped.train()
        waited = 0.0
        while self.progress.train_steps < self.recipe.iterations:
            batch, wait_s = self._next(batches)
            waited += wait_s
            with self.runtime.autocast():
                output = self._wrapped(batch)
            if self.runtime.step(output.loss, self.optimizer, self.recipe.optimizer.clip_norm):
                self.progress.train_losses.append(output.loss.detach())
                self.faults.note(None)
            else:
                self._skip(state, batch, output.loss)
            self.progress.train_steps += 1
            self._tell_step(state, self.progress.train_steps - 1)
        return waited

    @torch.no_grad()
    def _validate(self, batches: Iterator[Batch], state: TrainState) -> float:
        """Do what is left of the epoch's validation batches; return the time spent waiting."""
        self._wrapped.eval()
        progress, waited = self.progress, 0.0
        while progress.val_steps < self.recipe.val_iterations:
            batch, wait_s = self._next(batches)
            waited += wait_s
            with self.runtime.autocast():
                output = self.objective(batch)
            progress.val_losses.append(output.loss.detach())
            if output.counts is not None:
                found = output.counts.double()
                progress.counts = found if progress.counts is None else progress.counts + found
            progress.val_steps += 1
            self._tell_step(state, self.recipe.iterations + progress.val_steps - 1)
        return waited

    def _skip(self, state: TrainState, batch: Batch, loss: Tensor) -> None:
        """Take note of a step that was not taken; after too many compute in a wider type.

        Raises:
            DataError: there is no wider type.
        """
        suspects = self.runtime.gather([] if loss.isfinite() else batch["case_ids"])
        cases = suspects or self.runtime.gather(batch["case_ids"])
        fault = SkippedStep(state.epoch, self.progress.train_steps, tuple(cases))
        self.progress.skipped.append(fault)
        self.faults.note(fault)
        self._warn(
            f"epoch {fault.epoch}, step {fault.step}: the loss or its gradient is not finite; the "
            f"step is skipped. Its cases: {', '.join(fault.case_ids)}"
        )
        if not self.faults.too_many:
            return
        found, narrow = self.faults.describe(), self.runtime.precision
        if not self.runtime.widen():
            raise DataError(
                f"the loss or its gradient was not finite in {found}, computing in {narrow}, which "
                "is as wide as it gets. Look at these cases with nnUNet_plan_and_preprocess "
                "--verify_dataset_integrity, or train with a lower learning rate (--lr 0.001)"
            )
        self.faults = FaultCounter()
        self._warn(f"not finite in {found}: training goes on in {self.runtime.precision}")

    def _warn(self, text: str) -> None:
        if self.runtime.is_main:
            logger.warning("%s", text)

    def _next(self, batches: Iterator[Batch]) -> tuple[Batch, float]:
        """Return a batch on the device and the seconds waited for it, or leave.

        A signal may reach worker processes as well; their end is then no error of its own.
        """
        begin = time.monotonic()
        try:
            batch = next(batches)
        except WorkerError:
            self._leave_if_asked()
            raise
        self._leave_if_asked()
        return batch, time.monotonic() - begin

    def _mean(self, losses: Sequence[Tensor]) -> float:
        """Return the mean over all batches and processes; NaN if there is none."""
        local = torch.stack(list(losses)).double().mean() if losses else torch.tensor(math.nan)
        total = self.runtime.sum(local.to(self.runtime.device))
        return float(total) / self.runtime.world_size

    def _set_rate(self, epoch: int) -> float:
        rate = self.recipe.optimizer.rate(epoch, self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("rate_factor", 1.0)
        return rate

    def _tell_step(self, state: TrainState, step: int) -> None:
        total = self.recipe.iterations + self.recipe.val_iterations
        for hook in self.hooks:
            hook.on_step_end(self, state, step, total)

    def _leave_if_asked(self) -> None:
        """Leave when any process has a reason to; all ask before each step."""
        reason = next((r for hook in self.hooks if (r := hook.reason_to_leave())), None)
        if self.runtime.any(reason is not None):
            raise InterruptedRunError(reason or "a signal to another process")

    def _is_to_end(self, state: TrainState) -> bool:
        reasons = [r for hook in self.hooks if (r := hook.reason_to_end(state))]
        if reasons and state.epoch < self.recipe.epochs:
            self._warn(f"training ends after epoch {state.epoch - 1}: {'; '.join(reasons)}")
        return self.runtime.any(bool(reasons))

    def _restart_if_nothing_was_learnt(self, state: TrainState) -> None:
        """Start again with less momentum when epoch 100 still has a Dice of exactly 0.

        The state of the optimizer and its rate stay.

        Source: nnU-Net v1.
        """
        is_lost = state.epoch - 1 == RESCUE_EPOCH and state.metrics[-1:] == (0.0,)
        if not (is_lost and self.recipe.restarts_when_lost):
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
