"""nnUNet_convert_camus_task: CAMUS, NIfTI release, to a raw task of videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.dataset_conversion.camus import convert_camus
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.video_conversion import PLACE, add_task_options, raw_task_name, report


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_convert_camus_task",
        description="Converts CAMUS (NIfTI release)" + PLACE,
        examples=("nnUNet_convert_camus_task -i CAMUS/database_nifti -output_task_id 26",),
    )
    add = parser.add_argument
    add("-i", required=True, type=Path, metavar="FOLDER", help="database_nifti")
    add_task_options(parser, "CAMUS")
    add("--split_folder", type=Path, metavar="FOLDER", help="holds subgroup_training.txt, "
        "subgroup_validation.txt and subgroup_testing.txt; looked for beside and above the input "
        "if omitted")  # fmt: skip
    add("--supervision", choices=("all", "edes"), help="train with the labels of all frames, or of "
        "end-diastole and end-systole alone; all that there are if omitted")  # fmt: skip
    return parser


def convert(args: argparse.Namespace) -> None:
    """Convert and say what was written."""
    found = convert_camus(
        args.i.expanduser(),
        raw_task_name(args.output_task_id, args.name),
        split_folder=None if args.split_folder is None else args.split_folder.expanduser(),
        supervision=args.supervision,
        processes=args.p,
    )
    report(found, args.output_task_id)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(convert, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
