"""What a training starts from: nothing, pretrained weights, or a checkpoint to go on from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.networks.model_files import FINAL, ModelFile, load_to_continue
from nnunetlike.networks.pretrained import (
    load_pretrained,
    names_of_channels,
    names_of_outputs,
)
from nnunetlike.networks.transfer import describe_transfer, freeze, require_share, transfer
from nnunetlike.networks.v1_weights import load_v1_state_dict, parameters_in_v1_order
from nnunetlike.run.fold import Fold
from nnunetlike.run.interrupted import has_checkpoint_since
from nnunetlike.run.launch import is_restarted, launch_name
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.progress import EpochProgress, FaultCounter
from nnunetlike.training.random_states import restore_random_states
from nnunetlike.training.runtime import Runtime
from nnunetlike.training.state import TrainState

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is trained and what it is trained by."""

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    state: TrainState
    progress: EpochProgress
    """Of the epoch in hand, where training was interrupted in its middle."""

    start: ModelFile | None
    """Checkpoint to go on from."""

    frozen_parameters: int = 0
    """Parameters that take no gradient."""

    transfer: Mapping[str, object] | None = None
    """What was taken of pretrained weights."""

    @property
    def network(self) -> nn.Module:
        """The network inside the objective."""
        return self.objective.get_submodule("network")

    def is_finished(self, epochs: int) -> bool:
        """All epochs are done and the final weights saved."""
        return (
            self.start is not None and self.start.path.name == FINAL and self.state.epoch >= epochs
        )


def facts_to_keep(fold: Fold, runtime: Runtime) -> dict[str, Any]:
    """Return what a checkpoint keeps of its run, for the one that goes on from it."""
    run, recipe = fold.run, fold.run.recipe
    return {
        "seed": run.seed,
        "deterministic": run.deterministic,
        "epochs": recipe.epochs,
        "iterations": recipe.iterations,
        "val_iterations": recipe.val_iterations,
        "batch_size": fold.share.total,
        "precision": runtime.precision,
        "augment_on": run.augment_on,
        "freeze": run.freeze,
        "launch": launch_name(),
    }


def as_restarted(fold: Fold, runtime: Runtime) -> Fold:
    """Return the fold so that it goes on, if a launcher starts this training again after a failure.

    Checkpoints of earlier trainings are not gone on from. Process 0 decides for all, since of the
    launchers of several machines only the one whose process failed counts that as a restart.
    """
    restarted = runtime.any(is_restarted())
    if not restarted or fold.run.continue_training:
        return fold
    goes_on = runtime.first(runtime.is_main and _has_checkpoint_of_this_launch(fold))
    return replace(fold, run=replace(fold.run, continue_training=goes_on))


def _has_checkpoint_of_this_launch(fold: Fold) -> bool:
    if not has_checkpoint_since(fold.folder, 0):
        return False
    kept: Mapping[str, Any] = load_to_continue(fold.folder).content.get("run") or {}
    return bool(kept.get("launch") == launch_name())


def checkpoint_to_go_on_from(fold: Fold) -> ModelFile | None:
    """Return the checkpoint that `-c` goes on from; None for a run that begins anew.

    Raises:
        DataError: there is none that can be read.
    """
    return load_to_continue(fold.folder) if fold.run.continue_training else None


def as_begun(fold: Fold, start: ModelFile | None) -> Fold:
    """Return the fold with the seed, the determinism and the frozen part its training began with.

    Raises:
        UsageError: another seed or part is asked for.
    """
    if start is None:
        return _without_restart(fold)
    kept: Mapping[str, Any] = start.content.get("run") or {}
    run = fold.run
    part = kept.get("freeze")
    if run.freeze not in (None, part):
        raise UsageError(
            f"--freeze {run.freeze}: this training began with {part or 'nothing'} frozen and goes "
            "on so. Leave out --freeze, or train anew with -pretrained_weights"
        )
    fold = _without_restart(replace(fold, run=replace(run, freeze=part)))
    if "seed" not in kept:
        logger.info("%s keeps no seed; its batches cannot be repeated exactly", start.path.name)
        return fold
    if run.seed_is_asked and run.seed != kept["seed"]:
        raise UsageError(
            f"--seed {run.seed}: this training began with seed {kept['seed']} and goes on with it. "
            "Leave out --seed, or train anew without -c"
        )
    deterministic = run.deterministic or bool(kept["deterministic"])
    return replace(fold, run=replace(fold.run, seed=kept["seed"], deterministic=deterministic))


def _without_restart(fold: Fold) -> Fold:
    """Return a fold with a frozen part so that this is never drawn anew."""
    if fold.run.freeze is None:
        return fold
    recipe = replace(fold.run.recipe, restarts_when_lost=False)
    return replace(fold, run=replace(fold.run, recipe=recipe))


def report_start(fold: Fold, runtime: Runtime, parts: Parts) -> None:
    """Say where a training that goes on starts, and in what it differs from what it was.

    One that begins anew is told of the checkpoints that it will replace.
    """
    if parts.start is None:
        if list(fold.folder.glob("model_*.model")):
            logger.warning(
                "%s holds checkpoints of an earlier training, which will be replaced; stop now and "
                "use -c if you meant to continue it",
                fold.folder,
            )
        return
    epoch, recipe = parts.state.epoch, fold.run.recipe
    kept: Mapping[str, Any] = parts.start.content.get("run") or {}
    steps = parts.progress.train_steps
    done = [f"epoch {epoch - 1}"] if epoch else []
    done += [f"{steps} training batches"] if steps else []
    logger.info("continuing after %s with %s", " and ".join(done), parts.start.path)
    before = kept.get("epochs", recipe.epochs)
    if before != recipe.epochs:
        rate = recipe.optimizer.rate
        logger.info(
            "training now lasts %d epochs instead of %d: the learning rate follows its schedule "
            "over %d epochs from here on, %.6f in epoch %d instead of %.6f",
            recipe.epochs,
            before,
            recipe.epochs,
            rate(epoch, recipe.epochs),
            epoch,
            rate(epoch, before),
        )
    now = facts_to_keep(fold, runtime)
    if "widened_to" in parts.start.content:
        now["precision"] = kept.get("precision")  # it goes on as the first half did in the end
    other = [
        f"{key} {kept[key]} -> {now[key]}"
        for key in (
            "iterations",
            "val_iterations",
            "batch_size",
            "precision",
            "deterministic",
            "augment_on",
        )
        if key in kept and kept[key] != now[key]
    ]
    if other:
        logger.warning("this run differs from the one it continues: %s", ", ".join(other))


def build_parts(fold: Fold, runtime: Runtime, start: ModelFile | None) -> Parts:
    """Build network, objective and optimizer, with the weights and states they start from.

    Raises:
        DataError: weights or the optimizer's state do not fit the network.
    """
    recipe = fold.run.recipe
    network = recipe.network.build(fold.network_task)
    taken = _load_weights(fold, network, start, speaks=runtime.is_main)
    frozen = 0 if fold.run.freeze is None else freeze(network, fold.run.freeze)
    objective = recipe.objective.build(
        network, batch_dice=fold.batch_dice, total=runtime.total(), share=fold.share.weight
    ).to(runtime.device)
    optimizer = recipe.optimizer.build(parameters_in_v1_order(network))
    content = {} if start is None else dict(start.content)
    if start is not None:
        try:
            optimizer.load_state_dict(content["optimizer_state_dict"])
        except (KeyError, ValueError) as error:
            raise DataError(
                f"{start.path} holds no state of this optimizer ({error}); take its weights with "
                "-pretrained_weights instead of -c"
            ) from None
        runtime.load_state_dict(content)
    progress = EpochProgress.from_checkpoint(content.get("progress") or {}, runtime.device)
    if progress.counts is not None and not runtime.is_main:
        progress.counts.zero_()  # they are those of all processes, and are added up again
    return Parts(
        objective=objective,
        optimizer=optimizer,
        state=TrainState() if start is None else TrainState.from_checkpoint(content),
        progress=progress,
        start=start,
        frozen_parameters=frozen,
        transfer=taken,
    )


def resume_loop(loop: TrainLoop, parts: Parts) -> None:
    """Put a new loop, and the global random generators, to where the checkpoint was saved."""
    loop.progress = parts.progress
    if parts.start is None:
        return
    content = parts.start.content
    loop.faults = FaultCounter.from_checkpoint(content.get("faults") or [])
    if "random_states" in content:
        restore_random_states(content["random_states"])


def _load_weights(
    fold: Fold, network: nn.Module, start: ModelFile | None, *, speaks: bool
) -> Mapping[str, object] | None:
    """Load the weights a run starts from, if not from random ones; return what was transferred."""
    if start is not None:
        load_v1_state_dict(network, start.state_dict)
        return None
    path = fold.run.pretrained_weights
    if path is None:
        return None
    weights, plans = load_pretrained(path), fold.plans
    modalities = [name for _, name in sorted(plans.modalities.items())]
    result = transfer(
        network,
        weights,
        channels=names_of_channels(modalities, plans.classes, fold.network_task.channels),
        labels=names_of_outputs(fold.label_names, plans.classes),
    )
    if speaks:
        logger.info("pretrained weights of %s:\n%s", path, result.table())
    require_share(result, weights, fold.run.pretrained_share)
    changed = [t.name for t in result.tensors if t.outcome != "loaded"]
    changed = [name for name in changed if name.startswith(f"{fold.run.freeze}.")]
    if changed and speaks:
        logger.warning(
            "--freeze %s also keeps what was not loaded as it stood in the file: %s. Leave it out "
            "unless that is meant",
            fold.run.freeze,
            ", ".join(changed[:3]) + (", …" if len(changed) > 3 else ""),
        )
    return describe_transfer(weights, result)
