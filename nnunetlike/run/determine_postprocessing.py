"""nnUNet_determine_postprocessing: find the postprocessing of a model from its validations."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.parallel import default_processes
from nnunetlike.core.paths import (
    CONFIGURATIONS,
    DEFAULT_PLANS,
    DEFAULT_TRAINER,
    VIDEO,
    model_folder,
    parse_fold,
    preprocessed,
    task_name,
)
from nnunetlike.core.typing import JSON
from nnunetlike.postprocessing.consolidate import REFERENCES, Consolidated, consolidate
from nnunetlike.postprocessing.determine import settings_of
from nnunetlike.postprocessing.min_size import NO_COMPONENT
from nnunetlike.run.command_line import CommandParser, process_count, run_command


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_determine_postprocessing",
        description="Pools the validation predictions of a model's folds into cv_niftis_raw, finds "
        "out which labels gain when only their largest component is kept, and writes "
        "postprocessing.json into the model folder, where prediction looks for it.",
        examples=("nnUNet_determine_postprocessing -t 4 -m 3d_fullres",),
    )
    parser.add_argument("-m", required=True, choices=CONFIGURATIONS, help="configuration")
    parser.add_argument("-t", required=True, help="task name or number")
    parser.add_argument("-tr", default=DEFAULT_TRAINER, help="trainer")
    parser.add_argument("-pl", default=DEFAULT_PLANS, help="plans identifier")
    parser.add_argument("-val", default="validation_raw", help="folder of each fold to take")
    parser.add_argument(
        "-f", nargs="+", metavar="FOLD", help="folds to take; all that have predictions if omitted"
    )
    add_min_size_option(parser)
    parser.add_argument(
        "-num_processes",
        type=process_count,
        default=default_processes(),
        help="worker processes, 0: none",
    )
    return parser


def add_min_size_option(parser: CommandParser) -> None:
    """Add the option to look for least sizes too."""
    parser.add_argument(
        "--min_size",
        action="store_true",
        help="also find, for each label, the volume in mm³ below which its components are better "
        "removed; its largest component stays in any case",
    )


def determine(args: argparse.Namespace) -> None:
    """Determine the postprocessing and say what it is.

    Raises:
        UsageError: it is asked for of videos.
    """
    if args.m == VIDEO:
        raise UsageError(
            f"-m {VIDEO}: components of videos are not removed, since frames without a label would "
            "count as background; leave this command out"
        )
    task = task_name(args.t)
    model = model_folder(args.m, task, args.tr, args.pl)
    found = consolidate(
        model,
        references_of(model, task),
        folds=None if args.f is None else [parse_fold(fold) for fold in args.f],
        validation=args.val,
        min_size=args.min_size,
        processes=args.num_processes,
    )
    report(found, model)


def references_of(model: Path, task: str) -> Path:
    """Return the folder of references: the model's own copy, else that of the preprocessed task."""
    copied = model / REFERENCES
    if copied.is_dir():
        return copied
    original = preprocessed() / task / "gt_segmentations"
    if original.is_dir():
        return original
    raise DataError(
        f"no references: neither {copied} nor {original} exists. Validate a fold, or preprocess "
        "the task again"
    )


def report(found: Consolidated, model: Path) -> None:
    """Print what was tried, what it gave and what was chosen."""
    content = found.postprocessing
    print(f"{found.cases} cases of {', '.join(found.folds)}")
    if found.cases < found.references:
        print(
            f"note: {found.references - found.cases} of {found.references} cases have no "
            "prediction yet; run this command again when the other folds are validated"
        )
    for label, before in content["dc_per_class_raw"].items():
        together = content["dc_per_class_pp_all"][label]
        alone = content["dc_per_class_pp_per_class"].get(label)
        line = f"label {label}: Dice {before:.4f}, largest foreground component {together:.4f}"
        line += "" if alone is None else f", then its own largest component {alone:.4f}"
        sized = content.get("dc_per_class_pp_min_size", {}).get(label)
        print(line if sized is None else f"{line}, with a least size at best {sized:.4f}")
    print(f"{verdict(content)}; written to {model / 'postprocessing.json'}")


def verdict(content: JSON) -> str:
    """Return what a postprocessing does, in words."""
    structures, sizes = settings_of(content)
    limits = {s: size for s, size in (sizes or {}).items() if size < NO_COMPONENT}
    words = [
        f"of label {s} components smaller than {size:.4g} mm³ are removed, its largest excepted"
        for s, size in limits.items()
    ]
    plain = [list(s) if isinstance(s, tuple) else s for s in structures if s not in limits]
    if plain:
        words.insert(0, f"the largest component is kept of {plain}")
    return "; ".join(words) or "nothing is removed"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(determine, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
