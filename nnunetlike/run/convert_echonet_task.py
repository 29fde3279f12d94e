"""nnUNet_convert_echonet_task: EchoNet-Dynamic to a raw task of videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.dataset_conversion.echonet import convert_echonet
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.video_conversion import PLACE, add_task_options, raw_task_name, report


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_convert_echonet_task", description="Converts EchoNet-Dynamic" + PLACE
        + " Films are decoded by PyAV (pip install \"nnunetlike[video]\").",
        examples=("nnUNet_convert_echonet_task -i EchoNet-Dynamic -output_task_id 27",),
    )  # fmt: skip
    add = parser.add_argument
    add("-i", required=True, type=Path, metavar="FOLDER",
        help="EchoNet-Dynamic: FileList.csv, VolumeTracings.csv and Videos")  # fmt: skip
    add_task_options(parser, "EchoNet")
    add("--skip_damaged", action="store_true", help="leave out films that cannot be decoded or "
        "lack a traced frame, and list them; without it they are errors")  # fmt: skip
    return parser


def convert(args: argparse.Namespace) -> None:
    """Convert and say what was written."""
    found = convert_echonet(
        args.i.expanduser(),
        raw_task_name(args.output_task_id, args.name),
        skip_damaged=args.skip_damaged,
        processes=args.p,
    )
    report(found, args.output_task_id)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(convert, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
