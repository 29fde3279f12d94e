"""The folds of a task: made when it is planned, kept when it has some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.errors import UsageError
from nnunetlike.data.splits import groups_of, load_splits, make_splits, save_splits

FOLDS = 5


def write_splits(
    task: str, path: Path, case_ids: Sequence[str], *, folds: int, group_by: str | None
) -> None:
    """Write the folds that are asked for, or fewer for fewer cases, unless the task has some.

    Args:
        task: its name, for messages.
        path: `splits_final.pkl`.
        case_ids: all training cases.
        folds: how many are wanted.
        group_by: rule for cases that belong together, as `groups_of` takes it.

    Raises:
        UsageError: the task has others than those that are asked for.
    """
    groups = None if group_by is None else groups_of(case_ids, group_by)
    if path.is_file():
        _keep(task, path, case_ids)
        asked = groups is not None or folds != FOLDS
        if asked and load_splits(path) != make_splits(case_ids, folds, groups):
            raise UsageError(
                f"{path} has other folds than --folds and --group_by ask for. Delete it to have "
                "new ones made, or leave these options out"
            )
        return
    if groups is None and len(case_ids) < folds:
        print(f"{task}: {_few_cases(case_ids, folds)}")
    if len(case_ids) > 1:
        splits = make_splits(case_ids, folds, groups)
        save_splits(splits, path)
        if groups is not None:
            print(
                f"{task}: {len(case_ids)} cases in {len(set(groups.values()))} groups are split "
                f"into {len(splits)} folds"
            )


def _keep(task: str, path: Path, case_ids: Sequence[str]) -> None:
    known = {case for split in load_splits(path) for case in (*split.train, *split.val)}
    if known == set(case_ids):
        print(f"{task}: {path.name} exists and is kept")
    else:
        print(
            f"warning: {path} is kept, but its cases are not those of dataset.json: "
            f"{_listed(known ^ set(case_ids))}. Delete it to have new folds made"
        )


def _few_cases(case_ids: Sequence[str], folds: int) -> str:
    """Return what fewer cases than folds mean; wrong names are the usual reason, so they follow."""
    names = f"Cases by name (ID of ID_0000.nii.gz): {', '.join(case_ids)}"
    if len(case_ids) == 1:
        return (
            "one case cannot be split; train with fold 'all', which trains and validates on it. "
            f"{names}"
        )
    last = len(case_ids) - 1
    return (
        f"{len(case_ids)} cases are too few for {folds} folds; made {len(case_ids)} (0 to {last}), "
        f"each validating on one case (leave-one-out). Fold 'all' trains on all of them. {names}"
    )


def _listed(case_ids: set[str], most: int = 10) -> str:
    ids = sorted(case_ids)
    return ", ".join(ids[:most]) + (f" and {len(ids) - most} more" if len(ids) > most else "")
