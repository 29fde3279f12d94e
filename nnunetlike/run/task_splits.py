"""The folds of a task: made when it is planned, kept when it has some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nnunetlike.core.errors import UsageError
from nnunetlike.data.splits import groups_of, load_splits, make_splits, save_splits
from nnunetlike.data.video import VideoFacts
from nnunetlike.data.video_splits import make_video_splits, require_whole_patients

FOLDS = 5


def write_splits(
    task: str,
    path: Path,
    case_ids: Sequence[str],
    *,
    folds: int,
    group_by: str | None,
    videos: Mapping[str, VideoFacts] | None = None,
) -> None:
    """Write the folds that are asked for, or fewer for fewer cases, unless the task has some.

    Args:
        task: its name, for messages.
        path: `splits_final.pkl`.
        case_ids: all training cases.
        folds: how many are wanted.
        group_by: rule for cases that belong together, as `groups_of` takes it.
        videos: facts of all cases of a task of videos, which are split by patient unless `group_by`
            says otherwise.

    Raises:
        UsageError: the task has others than those that are asked for.
        DataError: the task has folds that tear a patient's videos apart.
    """
    if videos is not None and group_by is None:
        _write_by_patient(task, path, videos, folds)
        return
    groups = None if group_by is None else groups_of(case_ids, group_by)
    if videos is not None:
        for number, split in enumerate(make_splits(case_ids, folds, groups)):
            require_whole_patients((split.train, split.val), videos, f"fold {number} of --group_by")
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


def _write_by_patient(task: str, path: Path, videos: Mapping[str, VideoFacts], folds: int) -> None:
    splits = make_video_splits(videos, folds) if len(_patients(videos)) > 1 else []
    cases = sorted(case for case, video in videos.items() if video.split != "test")
    if path.is_file():
        _keep(task, path, cases)
        for number, split in enumerate(load_splits(path)):
            sides = (split.train, split.val)
            require_whole_patients(sides, videos, f"fold {number} of {path}")
        if folds != FOLDS and load_splits(path) != splits:
            raise UsageError(
                f"{path} has other folds than --folds asks for. Delete it to have new ones made, "
                "or leave the option out"
            )
        return
    if not splits:
        print(f"{task}: one patient cannot be split; train with fold 'all'")
        return
    save_splits(splits, path)
    kept = len(videos) - len(cases)
    print(
        f"{task}: {len(cases)} videos of {len(_patients(videos))} patients are split into "
        f"{len(splits)} folds by patient"
        + (f"; {kept} of the data set's own test list are in none" if kept else "")
    )


def _patients(videos: Mapping[str, VideoFacts]) -> set[str]:
    return {video.patient for video in videos.values() if video.split != "test"}


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
