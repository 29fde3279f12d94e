"""nnUNet_install_pretrained_model_from_zip: install the models of a zip."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.installing import add_installing_options, install_and_tell


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_install_pretrained_model_from_zip",
        description="Installs the trained models of a zip, of this program or of nnU-Net v1, into "
        "RESULTS_FOLDER. The zip may come from a stranger: nothing in it is executed, nothing is "
        "written elsewhere, and what is damaged or malicious is refused before anything changes.",
        examples=("nnUNet_install_pretrained_model_from_zip model.zip",),
    )
    parser.add_argument("zip", type=Path, help="the zip file")
    add_installing_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(install, build_parser, argv)


def install(args: argparse.Namespace) -> None:
    """Install the zip and say what was installed."""
    install_and_tell(args.zip, args)


if __name__ == "__main__":
    raise SystemExit(main())
