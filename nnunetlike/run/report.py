"""What is known of a run: for debug.json, for the log, and for a hint when nothing is learnt."""

from __future__ import annotations

import logging
import platform
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from nnunetlike import __version__
from nnunetlike.core.parallel import available_cores
from nnunetlike.core.versions import installed_versions
from nnunetlike.run.fold import Fold
from nnunetlike.run.resume import Parts
from nnunetlike.run.training_memory import MemoryNeed
from nnunetlike.training.runtime import Runtime

logger = logging.getLogger(__name__)
LIBRARIES = ("torch", "numpy", "scipy", "SimpleITK", "numba", "matplotlib")
CASES_LOOKED_AT = 10
SMALL = 0.1
"""Foreground is called small when it spans less than this share of the patch along every axis."""


def facts_of(fold: Fold, runtime: Runtime, parts: Parts, need: MemoryNeed) -> dict[str, Any]:
    """Return what debug.json says of a run: everything needed to repeat it."""
    run, stage = fold.run, fold.stage
    return {
        "recipe": run.recipe.describe(),
        "configuration": run.configuration,
        "task": run.task,
        "fold": run.fold,
        "plans_identifier": run.plans_identifier,
        "plans_file": str(fold.plans_file),
        "stage": fold.stage_number,
        "data_folder": str(fold.store.folder),
        "patch_size": list(stage.input_size),
        "batch_size": fold.share.total,
        "batch_of_this_process": fold.share.samples,
        "batch_dice": fold.batch_dice,
        "classes": list(fold.plans.classes),
        "train_cases": list(fold.split.train),
        "val_cases": list(fold.split.val),
        "first_epoch": parts.state.epoch,
        "device": _device_name(runtime.device),
        "precision": runtime.precision,
        "processes": runtime.world_size,
        "workers": run.workers,
        "augment_on": run.augment_on,
        "seed": run.seed,
        "deterministic": run.deterministic,
        "use_compressed_data": run.use_compressed_data,
        "pretrained_weights": run.pretrained_weights,
        "transfer": parts.transfer,
        "frozen": run.freeze,
        "frozen_parameters": parts.frozen_parameters,
        "network_parameters": need.parameters,
        "memory_estimate": need.needed,
        "memory_free": need.free,
        "versions": {
            "nnunetlike": __version__,
            "python": platform.python_version(),
            **installed_versions(LIBRARIES),
        },
        "host": {
            "name": platform.node(),
            "platform": platform.platform(),
            "cores": available_cores(),
        },
        "command": sys.argv,
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def report(fold: Fold, facts: dict[str, Any]) -> None:
    """Log what was decided."""
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
        "%s %s, batch %d, %d channels, %d classes with background, %s Dice",
        "patch" if stage.video is None else "clip",
        " x ".join(map(str, stage.input_size)),
        fold.share.total,
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
    if fold.run.freeze is not None:
        logger.info(
            "the %s is frozen: %d of %d parameters take no gradient",
            fold.run.freeze,
            facts["frozen_parameters"],
            facts["network_parameters"],
        )
    logger.info("folder %s", fold.folder)


def why_nothing_is_learnt(fold: Fold, precision: str) -> str:
    """Return one thing to try when the online Dice stays 0, after a look at training cases.

    In this order: there is no foreground; it is tiny beside the patch; half precision; the rate.
    """
    extents = _foreground_extents(fold)
    patch, recipe = fold.stage.patch_size, fold.run.recipe
    if not extents:
        return (
            f"none of the {min(len(fold.split.train), CASES_LOOKED_AT)} training cases looked at "
            "has any foreground after preprocessing. Look at the labels (nnUNet_plot_task_pngs) "
            "and at the labels of dataset.json"
        )
    usual = np.median(np.array(extents), axis=0)[-len(patch) :]
    spans = f"foreground spans about {_times(usual)} voxels in a patch of {_times(patch)}"
    if all(extent < SMALL * size for extent, size in zip(usual, patch, strict=True)):
        return (
            f"{spans}, and {recipe.oversample:.0%} of the patches are drawn around it. Raise "
            "`oversample` in a trainer of your own (docs/how-to/add-a-trainer.md), or crop the "
            "images around the structure"
        )
    if precision != "fp32":
        return f"{spans}; training computes in {precision}. Try --fp32"
    rate = recipe.optimizer.rate(0, recipe.epochs)
    return f"{spans}; the learning rate began at {rate:g}. Try --lr {rate / 10:g}"


def _foreground_extents(fold: Fold) -> list[list[int]]:
    """Return the size of the box around the foreground of some training cases that have any."""
    extents = []
    for case in fold.split.train[:CASES_LOOKED_AT]:
        found = fold.store.record(case).class_locations or {}
        voxels = [v for label, v in found.items() if label in fold.plans.classes and len(v)]
        if voxels:
            joined = np.concatenate(voxels)
            extents.append([int(n) for n in joined.max(0) - joined.min(0) + 1])
    return extents


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
