"""The positional constructor arguments of v1's trainers, as `X.model.pkl` keeps them under `init`.

v1 calls a trainer class with them. Its classes for several GPUs take more of them than the others:

- one GPU: plans, fold, output, dataset, batch_dice, stage, unpack, deterministic, fp16
- cascade: the same with previous_trainer before fp16
- `_DDP`: local_rank as the third, distribute_batch_size before fp16
- `_DP`: gpus and distribute_batch_size before fp16
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nnunetlike.core.errors import DataError

RANK = 2
STAGE = 5
LEAST = 8
"""Up to deterministic; trainers of v1 that know no fp16 store these."""

CASCADE = 10
SEVERAL_GPUS = 11


def stage_of(init: Sequence[Any]) -> int:
    """Return the number of the stage that a trainer with these arguments was made for.

    Raises:
        IndexError: there are fewer arguments than any trainer of v1 has.
    """
    return int(init[STAGE + _has_rank(init)])


def init_for(trainer: str, init: Sequence[Any]) -> tuple[Any, ...]:
    """Return constructor arguments with which v1 can make another trainer.

    Args:
        trainer: name of the class that is to take them; what it ends in tells its kind.
        init: as stored by the trainer of before, of any kind.

    Raises:
        DataError: these are not the arguments of a trainer of v1.
    """
    if not LEAST <= len(init) - _has_rank(init) <= SEVERAL_GPUS:
        raise DataError(f"a trainer of nnU-Net v1 does not take {len(init)} arguments: {init}")
    plain = tuple(init[:RANK]) + tuple(init[RANK + _has_rank(init) :])
    common, rest = plain[:LEAST], plain[LEAST:]
    mixed_precision = rest[-1:]
    shared = bool(rest[-2]) if len(init) == SEVERAL_GPUS else False
    if trainer.endswith("DDP"):
        return (*common[:RANK], 0, *common[RANK:], shared, *mixed_precision)
    if trainer.endswith("_DP"):
        gpus = rest[0] if len(rest) == 3 else 1
        return (*common, gpus, shared, *mixed_precision)
    if "Cascade" in trainer:
        if len(init) == CASCADE:
            return tuple(init)
        return (*common, "nnUNetTrainerV2", *mixed_precision)
    return (*common, *mixed_precision)


def _has_rank(init: Sequence[Any]) -> bool:
    """Tell whether the third argument is a rank, where other trainers have a folder."""
    return isinstance(init[RANK], int)
