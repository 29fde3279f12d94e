"""nnUNet_download_pretrained_model_by_url: fetch a zip with trained models and install it."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence

from nnunetlike.core.errors import UsageError
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.installing import add_installing_options, fetch_and_install


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_download_pretrained_model_by_url",
        description="Fetches a zip with trained models and installs it into RESULTS_FOLDER, with "
        "the same checks as nnUNet_install_pretrained_model_from_zip. A download that was cut off "
        "goes on when the command is given again.",
        examples=("nnUNet_download_pretrained_model_by_url https://example.org/model.zip",),
    )
    parser.add_argument("url", help="address of the zip, http or https")
    parser.add_argument("--sha256", default=None, metavar="HEX", help="SHA-256 the zip must have")
    add_installing_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(download, build_parser, argv)


def download(args: argparse.Namespace) -> None:
    """Fetch and install the zip.

    Raises:
        UsageError: what is given as hash is none.
    """
    if args.sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", args.sha256):
        raise UsageError(f"--sha256 {args.sha256!r} is none: give 64 hexadecimal digits")
    fetch_and_install(args.url, args, sha256=args.sha256)


if __name__ == "__main__":
    raise SystemExit(main())
