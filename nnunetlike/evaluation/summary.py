"""Scores of many cases, their means, and `summary.json` in the schema of nnU-Net v1.

One entry goes beyond v1: `foreground_mean` at the top level, the name users know from nnU-Net v2.
It is, for each metric, the mean over all structures but background, over those whose mean is
defined; NaN only where none is. It stands outside `results`, where every reader of v1 passes it by:
v1's search for postprocessing reads each key of `results.mean` as a number and stops at any other.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_json, save_json
from nnunetlike.core.typing import JSON

Scores = Mapping[str, float]
NOT_FOREGROUND = ("0", "-1", "99", "mean")
"""Keys of `results.mean` that v1 leaves out of the foreground mean."""


@dataclass(frozen=True)
class CaseScores:
    """Scores of one case: metric values by structure name, and the two files compared."""

    prediction: str
    reference: str
    scores: Mapping[str, Scores]


@dataclass(frozen=True)
class Summary:
    """Scores of all cases, in their order."""

    cases: tuple[CaseScores, ...]

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures: label values, or names of regions."""
        return tuple(self.cases[0].scores) if self.cases else ()

    @property
    def mean(self) -> dict[str, dict[str, float]]:
        """Mean over the cases by structure and metric, over the values that are defined."""
        return {
            name: means_of_defined(case.scores[name] for case in self.cases)
            for name in self.structures
        }

    @property
    def foreground_mean(self) -> dict[str, float]:
        """Mean by metric over the structures that are not background, where defined."""
        mean = self.mean
        return means_of_defined(mean[name] for name in mean if name not in NOT_FOREGROUND)

    def to_v1(
        self, *, name: str = "", description: str = "", task: str = "", author: str = "Fabian"
    ) -> JSON:
        """Return the content of summary.json."""
        content: JSON = {
            "name": name,
            "description": description,
            "timestamp": str(datetime.now()),
            "task": task,
            "author": author,
            "results": {
                "all": [
                    {**case.scores, "reference": case.reference, "test": case.prediction}
                    for case in self.cases
                ],
                "mean": self.mean,
            },
            "foreground_mean": self.foreground_mean,
        }
        digest = hashlib.md5(json.dumps(content).encode(), usedforsecurity=False)
        content["id"] = digest.hexdigest()[:12]
        return content

    def write(
        self,
        path: Path,
        *,
        name: str = "",
        description: str = "",
        task: str = "",
        author: str = "Fabian",
    ) -> JSON:
        """Write summary.json (keys sorted, NaN bare, as v1) and return its content.

        Args:
            path: the file.
            name: what was evaluated, `nnUNetTrainerV2 val tiled True` after training.
            description: free text.
            task: name of the task.
            author: who evaluated; v1 always wrote the default.
        """
        content = self.to_v1(name=name, description=description, task=task, author=author)
        save_json(content, path, sort_keys=True)
        return content


def read_summary(path: Path) -> Summary:
    """Return the scores of a summary.json that v1 or `Summary.write` wrote.

    Raises:
        DataError: the file is missing or is no summary.
    """
    content = load_json(path)
    try:
        return Summary(tuple(_case(entry) for entry in content["results"]["all"]))
    except (KeyError, TypeError, AttributeError):
        raise DataError(
            f"{path} is not a summary.json of nnU-Net: it lacks results.all. Evaluate again with "
            "nnUNet_evaluate_folder"
        ) from None


def add_foreground_mean(path: Path) -> None:
    """Add the foreground mean to a summary.json as `results.mean.mean` too.

    v1 does so in the files it compared to find the best configuration, and only there; its search
    for postprocessing cannot read a file with this entry.

    Raises:
        DataError: the file is missing or is no summary.
    """
    mean = read_summary(path).foreground_mean
    content = load_json(path)
    content["results"]["mean"]["mean"] = mean
    save_json(content, path, sort_keys=True)


def _case(entry: Mapping[str, Any]) -> CaseScores:
    scores = {name: dict(found) for name, found in entry.items() if isinstance(found, Mapping)}
    return CaseScores(str(entry.get("test", "")), str(entry.get("reference", "")), scores)


def means_of_defined(rows: Iterable[Scores]) -> dict[str, float]:
    """Return the mean over rows by metric, over the values that are not NaN; NaN without any."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for metric, value in row.items():
            columns.setdefault(metric, []).append(float(value))
    return {metric: mean_of_defined(values) for metric, values in columns.items()}


def mean_of_defined(values: Sequence[float]) -> float:
    """Return the mean of the values that are not NaN; NaN if there is none.

    The order of the values makes no difference, not even in the last bit.
    """
    defined = [value for value in values if not math.isnan(value)]
    return math.fsum(defined) / len(defined) if defined else math.nan
