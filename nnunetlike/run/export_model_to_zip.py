"""nnUNet_export_model_to_zip: pack trained models into a zip to share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core import paths
from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.resources import in_words
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.sharing.export import Collection, Wanted, collect, trained_places, write_zip
from nnunetlike.sharing.layout import CASCADE, DEFAULT_CHECKPOINT, Place


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_export_model_to_zip",
        description="Packs trained models of a task into one zip, with what prediction needs: "
        "plans, checkpoints, postprocessing. nnUNet_install_pretrained_model_from_zip installs it, "
        "here and in nnU-Net v1. A manifest inside names versions, licence and the SHA-256 of each "
        "file. Checkpoints hold the paths of the machine that trained.",
        examples=(
            "nnUNet_export_model_to_zip -t 4 -m 3d_fullres -o model.zip --licence 'CC BY 4.0'",
        ),
    )
    add = parser.add_argument
    add("-t", required=True, metavar="TASK", help="task name or number")
    add("-o", required=True, type=Path, metavar="FILE", help="the zip to write")
    add("-m", nargs="+", choices=paths.CONFIGURATIONS, default=None,
        help="configurations; None takes all that were trained")  # fmt: skip
    add("-tr", default=paths.DEFAULT_TRAINER, help="trainer of all but the cascade; videos take "
        f"{paths.DEFAULT_VIDEO_TRAINER} where it is left out")  # fmt: skip
    add("-trc", default=paths.DEFAULT_CASCADE_TRAINER, help="trainer of 3d_cascade_fullres")
    add("-pl", default=paths.DEFAULT_PLANS, help="plans identifier")
    add("-f", nargs="+", default=["0", "1", "2", "3", "4"], metavar="FOLD",
        help="folds, numbers or all")  # fmt: skip
    add("-chk", nargs="+", default=[DEFAULT_CHECKPOINT], metavar="NAME",
        help="checkpoints of each fold, without .model")  # fmt: skip
    add("--disable_strict", action="store_true", help="pack what is there, although models or "
        "folds that are asked for are absent")  # fmt: skip
    add("--licence", "--license", default=None, metavar="NAME|FILE",
        help="licence of the weights: a name such as 'CC BY 4.0', or a text file")  # fmt: skip
    add("--reports", action="store_true",
        help="also debug.json and the pictures of training, as nnU-Net v1 does")  # fmt: skip
    add("--overwrite", action="store_true", help="replace the zip if it exists")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(export, build_parser, argv)


def export(args: argparse.Namespace) -> None:
    """Collect, complain or not, write, and say what was packed.

    Raises:
        DataError: models or folds are absent.
    """
    results = paths.results()
    places = _places(args, paths.task_name(args.t))
    if args.m is None:
        places = trained_places(results, places) or places
    wanted = Wanted(
        places=places,
        folds=tuple(paths.parse_fold(fold) for fold in args.f),
        checkpoints=tuple(name.removesuffix(".model") for name in args.chk),
        reports=args.reports,
    )
    collection = collect(results, wanted)
    _tell_what_is_absent(collection, strict=not args.disable_strict)
    licence = _licence(args.licence)
    manifest = write_zip(collection, results, args.o, licence=licence, overwrite=args.overwrite)
    for model in manifest.models:
        print(f"{model.configuration}/{manifest.task}/{model.name}: {', '.join(model.folds)}")
    if licence is None:
        print("note: no licence is stated; --licence tells others what they may do")
    print(f"{args.o}: {len(manifest.files)} files, {in_words(args.o.stat().st_size)}")


def _places(args: argparse.Namespace, task: str) -> tuple[Place, ...]:
    trainers = {CASCADE: args.trc}
    if args.tr == paths.DEFAULT_TRAINER:
        trainers[paths.VIDEO] = paths.DEFAULT_VIDEO_TRAINER
    return tuple(
        Place(configuration, task, f"{trainers.get(configuration, args.tr)}__{args.pl}")
        for configuration in args.m or paths.CONFIGURATIONS
    )


def _tell_what_is_absent(collection: Collection, *, strict: bool) -> None:
    if collection.absent and strict:
        raise DataError(
            f"absent: {', '.join(collection.absent)}. Nothing was written. Train them, choose with "
            "-m, -f and -chk, or give --disable_strict to pack what is there"
        )
    for name in collection.absent:
        print(f"absent: {name}")
    for note in collection.notes:
        print(f"note: {note}")


def _licence(text: str | None) -> str | None:
    """Return the licence's name, or the text of the file that is named."""
    if text is None:
        return None
    path = Path(text)
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else text
    except UnicodeDecodeError:
        raise UsageError(f"--licence {path} is no text") from None


if __name__ == "__main__":
    raise SystemExit(main())
