"""Change the batch size in the 3D plans of a task, at every stage.

usage: python tools/change_bs.py -path DIR -size N [-task Task003_Liver] [-plans nnUNetPlansv2.1]

DIR holds nnUNet_preprocessed. Nothing else in the plans changes; the JSON beside the pickle is
written too. A training that goes on (-c) takes the new size and says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.paths import DEFAULT_PLANS, task_name
from nnunetlike.core.serialization import load_pickle, save_pickle_with_twin
from nnunetlike.experiment_planning.summarize import (
    NETWORK_NAMES,
    readable,
    stage_names,
    training_needs,
)
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import load_plans, plans_from_v1
from nnunetlike.run.command_line import CommandParser, run_command

SUFFIX = "_plans_3D.pkl"


def build_parser() -> CommandParser:
    """Return the command's parser."""
    parser = CommandParser(
        prog="change_bs.py", description="Change the batch size in the 3D plans of a task."
    )
    add = parser.add_argument
    add("-path", type=Path, required=True, metavar="DIR", help="folder of nnUNet_preprocessed")
    add("-size", type=int, required=True, metavar="N", help="patches per batch")
    add("-task", default="Task003_Liver", help="name or number of the task")
    add("-plans", default=DEFAULT_PLANS, metavar="ID", help="plans identifier")
    return parser


def execute(args: argparse.Namespace) -> None:
    """Change the plans that a command line names, and say what that means."""
    path = find_plans(args.path, args.task, args.plans)
    before, after = change_batch_size(path, args.size)
    print(f"{path} (and .json):")
    for number, name in stage_names(after).items():
        print(f"  stage {number} ({name}): {describe_change(before, after, number)}")
    print("Memory is that of training with the whole batch on one device, a lower bound.")


def find_plans(folder: Path, task: str, identifier: str = DEFAULT_PLANS) -> Path:
    """Return the 3D plans of a task below `folder`/nnUNet_preprocessed.

    Raises:
        UsageError: there is no such folder, or no task has that number.
        DataError: there are no such plans; the message says which there are.
    """
    home = folder / "nnUNet_preprocessed"
    if not home.is_dir():
        raise UsageError(f"{home} does not exist; -path is the folder that holds it")
    path = home / task_name(task, [home]) / f"{identifier}{SUFFIX}"
    if path.is_file():
        return path
    found = [f"{p.parent.name} -plans {p.name[: -len(SUFFIX)]}" for p in home.glob(f"*/*{SUFFIX}")]
    raise DataError(
        f"{path} does not exist. There are: {', '.join(sorted(found)) or 'no 3D plans at all'}. "
        "Name one with -task and -plans, or plan with nnUNet_plan_and_preprocess"
    )


def change_batch_size(path: Path, size: int) -> tuple[Plans, Plans]:
    """Write another batch size into every stage of plans, and return them before and after.

    Pickle and JSON twin are replaced whole or not at all; every other entry stays as it is, those
    of v1 that have no meaning here included.

    Raises:
        UsageError: the size is below 1.
        DataError: the file holds no plans.
    """
    if size < 1:
        raise UsageError(f"-size {size}: a batch has 1 patch or more")
    before = load_plans(path)
    content = load_pickle(path)
    for stage in content["plans_per_stage"].values():
        stage["batch_size"] = size
    after = plans_from_v1(content)
    save_pickle_with_twin(content, path)
    return before, after


def describe_change(before: Plans, after: Plans, number: int) -> str:
    """Return batch and memory of a stage, before and after."""
    old, new = before.stages[number], after.stages[number]
    was, will = training_needs(before, old), training_needs(after, new)
    needs = [
        f"{name} {_from_to(was[key][0], will[key][0])} with --fp32, "
        f"{_from_to(was[key][1], will[key][1])} mixed"
        for key, name in NETWORK_NAMES.items()
    ]
    return f"batch {old.batch_size} -> {new.batch_size}; memory: {'; '.join(needs)}"


def _from_to(before: int, after: int) -> str:
    return f"{readable(before)} -> {readable(after)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(execute, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
