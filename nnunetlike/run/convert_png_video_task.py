"""nnUNet_convert_png_video_task: folders of frames as pictures to a raw task of videos."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import UsageError
from nnunetlike.dataset_conversion.pictures import Rule
from nnunetlike.dataset_conversion.png_video import GROUP_BY, FrameFolders, convert_png_videos
from nnunetlike.run.command_line import CommandParser, run_command
from nnunetlike.run.video_conversion import PLACE, add_task_options, raw_task_name, report


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_convert_png_video_task",
        description="Converts folders of frames" + PLACE,
        examples=("nnUNet_convert_png_video_task -i camus_png256x256_10f -output_task_id 28",),
    )
    add = parser.add_argument
    add("-i", type=Path, metavar="FOLDER", help="the published layout: img/VIDEO/0.png, "
        "gt_lv/VIDEO/0.png and a list *.json of train_data, val_data, test_data")  # fmt: skip
    add("--images", type=Path, metavar="FOLDER", help="instead of -i: holds a folder of frames per "
        "video")  # fmt: skip
    add("--masks", type=Path, metavar="FOLDER", help="with --images: masks, named as the frames; a "
        "frame without one is unlabelled")  # fmt: skip
    add("--split", type=Path, metavar="JSON", help="with --images: the list")
    add_task_options(parser, "Frames")
    add("--labels", nargs="+", default=["LV"], metavar="NAME", help="names of the values 1, 2, …")
    add("--map", nargs="+", default=[], metavar="VALUE=LABEL", help="what values of the masks "
        "become, 255=1 for example")  # fmt: skip
    add("--group_by", default=GROUP_BY, metavar="REGEX", help="its first group is the patient; a "
        "name that it does not match is a patient of its own")  # fmt: skip
    add("--echo", action=argparse.BooleanOptionalAction, default=None, help="note the labelled "
        "frames of largest and smallest area of label 1 as end-diastole and end-systole; so it is "
        "with -i")  # fmt: skip
    return parser


def convert(args: argparse.Namespace) -> None:
    """Convert and say what was written."""
    found = convert_png_videos(_folders(args), processes=args.p)
    report(found, args.output_task_id)


def _folders(args: argparse.Namespace) -> FrameFolders:
    settings: dict[str, Any] = {
        "name": raw_task_name(args.output_task_id, args.name),
        "labels": tuple(args.labels),
        "rules": tuple(Rule.parse(text) for text in args.map),
        "group_by": args.group_by,
        "is_echo": args.i is not None if args.echo is None else args.echo,
    }
    has_parts = any((args.images, args.masks, args.split))
    if args.i is not None and not has_parts:
        return FrameFolders.published(args.i.expanduser(), **settings)
    if args.i is not None or args.images is None or args.masks is None:
        raise UsageError("give either -i, or --images and --masks (and --split)")
    split = None if args.split is None else args.split.expanduser()
    images, masks = args.images.expanduser(), args.masks.expanduser()
    return FrameFolders(images=images, masks=masks, split=split, **settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(convert, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
