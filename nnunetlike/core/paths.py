"""The three folders of nnU-Net, task names, and where everything lies below them.

Environment variables are read when a folder is asked for; importing this module does nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core import environment
from nnunetlike.core.errors import DataError, UsageError

VIDEO, CASCADE, LOW = "video2d", "3d_cascade_fullres", "3d_lowres"
CONFIGURATIONS = ("2d", "3d_lowres", "3d_fullres", "3d_cascade_fullres", VIDEO)
DEFAULT_PLANS = "nnUNetPlansv2.1"
DEFAULT_TRAINER = "nnUNetTrainerV2"
DEFAULT_VIDEO_TRAINER = "GDKVMTrainer"
DEFAULT_CASCADE_TRAINER = "nnUNetTrainerV2CascadeFullRes"
CROPPED = "nnUNet_cropped_data"
OFFICIAL = "official"
"""Fold that a data set's own lists make."""


def raw_data() -> Path:
    """Return the folder of raw tasks (`nnUNet_raw_data_base/nnUNet_raw_data`, or `nnUNet_raw`)."""
    return environment.RAW.setting().home


def cropped_data() -> Path:
    """Return the folder of cropped tasks.

    v1 keeps it beside the raw tasks. v2's `nnUNet_raw` holds tasks only, and nothing is written
    there but by conversion, so it lies below the preprocessed tasks.
    """
    raw = environment.RAW.setting()
    root = raw.root if raw.variable == environment.RAW.v1 else preprocessed()
    return root / CROPPED


def preprocessed() -> Path:
    """Return the folder of preprocessed tasks."""
    return environment.PREPROCESSED.setting().home


def results() -> Path:
    """Return the folder of trained models (`RESULTS_FOLDER/nnUNet`, `nnUNet_results/nnUNet`)."""
    return environment.RESULTS.setting().home


def _task_folders() -> list[Path]:
    """Return every folder in which a task may have a sub-folder, as far as variables are set."""
    homes: list[Path] = []
    for home in (raw_data, cropped_data, preprocessed):
        try:
            homes.append(home())
        except UsageError:
            continue
    try:
        homes.extend(results() / configuration for configuration in CONFIGURATIONS)
    except UsageError:
        return homes
    return homes


def task_name(task: str | int, among: Sequence[Path] | None = None) -> str:
    """Return the full name of a task given its name or its number.

    Args:
        task: `Task004_Hippocampus` or v2's `Dataset004_Hippocampus` (returned as is), or `4`,
            `"4"`, `"004"`.
        among: folders that hold tasks; None: those that the variables name.

    Raises:
        UsageError: the text is neither, or no task or several tasks have that number.
    """
    text = str(task)
    if text.startswith(("Task", "Dataset")):
        return text
    if not text.isdigit():
        raise UsageError(
            f"{text!r} is neither a task name (Task004_Name, Dataset004_Name) nor a task number"
        )
    homes = _task_folders() if among is None else among
    found = {
        entry.name
        for home in homes
        if home.is_dir()
        for entry in home.iterdir()
        if entry.is_dir() and task_number(entry.name) == int(text)
    }
    if len(found) == 1:
        return found.pop()
    where = ", ".join(str(home) for home in homes) or "no folder: no variable is set"
    if not found:
        raise UsageError(f"no task has the number {int(text)}; searched {where}")
    raise UsageError(
        f"several tasks have the number {int(text)}: {', '.join(sorted(found))}. Give the full name"
    )


def task_number(name: str) -> int | None:
    """Return the number of a task given its name, or None if that has none."""
    match = re.fullmatch(r"(?:Task|Dataset)(\d+)_.+", name)
    return None if match is None else int(match[1])


def fold_name(fold: int | str) -> str:
    """Return the folder name of a fold: `fold_0`, `all`, or `fold_official`."""
    if str(fold) == "all":
        return "all"
    return f"fold_{OFFICIAL if fold == OFFICIAL else int(fold)}"


def parse_fold(text: str) -> int | str:
    """Return the fold a user typed: an integer, `all`, or `official`.

    Raises:
        UsageError: it is none of these.
    """
    if text in ("all", OFFICIAL):
        return text
    if text.isdigit():
        return int(text)
    raise UsageError(f"fold {text!r} is neither a number nor 'all' nor '{OFFICIAL}'")


def model_folder(configuration: str, task: str, trainer: str, plans_identifier: str) -> Path:
    """Return the folder that holds the folds of one trained model."""
    return results() / configuration / task / f"{trainer}__{plans_identifier}"


def plans_file(task: str, configuration: str, plans_identifier: str = DEFAULT_PLANS) -> Path:
    """Return the plans pickle of a task for a configuration.

    That is `_plans_2D.pkl`, `_plans_3D.pkl` or, of videos, `_plans_video2D.pkl`.

    Raises:
        UsageError: the task is planned, but not for this configuration.
        DataError: it does not exist.
    """
    folder = preprocessed() / task
    flat, deep, video = (
        folder / f"{plans_identifier}_plans_{d}.pkl" for d in ("2D", "3D", "video2D")
    )
    path = {"2d": flat, VIDEO: video}.get(configuration, deep)
    if path.is_file():
        return path
    if video.is_file():
        raise UsageError(
            f"{task} holds videos and is planned for {VIDEO}, so {configuration} does not exist. "
            f"Use {VIDEO}"
        )
    if path == video and (flat.is_file() or deep.is_file()):
        raise UsageError(
            f"{task} is not planned for {VIDEO}: its dataset.json does not declare videos. See "
            "docs/how-to/video.md"
        )
    if path == deep and flat.is_file():
        raise UsageError(
            f"{task} is planned for 2d only, so {configuration} does not exist: its images are 2D, "
            "or it was planned with -pl3d None. Use 2d"
        )
    number = task_number(task)
    raise DataError(
        f"{path} does not exist. Plan first: nnUNet_plan_and_preprocess -t "
        f"{task if number is None else number}"
    )
