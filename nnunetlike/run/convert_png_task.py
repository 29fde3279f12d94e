"""nnUNet_convert_png_task: folders of pictures and label pictures to a raw task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetlike.core.parallel import default_processes
from nnunetlike.dataset_conversion.pictures import (
    ConvertedPictures,
    PictureTask,
    Rule,
    convert_pictures,
)
from nnunetlike.run.command_line import CommandParser, process_count, run_command
from nnunetlike.run.video_conversion import raw_task_name

SHOWN = 3


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_convert_png_task",
        description="Converts a folder of pictures (PNG, JPEG, BMP, TIFF) and one of label "
        "pictures to a raw task below nnUNet_raw_data_base/nnUNet_raw_data. The pictures stay what "
        "they are. The source folders are only read. A raw task of the same name is replaced.",
        examples=("nnUNet_convert_png_task -i images -l labels -output_task_id 501 -name Cells",),
    )
    add = parser.add_argument
    add("-i", required=True, type=Path, metavar="FOLDER", help="images")
    add("-l", required=True, type=Path, metavar="FOLDER", help="labels, named as the images are")
    add("-output_task_id", required=True, type=int, help="number of the raw task, such as 501")
    add("-name", required=True, help="name of the raw task, such as Cells")
    add("-ts", type=Path, metavar="FOLDER", help="images to predict later, without labels")
    add("--label_suffix", default="", help="what labels are called beyond the image's name: _mask")
    add("--map", nargs="+", default=[], metavar="VALUE=LABEL", help="what the values of the labels "
        "become: 255=1, or a range, 128-255=1; not needed for 0 and one other value, nor for 0, 1, "
        "2, …")  # fmt: skip
    add("--label_names", nargs="+", default=[], metavar="NAME", help="names of the labels 1, 2, …")
    add("-p", type=process_count, default=default_processes(), help="worker processes, 0: none")
    return parser


def convert(args: argparse.Namespace) -> None:
    """Convert and say what was written."""
    task = PictureTask(
        images=args.i.expanduser(),
        labels=args.l.expanduser(),
        name=raw_task_name(args.output_task_id, args.name),
        label_suffix=args.label_suffix,
        test_images=None if args.ts is None else args.ts.expanduser(),
        rules=_with_background([Rule.parse(text) for text in args.map]),
        label_names=tuple(args.label_names),
    )
    _report(convert_pictures(task, processes=args.p))


def _with_background(rules: list[Rule]) -> tuple[Rule, ...]:
    """Return the rules, and one that leaves 0 as it is if none speaks of it."""
    if not rules or any(rule.low == 0 for rule in rules):
        return tuple(rules)
    return (*rules, Rule(0, 0, 0))


def _report(found: ConvertedPictures) -> None:
    kind = {1: "grey", 3: "colour"}.get(found.channels, f"{found.channels} channels")
    print(
        f"{found.folder}: {found.training} training images ({found.ending}, {kind}) with labels, "
        f"{found.testing} test images"
    )
    rules = ", ".join(
        f"{r.low if r.low == r.high else f'{r.low}-{r.high}'} became {r.label}" for r in found.rules
    )
    print(f"label values: {rules}")
    if found.left_out:
        names = ", ".join(found.left_out[:SHOWN])
        more = f" and {len(found.left_out) - SHOWN} more" if len(found.left_out) > SHOWN else ""
        print(f"note: left out, as no label belongs to them: {names}{more}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(convert, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
