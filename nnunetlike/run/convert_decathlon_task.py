"""nnUNet_convert_decathlon_task: a task of the Medical Segmentation Decathlon to a raw task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.parallel import default_processes
from nnunetlike.dataset_conversion.decathlon import convert_task
from nnunetlike.run.command_line import CommandParser, process_count, run_command


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_convert_decathlon_task",
        description="Converts a task of the Medical Segmentation Decathlon to a raw task below "
        "nnUNet_raw_data_base/nnUNet_raw_data. The input folder is only read. A raw task of the "
        "same name is replaced.",
        examples=("nnUNet_convert_decathlon_task -i Task04_Hippocampus",),
    )
    parser.add_argument(
        "-i", required=True, type=Path, metavar="FOLDER", help="the task, such as Task03_Liver"
    )
    parser.add_argument(
        "-p", type=process_count, default=default_processes(), help="worker processes, 0: none"
    )
    parser.add_argument(
        "-output_task_id",
        type=_task_id,
        help="number of the raw task; that of the input if omitted",
    )
    return parser


def _task_id(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a task number, such as 3 or 503")
    return int(text)


def convert(args: argparse.Namespace) -> None:
    """Convert and say what was written."""
    found = convert_task(args.i.expanduser(), task_id=args.output_task_id, processes=args.p)
    print(
        f"{found.folder}: {found.training_images} training images, {found.labels} labels, "
        f"{found.test_images} test images"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(convert, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
