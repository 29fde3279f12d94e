"""Training of one fold, from plans and preprocessed cases to saved weights."""

from __future__ import annotations

import logging
import math
import platform
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunetlike import __version__
from nnunetlike.core import logs
from nnunetlike.core.parallel import available_cores
from nnunetlike.core.serialization import atomic_path, save_json
from nnunetlike.monitoring import SINKS
from nnunetlike.monitoring.console import logger as console_logger
from nnunetlike.monitoring.plot import draw_curve
from nnunetlike.monitoring.training_log import TrainingLog
from nnunetlike.networks.memory import training_bytes
from nnunetlike.networks.model_files import (
    ModelFile,
    checkpoint_to_continue,
    find_checkpoint,
    load_content,
    load_model_file,
    without_module,
)
from nnunetlike.networks.pretrained import copy_pretrained
from nnunetlike.networks.v1_weights import load_v1_state_dict, parameters_in_v1_order
from nnunetlike.run.fold import Fold, unpack
from nnunetlike.training.augmentation.policies import policy_for
from nnunetlike.training.hooks.checkpoints import Checkpoints
from nnunetlike.training.hooks.monitor import Events, Monitor, Stopwatch
from nnunetlike.training.loop import TrainLoop
from nnunetlike.training.lr_finder import range_test
from nnunetlike.training.runtime import Runtime, free_memory, seed_everything
from nnunetlike.training.sources import ArrayBatch
from nnunetlike.training.sources.patches import PatchSource
from nnunetlike.training.sources.workers import stream
from nnunetlike.training.state import TrainState

logger = logging.getLogger(__name__)
GIB = 1024**3
LIBRARIES = ("torch", "numpy", "scipy", "SimpleITK", "numba", "matplotlib")
MONITORS = ("jsonl", "console", "plot")
RANGE_TEST_EPOCHS = 4


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What is trained and what it is trained by."""

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    state: TrainState

    @property
    def network(self) -> nn.Module:
        """The network inside the objective."""
        return self.objective.get_submodule("network")


def train(fold: Fold, runtime: Runtime) -> nn.Module:
    """Train a fold to its last epoch, or go on where it was, and return the network.

    Writes checkpoints, metrics.jsonl, progress.png, training_log_*.txt, debug.json and the model
    folder's plans.pkl.

    Raises:
        DataError: there is nothing to continue, or pretrained weights do not fit.
    """
    with _monitored(fold, runtime) as events:
        parts = _prepare(fold, runtime)
        keep = fold.run.keep_checkpoints
        hooks = (
            Monitor(events),
            Checkpoints(fold.folder, fold.checkpoint_info(), events, keep=keep),
            Stopwatch(events),
        )
        loop = TrainLoop(fold.run.recipe, parts.objective, parts.optimizer, runtime, hooks)
        with batches(fold, parts.state.epoch) as (training, validation):
            loop.fit(training, validation, parts.state)
    return parts.network


def find_learning_rate(fold: Fold, runtime: Runtime) -> Path:
    """Run a learning-rate range test and return the path of its picture, `lr_finder.png`.

    `lr_finder.json` beside it holds rates and losses.
    """
    with _monitored(fold, runtime):
        parts = _prepare(fold, runtime)
        recipe = fold.run.recipe
        with batches(fold, 0) as (training, _):
            found = range_test(
                runtime.wrap(parts.objective),
                parts.optimizer,
                runtime,
                training,
                steps=RANGE_TEST_EPOCHS * recipe.iterations,
                clip_norm=recipe.optimizer.clip_norm,
            )
        picture = fold.folder / "lr_finder.png"
        content = {"lr": found.rates, "loss": found.losses, "steepest": found.steepest}
        save_json(content, fold.folder / "lr_finder.json")
        draw_curve(found.rates, found.losses, picture, xlabel="learning rate", ylabel="loss")
        logger.info(
            "the loss falls fastest at the learning rate %.2g; see %s", found.steepest, picture
        )
    return picture


def load_for_validation(fold: Fold) -> nn.Module:
    """Return the network of a trained fold: final, else latest, else best weights, or the best.

    Raises:
        DataError: there is no such checkpoint.
    """
    path = find_checkpoint(fold.folder, "model_best" if fold.run.validate_best else None)
    logger.info("validating the weights of %s", path)
    return load_model_file(path).build()


@contextmanager
def batches(fold: Fold, epoch: int) -> Iterator[tuple[Iterator[ArrayBatch], Iterator[ArrayBatch]]]:
    """Give the training and validation batches from an epoch on, made by worker processes."""
    run, recipe = fold.run, fold.run.recipe
    workers = run.workers
    validation_workers = max(workers // 2, 1) if workers else 0
    with ExitStack() as stack:
        training = stack.enter_context(
            stream(_source(fold, validate=False), workers=workers, first=epoch * recipe.iterations)
        )
        validation = stack.enter_context(
            stream(
                _source(fold, validate=True),
                workers=validation_workers,
                first=epoch * recipe.val_iterations,
            )
        )
        yield training, validation


def _source(fold: Fold, *, validate: bool) -> PatchSource:
    return PatchSource(
        fold.store,
        fold.split.val if validate else fold.split.train,
        fold.stage,
        fold.plans.classes,
        batch_size=fold.stage.batch_size,
        seed=2 * fold.run.seed + validate,
        augmentation=None if validate else policy_for(fold.stage),
        oversample=fold.run.recipe.oversample,
        use_mask_for_norm=fold.plans.use_mask_for_norm,
        unpacked=not fold.run.use_compressed_data,
    )


def _prepare(fold: Fold, runtime: Runtime) -> Parts:
    """Build everything, load weights to start from, write debug.json, say what was decided."""
    seed_everything(fold.run.seed, deterministic=fold.run.deterministic)
    parts = _build(fold, runtime)
    if runtime.is_main:
        facts = _facts(fold, runtime, parts)
        save_json(facts, fold.folder / "debug.json")
        _copy_plans(fold)
        _report(fold, facts)
        if not fold.run.use_compressed_data:
            unpack(fold)
    return parts


def _build(fold: Fold, runtime: Runtime) -> Parts:
    recipe = fold.run.recipe
    network = recipe.network.build(fold.network_task)
    start = _start_from(fold, network)
    objective = recipe.objective.build(network, batch_dice=fold.batch_dice).to(runtime.device)
    optimizer = recipe.optimizer.build(parameters_in_v1_order(network))
    if start is None:
        return Parts(objective=objective, optimizer=optimizer, state=TrainState())
    optimizer.load_state_dict(start.content["optimizer_state_dict"])
    runtime.load_state_dict(dict(start.content))
    state = TrainState.from_checkpoint(start.content)
    return Parts(objective=objective, optimizer=optimizer, state=state)


def _start_from(fold: Fold, network: nn.Module) -> ModelFile | None:
    """Load the weights a run starts from; return the checkpoint if training goes on from it."""
    run = fold.run
    if run.continue_training:
        model = load_model_file(checkpoint_to_continue(fold.folder))
        load_v1_state_dict(network, model.state_dict)
        logger.info("continuing after epoch %d with %s", model.epoch - 1, model.path)
        return model
    if run.pretrained_weights is not None:
        content = load_content(run.pretrained_weights)
        copied = copy_pretrained(network, without_module(content["state_dict"]))
        logger.info("copied %d tensors from %s", len(copied), run.pretrained_weights)
    if list(fold.folder.glob("model_*.model")):
        logger.warning(
            "%s holds checkpoints of an earlier training, which will be replaced; stop now and "
            "use -c if you meant to continue it",
            fold.folder,
        )
    return None


def _copy_plans(fold: Fold) -> None:
    with atomic_path(fold.model_folder / "plans.pkl") as temporary:
        temporary.write_bytes(fold.plans_file.read_bytes())


def _facts(fold: Fold, runtime: Runtime, parts: Parts) -> dict[str, Any]:
    """Return what debug.json says of a run: everything needed to repeat it."""
    run, stage = fold.run, fold.stage
    size = 4 if runtime.precision == "fp32" else 2
    return {
        "recipe": run.recipe.describe(),
        "configuration": run.configuration,
        "task": run.task,
        "fold": run.fold,
        "plans_identifier": run.plans_identifier,
        "plans_file": str(fold.plans_file),
        "stage": fold.stage_number,
        "data_folder": str(fold.store.folder),
        "patch_size": list(stage.patch_size),
        "batch_size": stage.batch_size,
        "batch_dice": fold.batch_dice,
        "classes": list(fold.plans.classes),
        "train_cases": list(fold.split.train),
        "val_cases": list(fold.split.val),
        "first_epoch": parts.state.epoch,
        "device": _device_name(runtime.device),
        "precision": runtime.precision,
        "processes": runtime.world_size,
        "workers": run.workers,
        "seed": run.seed,
        "deterministic": run.deterministic,
        "use_compressed_data": run.use_compressed_data,
        "pretrained_weights": run.pretrained_weights,
        "network_parameters": sum(p.numel() for p in parts.network.parameters()),
        "memory_estimate": training_bytes(
            run.recipe.network,
            fold.network_task,
            stage.patch_size,
            stage.batch_size,
            bytes_per_value=size,
        ),
        "memory_free": free_memory(runtime.device),
        "versions": {"nnunetlike": __version__, "python": platform.python_version(), **_versions()},
        "host": {
            "name": platform.node(),
            "platform": platform.platform(),
            "cores": available_cores(),
        },
        "command": sys.argv,
    }


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed under this name"
    return found


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def _report(fold: Fold, facts: dict[str, Any]) -> None:
    for note in fold.notes:
        logger.warning("%s", note)
    recipe, stage = fold.run.recipe, fold.stage
    split = fold.split
    logger.info(
        "%s, %s, %s, fold %s", recipe.name, fold.run.configuration, fold.run.task, fold.run.fold
    )
    logger.info("device %s, precision %s", facts["device"], facts["precision"])
    logger.info(
        "This split has %d training and %d validation cases.", len(split.train), len(split.val)
    )
    logger.info(
        "patch %s, batch %d, %d channels, %d classes with background, %s Dice",
        " x ".join(map(str, stage.patch_size)),
        stage.batch_size,
        fold.plans.num_channels,
        fold.plans.num_classes,
        "batch" if fold.batch_dice else "sample",
    )
    logger.info(
        "epochs %d, of %d training and %d validation batches, seed %d, %d worker processes",
        recipe.epochs,
        recipe.iterations,
        recipe.val_iterations,
        fold.run.seed,
        fold.run.workers,
    )
    logger.info("network: %.2f million parameters", facts["network_parameters"] / 1e6)
    _report_memory(facts["memory_estimate"], facts["memory_free"])
    logger.info("folder %s", fold.folder)


def _report_memory(needed: int, free: int | None) -> None:
    available = math.inf if free is None else free
    if needed > available:
        logger.warning(
            "training needs about %.1f GiB but %.1f GiB are free; use a smaller --batch_size if it "
            "runs out of memory",
            needed / GIB,
            available / GIB,
        )
        return
    free_text = "unknown" if free is None else f"{free / GIB:.1f} GiB"
    logger.info("memory: about %.2f GiB needed, %s free", needed / GIB, free_text)


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
