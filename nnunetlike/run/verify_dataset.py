"""nnUNet_verify_dataset: everything that is wrong with a raw task, and a mended copy of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.parallel import default_processes
from nnunetlike.core.paths import raw_data, task_name
from nnunetlike.core.serialization import save_json
from nnunetlike.data.doctor.examination import Examination, examine_task, refuse
from nnunetlike.data.doctor.relabel import parse_map
from nnunetlike.data.doctor.repair import copy_folder, repair_task
from nnunetlike.data.doctor.report import EXAMPLES, report_json, report_text
from nnunetlike.data.doctor.treatment import Orders
from nnunetlike.run.command_line import CommandParser, process_count, run_command


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_verify_dataset",
        description="Examines a raw task and tells everything that is wrong with it, with what "
        "mends it. The task itself is never changed; --fix writes a mended copy. Ends with 0 if "
        "there is no error (after --fix: in the copy), else with 3.",
        examples=("nnUNet_verify_dataset -t 4", "nnUNet_verify_dataset -t 4 --fix mended"),
    )
    parser.add_argument(
        "-t", "--task", required=True, help="number or name of a raw task, or its folder"
    )
    parser.add_argument(
        "--fix",
        type=Path,
        metavar="OUT",
        help="new folder for a copy with the repairs that cannot do harm; the copy itself if "
        "called TaskXXX_Name, else it lies within",
    )
    parser.add_argument(
        "--fill",
        type=_fill,
        metavar="VALUE",
        help="with --fix: what replaces NaN and infinite voxels of images, 'minimum' (of the "
        "file's finite voxels) or a number; without it such cases are left out of the copy",
    )
    parser.add_argument(
        "--grid",
        choices=("copy", "resample"),
        help="with --fix: give labels that lie elsewhere than their image its header (copy), or "
        "resample them onto it by the nearest voxel; without it such cases are left out",
    )
    parser.add_argument(
        "--map",
        metavar="OLD:NEW,…",
        help="with --fix: new values for labels, such as 255:1,7:2; new ones are declared",
    )
    parser.add_argument(
        "-p", type=process_count, default=default_processes(), help="worker processes, 0: none"
    )
    parser.add_argument(
        "--all", action="store_true", help=f"list all files, not {EXAMPLES} for each complaint"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON too")
    return parser


def verify(args: argparse.Namespace) -> None:
    """Print the report; write the mended copy if asked and report on it.

    Raises:
        DataError: the task, or the copy if one is written, has errors.
    """
    orders = _orders(args)
    folder = _raw_folder(args.task)
    if args.fix is not None:
        copy_folder(args.fix.expanduser().absolute(), folder.name)
    examination = _examine(folder, args)
    if args.json is not None:
        save_json(report_json(examination), args.json.expanduser())
    if args.fix is None:
        refuse([examination])
        return
    out = args.fix.expanduser()
    repaired = repair_task(examination, out, orders=orders, processes=args.p)
    print(f"\n{repaired.folder}: a copy of {folder}, mended")
    print("\n".join(f"  {text}" for text in repaired.done) or "  nothing had to be mended")
    print()
    refuse([_examine(repaired.folder, args)])


def _examine(folder: Path, args: argparse.Namespace) -> Examination:
    examination = examine_task(folder, processes=args.p)
    most = None if args.all else EXAMPLES
    print(report_text(examination, most=most, explain_out=args.fix is None))
    return examination


def _orders(args: argparse.Namespace) -> Orders:
    orders = Orders(
        fill=args.fill,
        grid=args.grid,
        label_map=None if args.map is None else parse_map(args.map),
    )
    if args.fix is None and orders != Orders():
        raise UsageError("--fill, --grid and --map say how to mend a copy; give --fix OUT too")
    return orders


def _fill(text: str) -> float | Literal["minimum"]:
    if text == "minimum":
        return "minimum"
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor 'minimum'") from None


def _raw_folder(task: str) -> Path:
    """Return the folder of a raw task, given by its number, its name or its path.

    Raises:
        UsageError: no task is called so.
        DataError: the folder has no dataset.json.
    """
    given = Path(task).expanduser()
    folder = given.absolute() if "/" in task else raw_data() / task_name(task)
    if not (folder / "dataset.json").is_file():
        raise DataError(
            f"{folder / 'dataset.json'} does not exist. Put the raw task there, or convert it with "
            "nnUNet_convert_decathlon_task"
        )
    return folder


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(verify, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
