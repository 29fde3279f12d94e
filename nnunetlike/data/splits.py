"""Which cases of a task train and which validate, by fold (`splits_final.pkl`)."""

from __future__ import annotations

import csv
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.serialization import load_pickle, save_pickle_with_twin

SEED = 12345


@dataclass(frozen=True)
class Split:
    """Case identifiers of one fold."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_splits(
    case_ids: Iterable[str], folds: int = 5, groups: Mapping[str, str] | None = None
) -> list[Split]:
    """Return a cross-validation: the ids sorted as text, shuffled once, validated in blocks.

    Args:
        case_ids: identifiers of all training cases.
        folds: number of folds; fewer cases than that each validate alone (leave-one-out).
        groups: group of each case, such as its patient; a group is never on both sides of a fold,
            and groups are what is shuffled and counted. None: each case is a group.

    Returns:
        One split per fold; every case validates exactly once; ids are sorted as text.

    Raises:
        DataError: there are fewer than two cases, or groups.

    Source: nnU-Net v1 (KFold(5, shuffle=True, random_state=12345)); scikit-learn's KFold shuffles
    with `RandomState(seed)` and gives the first `n % folds` blocks one case more.
    """
    ids = sorted(case_ids)
    group = {case: case for case in ids} if groups is None else groups
    names = sorted({group[case] for case in ids})
    if len(names) < 2:
        what = "cases" if groups is None else "groups"
        raise DataError(
            f"a cross-validation needs two {what}, and there is only {', '.join(names) or 'none'}. "
            "Train with fold 'all', which trains and validates on the same case, or add cases"
        )
    order = np.arange(len(names))
    np.random.RandomState(SEED).shuffle(order)
    splits = []
    for block in np.array_split(order, min(folds, len(names))):
        validating = {names[i] for i in block}
        splits.append(
            Split(
                train=tuple(case for case in ids if group[case] not in validating),
                val=tuple(case for case in ids if group[case] in validating),
            )
        )
    return splits


def groups_of(case_ids: Sequence[str], rule: str) -> dict[str, str]:
    """Return the group of each case.

    Args:
        case_ids: identifiers.
        rule: a CSV file with one line ID,GROUP per case (others are ignored), or a regular
            expression: what its first group, else all of it, finds in an identifier.

    Raises:
        UsageError: the expression is none, or cases get no group; they are named.
    """
    if rule.endswith(".csv"):
        found = _groups_of_file(Path(rule).expanduser())
    else:
        try:
            matches = {case: re.search(rule, case) for case in case_ids}
        except re.error as error:
            raise UsageError(f"{rule!r} is no regular expression: {error}") from None
        found = {case: m[1 if m.re.groups else 0] or "" for case, m in matches.items() if m}
    missing = [case for case in case_ids if not found.get(case)]
    if missing:
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" * (len(missing) > 10))
        raise UsageError(
            f"{rule} gives no group to {len(missing)} of {len(case_ids)} cases: {shown}"
        )
    return {case: found[case] for case in case_ids}


def _groups_of_file(path: Path) -> dict[str, str]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return {row[0].strip(): row[1].strip() for row in csv.reader(stream) if len(row) > 1}
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist; it should have one line ID,GROUP per case"
        ) from None


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
