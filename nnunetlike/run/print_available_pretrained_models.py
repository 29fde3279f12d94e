"""nnUNet_print_available_pretrained_models: list the public models of nnU-Net v1."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nnunetlike.core.errors import UsageError
from nnunetlike.core.serialization import save_json
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.sharing.catalogue import catalogue

EXPORTED = "available_models.json"


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_print_available_pretrained_models",
        description="Lists the public models that nnUNet_download_pretrained_model fetches.",
        examples=("nnUNet_print_available_pretrained_models",),
    )
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help=f"also write all facts to DIR/{EXPORTED}"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(print_models, build_parser, argv)


def print_models(args: argparse.Namespace) -> None:
    """Print the table, and write the file if it is asked for.

    Raises:
        UsageError: the folder for it does not exist.
    """
    models = list(catalogue().values())
    rows = [("task", "segments", "images"), *(
        (model.name, model.subject, ", ".join(model.channels)) for model in models
    )]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, subject, images in rows:
        print(f"{name:{widths[0]}}  {subject:{widths[1]}}  {images}")
    print("\nnnUNet_print_pretrained_model_info TASK tells more, licence included")
    if args.export is None:
        return
    if not args.export.is_dir():
        raise UsageError(f"--export {args.export}: there is no such folder. Make it first")
    save_json({model.name: asdict(model) for model in models}, args.export / EXPORTED)
    print(f"all facts are in {args.export / EXPORTED}")


if __name__ == "__main__":
    raise SystemExit(main())
