"""nnUNet_evaluate_folder: score a folder of predictions against a folder of references."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import UsageError
from nnunetlike.core.parallel import default_processes
from nnunetlike.core.serialization import write_text
from nnunetlike.evaluation.evaluator import evaluate_folder
from nnunetlike.evaluation.metrics import chosen_metrics
from nnunetlike.evaluation.score_table import as_csv
from nnunetlike.evaluation.summary import Summary
from nnunetlike.evaluation.video_folder import evaluate_video_folder, find_sidecars
from nnunetlike.run.command_line import CommandParser, process_count, run_command

COLUMNS = ("Dice", "Jaccard", "Precision", "Recall", "Hausdorff Distance 95")


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_evaluate_folder",
        description="Scores predicted label maps. Both folders must hold files of the same names. "
        "Writes summary.json into the folder of the predictions.",
        examples=(
            "nnUNet_evaluate_folder -ref labelsTs -pred out -l 1 2",
            "nnUNet_evaluate_folder -ref labelsTs -pred out -l 1 2 --metrics hd95 --csv out.csv",
        ),
    )
    parser.add_argument("-ref", required=True, type=Path, help="folder of the references")
    parser.add_argument("-pred", required=True, type=Path, help="folder of the predictions")
    parser.add_argument(
        "-l", required=True, type=int, nargs="+", metavar="LABEL", help="label values to score"
    )
    parser.add_argument(
        "--advanced", action="store_true", help="also compute the Hausdorff Distance 95, in mm"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        metavar="NAME",
        help="compute more: hd95 (Hausdorff Distance 95, mm), assd (average symmetric surface "
        "distance, mm), nsd:MM (normalised surface Dice at a tolerance in mm, may be given several "
        "times: nsd:1 nsd:2.5), volume (mL), lesions (precision, recall and F1 of connected "
        "components)",
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="also write all scores as a table of cases"
    )
    parser.add_argument(
        "--video",
        type=Path,
        metavar="FOLDER",
        help="the cases are videos whose facts (ID.json) lie here: score the labelled frames, and "
        "write phases, distances, ejection fractions and pictures too. Found by itself where the "
        "references are labelsTr or labelsTs of a raw task of videos",
    )
    parser.add_argument(
        "-num_processes",
        type=process_count,
        default=default_processes(),
        help="worker processes, 0: none",
    )
    return parser


def evaluate(args: argparse.Namespace) -> None:
    """Evaluate, write summary.json and print a table.

    Raises:
        UsageError: videos are to be measured by metrics of images.
    """
    target = args.pred / "summary.json"
    sidecars = args.video or (find_sidecars(args.ref) if args.ref.is_dir() else None)
    if sidecars is None:
        summary = evaluate_folder(
            args.pred, args.ref, args.l, processes=args.num_processes, advanced=args.advanced,
            metrics=args.metrics,
        )  # fmt: skip
        summary.write(target)
        more: list[str] = []
    elif args.metrics:
        raise UsageError(
            f"--metrics is for images; videos ({sidecars}) have their own distances and volumes in "
            "summary.json and clinical.csv"
        )
    else:
        videos = evaluate_video_folder(
            args.pred, args.ref, args.l, sidecars, processes=args.num_processes
        )
        more = video_lines(videos.write(target))
        summary = videos.summary
    if args.csv is not None:
        write_text(args.csv, as_csv(summary))
    plain = chosen_metrics(advanced=False)
    asked = [n for n in chosen_metrics(advanced=False, asked=args.metrics) if n not in plain]
    print("\n".join([table(summary, asked), *more]))
    print(f"{len(summary.cases)} cases evaluated; all scores are in {target}")


def table(summary: Summary, more: Sequence[str] = ()) -> str:
    """Return the mean scores as text, one line a label; n/a where no case defines a score.

    Args:
        summary: of all cases.
        more: metrics to show beside the usual ones.
    """
    mean = summary.mean
    known = summary.foreground_mean
    columns = [name for name in dict.fromkeys((*COLUMNS, *more)) if name in known]
    rows = [*mean.items(), ("foreground", summary.foreground_mean)]
    cells = [["label", *columns]]
    cells += [[name, *(_number(scores[column]) for column in columns)] for name, scores in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in cells
    )


def video_lines(content: Mapping[str, Any]) -> list[str]:
    """Return what a summary.json of videos says beside the table, as text."""
    unit = content["surface"]["unit"]
    rows = {**content["phases"], **content["views"]}
    lines = [
        f"{name}: Dice {_number(row['mean']['Dice'])}, HD95 {_number(row['mean']['HD95'])} {unit}, "
        f"ASD {_number(row['mean']['ASD'])} {unit} (mean of the labels, {row['n_frames']} frames)"
        for name, row in rows.items()
        if row["n_frames"]
    ]
    clinical = content["clinical"]
    if clinical["n"] or clinical["n_failed"]:
        bias, sd, mae, r = (_number(clinical[key], 3) for key in ("bias", "sd", "mae", "r"))
        lines.append(
            f"ejection fraction, {clinical['method']}: bias {bias} points, SD {sd}, MAE {mae}, "
            f"r {r} (n = {clinical['n']}, failed {clinical['n_failed']})"
        )
    return lines


def _number(value: float, digits: int = 4) -> str:
    return "n/a" if math.isnan(value) else f"{value:.{digits}f}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(evaluate, build_parser, argv)


if __name__ == "__main__":
    raise SystemExit(main())
