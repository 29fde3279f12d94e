"""Print the Dice of a fold's validation as nnU-Net's public UNet++ port does, in percent.

usage: python tools/get_dice_result.py -path DIR -mode 1p|8p [-target Dice] [-task Task003_Liver]
           [-fold 0] [-trainer NAME] [-plans nnUNetPlansv2.1] [-configuration 3d_fullres]

DIR holds RESULTS_FOLDER. Mode 1p reads the model of one process, 8p that of several; -trainer names
any other. Without -configuration the one of 3d_fullres is read, or the only one that there is. Of
videos (video2d) end-diastole, end-systole and distances are printed too.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.paths import (
    CONFIGURATIONS,
    DEFAULT_PLANS,
    fold_name,
    parse_fold,
    task_name,
)
from nnunetlike.core.serialization import load_json
from nnunetlike.evaluation.summary import NOT_FOREGROUND, Summary, read_summary
from nnunetlike.run.command_line import CommandParser, run_command

TRAINERS = {"1p": "nnUNetPlusPlusTrainerV2", "8p": "nnUNetPlusPlusTrainerV2_hypDDP"}
CONFIGURATION = "3d_fullres"
MEASURES = {"Dice": "Dice", "Jaccard": "IoU"}
"""What the blocks of videos call a metric."""

DISTANCES = ("HD95", "ASD")
WHERE = "*/*/*/*/validation_raw/summary.json"
WITHOUT_MEAN = "Liver"
"""The port prints two lines for this task and no mean; who reads them counts on that."""


def build_parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        prog="get_dice_result.py", description="Print the Dice of a fold's validation, in percent."
    )
    add = parser.add_argument
    add("-path", type=Path, required=True, metavar="DIR", help="folder of RESULTS_FOLDER")
    add("-mode", choices=TRAINERS, help="1p: trained in one process; 8p: in several")
    add("-target", default="Dice", help="metric of summary.json")
    add("-task", default="Task003_Liver", help="name or number of the task")
    add("-fold", default="0", help="0, 1, ... or all")
    add("-trainer", help="name of the trainer, instead of that of the mode")
    add("-configuration", choices=CONFIGURATIONS,
        help="3d_fullres, or the only one that is validated; video2d: videos")  # fmt: skip
    add("-plans", default=DEFAULT_PLANS, metavar="ID", help="plans identifier")
    return parser


def execute(args: argparse.Namespace) -> None:
    """Print what a command line asks for."""
    if args.mode is None and args.trainer is None:
        raise UsageError("give -mode 1p or 8p, or the name of a trainer with -trainer")
    trainer = args.trainer or TRAINERS[args.mode]
    home = args.path / "RESULTS_FOLDER" / "nnUNet"
    if not home.is_dir():
        raise UsageError(f"{home} does not exist; -path is the folder that holds RESULTS_FOLDER")
    task = task_name(args.task, [path for path in home.iterdir() if path.is_dir()])
    fold = parse_fold(args.fold)
    path = find_summary(home, task, trainer, args.plans, fold, args.configuration)
    print("\n".join(lines(read_summary(path), task, args.target)))
    for line in video_lines(load_json(path), task, args.target):
        print(line)


def find_summary(
    home: Path,
    task: str,
    trainer: str,
    plans_identifier: str,
    fold: int | str,
    configuration: str | None = None,
) -> Path:
    """Return the summary of a fold's validation.

    Args:
        home: `RESULTS_FOLDER/nnUNet`.
        task: full name.
        trainer: name of the trainer.
        plans_identifier: of the plans it was trained with.
        fold: number or `all`.
        configuration: None takes 3d_fullres, or the only other one that has it.

    Raises:
        DataError: there is none; the message says which there are.
    """
    below = Path(task, f"{trainer}__{plans_identifier}", fold_name(fold), "validation_raw")
    path = home / (configuration or CONFIGURATION) / below / "summary.json"
    if path.is_file():
        return path
    others = [home / name / below / "summary.json" for name in CONFIGURATIONS]
    there = [other for other in others if other.is_file()]
    if configuration is None and len(there) == 1:
        return there[0]
    found = sorted(str(p.parent.parent.relative_to(home)) for p in home.glob(WHERE))
    raise DataError(
        f"{path} does not exist: this fold is not validated. Validated below {home}: "
        f"{', '.join(found) or 'nothing yet'}. Choose with -task, -trainer, -configuration and "
        "-fold, or validate with nnUNet_train ... --validation_only"
    )


def lines(summary: Summary, task: str, target: str = "Dice") -> Iterator[str]:
    """Yield a line for the mean of each label over the cases, and one for the mean of all labels.

    Shares are in percent; distances and volumes are as they are.

    Raises:
        UsageError: the summary has no such metric.
    """
    mean, name = summary.mean, task.partition("_")[2]
    labels = [label for label in mean if label not in NOT_FOREGROUND]
    metrics = list(mean[labels[0]]) if labels else []
    if target not in metrics:
        near = difflib.get_close_matches(target, metrics, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"-target {target}: {hint}The summary has {', '.join(metrics)}")
    for label in labels:
        yield _line(name, label, target, mean[label][target])
    if name != WITHOUT_MEAN:
        yield _line(name, "mean", target, summary.foreground_mean[target])


def video_lines(content: Mapping[str, Any], task: str, target: str = "Dice") -> Iterator[str]:
    """Yield what a summary of videos says of both phases and of distances; of others nothing."""
    name, measure = task.partition("_")[2], MEASURES.get(target)
    for phase, means in content.get("phases", {}).items():
        for label, row in means.items():
            if measure and isinstance(row, Mapping):
                yield _line(f"{name} {phase}", label, target, row[measure])
    surface = content.get("surface", {})
    for label, row in surface.items():
        if isinstance(row, Mapping):
            for distance in DISTANCES:
                text = f"{row[distance]:.4f} {surface['unit']}"
                known = row[distance] == row[distance]
                yield f"{name} {label}_{distance} (val): {text if known else 'n/a'}"


def _line(name: str, label: str, target: str, value: float) -> str:
    factor = 1 if "Distance" in target or target.startswith("Total") else 100
    text = f"{factor * value:.4f}" if value == value else "n/a (in no label and no prediction)"
    return f"{name} {label}_{target} (val): {text}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(execute, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
