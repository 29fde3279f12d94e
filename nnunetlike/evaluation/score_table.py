"""Scores of cases as a table that spreadsheets read."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from pathlib import Path

from nnunetlike.data.imageio import split_ending
from nnunetlike.evaluation.summary import Summary

MEAN, FOREGROUND = "mean", "foreground"


def as_csv(summary: Summary) -> str:
    """Return the scores as CSV, one line for each case and label.

    Columns are `case`, `label` and the metrics. The last lines have `mean` for a case, and of these
    the very last `foreground` for a label. Where a metric is not defined nothing stands.
    """
    metrics = list(summary.foreground_mean)
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["case", "label", *metrics])

    def write(case: str, label: str, scores: Mapping[str, float]) -> None:
        """Write the row of a case and a label."""
        values = (scores.get(metric, math.nan) for metric in metrics)
        writer.writerow([case, label, *("" if math.isnan(v) else repr(v) for v in values)])

    for case in summary.cases:
        for label, scores in case.scores.items():
            write(split_ending(Path(case.prediction).name)[0], label, scores)
    for label, scores in summary.mean.items():
        write(MEAN, label, scores)
    write(MEAN, FOREGROUND, summary.foreground_mean)
    return stream.getvalue()
