"""How many processes make training batches: processors and memory decide, of all that may be used.

What counts is what this process may use of the machine (affinity, control group, `ulimit`), divided
by the processes that train together on it. A tight count costs nothing but time: a batch does not
depend on who makes it.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace

from nnunetlike.core.errors import UsageError
from nnunetlike.core.parallel import WORKER_BYTES, available_cores
from nnunetlike.core.resources import free_memory, in_words
from nnunetlike.run.fold import Fold
from nnunetlike.run.launch import processes_of_this_machine
from nnunetlike.training.augmentation.policies import policy_for

WORKERS_VARIABLE = "nnUNet_n_proc_DA"
DEFAULT_WORKERS = 12
SHARE_OF_FREE = 0.5
"""Part of the free memory that workers may take, beside the batches that they have made."""

COPIES = 4
"""A worker that makes a batch needs the memory of so many: measured for patches in 2D and 3D."""


def workers_asked(asked: int | None) -> int:
    """Return how many processes are to make training batches.

    Args:
        asked: on the command line; else `nnUNet_n_proc_DA` counts, else one per core, at most 12.

    Raises:
        UsageError: the variable is no number, or the number is negative.
    """
    if asked is None:
        cores = max(1, available_cores() // processes_of_this_machine())
        text = os.environ.get(WORKERS_VARIABLE, str(min(DEFAULT_WORKERS, cores)))
        if not text.isdigit():
            raise UsageError(f"{WORKERS_VARIABLE} is {text!r}; set it to a number of processes")
        asked = int(text)
    if asked < 0:
        raise UsageError(f"--num_workers {asked}: give 0 or more")
    return asked


def with_workers_that_fit(fold: Fold) -> Fold:
    """Return the fold with no more workers than memory suffices for; a note in it says so."""
    asked, room = fold.run.workers, part_of_free(SHARE_OF_FREE)
    each = WORKER_BYTES + COPIES * batch_bytes(fold)
    if room is None or (asked + validation_workers(asked)) * each <= room:
        return fold
    fitting = max(1, 2 * room // (3 * each))
    if fitting >= asked:
        return fold
    note = (
        f"batches are made by {fitting} instead of {asked} worker processes, since each needs "
        f"about {in_words(each)} and they may take {in_words(room)} of the free memory"
    )
    return replace(fold, run=replace(fold.run, workers=fitting), notes=(*fold.notes, note))


def validation_workers(workers: int) -> int:
    """Return how many processes make batches for validation beside those for training."""
    return max(workers // 2, 1) if workers else 0


def part_of_free(share: float) -> int | None:
    """Return a share of the free memory of this process, in bytes; None if it is not known."""
    free = free_memory()
    return None if free is None else int(share * free / processes_of_this_machine())


def batch_bytes(fold: Fold) -> int:
    """Return what image (float32) and label (int16) of this process's part of a batch take.

    Where the device augments they are as read, larger, if each is rotated.
    """
    size = fold.stage.input_size
    if fold.run.augment_on == "device":
        size = policy_for(fold.stage).generator_patch_size(size)
    voxels = math.prod(size)
    return fold.share.samples * voxels * (4 * fold.network_task.channels + 2)


def how_to_wait_less(fold: Fold) -> str:
    """Return one thing to try when the network waits for batches."""
    workers, cores = fold.run.workers, available_cores() // processes_of_this_machine()
    if workers < cores:
        return f"{workers} processes make them and {cores} cores may be used; try --num_workers"
    if fold.run.use_compressed_data:
        return "leave out --use_compressed_data, so that only patches are read"
    return (
        f"all {cores} cores that this process may use make them; let it use more, or see whether "
        f"other programs, or the disk of {fold.store.folder}, hold them up"
    )
