"""Training of one fold, from plans and preprocessed cases to saved weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from nnunetlike.core import logs
from nnunetlike.core.heap import freed_memory_kept
from nnunetlike.core.serialization import atomic_path, save_json
from nnunetlike.monitoring import SINKS
from nnunetlike.monitoring.console import logger as console_logger
from nnunetlike.monitoring.plot import draw_curve
from nnunetlike.monitoring.training_log import TrainingLog
from nnunetlike.networks.model_files import find_checkpoint, load_model_file
from nnunetlike.run.batch_workers import how_to_wait_less, part_of_free, validation_workers
from nnunetlike.run.cascade import unpack_previous_stage
from nnunetlike.run.fold import Fold, unpack
from nnunetlike.run.report import facts_of, report, why_nothing_is_learnt
from nnunetlike.run.resume import (
    Parts,
    as_begun,
    build_parts,
    checkpoint_to_go_on_from,
    facts_to_keep,
    report_start,
    resume_loop,
)
from nnunetlike.run.training_memory import MemoryNeed, memory_errors_explained, require_memory
from nnunetlike.training.augmentation.policies import policy_for
from nnunetlike.training.batch_share import OwnBatches
from nnunetlike.training.compiling import compiled, saves_memory, why_not
from nnunetlike.training.hooks import Hook
from nnunetlike.training.hooks.checkpoints import Checkpoints
from nnunetlike.training.hooks.hints import WaitingHint, ZeroDiceHint
from nnunetlike.training.hooks.monitor import Events, Monitor, Stopwatch
from nnunetlike.training.interruption import EarlyStopping, Signals, StopFile
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.lr_finder import range_test
from nnunetlike.training.progress import EpochProgress
from nnunetlike.training.runtime import Runtime, seed_everything
from nnunetlike.training.sources import BatchSource, HostBatch
from nnunetlike.training.sources.clips import ClipSource
from nnunetlike.training.sources.patches import PatchSource
from nnunetlike.training.sources.workers import stream

logger = logging.getLogger(__name__)
MONITORS = ("jsonl", "console", "plot")
RANGE_TEST_EPOCHS = 4
SHARE_OF_BATCHES = 0.2
"""Part of the free memory that training batches may take; those for validation get half of it."""

COPIES_OF_BATCHES = {"cuda": 2}
"""How often a batch is in main memory, by the kind of device: pinned beside where it was made."""

CHECKPOINTS = {"final": "model_final_checkpoint", "latest": "model_latest", "best": "model_best"}
"""Files of weights by the names that users give them."""


def train(fold: Fold, runtime: Runtime) -> nn.Module:
    """Train a fold to its last epoch, or go on where it was, and return the network.

    Writes checkpoints, metrics.jsonl, progress.png, training_log_*.txt, debug.json and the model
    folder's plans.pkl. A fold whose training is finished is left as it is.

    Raises:
        DataError: there is nothing to continue, or weights do not fit, or the loss stays NaN.
        ResourceError: memory or disk ran out.
        InterruptedRunError: a signal came; `model_latest` holds everything needed to go on.
        KeyboardInterrupt: a signal came before or after the epochs.
    """
    with _monitored(fold, runtime) as events:
        start = checkpoint_to_go_on_from(fold)
        fold = as_begun(fold, start)
        seed_everything(fold.run.seed, deterministic=fold.run.deterministic)
        parts = build_parts(fold, runtime, start)
        epochs = fold.run.recipe.epochs
        if parts.is_finished(epochs):
            logger.info(
                "training was finished after %d epochs; nothing is left of the %d asked for",
                parts.state.epoch,
                epochs,
            )
            return parts.network
        need = _prepare(fold, runtime, parts)
        with memory_errors_explained(need):
            _fit(fold, runtime, parts, events)
    return parts.network


def _fit(fold: Fold, runtime: Runtime, parts: Parts, events: Events) -> None:
    signals = Signals()
    hooks = (*_hooks(fold, runtime, events), signals)
    recipe = fold.run.recipe
    steps = recipe.epochs * recipe.iterations
    with (
        network_made_fast(fold, runtime, parts.objective, steps),
        batches(fold, runtime, parts.state.epoch, parts.progress) as (training, validation),
    ):
        loop = TrainLoop(recipe, parts.objective, parts.optimizer, runtime, hooks)
        resume_loop(loop, parts)
        with signals.caught():
            loop.fit(training, validation, parts.state)


@contextmanager
def network_made_fast(
    fold: Fold, runtime: Runtime, objective: nn.Module, steps: int
) -> Iterator[None]:
    """Have the network compiled if that is asked for or pays, and freed memory kept.

    The latter raises the peak, so it is left out where nodes are computed again to save memory.
    """
    network, run = objective.get_submodule("network"), fold.run
    reason = why_not(run.compile, network, runtime, steps=steps, repeatable=run.deterministic)
    keeping = nullcontext() if saves_memory(network) else freed_memory_kept()
    with keeping, compiled(objective, runtime, fold.image_shape, reason):
        yield


def _hooks(fold: Fold, runtime: Runtime, events: Events) -> list[Hook]:
    """Return what watches a training, in the order in which it is told of an epoch.

    Only the main process speaks and saves, and ends training for all.
    """
    if not runtime.is_main:
        return []
    hooks: list[Hook] = [
        Monitor(events),
        Checkpoints(
            fold.folder,
            fold.checkpoint_info(),
            events,
            keep=fold.run.keep_checkpoints,
            run=facts_to_keep(fold, runtime),
        ),
        ZeroDiceHint(lambda: why_nothing_is_learnt(fold, runtime.precision)),
        WaitingHint(lambda: how_to_wait_less(fold)),
        StopFile(fold.folder),
        Stopwatch(events),
    ]
    if fold.run.early_stopping is not None:
        hooks.append(EarlyStopping(fold.run.early_stopping))
    return hooks


def find_learning_rate(fold: Fold, runtime: Runtime) -> Path:
    """Run a learning-rate range test and return the path of its picture, `lr_finder.png`.

    `lr_finder.json` beside it holds rates and losses.
    """
    with _monitored(fold, runtime):
        seed_everything(fold.run.seed, deterministic=fold.run.deterministic)
        parts = build_parts(fold, runtime, checkpoint_to_go_on_from(fold))
        need = _prepare(fold, runtime, parts)
        recipe = fold.run.recipe
        steps = RANGE_TEST_EPOCHS * recipe.iterations
        with (
            memory_errors_explained(need),
            network_made_fast(fold, runtime, parts.objective, steps),
            batches(fold, runtime, 0) as (training, _),
        ):
            found = range_test(
                runtime.wrap(parts.objective),
                parts.optimizer,
                runtime,
                training,
                steps=steps,
                clip_norm=recipe.optimizer.clip_norm,
            )
        picture = fold.folder / "lr_finder.png"
        if runtime.is_main:
            content = {"lr": found.rates, "loss": found.losses, "steepest": found.steepest}
            save_json(content, fold.folder / "lr_finder.json")
            draw_curve(found.rates, found.losses, picture, xlabel="learning rate", ylabel="loss")
        logger.info(
            "the loss falls fastest at the learning rate %.2g; see %s", found.steepest, picture
        )
    return picture


def load_for_validation(fold: Fold) -> nn.Module:
    """Return the network of a trained fold: final, else latest, else best weights, or those asked.

    Raises:
        DataError: there is no such checkpoint.
    """
    wanted = fold.run.checkpoint
    if wanted is not None and Path(wanted).name != wanted:
        path = Path(wanted).expanduser()
    else:
        path = find_checkpoint(fold.folder, CHECKPOINTS.get(wanted or "", wanted))
    logger.info("validating the weights of %s", path)
    return load_model_file(path).build()


@contextmanager
def batches(
    fold: Fold, runtime: Runtime, epoch: int, progress: EpochProgress | None = None
) -> Iterator[tuple[Iterator[HostBatch], Iterator[HostBatch]]]:
    """Give the training and validation batches from an epoch on, made by worker processes.

    Args:
        fold: what is trained.
        runtime: whose device they are for.
        epoch: the first batch is the first of this epoch,
        progress: or the one after those already done in it.
    """
    run, recipe = fold.run, fold.run.recipe
    done = progress or EpochProgress()
    share = SHARE_OF_BATCHES / COPIES_OF_BATCHES.get(runtime.device.type, 1)
    with ExitStack() as stack:
        training = stack.enter_context(
            stream(
                _source(fold, validate=False),
                workers=run.workers,
                first=epoch * recipe.iterations + done.train_steps,
                memory=part_of_free(share),
                arrived=runtime.arrived,
            )
        )
        validation = stack.enter_context(
            stream(
                _source(fold, validate=True),
                workers=validation_workers(run.workers),
                first=epoch * recipe.val_iterations + done.val_steps,
                memory=part_of_free(share / 2),
                arrived=runtime.arrived,
            )
        )
        yield training, validation


def _source(fold: Fold, *, validate: bool) -> OwnBatches:
    case_ids = fold.split.val if validate else fold.split.train
    common: dict[str, Any] = {
        "batch_size": fold.share.samples,
        "seed": 2 * fold.run.seed + validate,
        "use_mask_for_norm": fold.plans.use_mask_for_norm,
        "unpacked": not fold.run.use_compressed_data,
    }
    source: BatchSource
    if fold.run.recipe.source == "clips":
        source = ClipSource(
            fold.store, case_ids, fold.stage, fold.plans.classes, augmented=not validate, **common
        )
    else:
        source = PatchSource(
            fold.store, case_ids, fold.stage, fold.plans.classes,
            augmentation=None if validate else policy_for(fold.stage),
            on_device=fold.run.augment_on == "device",
            previous=fold.previous,
            oversample=fold.share.oversample, **common,
        )  # fmt: skip
    return OwnBatches(source, fold.share)


def _prepare(fold: Fold, runtime: Runtime, parts: Parts) -> MemoryNeed:
    """Say what was decided, write debug.json, see whether memory suffices, unpack the cases.

    Raises:
        ResourceError: memory cannot suffice.
    """
    parameters = sum(p.numel() for p in parts.network.parameters())
    need = MemoryNeed.of(fold, runtime, parameters)
    if runtime.is_main:
        facts = facts_of(fold, runtime, parts, need)
        save_json(facts, fold.folder / "debug.json")
        _copy_plans(fold)
        report(fold, facts)
        report_start(fold, runtime, parts)
        require_memory(need, ignore=fold.run.ignore_memory_estimate)
        if not fold.run.use_compressed_data:
            unpack(fold)
            unpack_previous_stage(fold)
    runtime.meet("cases are unpacked")
    return need


def _copy_plans(fold: Fold) -> None:
    with atomic_path(fold.model_folder / "plans.pkl") as temporary:
        temporary.write_bytes(fold.plans_file.read_bytes())


@contextmanager
def _monitored(fold: Fold, runtime: Runtime) -> Iterator[Events]:
    """Give the events that go to all sinks; log lines go into the training log as well.

    Only the main process has sinks. The console's line per epoch is left out of the training log,
    which has lines of its own for that.
    """
    if not runtime.is_main:
        yield Events(())
        return
    log = TrainingLog(fold.folder)
    handler = logs.add_file(log.path)
    handler.addFilter(lambda record: record.name != console_logger.name)
    try:
        yield Events([*(SINKS.get(name)(fold.folder) for name in MONITORS), log])
    finally:
        logs.remove(handler)
