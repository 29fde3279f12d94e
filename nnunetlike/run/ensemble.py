"""nnUNet_ensemble: average the predictions of several models."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.parallel import default_processes
from nnunetlike.inference.ensemble import NOT_POSTPROCESSED, ensemble_folders
from nnunetlike.run.command_line import CommandParser, process_count, run_command


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_ensemble",
        description="Averages the probabilities that nnUNet_predict --save_npz kept of the same "
        "cases with several models, and writes the label maps they give together.",
        examples=("nnUNet_ensemble -f out_2d out_3d -o out -pp postprocessing.json",),
    )
    add = parser.add_argument
    add("-f", "--folders", nargs="+", required=True, type=Path, metavar="FOLDER",
        help="folders of predictions with ID.npz and ID.pkl, two or more")  # fmt: skip
    add("-o", "--output_folder", required=True, type=Path, help="folder for the label maps")
    add("-t", "--threads", type=process_count, default=min(2, default_processes()),
        help="worker processes, 0: none; each holds one case in memory")  # fmt: skip
    add("-pp", "--postprocessing_file", type=Path, metavar="FILE", help="postprocessing.json to "
        "apply, such as nnUNet_find_best_configuration makes; the label maps before it go to "
        f"{NOT_POSTPROCESSED}")  # fmt: skip
    add("--npz", action="store_true", help="also keep the mean probabilities")
    return parser


def ensemble(args: argparse.Namespace) -> None:
    """Average and say where the results are."""
    written = ensemble_folders(
        args.folders,
        args.output_folder,
        postprocessing=args.postprocessing_file,
        save_npz=args.npz,
        processes=args.threads,
    )
    print(f"{len(written)} cases of {len(args.folders)} models: {args.output_folder}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(ensemble, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
