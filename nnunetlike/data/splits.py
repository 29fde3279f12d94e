"""Which cases of a task train and which validate, by fold (`splits_final.pkl`)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_pickle, save_pickle_with_twin

SEED = 12345


@dataclass(frozen=True)
class Split:
    """Case identifiers of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_splits(case_ids: Iterable[str], folds: int = 5) -> list[Split]:
    """Return a cross-validation: the ids sorted as text, shuffled once, validated in blocks.

    Args:
        case_ids: identifiers of all training cases.
        folds: number of folds; fewer cases than that each validate alone (leave-one-out).

    Returns:
        One split per fold; every case validates exactly once; ids are sorted as text.

    Raises:
        DataError: there are fewer than two cases.

    Source: nnU-Net v1 (KFold(5, shuffle=True, random_state=12345)); scikit-learn's KFold shuffles
    with `RandomState(seed)` and gives the first `n % folds` blocks one case more.
    """
    ids = sorted(case_ids)
    if len(ids) < 2:
        raise DataError(
            f"a cross-validation needs two cases, and there is only {', '.join(ids) or 'none'}. "
            "Train with fold 'all', which trains and validates on the same case, or add cases"
        )
    folds = min(folds, len(ids))
    order = np.arange(len(ids))
    np.random.RandomState(SEED).shuffle(order)
    splits = []
    for block in np.array_split(order, folds):
        validating = set(block.tolist())
        splits.append(
            Split(
                train=tuple(case for i, case in enumerate(ids) if i not in validating),
                val=tuple(case for i, case in enumerate(ids) if i in validating),
            )
        )
    return splits


def split_for(fold: int | str, splits: Sequence[Split], case_ids: Iterable[str]) -> Split:
    """Return the split of a fold.

    `all` trains and validates on everything. A fold beyond the last trains on a random 80 % drawn
    with the seed `12345 + fold`, as v1 does.
    """
    ids = sorted(case_ids)
    if fold == "all":
        return Split(tuple(ids), tuple(ids))
    number = int(fold)
    if number < len(splits):
        return splits[number]
    chosen = np.random.RandomState(SEED + number).choice(
        len(ids), int(len(ids) * 0.8), replace=False
    )
    training = set(chosen.tolist())
    return Split(
        train=tuple(ids[i] for i in range(len(ids)) if i in training),
        val=tuple(ids[i] for i in range(len(ids)) if i not in training),
    )


def save_splits(splits: Sequence[Split], path: Path) -> None:
    """Write `splits_final.pkl` and its JSON twin."""
    content = [OrderedDict(train=list(s.train), val=list(s.val)) for s in splits]
    save_pickle_with_twin(content, path)


def load_splits(path: Path) -> list[Split]:
    """Return the splits of a file; any number of folds.

    Raises:
        DataError: it does not hold splits, or a fold trains on cases that it validates on; all
            such folds and cases are named.
    """
    try:
        splits = [
            Split(tuple(str(c) for c in fold["train"]), tuple(str(c) for c in fold["val"]))
            for fold in load_pickle(path)
        ]
    except (KeyError, TypeError, IndexError):
        raise DataError(
            f"{path} does not hold splits, which are a list of {{'train': [ID, …], 'val': [ID, …]}}"
            ", one per fold. Correct it, or delete it to have new folds made"
        ) from None
    shared = {number: sorted({*s.train} & {*s.val}) for number, s in enumerate(splits)}
    if any(shared.values()):
        folds = "; ".join(f"fold {n}: {', '.join(ids)}" for n, ids in shared.items() if ids)
        raise DataError(
            f"{path} has cases that train and validate in one fold, whose Dice would mean nothing: "
            f"{folds}. Take each out of 'train' or 'val', or delete the file to have new folds made"
        )
    return splits
