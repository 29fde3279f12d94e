"""nnUNet_change_trainer_class: let a trained model be one of another trainer class."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.sharing.trainer_class import change_trainer, checkpoints_to_change
from nnunetlike.training.recipes import TRAINERS


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_change_trainer_class",
        description="Writes another trainer's name, and the constructor arguments it takes, into "
        "the final and best checkpoints of a model, so that nnU-Net v1 predicts with a model whose "
        "own trainer it lacks or that was trained on several GPUs. Weights stay as they are. Here "
        "prediction needs no trainer, so this is for v1.",
        examples=("nnUNet_change_trainer_class -i nnUNetTrainerV2_DDP__nnUNetPlansv2.1",),
    )
    parser.add_argument(
        "-i", required=True, type=Path, metavar="FOLDER", help="folder TRAINER__PLANS of the model"
    )
    parser.add_argument(
        "-tr", default="nnUNetTrainerV2", metavar="NAME", help="name of the trainer class"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(change, build_parser, argv)


def change(args: argparse.Namespace) -> None:
    """Change every checkpoint and say what to do about the folder's name."""
    _note_on_unknown(args.tr)
    for path in checkpoints_to_change(args.i):
        before = change_trainer(path, args.tr)
        print(f"{path.parent.name}/{path.name}: {before} is now {args.tr}")
    trainer, mark, plans = args.i.resolve().name.partition("__")
    if mark and trainer != args.tr:
        print(
            f"the folder is still called {trainer}{mark}{plans}; nnU-Net v1 finds the model by "
            f"-tr {args.tr} when it is called {args.tr}{mark}{plans}"
        )


def _note_on_unknown(trainer: str) -> None:
    """Say that a name is unknown here; v1 has over a hundred more."""
    known = TRAINERS.names()
    if trainer in known:
        return
    near = difflib.get_close_matches(trainer, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    print(f"note: no trainer here is called {trainer}; it may be one of nnU-Net v1's.{hint}")


if __name__ == "__main__":
    raise SystemExit(main())
