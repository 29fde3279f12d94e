"""nnUNet_download_pretrained_model: fetch a public model of nnU-Net v1 and install it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nnunetlike.core.errors import DataError
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.installing import add_installing_options, fetch_and_install
from nnunetlike.sharing.catalogue import public_model


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_download_pretrained_model",
        description="Fetches a public model of nnU-Net v1 by the name of its task and installs it "
        "into RESULTS_FOLDER. A download that was cut off goes on when the command is given again. "
        "nnUNet_print_available_pretrained_models lists the names.",
        examples=("nnUNet_download_pretrained_model Task004_Hippocampus",),
    )
    parser.add_argument("task_name", help="name or number of the task")
    add_installing_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(download, build_parser, argv)


def download(args: argparse.Namespace) -> None:
    """Fetch and install every zip of the model; one that is refused does not hold up the others.

    Raises:
        DataError: zips were refused; each is named.
    """
    model = public_model(args.task_name)
    print(
        f"{model.name}: trained on {model.source} ({model.page}). Licence of the data: "
        f"{model.licence}. It is for you to see whether your use is allowed"
    )
    problems: list[str] = []
    for file in model.downloads:
        try:
            fetch_and_install(file.url, args, sha256=file.sha256, size=file.size)
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("\n".join(problems))


if __name__ == "__main__":
    raise SystemExit(main())
