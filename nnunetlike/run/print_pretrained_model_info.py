"""nnUNet_print_pretrained_model_info: tell all that is known of a public model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetlike.core.resources import in_words
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.sharing.catalogue import public_model


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_print_pretrained_model_info",
        description="Tells what a public model segments, which images it needs in which order, "
        "what it was trained on, under which licence, and where it lies.",
        examples=("nnUNet_print_pretrained_model_info Task004_Hippocampus",),
    )
    parser.add_argument("task_name", help="name or number of the task")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(print_model, build_parser, argv)


def print_model(args: argparse.Namespace) -> None:
    """Print all facts."""
    model = public_model(args.task_name)
    print(model.name)
    print(f"  segments      {', '.join(model.structures)}")
    for number, channel in enumerate(model.channels):
        print(f"  image _{number:04d}   {channel}")
    print(f"  trained on    {model.source}, {model.page}")
    print(f"  data licence  {model.licence}")
    for note in model.notes:
        print(f"  note          {note}")
    for file in model.downloads:
        size = "size not known" if file.size is None else in_words(file.size)
        print(f"  address       {file.url} ({size})")
        if file.sha256 is not None:
            print(f"  SHA-256       {file.sha256}")
    print(f"install it with: nnUNet_download_pretrained_model {model.name}")


if __name__ == "__main__":
    raise SystemExit(main())
